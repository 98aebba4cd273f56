"""Placement: what a model needs, and when its manager may be started again. Decisions only, no effects."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from attrs import frozen

from teatree.contracts.exit_reason import EXIT_OPERATOR, EXIT_STUCK
from teatree.contracts.formats.manifest import Manifest, ModelState

REPEATS_MAX = 3
"""Managers in a row that end for the same reason without progress, after which their model counts as stopped by it."""
STOPPED_MS = 60_000
"""Milliseconds after which a stopped model's manager is started again though nothing seems to have changed."""


@frozen
class PublishedState:
    """A model's state in its newest known version."""

    state: ModelState = ModelState.ABSENT
    offset: int = 0
    version: int = 0
    log_created: str | None = None
    """The stamp of the log that the offset belongs to; None if there is no version."""
    log_at: datetime | None = None
    """When the request at the offset was accepted; None if there is no version."""

    @property
    def is_alive(self) -> bool:
        """Whether the model exists: an incarnation has begun and not ended."""
        return self.state is ModelState.ACTIVE


def log_mismatch(known: PublishedState | None, log_created: str | None, log_last_seq: int) -> bool:
    """Return whether a version's offset does not belong to this log: replaced, or restored from an older copy."""
    if known is None or known.offset == 0 or log_created is None:
        return False
    return known.log_created != log_created or known.offset > log_last_seq


def published(manifest: Manifest | None) -> PublishedState:
    """Return the state in a chain's newest manifest; without one, the model never existed."""
    if manifest is None:
        return PublishedState()
    return PublishedState(manifest.state, manifest.offset, manifest.version, manifest.stream.created, manifest.log_at)


@frozen
class PlacementInput:
    """All that the decision on one model depends on."""

    last_seq: int
    """Its last request in the log; 0 if there is none."""
    last_drop_seq: int
    """Its last `drop_model` in the log: where its incarnation may have ended."""
    published: PublishedState | None
    """None until it was read. It may lag behind the chain, and never leads."""
    rejected_through: int
    """The sequence up to which requests outside its incarnations were answered."""
    create_seq: int
    """The `create_model` at which that stopped, 0 if none was found."""
    is_served: bool
    """Whether a manager runs."""
    log_mismatch: bool = False
    """Whether the offset belongs to another log, or to requests that this log has lost."""
    is_unfinished: bool = False
    """Whether its last manager ended before it had published all outcomes: another one publishes them."""


class Need(StrEnum):
    """What to do for a model."""

    NOTHING = "nothing"
    REFRESH = "refresh"
    """Read the chain: what is known is too old to decide."""
    REJECT = "reject"
    """Reject the requests outside its incarnations."""
    MANAGER = "manager"


def need(placement_input: PlacementInput) -> Need:
    """Return what a model needs by this input; `REFRESH` and `MANAGER` must be confirmed with a fresh one.

    `REJECT` need not: requests between a version without a model and the next `create_model` are outside every
    incarnation, whatever follows. A model whose offset belongs to another log gets its manager, which stops with a
    clear error.
    """
    now = placement_input.published
    if placement_input.last_seq == 0:
        return Need.NOTHING
    if now is None:
        return Need.REFRESH
    if placement_input.log_mismatch:
        return Need.NOTHING if placement_input.is_served else Need.MANAGER
    if now.is_alive:
        if placement_input.is_served:
            return Need.REFRESH if placement_input.last_drop_seq > now.offset else Need.NOTHING
        return Need.MANAGER if placement_input.last_seq > now.offset or placement_input.is_unfinished else Need.NOTHING
    position = rejected_position(placement_input)
    if placement_input.create_seq > position:
        return Need.REFRESH if placement_input.is_served else Need.MANAGER
    if placement_input.last_seq > position:
        return Need.REJECT
    return (
        Need.MANAGER
        if placement_input.is_unfinished and now.version and not placement_input.is_served
        else Need.NOTHING
    )


def rejected_position(placement_input: PlacementInput) -> int:
    """Return the sequence up to which a model's requests outside its incarnations are answered."""
    return max(placement_input.rejected_through, placement_input.published.offset if placement_input.published else 0)


@frozen
class Restart:
    """When a model's manager may be started: at once the first time, later and later if it crashes without progress."""

    crashes: int = 0
    not_before_ms: float = 0
    stopped_by: str | None = None
    """The fingerprint of the model's files when its manager stopped for an operator; None if it did not."""
    reason: str | None = None
    """Why the last one crashed; None if a part was unavailable."""
    repeats: int = 0
    """Crashes in a row for that reason, without progress."""

    @property
    def is_stuck(self) -> bool:
        """Whether managers repeatedly crash for the same reason."""
        return self.repeats >= REPEATS_MAX

    def is_due(self, now_ms: float, fingerprint: str) -> bool:
        """Return whether a manager may be started now; a stopped model's earlier if its files have changed."""
        if self.stopped_by is not None and self.stopped_by != fingerprint:
            return True
        return now_ms >= self.not_before_ms


def after_exit(
    restart: Restart,
    code: int | None,
    *,
    reason: str | None = None,
    progressed: bool,
    fingerprint: str,
    now_ms: float,
    ms_min: float,
    ms_max: float,
) -> Restart:
    """Return when to start again after a manager has ended; `code` is None if its exit code is unknown.

    `reason` is why it crashed; None if it left, or if a part was unavailable.
    """
    if code == EXIT_OPERATOR:
        return Restart(restart.crashes + 1, now_ms + STOPPED_MS, fingerprint)
    if code == EXIT_STUCK:  # it ran for at least the request's time limit, so this cannot be a busy loop
        return Restart()
    crashes = 1 if progressed else restart.crashes + 1
    if code == 0 and progressed:
        return Restart()
    wait_ms = min(ms_min * 2.0 ** min(crashes - 1, 60), ms_max)
    is_same = reason is not None and reason == restart.reason and not progressed
    repeats = restart.repeats + 1 if is_same else int(reason is not None)
    return Restart(crashes, now_ms + wait_ms, reason=reason, repeats=repeats)
