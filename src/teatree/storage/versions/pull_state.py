"""The state that a pull keeps beside the file that it made: which version it is, and where each block was."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from attrs import frozen
from blake3 import blake3

from teatree.contracts.errors import TeatreeError
from teatree.contracts.formats.codec import dump_json, parse_json, structure, unstructure
from teatree.contracts.formats.manifest import FileLayout, Manifest
from teatree.storage.versions.packs import ENTRY, BlockTable

FORMAT = 1


@frozen
class FileIdentity:
    """Identifies an untouched file: any write, copy or move changes one of these."""

    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> FileIdentity:
        """Return the identity of a file as it is now."""
        info = path.stat()
        return cls(info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


@frozen
class _Head:
    format: int
    goal_model_id: str
    version: int
    identity: FileIdentity
    layout: FileLayout
    entries_checksum: str


@frozen
class PullState:
    """The version that a file was when it was pulled."""

    version: int
    table: BlockTable
    layout: FileLayout
    identity: FileIdentity
    """That of the file after the pull: with another one, the file was touched since."""


def state_path(path: Path) -> Path:
    """Return where the state of the file at `path` lies."""
    return path.with_name(f".{path.name}.pulled")


def read_state(path: Path) -> PullState | None:
    """Return the state that the last pull left beside a file, None if none is usable: it only saves work."""
    try:
        head_line, _, entries = state_path(path).read_bytes().partition(b"\n")
        head = structure(parse_json(head_line, "state"), _Head, "state")
    except (FileNotFoundError, TeatreeError):
        return None
    whole = len(entries) == head.layout.block_count * ENTRY.itemsize
    if head.format != FORMAT or not whole or blake3(entries).hexdigest() != head.entries_checksum:
        return None
    table = BlockTable(np.frombuffer(entries, ENTRY), head.layout.leaves, head.layout.bases)
    return PullState(head.version, table, head.layout, head.identity)


def pulled_version(path: Path, goal_model_id: str) -> int:
    """Return the version of a model that the file at `path` was pulled as, 0 if there was none."""
    try:
        head_line, _, _ = state_path(path).read_bytes().partition(b"\n")
        head = structure(parse_json(head_line, "state"), _Head, "state")
    except (OSError, TeatreeError):
        return 0
    return head.version if head.goal_model_id == goal_model_id else 0


def write_state(path: Path, manifest: Manifest, layout: FileLayout, table: BlockTable) -> None:
    """Write that the file at `path` is this version now; if that is not possible, the next pull hashes it."""
    entries = table.entries.tobytes()
    head = _Head(
        FORMAT,
        manifest.goal_model_id,
        manifest.version,
        FileIdentity.of(path),
        layout,
        blake3(entries).hexdigest(),
    )
    target = state_path(path)
    temp = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        temp.write_bytes(dump_json(unstructure(head)) + b"\n" + entries)
        temp.replace(target)
    except OSError:  # the file itself is in place: a full disk is no reason to call the pull failed
        with suppress(OSError):
            target.unlink(missing_ok=True)
        with suppress(OSError):
            temp.unlink(missing_ok=True)
