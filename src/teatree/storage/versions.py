"""Reading a version out of the store: its block table, its blocks, the whole file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from attrs import frozen
from blake3 import blake3

from teatree.contracts.errors import Code, CorruptError, RequestError
from teatree.contracts.manifest import Extent, FileLayout, Manifest
from teatree.storage.objects import ObjectStore
from teatree.storage.packs import BlockTable, leaf_bytes, table_from_leaves, unpack, verified

HEADER_BYTES = 12_288
"""The three 4 KiB header parts at the front of a DuckDB file."""
READ_BYTES_MAX = 16_000_000
"""Bytes of one range read: long enough to hide the round trip, short enough to hold several in memory."""
READ_GAP_BYTES_MAX = 128_000
"""Bytes between two wanted frames that are read along rather than asked for separately."""
READERS = 4
"""Range reads at the same time."""

Progress = Callable[[int, int], None]
"""Called with the bytes of the file that are in place, and those of the whole file."""


@frozen
class _Run:
    """Neighbouring frames of one pack, fetched by one range read."""

    pack: str
    offset: int
    length: int
    blocks: tuple[int, ...]


def layout_of(manifest: Manifest) -> FileLayout:
    """Return the file of a version, or raise `unknown_version` where the model had none."""
    if manifest.file is None:
        raise RequestError(
            Code.UNKNOWN_VERSION,
            f"{manifest.model} is {manifest.state} at version {manifest.version}: there is no file.",
            where=f"version {manifest.version}",
        )
    return manifest.file


def read_extent(store: ObjectStore, extent: Extent, size_bytes: int) -> bytes:
    """Return a piece of a pack, verified against its hash."""
    frame = store.get_range(extent.pack, extent.offset, extent.length)
    return verified(unpack(frame, size_bytes, extent.pack), extent.checksum, extent.pack)


def read_table(store: ObjectStore, layout: FileLayout) -> BlockTable:
    """Return the block table of a version, every leaf verified."""
    with ThreadPoolExecutor(READERS) as pool:
        leaves = pool.map(
            lambda pair: read_extent(store, pair[1], leaf_bytes(layout, pair[0])), enumerate(layout.leaves)
        )
        return table_from_leaves(layout, leaves, "block table")


def read_blocks(
    store: ObjectStore, table: BlockTable, layout: FileLayout, wanted: list[int]
) -> Iterator[tuple[int, bytes]]:
    """Yield (block number, bytes) for the `wanted` blocks, in the order in which they lie, every block verified."""

    def fetch(run: _Run) -> list[tuple[int, bytes]]:
        body = store.get_range(run.pack, run.offset, run.length)
        return [(block, _cut(body, run, block, table, layout)) for block in run.blocks]

    runs = list(_runs(table, wanted))
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(runs), READERS):  # bounds what is held in memory
            for blocks in pool.map(fetch, runs[start : start + READERS]):
                yield from blocks


def _cut(body: bytes, run: _Run, block: int, table: BlockTable, layout: FileLayout) -> bytes:
    entry = table.entries[block]
    start = int(entry["offset"]) - run.offset
    where = f"{run.pack}, block {block}"
    piece = unpack(body[start : start + int(entry["length"])], layout.block_bytes, where)
    if blake3(piece).digest() != entry["hash"].tobytes():
        raise CorruptError("The block does not match its hash.", where=where)
    return piece


def _runs(table: BlockTable, wanted: list[int]) -> Iterator[_Run]:
    entries = table.entries
    order = sorted(
        wanted,
        key=lambda b: (
            int(entries[b]["base"]),
            int(entries[b]["pack"]),
            int(entries[b]["write"]),
            int(entries[b]["offset"]),
        ),
    )
    blocks: list[int] = []
    pack, start, end = "", 0, 0
    for block in order:
        entry = entries[block]
        key, offset = table.pack_of(entry), int(entry["offset"])
        stop = offset + int(entry["length"])
        if blocks and key == pack and offset - end <= READ_GAP_BYTES_MAX and stop - start <= READ_BYTES_MAX:
            end = stop
            blocks.append(block)
            continue
        if blocks:
            yield _Run(pack, start, end - start, tuple(blocks))
        pack, start, end, blocks = key, offset, stop, [block]
    if blocks:
        yield _Run(pack, start, end - start, tuple(blocks))


def materialise(store: ObjectStore, manifest: Manifest, path: Path, progress: Progress | None = None) -> None:
    """Write a version as an ordinary DuckDB file: complete, verified and synced, or not at all.

    It grows as `<name>.part` and is renamed when every block is in place.
    """
    layout = layout_of(manifest)
    table = read_table(store, layout)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    done = HEADER_BYTES
    try:
        with part.open("wb") as file:
            file.truncate(layout.size_bytes)
            file.write(read_extent(store, layout.header, HEADER_BYTES))
            for block, body in read_blocks(store, table, layout, list(range(layout.block_count))):
                file.seek(HEADER_BYTES + block * layout.block_bytes)
                file.write(body)
                done += layout.block_bytes
                if progress:
                    progress(done, layout.size_bytes)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def patch(path: Path, known: BlockTable, store: ObjectStore, manifest: Manifest) -> int:
    """Turn a file that holds `known` into a version, in place; return the bytes written.

    For spare files that no reader has open: it is not atomic.
    """
    layout = layout_of(manifest)
    table = read_table(store, layout)
    wanted = changed_blocks(known, table)
    with path.open("r+b") as file:
        file.truncate(layout.size_bytes)
        file.write(read_extent(store, layout.header, HEADER_BYTES))
        for block, body in read_blocks(store, table, layout, wanted):
            file.seek(HEADER_BYTES + block * layout.block_bytes)
            file.write(body)
    return HEADER_BYTES + len(wanted) * layout.block_bytes


def changed_blocks(old: BlockTable, new: BlockTable) -> list[int]:
    """Return the numbers of the blocks of `new` that differ from `old` by hash, or are not in it."""
    common = min(len(old), len(new))
    differ = np.nonzero((old.entries["hash"][:common] != new.entries["hash"][:common]).any(axis=1))[0]
    return [int(i) for i in differ] + list(range(common, len(new)))
