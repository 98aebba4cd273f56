"""The verification of a model in the store: links of the chain, packs, outcome segments, every block of its files.

Damage is collected, not raised, so that one damaged block does not hide another; only temporary errors, such as those
of an unavailable store, are raised.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np
from attrs import define, frozen
from blake3 import blake3

from teatree.contracts.errors import CorruptError, RetryError, TeatreeError
from teatree.contracts.formats.manifest import NO_LOG, FileLayout, Manifest, ManifestKind, ModelState, ObjectRef, Stub
from teatree.storage.ledger.segments import decode_segment
from teatree.storage.reread import reread
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.checksums import check_duckdb_checksum, check_duckdb_header
from teatree.storage.versions.frames import RangeRead, plan_reads
from teatree.storage.versions.leaves import Leaves
from teatree.storage.versions.packs import ENTRY, BlockBytes, BlockTable, Entries
from teatree.storage.versions.reader import HEADER_BYTES, changed_blocks, read_extent

FINDINGS_MAX = 200
"""Findings kept; more are only counted."""

Advance = Callable[[int], None]
"""Called with the bytes of the file that were checked since the last call."""


@frozen
class Finding:
    """One fault."""

    version: int
    code: str
    message: str
    where: str | None


@define
class Findings:
    """What was found so far."""

    found: list[Finding]
    count: int = 0

    def add(self, version: int, error: TeatreeError) -> None:
        """Add an error; a temporary one is raised instead."""
        if isinstance(error, RetryError):
            raise error
        self.count += 1
        if len(self.found) < FINDINGS_MAX:
            message = f"{error.message} {error.hint}" if error.hint else error.message
            self.found.append(Finding(version, str(error.code), message, error.where))

    @contextmanager
    def collect(self, version: int) -> Iterator[None]:
        """Add what the block raises."""
        try:
            yield
        except TeatreeError as e:
            self.add(version, e)


def check_link(before: Manifest | Stub, after: Manifest | Stub, where: str) -> None:
    """Check that a manifest follows its predecessor; raises `corrupt`."""
    faults = [
        (after.parent_write_id != before.write_id, f"its parent is {after.parent_write_id}, not {before.write_id}"),
        (after.epoch < before.epoch, f"its epoch went back from {before.epoch} to {after.epoch}"),
        (after.offset < before.offset, f"its offset went back from {before.offset} to {after.offset}"),
        (after.at < before.at, "its time went back"),
    ]
    if isinstance(after, Manifest):
        fence = after.kind is ManifestKind.FENCE
        # The first version of each publisher of a file is its fence and holds content too.
        begins = fence or (after.stream == NO_LOG and after.epoch == after.version)
        faults.append((fence and after.epoch != after.version, "it is a fence and does not begin its own epoch"))
        faults.append((not begins and after.epoch != before.epoch, "its epoch begins without a fence"))
    wrong = [text for is_wrong, text in faults if is_wrong]
    if wrong:
        raise CorruptError(
            f"Version {after.version} does not follow version {before.version}: {'; '.join(wrong)}.", where=where
        )


def check_object(chain: Chain, ref: ObjectRef) -> None:
    """Check an object's size and hash against its reference; raises `corrupt` or `not_found`."""
    reread(lambda: _check_object(chain, ref))


def _check_object(chain: Chain, ref: ObjectRef) -> None:
    key = chain.key(ref.key)
    hasher = blake3()
    size_bytes = 0
    for piece in chain.store.stream(key):
        hasher.update(piece)
        size_bytes += len(piece)
    if size_bytes != ref.size_bytes:
        raise CorruptError(f"The object has {size_bytes} bytes instead of {ref.size_bytes}.", where=key)
    if hasher.hexdigest() != ref.checksum:
        raise CorruptError("The object does not match its hash.", where=key)


