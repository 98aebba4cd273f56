"""Work that a manager does beside its pipeline: no request waits for it, but an `archive` request for its own."""

from __future__ import annotations

from abc import ABC, abstractmethod


class ManagerTask(ABC):
    """One kind of such work; `health` reports it by its name."""

    name: str

    def __init__(self) -> None:
        self.error: str | None = None
        """Why it waits or failed last; None while it works."""
        self.damage: str | None = None
        """What it cannot read in the store; None otherwise."""

    @abstractmethod
    async def run(self) -> None:
        """Work until cancelled; what is raised ends the manager."""

    @abstractmethod
    async def drained(self) -> None:
        """Return when nothing is left that the next manager could not continue."""
