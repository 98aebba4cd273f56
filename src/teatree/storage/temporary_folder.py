"""A temporary folder in a place whose owner deletes what a process that was killed has left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def temporary_folder(parent: Path | None) -> Iterator[Path]:
    """Yield a new folder below `parent`, or below the system's folder for it; it is deleted after the block."""
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="teatree-", dir=parent) as folder:
        yield Path(folder)
