"""The record of a commit, which an engine keeps with the effects that it names, and of whose data these are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attrs import frozen

from teatree.contracts.formats.manifest import ModelOptions, StreamStamp
from teatree.contracts.formats.requests import LogPosition


@frozen
class Commit:
    """One transaction's record."""

    version: int
    """The version for which it was made; after a crash before shipping it can be a later one."""
    write_id: str
    offset: int
    """Sequence of its last request."""
    log_at: datetime
    last_effect_seq: int
    changed_tables: tuple[str, ...]
    outcomes: bytes
    """An outcome segment, as it will be shipped."""
    dropped: bool = False
    """Whether it drops the model."""
    index: int | None = None
    """Place of the last request in its message, if others of that message follow; None if the message is complete."""

    @property
    def position(self) -> LogPosition:
        """The position of its last request."""
        return LogPosition(self.offset, self.log_at)


@frozen
class Identity:
    """The model to which data belong."""

    model: str
    goal_model_id: str
    stream: StreamStamp
    created_seq: int
    options: ModelOptions


def unshipped(commits: Sequence[Commit], version: int, write_id: str) -> list[Commit] | None:
    """Return the commits beyond the content (`version`, `write_id`) of the newest manifest.

    None if the data do not descend from that content: another writer continued from an earlier state.
    """
    if not any(c.version == version and c.write_id == write_id for c in commits):
        return None
    return [c for c in commits if c.version > version]
