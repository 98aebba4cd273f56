"""Why a model's requests or their outcomes wait: set by the parts of a manager, read for the catalog and `health`."""

from __future__ import annotations

from enum import Enum


class WaitingPart(Enum):
    """A part of a manager that can wait independently of the others, in the order in which reasons are reported."""

    LOG = "log"
    DISK = "disk"
    FILE = "file"
    SHIP = "ship"
    OUTCOMES = "outcomes"
    ARCHIVE = "archive"
    STORE = "store"


_OF_REQUESTS = (WaitingPart.LOG, WaitingPart.DISK, WaitingPart.FILE, WaitingPart.SHIP)


class WaitReasons:
    """The reasons of one manager. All parts belong to one event loop."""

    def __init__(self) -> None:
        self._reasons: dict[WaitingPart, str] = {}

    def set(self, part: WaitingPart, why: str) -> bool:
        """Register why a part waits; return whether the reason is new."""
        is_new = self._reasons.get(part) != why
        self._reasons[part] = why
        return is_new

    def clear(self, part: WaitingPart) -> None:
        """Register that a part does not wait."""
        self._reasons.pop(part, None)

    @property
    def requests(self) -> str | None:
        """Why requests wait; None while they do not."""
        return "; ".join(self._reasons[part] for part in _OF_REQUESTS if part in self._reasons) or None

    @property
    def model(self) -> str | None:
        """Why requests wait, else why outcomes, an archive or the object store do; None if nothing waits."""
        return self.requests or next((self._reasons[part] for part in WaitingPart if part in self._reasons), None)
