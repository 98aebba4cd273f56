"""The clean-up of a model: versions that the policy does not keep become stubs, then unneeded objects are deleted.

Order: write the deletion, make stubs, delete objects, write the list of kept versions, remove the deletion. After a
kill at any point the next clean-up resumes; a reader of a version meanwhile finds its stub, never a part of it. A
clean-up does not involve the model's manager, and any number may run at the same time: see `storage.deletions` for
pins, `storage.garbage` for what is deleted.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import islice
from typing import Protocol, TypeVar

from attrs import evolve, field, frozen

from teatree.contracts.errors import Code, RequestError, RetryError
from teatree.contracts.formats.manifest import Manifest, Stub, stub_of
from teatree.contracts.probe import NO_PROBE, Probe
from teatree.contracts.settings import RetentionSettings
from teatree.storage.dead_letters import expire_dead_letters
from teatree.storage.objects.base import NotFoundError, ObjectInfo, object_uri
from teatree.storage.retention.deletions import Deletion, new_deletion, read_deletions, write_deletion
from teatree.storage.retention.garbage import State, find_garbage
from teatree.storage.retention.pins import list_pins
from teatree.storage.retention.policy import kept_versions
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.published_mark import published_through
from teatree.storage.versions.retained import KeptVersion, Retained, read_retained, retained_key, write_retained

T = TypeVar("T")
REQUESTS = 4
"""Requests to the store at the same time: few, since a clean-up runs beside other work."""
CHUNK_VERSIONS = 1_000
CHUNK_OBJECTS = 1_000
"""How many are handled between two checks whether to stop; S3 deletes as many objects at once."""


@frozen
class Cleaned:
    """What a clean-up removed, or would remove."""

    model: str
    newest: int
    """The newest version when it began; 0 if the model has none."""
    kept: int = 0
    """Versions that stay."""
    kept_unpublished: int = 0
    """Those of them that the policy does not keep: their outcomes are not known to be published for good yet. A later
    version records that, or the mark of an idle model; a manager that was killed before has written neither."""
    cleaned: int = 0
    """Versions that became stubs."""
    objects: int = 0
    """Objects deleted, manifests not counted."""
    bytes: int = 0
    by_kind: dict[str, int] = field(factory=dict)
    """Objects by their folder: `packs`, `outcomes`, `pages`, `archive`, `pins`."""
    stopped: bool = False
    """Whether it was stopped before its end; the next one resumes."""


class DescribedVersions(Protocol):
    """What describes a model's versions and objects elsewhere: the catalog, above this in the house."""

    def forget_versions(self, goal_model_id: uuid.UUID, versions: Sequence[int]) -> None:
        """Delete the rows of cleaned-up versions; those of their remaining objects and outcomes stay."""

    def forget_contents(self, goal_model_id: uuid.UUID, uris: Sequence[str]) -> None:
        """Delete the rows of objects that were removed from the store."""


