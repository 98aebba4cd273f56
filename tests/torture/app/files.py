"""The apps' files, where all processes of a run find them, and changes of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

INSTALLED = Path(__file__).with_name("installed")
BROKEN = 'raise ImportError("a package is missing")\n'


class AppFiles:
    """A copy of the apps' package with its entry points."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.version = 1

    def install(self) -> None:
        """Make the copy."""
        shutil.copytree(INSTALLED, self.folder, ignore=shutil.ignore_patterns("__pycache__"))

    def environ(self) -> dict[str, str]:
        """Return the environment of a process that finds the apps."""
        before = os.environ.get("PYTHONPATH")
        return {"PYTHONPATH": str(self.folder) + (f"{os.pathsep}{before}" if before else "")}

    def write(self, *, is_broken: bool = False) -> None:
        """Install the version at once: other code than before, or the same again; its import can be made to fail."""
        path = self.folder / "torture_app" / "version.py"
        part = path.with_suffix(".part")
        part.write_text(f'VERSION = "{self.version}"\n{BROKEN if is_broken else ""}')
        past_ns = path.stat().st_mtime_ns
        os.utime(part, ns=(past_ns + 2_000_000_000, past_ns + 2_000_000_000))  # Python compares seconds
        part.replace(path)
