"""A clock for our own processes that a fault can move: `clock.c`, compiled where there is a compiler, and preloaded."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """The time of day of every process that runs with `environ`; moving it takes effect at once."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._offset = folder / "seconds"
        self._library = folder / "clock.so"
        self._offset.write_bytes(struct.pack("q", 0))
        compiler = shutil.which("cc")
        if compiler is not None:
            command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(SOURCE), "-ldl"]
            subprocess.run(command, check=True)

    @property
    def environ(self) -> dict[str, str]:
        """The environment in which a process has this clock; empty if there is no compiler."""
        if not self._library.exists():
            return {}
        return {"LD_PRELOAD": str(self._library), "TORTURE_CLOCK": str(self._offset)}

    def move(self, seconds: int) -> None:
        """Let it be so far from the true time."""
        with self._offset.open("r+b") as file:
            file.write(struct.pack("q", seconds))
