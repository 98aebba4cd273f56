"""Spares: old local version files, whose space is reused for newer versions.

A superseded version keeps its name for a grace period, since readers follow the link first and open the file a moment
later, and for as long as DuckDB's lock shows that a reader has it open. Then it is renamed, so that no reader can open
it any more, and kept for the same period again, in which every reader that opened it before has locked it. Only then,
if no process has it open, it is overwritten.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.engine.local.open_files import is_open_anywhere, is_open_elsewhere
from teatree.storage.model_folder import ModelFolder
from teatree.storage.versions.packs import BlockTable

_SUFFIX = ".spare"


@frozen(eq=False)
class Spare:
    """An old version file that was renamed, with its block table."""

    path: Path
    table: BlockTable
    ready_ms: float
    """When it may be overwritten, by the monotonic clock."""


# More than ten public methods: a spare is taken, kept, checked and deleted, each on its own.
class Spares:
    """The old version files of one model; one thread uses it."""

    def __init__(self, folder: ModelFolder, kept: int, grace_ms: float, clock: Clock = SYSTEM_CLOCK) -> None:
        """`kept` files, the newest among them, keep their names whatever their age."""
        self._folder = folder
        self._clock = clock
        self._kept = max(kept, 2)  # the one before the newest is what readers hold during a switch
        self._grace_ms = grace_ms
        self._tables: dict[int, BlockTable] = {}
        self._superseded_ms: dict[int, float] = {}
        self._spares: list[Spare] = []
        self._pinned: set[int] = set()
        """Versions that a reader had open at the last check."""
        self._swept = False

    def made(self, version: int, table: BlockTable) -> None:
        """Remember the block table of a version's file."""
        self._tables[version] = table

    def superseded(self, newest: int) -> None:
        """Begin the grace period of all versions before `newest`."""
        now_ms = self._clock.monotonic_ms()
        for number in self._numbers():
            if number < newest:
                self._superseded_ms.setdefault(number, now_ms)

    def _numbers(self) -> list[int]:
        return sorted(int(p.stem) for p in self._folder.versions.glob("*.duckdb") if p.stem.isdecimal())

    def _old(self, kept: int) -> list[int]:
        return [n for n in self._numbers()[:-kept] if n in self._superseded_ms]

    def tidy(self, in_use: AbstractSet[int], spares_max: int) -> bool:
        """Turn unused files whose grace period is over into spares; delete those beyond `spares_max`.

        Return whether some files must be checked again.
        """
        self._sweep()
        self._pinned = set()
        for number in self._old(self._kept):
            path = self._folder.version(number)
            with suppress(FileNotFoundError):  # it was deleted by hand
                if number in in_use or is_open_elsewhere(path):
                    self._pinned.add(number)
                elif self._is_over(number):
                    self._retire(number, path, spares_max)
        for spare in self._spares[spares_max:]:
            spare.path.unlink(missing_ok=True)
        del self._spares[spares_max:]
        return bool(self._old(self._kept))

    def make_room(self, in_use: AbstractSet[int]) -> int:
        """Delete the spares, and each unused file but the newest whose grace period is over; return how many.

        In a manager that has just started, all grace periods begin now.
        """
        self._sweep()
        self.superseded(self._folder.newest_version())
        given_up = len(self._spares)
        self.close()
        for number in self._old(1):
            path = self._folder.version(number)
            with suppress(FileNotFoundError):  # it was deleted by hand
                if number not in in_use and self._is_over(number) and not is_open_elsewhere(path):
                    self._retire(number, path, 0)
                    given_up += 1
        return given_up

    def _is_over(self, number: int) -> bool:
        return self._clock.monotonic_ms() >= self._superseded_ms[number] + self._grace_ms

    def _retire(self, number: int, path: Path, spares_max: int) -> None:
        table = self._tables.pop(number, None)
        self._superseded_ms.pop(number)
        if table is None or len(self._spares) >= spares_max:
            path.unlink()
            return
        hidden = path.with_name(f"{number}{_SUFFIX}")
        path.rename(hidden)
        self._spares.append(Spare(hidden, table, self._clock.monotonic_ms() + self._grace_ms))

    def all(self) -> list[Spare]:
        """Return the spares there are."""
        return list(self._spares)

    def discard(self, spare: Spare) -> None:
        """Delete a spare: no version is made from it any more."""
        if spare in self._spares:
            self._spares.remove(spare)
            spare.path.unlink(missing_ok=True)

    def ready(self) -> bool:
        """Return whether a spare may be overwritten now."""
        return any(spare.ready_ms <= self._clock.monotonic_ms() for spare in self._spares)

    def wait_ms(self, pending_max: int) -> float:
        """Return for how long to wait if `pending_max` old files are in their grace periods already, else 0."""
        soonest = [spare.ready_ms for spare in self._spares]
        soonest += [
            self._superseded_ms[number] + 2 * self._grace_ms
            for number in self._old(self._kept)
            if number not in self._pinned
        ]
        if len(soonest) < pending_max:
            return 0
        return max(0.0, min(soonest) - self._clock.monotonic_ms())

    def take(self, target: Path) -> BlockTable | None:
        """Rename a spare to `target` and return its block table; None if no spare may be overwritten."""
        now_ms = self._clock.monotonic_ms()
        for spare in [s for s in self._spares if s.ready_ms <= now_ms]:
            self._spares.remove(spare)
            with suppress(FileNotFoundError):  # it was deleted by hand
                if not is_open_anywhere(spare.path):
                    spare.path.rename(target)
                    return spare.table
                spare.path.unlink()  # a process that has it open keeps its bytes
        return None

    def drop(self, in_use: AbstractSet[int]) -> None:
        """Delete every file, except those that this process has open."""
        self.close()
        for number in self._numbers():
            if number not in in_use:
                self._folder.version(number).unlink(missing_ok=True)
        self._tables.clear()
        self._superseded_ms.clear()

    def close(self) -> None:
        """Delete the spares."""
        for spare in self._spares:
            spare.path.unlink(missing_ok=True)
        self._spares.clear()

    def _sweep(self) -> None:
        if not self._swept:
            sweep(self._folder)
        self._swept = True


def sweep(folder: ModelFolder) -> None:
    """Delete incomplete files of a killed process, and its spares, whose block tables are lost."""
    if folder.versions.is_dir():
        for path in folder.versions.iterdir():
            if path.suffix in {".part", _SUFFIX}:
                path.unlink(missing_ok=True)
