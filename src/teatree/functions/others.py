"""Versions of other models, as functions may read them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from attrs import frozen

from teatree.contracts.formats.provenance import VersionRead
from teatree.functions.handles import SqlReadAccess


@frozen
class OtherVersion:
    """An open version of a model, and which one it is."""

    read: VersionRead
    access: SqlReadAccess


class Others(ABC):
    """Opens versions of models for functions that read them beside their own."""

    @abstractmethod
    def open(self, model: str, version: int | None) -> OtherVersion:
        """Return a version of a model, the newest one if none is named; it is open until others need its place.

        Raises `bad_name`, `unknown_model`, `unknown_version`, `bad_source` for a damaged one, `source_unavailable`.
        """

    def interrupt(self) -> None:  # noqa: B027 - what opens nothing has nothing to interrupt
        """Make the read that runs fail as `timed_out`; any thread may call it."""

    def close(self) -> None:  # noqa: B027
        """Close all versions."""
