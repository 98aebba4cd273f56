"""Damage to files and objects, as a disk does it."""

from __future__ import annotations

from pathlib import Path


def flip(path: Path, place: int, bit: int = 4) -> None:
    """Turn a bit over: `place` is a byte of the file, `bit` the one of it as a number."""
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ bit]))


def flipped(body: bytes, place: int, bit: int = 4) -> bytes:
    """Return an object's bytes with a bit of one of them turned over."""
    return body[:place] + bytes([body[place] ^ bit]) + body[place + 1 :]