class Cleanup:
    """Cleans one model up."""

    def __init__(
        self,
        chain: Chain,
        policy: RetentionSettings,
        remember_days: int,
        catalog: DescribedVersions | None = None,
        probe: Probe = NO_PROBE,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Rows are deleted from `catalog` before what they describe; `stopped` is called now and then."""
        self._chain = chain
        self._store = chain.store
        self._policy = policy
        self._remember_days = remember_days
        self._catalog = catalog
        self._probe = probe
        self._stopped = stopped

    def due(self, now: datetime) -> bool:
        """Return whether the policy's interval is over since the last complete clean-up."""
        before = read_retained(self._store, self._chain.folder)
        return before is None or (now - before.at).total_seconds() * 1000 >= self._policy.interval_ms

    def run(self, now: datetime, *, dry_run: bool = False) -> Cleaned:
        """Clean the model up as of `now`; with `dry_run`, only return what would be removed.

        Raises `busy` if another clean-up removed what this one was reading.
        """
        try:
            try:
                return self._run(now, read_retained(self._store, self._chain.folder), dry_run=dry_run)
            except (NotFoundError, RequestError):
                # A clean-up that was suspended for long may have replaced a newer list by an older one.
                return self._run(now, None, dry_run=dry_run)
        except (NotFoundError, RequestError) as e:
            if isinstance(e, RequestError) and e.code is not Code.UNKNOWN_VERSION:
                raise
            raise RetryError(
                Code.BUSY,
                f"A clean-up of {self._chain.model} did not find what it expected: {e.message}",
                where=e.where,
                hint="If no other clean-up is running, `teatree verify --all` lists what is missing.",
            ) from e

    def _run(self, now: datetime, before: Retained | None, *, dry_run: bool) -> Cleaned:
        newest = self._chain.newest(before.through if before else 0)
        if newest is None:
            return Cleaned(self._chain.model, 0)
        newest = evolve(newest, announced_version=published_through(self._store, self._chain.folder, newest))
        found = self._store.head(retained_key(self._chain.folder))
        deletions = read_deletions(self._store, self._chain.folder)
        known = self._known(before, deletions, newest)
        now = max(now, newest.at)
        pinned = self._pinned(now)
        not_kept = self._not_kept(known, now, pinned)
        unneeded = tuple(v for v in not_kept if v <= newest.announced_version)
        deletion = new_deletion(self._chain.folder, unneeded)
        if not dry_run and unneeded:
            deletion = self._announce(deletion, now)
        deleted = set(deletion.versions)
        kept = tuple(k for k in known if k.version not in deleted)
        state = State(
            self._chain,
            newest,
            kept,
            before,
            found.modified_at if found else None,
            pinned,
            now,
            self._policy,
            self._remember_days,
        )
        unpublished = len(not_kept) - len(unneeded)
        cleaned = Cleaned(
            self._chain.model, newest.version, kept=len(kept), kept_unpublished=unpublished, cleaned=len(deleted)
        )
        if dry_run:
            return _counted(cleaned, find_garbage(state))
        if not self._make_stubs(deletion.versions):
            return evolve(cleaned, stopped=True)
        self._probe.point("gc.stubs")
        cleaned = self._delete(cleaned, find_garbage(state))
        if not cleaned.stopped:
            expire_dead_letters(self._chain, now - timedelta(days=self._policy.dead_letter_days))
            self._finish(Retained(now, newest.version, kept), [deletion, *deletions] if unneeded else deletions)
        return cleaned

    def _known(self, before: Retained | None, deletions: Sequence[Deletion], newest: Manifest) -> list[KeptVersion]:
        """Return the versions that have a manifest, ascending."""
        through = before.through if before else 0
        planned = {version for deletion in deletions for version in deletion.versions}
        known = [k for k in before.versions if k.version not in planned] if before else []
        unsure = [k.version for k in before.versions if k.version in planned] if before else []
        entries = self._each(self._chain.entry, (*unsure, *range(through + 1, newest.version)))
        known += [KeptVersion(e.version, e.at, e.write_id) for e in entries if isinstance(e, Manifest)]
        if newest.version > through:
            known.append(KeptVersion(newest.version, newest.at, newest.write_id))
        return sorted(known, key=lambda k: k.version)

    def _pinned(self, now: datetime) -> frozenset[int]:
        return frozenset(pin.version for pin in list_pins(self._chain) if pin.holds(now))

    def _not_kept(self, known: Sequence[KeptVersion], now: datetime, pinned: frozenset[int]) -> list[int]:
        """Return the versions that the policy does not keep; some of their outcomes may yet have to be published."""
        kept = kept_versions(((k.version, k.at) for k in known), now, self._policy, pinned)
        return [k.version for k in known if k.version not in kept]

    def _announce(self, deletion: Deletion, now: datetime) -> Deletion:
        """Write a deletion, then read the pins again: whatever pins a version later finds the deletion."""
        with self._probe.step("gc.plan", versions=deletion.versions):
            write_deletion(self._store, deletion)
        pinned = self._pinned(now)
        if pinned.isdisjoint(deletion.versions):
            return deletion
        deletion = evolve(deletion, versions=tuple(v for v in deletion.versions if v not in pinned))
        write_deletion(self._store, deletion)
        return deletion

    def _make_stubs(self, versions: Sequence[int]) -> bool:
        """Make stubs; return False if it was stopped before all were made."""
        for start in range(0, len(versions), CHUNK_VERSIONS):
            if self._stopped():
                return False
            chunk = versions[start : start + CHUNK_VERSIONS]
            if self._catalog is not None:
                self._catalog.forget_versions(uuid.UUID(self._chain.goal_model_id), chunk)
            for _ in self._each(self._make_stub, chunk):
                pass
        return True

    def _make_stub(self, version: int) -> None:
        manifest = self._chain.entry(version)
        if isinstance(manifest, Stub):
            return
        with self._probe.step("gc.stub", version=version):
            self._store.put(self._chain.manifest_key(version), stub_of(manifest).to_json())

    def _delete(self, cleaned: Cleaned, garbage: Iterator[ObjectInfo]) -> Cleaned:
        while chunk := list(islice(garbage, CHUNK_OBJECTS)):
            if self._stopped():
                return evolve(cleaned, stopped=True)
            if self._catalog is not None:
                uris = [object_uri(self._store.url, info.key) for info in chunk]
                self._catalog.forget_contents(uuid.UUID(self._chain.goal_model_id), uris)
            with self._probe.step("gc.delete", objects=len(chunk)):
                self._store.delete(info.key for info in chunk)
            cleaned = _counted(cleaned, chunk)
        return cleaned

    def _finish(self, retained: Retained, deletions: Sequence[Deletion]) -> None:
        with self._probe.step("gc.retained", version=retained.through):
            present = read_retained(self._store, self._chain.folder)
            if present is None or present.through <= retained.through:
                write_retained(self._store, self._chain.folder, retained)
        kept = {k.version for k in retained.versions}
        over = [p for p in deletions if max(p.versions, default=0) <= retained.through and kept.isdisjoint(p.versions)]
        self._store.delete(deletion.key for deletion in over)

    def _each(self, work: Callable[[int], T], versions: Sequence[int]) -> Iterator[T]:
        """Yield what work returns for each version, some at the same time, in their order."""
        with ThreadPoolExecutor(REQUESTS, thread_name_prefix="cleanup") as pool:
            for start in range(0, len(versions), CHUNK_VERSIONS):  # bounds what waits in memory
                yield from pool.map(work, versions[start : start + CHUNK_VERSIONS])


def _counted(cleaned: Cleaned, garbage: Iterable[ObjectInfo]) -> Cleaned:
    counts = Counter(cleaned.by_kind)
    size_bytes = cleaned.bytes
    for info in garbage:
        counts[info.key.split("/")[2]] += 1
        size_bytes += info.size_bytes
    return evolve(cleaned, objects=sum(counts.values()), bytes=size_bytes, by_kind=dict(counts))