def check_outcomes(chain: Chain, manifest: Manifest) -> None:
    """Check a version's outcome segment; raises `corrupt` or `not_found`."""
    ref = manifest.outcomes
    if ref is None:
        return
    check_object(chain, ref)
    key = chain.key(ref.key)
    entries = reread(lambda: decode_segment(chain.store.get(key), key))
    if len(entries) != ref.rows:
        raise CorruptError(f"The segment holds {len(entries)} outcomes instead of {ref.rows}.", where=key)
    beyond = [entry.outcome.seq for entry in entries if entry.outcome.seq > manifest.offset]
    if beyond:
        raise CorruptError(f"The outcome of request {beyond[0]} lies beyond offset {manifest.offset}.", where=key)


class FileCheck:
    """Checks the blocks of one version after the other, and writes the file meanwhile."""

    def __init__(self, chain: Chain, file: IO[bytes], findings: Findings, advance: Advance) -> None:
        """`file` is scratch: it becomes each version's DuckDB file in turn."""
        self.blocks = 0
        self._store = chain.store
        self._file = file
        self._findings = findings
        self._advance = advance
        self._known = np.zeros(0, ENTRY)

    def check(self, manifest: Manifest, layout: FileLayout) -> bool:
        """Check the blocks that were not checked at their place before; return whether the file is correct."""
        before = self._findings.count
        with self._findings.collect(manifest.version):
            header = read_extent(self._store, layout.header, HEADER_BYTES)
            check_duckdb_header(header, layout.header.pack)
            table = Leaves(self._store, layout).table()
            self._check_blocks(manifest.version, layout, table)
            os.ftruncate(self._file.fileno(), layout.size_bytes)
            os.pwrite(self._file.fileno(), header, 0)
        return self._findings.count == before

    def _check_blocks(self, version: int, layout: FileLayout, table: BlockTable) -> None:
        wanted = changed_blocks(_raw(self._known), _raw(table.entries))
        self._known = table.entries.copy()
        frames = [table.frame(block, layout.block_bytes) for block in wanted]
        missing: set[str] = set()
        for read in plan_reads(frames):
            if read.key in missing:
                self._forget(read)
                continue
            try:
                self._check_read(version, layout, read)
            except TeatreeError as e:
                missing.add(read.key)
                self._forget(read)
                self._findings.add(version, e)

    def _forget(self, read: RangeRead) -> None:
        for frame in read.frames:
            self._known[frame.number] = np.zeros((), ENTRY)  # so it is checked again with the next version

    def _check_read(self, version: int, layout: FileLayout, read: RangeRead) -> None:
        try:
            body = self._store.get_range(read.key, read.offset, read.length)
        except CorruptError:
            if len(read.frames) == 1:
                raise
            for single in (r for f in read.frames for r in plan_reads([f])):  # finds which are missing
                try:
                    self._check_read(version, layout, single)
                except CorruptError as e:
                    self._forget(single)
                    self._findings.add(version, e)
            return
        for frame in read.frames:
            try:
                block = frame.unpacked(read.cut(body, frame))
                check_duckdb_checksum(block, frame.where)
            except CorruptError as e:
                self._known[frame.number] = np.zeros((), ENTRY)
                self._findings.add(version, e)
                continue
            os.pwrite(self._file.fileno(), block, HEADER_BYTES + frame.number * layout.block_bytes)
            self.blocks += 1
        self._advance(len(read.frames) * layout.block_bytes)


def _raw(entries: Entries) -> BlockBytes:
    return np.ascontiguousarray(entries).view(np.uint8).reshape(len(entries), ENTRY.itemsize)


def total_bytes(manifests: Iterable[Manifest]) -> int:
    """Return about how many bytes of files there are to check: the first version's, then what each one added."""
    total = 0
    for number, manifest in enumerate(manifests):
        if manifest.state is ModelState.ACTIVE:
            total += manifest.size_bytes if number == 0 or not manifest.pack else manifest.pack.size_bytes
    return total
