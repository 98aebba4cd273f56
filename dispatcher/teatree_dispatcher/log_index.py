"""The index of the log: a copy on this host's disk of what the dispatcher has read there.

A restarted dispatcher reads only what is new since. The index is a cache: it is used only if the log still holds its
last message, under its sequence and with its time, and without it the log is read from its beginning.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from attrs import frozen
from blake3 import blake3

from teatree.contracts.errors import TeatreeError
from teatree.contracts.formats.codec import dump_json, parse_json, structure, unstructure
from teatree.contracts.formats.requests import LogPosition

_CHECKSUM_BYTES = 65


@frozen
class LogIndex:
    """The last requests of every name in the log, up to one message; of some names also what came after it."""

    created: str
    """The stamp of the log."""
    last: LogPosition
    """The last message that was read."""
    requests: dict[str, int]
    """The sequence of the last request, by name."""
    drops: dict[str, int]
    """The sequence of the last request that ended an incarnation, by name."""

    def write(self, path: Path) -> bool:
        """Replace the file atomically; returns False if the disk does not take it: then the older one stays."""
        part = path.with_name(f"{path.name}.{os.getpid()}.part")  # a second dispatcher may write, too
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            body = dump_json(unstructure(self))
            part.write_bytes(_checksum(body) + body)
            part.replace(path)
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            return False
        return True


def read_log_index(path: Path) -> LogIndex | None:
    """Return the index in a file; None if there is none, or none that is as it was written."""
    try:
        content = path.read_bytes()
        body = content[_CHECKSUM_BYTES:]
        if content[:_CHECKSUM_BYTES] != _checksum(body):
            return None
        return structure(parse_json(body, str(path)), LogIndex, str(path))
    except (OSError, TeatreeError):
        return None


def _checksum(body: bytes) -> bytes:
    return blake3(body).hexdigest().encode() + b"\n"
