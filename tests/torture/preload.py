"""Preloaded C libraries that change what our processes see, if there is a compiler; a file holds their parameters."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path


class Preload:
    """One library and the int64 numbers that it reads; writing them takes effect at once, zeros turn it off."""

    def __init__(self, folder: Path, source: str, variable: str, count: int) -> None:
        """`variable` is the environment variable by which the library finds its `count` numbers."""
        folder.mkdir(parents=True)
        self._variable = variable
        self._numbers = folder / "numbers"
        self._library = folder / "preload.so"
        self._numbers.write_bytes(bytes(8 * count))
        compiler = shutil.which("cc")
        if compiler is not None:
            path = Path(__file__).with_name(source)
            subprocess.run(
                [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(path), "-ldl"], check=True
            )

    @property
    def environ(self) -> dict[str, str]:
        """The environment that preloads the library; empty if there is no compiler."""
        if not self._library.exists():
            return {}
        return {"LD_PRELOAD": str(self._library), self._variable: str(self._numbers)}

    def set(self, *numbers: int) -> None:
        """Write the numbers."""
        with self._numbers.open("r+b") as file:
            file.write(struct.pack(f"{len(numbers)}q", *numbers))


class MovedClock(Preload):
    """The time of day, which can be moved."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "clock.c", "TORTURE_CLOCK", 1)

    def move(self, seconds: int) -> None:
        """Set the distance from the true time."""
        self.set(seconds)


class Sectors(Preload):
    """Bad sectors of a disk: one file at a time cannot be read beyond its header."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "sectors.c", "TORTURE_SECTORS", 2)

    def break_file(self, path: Path) -> None:
        """Make a file unreadable."""
        found = path.stat()
        self.set(found.st_dev, found.st_ino)

    def repair(self) -> None:
        """Make all files readable again."""
        self.set(0, 0)


def joined(*environs: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that preloads several libraries."""
    found = {name: value for environ in environs for name, value in environ.items()}
    libraries = [environ["LD_PRELOAD"] for environ in environs if environ]
    return {**found, "LD_PRELOAD": ":".join(libraries)} if libraries else {}
