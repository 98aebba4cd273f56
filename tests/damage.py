"""Flip bits in files and objects, as a failing disk does."""

from __future__ import annotations

from pathlib import Path


def flip(path: Path, place: int, bit: int = 4) -> None:
    """Flip a bit: `place` is the offset of its byte, `bit` its mask."""
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ bit]))


def flipped(body: bytes, place: int, bit: int = 4) -> bytes:
    """Return an object's bytes with one bit flipped."""
    return body[:place] + bytes([body[place] ^ bit]) + body[place + 1 :]
