"""Reading a version out of the store: its block table, its blocks, the whole file."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from blake3 import blake3

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.manifest import Extent, FileLayout, Manifest, ModelState
from teatree.storage.disk import translating_disk_full
from teatree.storage.objects.base import ObjectStore
from teatree.storage.versions.frames import READ_GAP_BYTES_MAX, Frame, RangeRead, fetch, plan_reads
from teatree.storage.versions.leaves import Leaves
from teatree.storage.versions.packs import BlockBytes, BlockTable, checksum

HEADER_BYTES = 12_288
"""The three 4 KiB header parts at the front of a DuckDB file."""
READERS = 4
"""Range reads at the same time."""

ReadAt = Callable[[int, int], bytes | None]
"""Takes offset and length; returns bytes of a file that may hold the version's, None if it has none there."""
Progress = Callable[[int, int], None]
"""Called with the bytes of the file that are in place, and those of the whole file."""


def check_active(manifest: Manifest) -> None:
    """Check that there is a model at a version; raises `unknown_version`."""
    if manifest.state is not ModelState.ACTIVE:
        raise RequestError(
            Code.UNKNOWN_VERSION,
            f"{manifest.model} is {manifest.state} at version {manifest.version}: there is no file.",
            where=f"version {manifest.version}",
        )


def layout_of(manifest: Manifest) -> FileLayout:
    """Return the file of a version; raises `unknown_version` where there is no model, `bad_source` for parts."""
    check_active(manifest)
    if manifest.blocks is None:
        raise RequestError(
            Code.BAD_SOURCE,
            f"Version {manifest.version} of {manifest.model} is not stored as a DuckDB file.",
            where=f"version {manifest.version}",
        )
    return manifest.blocks


def read_extent(store: ObjectStore, extent: Extent, size_bytes: int) -> bytes:
    """Return a piece of a pack, verified against its hash."""
    digest = bytes.fromhex(extent.checksum)
    frame = Frame(0, extent.pack, extent.offset, extent.length, size_bytes, digest, kind="header")
    [(_, piece)] = fetch(store, next(plan_reads([frame])))
    return piece


def read_table(store: ObjectStore, layout: FileLayout) -> BlockTable:
    """Return the block table of a version, every leaf verified."""
    return Leaves(store, layout).table()


def read_blocks(
    store: ObjectStore,
    table: BlockTable,
    layout: FileLayout,
    wanted: Iterable[int],
    moved: Callable[[int], None] | None = None,
    gap_bytes_max: int = READ_GAP_BYTES_MAX,
) -> Iterator[tuple[int, bytes]]:
    """Yield (block number, bytes) for the `wanted` blocks, in the order in which they lie, every block verified.

    `moved` is called with the bytes of each range read.
    """
    frames = (table.frame(block, layout.block_bytes) for block in wanted)
    reads = deque(plan_reads(frames, gap_bytes_max=gap_bytes_max))
    with ThreadPoolExecutor(READERS, "teatree-read") as pool:
        running: deque[tuple[RangeRead, Future[list[tuple[Frame, bytes]]]]] = deque()
        while reads or running:
            while reads and len(running) < READERS:  # bounds what is held in memory
                running.append((reads[0], pool.submit(fetch, store, reads.popleft())))
            read, done = running.popleft()
            for frame, block in done.result():
                yield frame.number, block
            if moved:
                moved(read.length)


def materialise(
    store: ObjectStore,
    manifest: Manifest,
    path: Path,
    progress: Progress | None = None,
    *,
    table: BlockTable | None = None,
    at_hand: ReadAt | None = None,
) -> None:
    """Write a version as an ordinary DuckDB file: complete, verified and synced, or not at all.

    It grows as `<name>.part` and is renamed when every block is in place. `table` is its block table, if known. What
    `at_hand` returns and is the version's by its hash is not read from the store. Raises `disk_full`.
    """
    layout = layout_of(manifest)
    table = table or read_table(store, layout)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    done = HEADER_BYTES
    try:
        with translating_disk_full(f"The file of version {manifest.version}", path), part.open("wb") as file:
            file.truncate(layout.size_bytes)
            header = at_hand(0, HEADER_BYTES) if at_hand else None
            if header is None or checksum(header) != layout.header.checksum:
                header = read_extent(store, layout.header, HEADER_BYTES)
            file.write(header)
            missing = range(layout.block_count) if at_hand is None else _copied(file, table, layout, at_hand)
            done += (layout.block_count - len(missing)) * layout.block_bytes
            for block, body in read_blocks(store, table, layout, missing):
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


def _copied(file: BinaryIO, table: BlockTable, layout: FileLayout, at_hand: ReadAt) -> list[int]:
    """Write the blocks that are at hand; return the numbers of the others."""
    missing: list[int] = []
    for block in range(layout.block_count):
        place = HEADER_BYTES + block * layout.block_bytes
        body = at_hand(place, layout.block_bytes)
        if body is None or blake3(body).digest() != table.entries[block]["hash"].tobytes():
            missing.append(block)
            continue
        file.seek(place)
        file.write(body)
    return missing


def changed_blocks(old: BlockBytes, new: BlockBytes) -> list[int]:
    """Return the numbers of the blocks of `new` that differ from `old`, or are not in it."""
    common = min(len(old), len(new))
    differ = np.nonzero((old[:common] != new[:common]).any(axis=1))[0]
    return [int(block) for block in differ] + list(range(common, len(new)))
