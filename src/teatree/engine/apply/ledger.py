"""The ledger: every request id that has taken effect, and the version that holds its outcome (docs/decisions/0004).

Three tiers: outcomes of versions not shipped yet (whole, in memory), ids of the shipped versions that no run holds (a
dict), and sorted runs on disk (memory maps). Look-up cost and memory are bounded by `remember_rows_max` and the tail's
size, not by the model's age. Compaction merges the tail into a run and small runs into larger ones, on a separate
thread; the next manifest adopts its result.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from attrs import frozen
from cachetools import LRUCache

from teatree.contracts.errors import CorruptError, RequestError, TeatreeError
from teatree.contracts.formats.manifest import LedgerRef, Manifest, ObjectRef, Stub
from teatree.contracts.settings import LimitSettings
from teatree.storage.ledger.runs import LedgerRun, id_hash, merge_runs, write_run
from teatree.storage.ledger.segments import Entry, read_segment
from teatree.storage.objects.base import NotFoundError
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.packs import checksum
from teatree.storage.versions.repair import entry_or_stub

TAIL_VERSIONS_MAX = 64
"""Shipped versions in the tail before it is compacted: bounds the segments that a start has to read."""
TAIL_ROWS_MAX = 100_000
"""Ids in the tail before it is compacted: bounds its memory at some 20 MB."""
MERGE_FACTOR = 4
"""A run is merged into its older neighbour when it has grown to a quarter of it, which keeps the runs few."""
SEGMENTS_CACHED = 64
"""Outcome segments kept decoded for resends."""


@frozen
class EarlierOutcome:
    """The first outcome of an id, and the version that holds it; None while that version is being prepared."""

    entry: Entry
    version: int | None


@frozen
class LostOutcome:
    """An id that has taken effect, but whose first outcome cannot be read: its version is damaged in the store."""

    request_id: str
    version: int
    cause: TeatreeError

    @property
    def error(self) -> CorruptError:
        """The error that answers a resend of the id."""
        return CorruptError(
            f"The id {self.request_id!r} has its outcome in version {self.version}, which cannot be read:"
            f" {self.cause.message} The request was not applied again.",
            where="Teatree-Request-Id",
            hint="`teatree verify` reports the damage. Once it is repaired, send the request again under the same id.",
        )


@frozen
class _Compacted:
    runs: tuple[tuple[ObjectRef, LedgerRun], ...]
    versions: frozenset[int]
    """Versions that were moved from the tail into the runs."""


class Ledger:
    """The ids of one model and their outcomes. One thread uses it; compaction runs on another."""

    def __init__(self, chain: Chain, cache: Path, limits: LimitSettings) -> None:
        self._chain = chain
        self._cache = cache
        self._limits = limits
        self._runs: tuple[tuple[ObjectRef, LedgerRun], ...] = ()
        self._tail: dict[int, dict[str, None]] = {}
        self._tail_ids: dict[str, int] = {}
        self._tail_newest: dict[int, datetime] = {}
        self._pending: dict[int, dict[str, Entry]] = {}
        self._segments: LRUCache[int, dict[str, Entry]] = LRUCache(SEGMENTS_CACHED)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._compaction: Future[_Compacted] | None = None

    def load(self, manifest: Manifest | None) -> None:
        """Load the ledger of a version: fetch its runs into the cache and read the segments of its tail."""
        self._cache.mkdir(parents=True, exist_ok=True)
        if manifest is None:
            return
        self._runs = tuple((ref, self._fetch(ref)) for ref in manifest.ledger.runs)
        for version in manifest.ledger.tail:
            entries = read_segment(self._chain.store, self._chain.folder, entry_or_stub(self._chain, version))
            self._keep_tail(version, [e for e in entries if e.is_first])

    def _fetch(self, ref: ObjectRef) -> LedgerRun:
        path = self._cache / f"{ref.checksum[:32]}.run"
        if not path.exists() or path.stat().st_size != ref.size_bytes:
            part = path.with_suffix(".part")
            self._chain.store.download(self._chain.key(ref.key), part)
            if checksum(part.read_bytes()) != ref.checksum:
                raise CorruptError("The ledger run does not match its hash.", where=ref.key)
            part.replace(path)
        return LedgerRun(path)

    def close(self) -> None:
        """Stop the compaction thread."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def find(self, request_ids: Sequence[str]) -> dict[str, EarlierOutcome | LostOutcome]:
        """Return the first outcome of each of these ids that has one."""
        found: dict[str, EarlierOutcome | LostOutcome] = {}
        unknown: list[str] = []
        for request_id in request_ids:
            earlier = self._recent(request_id)
            if earlier is not None:
                found[request_id] = earlier
            else:
                unknown.append(request_id)
        if unknown and self._runs:
            found.update(self._remembered(unknown))
        return found

    def _recent(self, request_id: str) -> EarlierOutcome | LostOutcome | None:
        for version, entries in self._pending.items():
            if request_id in entries:
                return EarlierOutcome(entries[request_id], version)
        version_of_tail = self._tail_ids.get(request_id)
        return None if version_of_tail is None else self._read(version_of_tail, request_id)

    def _remembered(self, request_ids: list[str]) -> dict[str, EarlierOutcome | LostOutcome]:
        hashes = np.fromiter((id_hash(i) for i in request_ids), "<u8", len(request_ids))
        order = np.argsort(hashes)  # neighbours share pages of the map
        found: dict[str, EarlierOutcome | LostOutcome] = {}
        for _, run in self._runs:
            for position, version in run.find(hashes[order]):
                request_id = request_ids[int(order[position])]
                earlier = self._read(version, request_id)
                if earlier is not None:  # None if two ids share a hash
                    found[request_id] = earlier
        return found

    def _read(self, version: int, request_id: str) -> EarlierOutcome | LostOutcome | None:
        entries = self._segments.get(version)
        if entries is None:
            try:
                segment = self._segment(version)
            except (CorruptError, NotFoundError, RequestError) as e:
                return LostOutcome(request_id, version, e)  # a resend must not stop the model
            entries = {e.outcome.request_id: e for e in segment if e.is_first}
            self._segments[version] = entries
        entry = entries.get(request_id)
        return None if entry is None else EarlierOutcome(entry, version)

    def _segment(self, version: int) -> list[Entry]:
        manifest = self._chain.entry(version)
        try:
            return read_segment(self._chain.store, self._chain.folder, manifest)
        except NotFoundError:
            if isinstance(manifest, Stub):
                return []  # cleaned up beyond `remember_days`: forgotten, though its run is not dropped yet
            raise

    def add(self, version: int, entries: Iterable[Entry]) -> None:
        """Remember the outcomes of a version that is committed but not shipped."""
        self._pending.setdefault(version, {}).update({e.outcome.request_id: e for e in entries if e.is_first})

    def shipped(self, version: int) -> None:
        """Move a version from the pending ones to the tail; compact the tail when it has grown."""
        entries = self._pending.pop(version, {})
        self._keep_tail(version, list(entries.values()))
        self._segments[version] = entries
        grown = len(self._tail) > TAIL_VERSIONS_MAX or len(self._tail_ids) > TAIL_ROWS_MAX
        if grown and self._compaction is None:
            tail = {v: list(ids) for v, ids in self._tail.items()}
            newest = max(self._tail_newest.values(), default=None)
            self._compaction = self._worker.submit(self._compact, self._runs, tail, newest, version)

    def _keep_tail(self, version: int, entries: Sequence[Entry]) -> None:
        self._tail[version] = dict.fromkeys(e.outcome.request_id for e in entries)
        self._tail_ids.update(dict.fromkeys(self._tail[version], version))
        if entries:
            self._tail_newest[version] = max(e.outcome.at for e in entries)

    def reference(self, next_version: int) -> LedgerRef:
        """Return the ledger's reference for the manifest of `next_version`; adopts a finished compaction."""
        if self._compaction is not None and self._compaction.done():
            compaction, self._compaction = self._compaction, None  # one that failed is started again
            compacted = compaction.result()
            self._runs = compacted.runs
            for version in compacted.versions:
                for request_id in self._tail.pop(version):
                    self._tail_ids.pop(request_id, None)
                self._tail_newest.pop(version, None)
        versions = [*sorted(self._tail), next_version] if next_version in self._pending else sorted(self._tail)
        return LedgerRef(
            runs=tuple(ref for ref, _ in self._runs), tail=tuple(versions), remember_days=self._limits.remember_days
        )

    def _compact(
        self,
        runs: tuple[tuple[ObjectRef, LedgerRun], ...],
        tail: dict[int, list[str]],
        newest: datetime | None,
        version: int,
    ) -> _Compacted:
        kept = [pair for pair in runs if newest is None or self._is_wanted(pair[1], newest)]
        if newest is not None:
            hashes = np.fromiter((id_hash(i) for ids in tail.values() for i in ids), "<u8")
            versions = np.repeat(np.array(list(tail), "<u8"), [len(ids) for ids in tail.values()])
            path = self._new_path()
            write_run(path, hashes, versions, newest)
            kept.append(self._publish(path, version))
        while len(kept) > 1 and len(kept[-1][1]) * MERGE_FACTOR >= len(kept[-2][1]):
            path = self._new_path()
            merge_runs(path, [kept[-2][1], kept[-1][1]])
            kept[-2:] = [self._publish(path, version)]
        while sum(len(run) for _, run in kept) > self._limits.remember_rows_max and len(kept) > 1:
            kept.pop(0)
        self._clean_cache(kept, runs)
        return _Compacted(tuple(kept), frozenset(tail))

    def _is_wanted(self, run: LedgerRun, newest: datetime) -> bool:
        return run.newest_at >= newest - timedelta(days=self._limits.remember_days)

    def _new_path(self) -> Path:
        return self._cache / f"{secrets.token_hex(8)}.new"

    def _publish(self, path: Path, version: int) -> tuple[ObjectRef, LedgerRun]:
        digest = checksum(path.read_bytes())
        ref = ObjectRef(
            key=f"outcomes/{version:020d}-{digest[:16]}.run", size_bytes=path.stat().st_size, checksum=digest
        )
        self._chain.store.put(self._chain.key(ref.key), path)
        final = self._cache / f"{digest[:32]}.run"
        path.replace(final)
        run = LedgerRun(final)
        return ObjectRef(ref.key, ref.size_bytes, ref.checksum, rows=len(run)), run

    def _clean_cache(
        self, kept: Sequence[tuple[ObjectRef, LedgerRun]], in_use: Sequence[tuple[ObjectRef, LedgerRun]]
    ) -> None:
        wanted = {run.path for _, run in (*kept, *in_use)}
        for path in self._cache.glob("*.run"):
            if path not in wanted:
                path.unlink()
