"""What a model needs, and when its manager may be started again: decisions only, no effects."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from attrs import frozen

from teatree.contracts.exit_reason import EXIT_OPERATOR, EXIT_STUCK
from teatree.contracts.manifest import Manifest, ModelState

REPEATS_MAX = 3
"""Managers in a row that end for the same reason without progress, after which their model counts as stopped by it."""
STOPPED_MS = 60_000
"""Milliseconds after which a stopped model's manager is tried again though nothing seems to have changed."""


@frozen
class PublishedState:
    """What the newest known version says of a model's life."""

    state: ModelState = ModelState.ABSENT
    offset: int = 0
    version: int = 0
    log_created: str | None = None
    """The stamp of the log that the offset belongs to; None if there is no version."""
    log_at: datetime | None = None
    """When the request at the offset was accepted; None if there is no version."""

    @property
    def is_alive(self) -> bool:
        """Whether the model is in the middle of a life."""
        return self.state is ModelState.ACTIVE


def log_mismatch(known: PublishedState | None, log_created: str | None, log_last_seq: int) -> bool:
    """Return whether a version's offset does not belong to this log: replaced, or put back from an older copy."""
    if known is None or known.offset == 0 or log_created is None:
        return False
    return known.log_created != log_created or known.offset > log_last_seq


def published(manifest: Manifest | None) -> PublishedState:
    """Return what a chain's newest manifest says; without one, the model never was."""
    if manifest is None:
        return PublishedState()
    return PublishedState(manifest.state, manifest.offset, manifest.version, manifest.stream.created, manifest.log_at)


@frozen
class PlacementInput:
    """All that the decision on one model depends on."""

    last_seq: int
    """Its last request in the log; 0 if there is none."""
    last_drop_seq: int
    """Its last `drop_model` in the log: where its life may have ended."""
    published: PublishedState | None
    """None until it was asked for. It may lag behind the truth, and never leads."""
    rejected_through: int
    """Up to where requests outside its life were answered."""
    create_seq: int
    """The `create_model` at which that stopped, 0 if none was met."""
    is_served: bool
    """Whether a manager lives."""
    log_mismatch: bool = False
    """Whether the offset belongs to another log, to one that went further than this, or to an end that was lost."""
    is_unfinished: bool = False
    """Whether its last manager ended before it had said all outcomes: another one says them."""


class Need(StrEnum):
    """What to do about a model."""

    NOTHING = "nothing"
    REFRESH = "news"
    """Ask the chain: what is known is too old to decide."""
    REJECT = "judge"
    """Answer the requests outside its life."""
    MANAGER = "manager"


def need(placement_input: PlacementInput) -> Need:
    """Return what a model needs, as far as these facts tell; `REFRESH` and `MANAGER` must be confirmed with fresh ones.

    `REJECT` need not: what lies between a version without life and the next `create_model` has no life, whatever came
    after. A model whose offset belongs to another log gets its manager, which stops with a clear error.
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
    """Return the sequence beyond which nobody has answered a model's requests outside its life."""
    return max(placement_input.rejected_through, placement_input.published.offset if placement_input.published else 0)


@frozen
class Restart:
    """When a model's manager may be started: at once the first time, later and later if it dies without progress."""

    crashes: int = 0
    not_before_ms: float = 0
    stopped_by: str | None = None
    """What the model's files and log looked like when its manager asked for an operator."""
    reason: str | None = None
    """Why the last one died; None if a part did not answer."""
    repeats: int = 0
    """Deaths in a row for that reason, without progress."""

    @property
    def is_stuck(self) -> bool:
        """Whether managers die again and again of the same."""
        return self.repeats >= REPEATS_MAX

    def is_due(self, now_ms: float, fingerprint: str) -> bool:
        """Return whether a manager may be started now; a stopped model's earlier if its files or log have changed."""
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
    """Return when to start again after a manager has ended; `code` is None if nobody saw how.

    `reason` is why it died; None if it left, or if a part that does not answer is the reason.
    """
    if code == EXIT_OPERATOR:
        return Restart(restart.crashes + 1, now_ms + STOPPED_MS, fingerprint)
    if code == EXIT_STUCK:  # it took at least the request's time, so that this cannot be a busy loop
        return Restart()
    crashes = 1 if progressed else restart.crashes + 1
    if code == 0 and progressed:
        return Restart()
    wait_ms = min(ms_min * 2.0 ** min(crashes - 1, 60), ms_max)
    is_same = reason is not None and reason == restart.reason and not progressed
    repeats = restart.repeats + 1 if is_same else int(reason is not None)
    return Restart(crashes, now_ms + wait_ms, reason=reason, repeats=repeats)
