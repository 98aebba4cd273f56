"""Ports on loopback that a server keeps across restarts, so that its clients can reconnect."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

from teatree.contracts.errors import Code, OperatorError
from teatree.contracts.formats.codec import dump_json, parse_json
from teatree.embedded.secret_file import write_private

LOOPBACK = "127.0.0.1"
FIRST, LAST = 10_000, 20_000
"""Below the kernel's range for outgoing connections: none of these can take the port during a restart."""
_TRIES_MAX = 200


def remembered_ports(path: Path, names: tuple[str, ...], twin_offset: int = 0) -> dict[str, int]:
    """Return a port for each name: those kept in the file at `path`, else free ones, which are then kept there.

    With `twin_offset`, the port that much above each is free as well.
    """
    if path.is_file():
        kept = remembered(path)
        if set(kept) == set(names):
            return kept
    chosen: dict[str, int] = {}
    for name in names:
        chosen[name] = _free_port(set(chosen.values()), twin_offset)
    write_private(path, dump_json(chosen).decode())
    return chosen


def remembered(path: Path) -> dict[str, int]:
    """Return the ports in a file, by name."""
    kept: dict[str, int] = parse_json(path.read_bytes(), str(path))
    return kept


def is_free(port: int) -> bool:
    """Return whether a server can listen on this port of loopback now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _free_port(taken: set[int], twin_offset: int) -> int:
    for _ in range(_TRIES_MAX):
        port = FIRST + secrets.randbelow(LAST - FIRST)
        if port not in taken and is_free(port) and (not twin_offset or is_free(port + twin_offset)):
            return port
    raise OperatorError(
        Code.WRONG_CONFIGURATION,
        f"No free port was found on {LOOPBACK} between {FIRST} and {LAST}.",
        where=LOOPBACK,
        hint="See which processes listen there.",
    )
