"""Files and folders that only their owner can read, and secrets that are made once and kept in them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from teatree.contracts.formats.codec import dump_json, parse_json

_SECRET_BYTES = 24


def private_folder(path: Path) -> Path:
    """Make the folder, with its parents, accessible to its owner only; return its absolute path."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path.absolute()


def own_folder(path: Path) -> Path:
    """Make the folder for its owner only, unless it exists; return its absolute path."""
    if not path.is_dir():
        private_folder(path)
    return path.absolute()


def write_private(path: Path, text: str) -> None:
    """Replace the file atomically by one with this text that only its owner can read."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def kept_secrets(path: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Return a random secret (letters and digits) for each name, the same ones at every call with this file."""
    kept: dict[str, str] = parse_json(path.read_bytes(), str(path)) if path.is_file() else {}
    missing = [name for name in names if name not in kept]
    if missing:
        kept |= {name: secrets.token_hex(_SECRET_BYTES) for name in missing}
        write_private(path, dump_json(kept).decode())
    return kept
