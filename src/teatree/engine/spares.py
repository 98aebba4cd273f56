"""Old local version files: how long they keep their names, and when their bytes may become another version's.

A version that was superseded keeps its name for a time of grace, since readers follow the link first and open the file
a moment later, and for as long as DuckDB's lock tells that a reader has it open. Then it is renamed, so that nobody can
open it any more, and given the same time again, in which everyone who opened it before has locked it. Only then, if
nobody has it open, its bytes may be overwritten: it is a spare.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from teatree.engine.open_files import is_open_anywhere, is_open_elsewhere
from teatree.storage.model_folder import ModelFolder
from teatree.storage.packs import BlockTable

_SUFFIX = ".spare"


@frozen(eq=False)
class Spare:
    """A file that has lost its name."""

    path: Path
    table: BlockTable
    ready_ms: float
    """When it may be overwritten, by the monotonic clock."""


class Spares:
    """The old version files of one model; one thread uses it."""

    def __init__(self, folder: ModelFolder, kept: int, grace_ms: float) -> None:
        """`kept` files, the newest among them, keep their names whatever their age."""
        self._folder = folder
        self._kept = max(kept, 2)  # the one before the newest is what readers hold during a switch
        self._grace_ms = grace_ms
        self._tables: dict[int, BlockTable] = {}
        self._superseded_ms: dict[int, float] = {}
        self._spares: list[Spare] = []
        self._pinned: set[int] = set()
        """Versions that a reader had open when it was looked last."""
        self._swept = False

    def made(self, version: int, table: BlockTable) -> None:
        """Remember what a version's file holds."""
        self._tables[version] = table

    def superseded(self, newest: int) -> None:
        """Begin the time of grace of all versions before `newest`."""
        now_ms = _now_ms()
        for number in self._numbers():
            if number < newest:
                self._superseded_ms.setdefault(number, now_ms)

    def newest_file(self) -> int:
        """Return the highest number of a version file, 0 if there is none."""
        return max(self._numbers(), default=0)

    def _numbers(self) -> list[int]:
        return sorted(int(p.stem) for p in self._folder.versions.glob("*.duckdb") if p.stem.isdecimal())

    def _old(self, kept: int) -> list[int]:
        return [n for n in self._numbers()[:-kept] if n in self._superseded_ms]

    def tidy(self, in_use: set[int], spares_max: int) -> bool:
        """Take the names from files whose time is over and that nobody has open; delete those that are not wanted.

        Return whether some must be looked at again.
        """
        self._sweep()
        self._pinned = set()
        for number in self._old(self._kept):
            path = self._folder.version(number)
            with suppress(FileNotFoundError):  # somebody deleted it
                if number in in_use or is_open_elsewhere(path):
                    self._pinned.add(number)
                elif self._is_over(number):
                    self._retire(number, path, spares_max)
        for spare in self._spares[spares_max:]:
            spare.path.unlink(missing_ok=True)
        del self._spares[spares_max:]
        return bool(self._old(self._kept))

    def make_room(self, in_use: set[int]) -> int:
        """Delete the spares, and each old file but the newest whose time is over and that nobody has open.

        Return how many it were. A manager that has just come knows of no times: they begin now.
        """
        self._sweep()
        self.superseded(self.newest_file())
        given_up = len(self._spares)
        self.close()
        for number in self._old(1):
            path = self._folder.version(number)
            with suppress(FileNotFoundError):  # somebody deleted it
                if number not in in_use and self._is_over(number) and not is_open_elsewhere(path):
                    self._retire(number, path, 0)
                    given_up += 1
        return given_up

    def _is_over(self, number: int) -> bool:
        return _now_ms() >= self._superseded_ms[number] + self._grace_ms

    def _retire(self, number: int, path: Path, spares_max: int) -> None:
        table = self._tables.pop(number, None)
        self._superseded_ms.pop(number)
        if table is None or len(self._spares) >= spares_max:
            path.unlink()
            return
        hidden = path.with_name(f"{number}{_SUFFIX}")
        path.rename(hidden)
        self._spares.append(Spare(hidden, table, _now_ms() + self._grace_ms))

    def all(self) -> list[Spare]:
        """Return the spares there are."""
        return list(self._spares)

    def discard(self, spare: Spare) -> None:
        """Delete a spare: nothing is built upon it any more."""
        if spare in self._spares:
            self._spares.remove(spare)
            spare.path.unlink(missing_ok=True)

    def ready(self) -> bool:
        """Return whether a spare's time has come."""
        return any(spare.ready_ms <= _now_ms() for spare in self._spares)

    def wait_ms(self, pending_max: int) -> float:
        """Return for how long to wait if `pending_max` old files are on their way out already, 0 if fewer are."""
        soonest = [spare.ready_ms for spare in self._spares]
        soonest += [
            self._superseded_ms[number] + 2 * self._grace_ms
            for number in self._old(self._kept)
            if number not in self._pinned
        ]
        if len(soonest) < pending_max:
            return 0
        return max(0.0, min(soonest) - _now_ms())

    def take(self, target: Path) -> BlockTable | None:
        """Give a spare's bytes the name `target` and return what they are; None if there is no spare to be had."""
        now_ms = _now_ms()
        for spare in [s for s in self._spares if s.ready_ms <= now_ms]:
            self._spares.remove(spare)
            with suppress(FileNotFoundError):  # somebody deleted it
                if not is_open_anywhere(spare.path):
                    spare.path.rename(target)
                    return spare.table
                spare.path.unlink()  # who has it open keeps its bytes
        return None

    def drop(self, in_use: set[int]) -> None:
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
    """Delete what a killed process left half made, and its spares: what they hold is known no more."""
    if folder.versions.is_dir():
        for path in folder.versions.iterdir():
            if path.suffix in {".part", _SUFFIX}:
                path.unlink(missing_ok=True)


def _now_ms() -> float:
    return time.monotonic() * 1000
