"""The garbage of a model: objects that no kept version needs (docs/decisions/0015).

Every rule errs towards keeping. Nothing numbered above the newest manifest is looked at: a writer may be about to name
it. Versions build on each other, so a pack's blocks serve its own version and those that follow until the last block
was overwritten: a pack is needed if the oldest kept version at or above its number refers to it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import numpy as np
from attrs import evolve, frozen

from teatree.contracts.errors import CorruptError
from teatree.contracts.formats.manifest import LedgerRef, Manifest
from teatree.contracts.settings import RetentionSettings
from teatree.storage.archives import Archived, index_key, read_archive
from teatree.storage.objects.base import ObjectInfo
from teatree.storage.retention.pins import list_pins, pin_key
from teatree.storage.retention.policy import kept_versions
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.leaves import Leaves
from teatree.storage.versions.retained import KeptVersion, Retained

_NUMBERED = re.compile(r"(\d{20})-([0-9a-f]{16})(\.run|\.archive)?")
_ARCHIVE = re.compile(r"\d{20}")
PIN_AGE = timedelta(days=1)
"""How long a pin that has ended stays visible."""
OWNER_LOOKS_MAX = 1_000
"""Manifests looked at for the version that took over what a crash left."""


@frozen
class State:
    """The state of a model from which one clean-up starts."""

    chain: Chain
    newest: Manifest
    kept: tuple[KeptVersion, ...]
    """The versions that stay, ascending; the newest is the last."""
    before: Retained | None
    """What the last complete clean-up kept."""
    before_at: datetime | None
    """When that was written, by the store's clock."""
    pinned: frozenset[int]
    now: datetime
    policy: RetentionSettings
    remember_days: int

    def write_ids(self) -> dict[int, str]:
        """Return the write id of each version that stays."""
        return {k.version: k.write_id for k in self.kept}


def find_garbage(state: State) -> Iterator[ObjectInfo]:
    """Yield the objects that are not needed, an archive's index before its files."""
    yield from packs(state)
    yield from outcomes(state)
    yield from pages(state)
    yield from archives(state)
    yield from ended_pins(state)


def packs(state: State) -> Iterator[ObjectInfo]:
    """Yield packs to which no kept version refers."""
    numbers = [k.version for k in state.kept]
    write_ids = state.write_ids()
    beneath: dict[int, list[ObjectInfo]] = defaultdict(list)
    for info, number, write_id, _ in _numbered(state, "packs/"):
        place = bisect_left(numbers, number)
        if numbers[place] != number:
            beneath[place].append(info)
        elif write_ids[number] != write_id:
            yield info  # a fenced or killed writer's
    for place, found in beneath.items():
        before = numbers[place - 1] if place else 0
        if not _is_swept(state, before, numbers[place], found):
            needed = _packs_of(state.chain, numbers[place])
            yield from (info for info in found if info.key not in needed)


def _is_swept(state: State, before: int, version: int, found: Sequence[ObjectInfo]) -> bool:
    """Return whether an earlier clean-up checked the packs between two neighbours, and none was written since."""
    if state.before is None or state.before_at is None:
        return False
    numbers = [0, *(k.version for k in state.before.versions)]
    place = bisect_left(numbers, version)
    same = 0 < place < len(numbers) and numbers[place] == version and numbers[place - 1] == before
    return same and all(info.modified_at < state.before_at for info in found)


def _packs_of(chain: Chain, version: int) -> set[str]:
    """Return the keys of the packs to which a version refers."""
    layout = chain.get(version).blocks
    if layout is None:
        return set()
    table = Leaves(chain.store, layout).table()
    own = table.entries[table.entries["base"] == 0]
    _, firsts = np.unique(own[["pack", "write"]], return_index=True)
    keys = {table.pack_of(own[place]) for place in firsts}
    return keys | {leaf.pack for leaf in layout.leaves} | {layout.header.pack}


def outcomes(state: State) -> Iterator[ObjectInfo]:
    """Yield outcome segments whose ids are forgotten, and runs that were merged into others."""
    ledger = state.newest.ledger
    runs = {ref.key for ref in ledger.runs}
    write_ids = state.write_ids()
    forgotten = _forgotten_through(state)
    for info, number, write_id, is_run in _numbered(state, "outcomes/"):
        key = info.key.removeprefix(f"{state.chain.folder}/")
        if is_run:
            if key not in runs and number <= _announced_through(state, ledger):
                yield info
        elif number in write_ids:
            if write_ids[number] != write_id:
                yield info  # a fenced or killed writer's
        elif number <= forgotten and number not in ledger.tail:
            yield info


def _announced_through(state: State, ledger: LedgerRef) -> int:
    """Return the version up to which every run is either named by the newest manifest or never will be.

    A writer compacts one after the other and names each result before it begins the next; those of the writers before
    it are lost with them. So what it may still name is newer than all that it has named.
    """
    named = [int(match[1]) for ref in ledger.runs if (match := _NUMBERED.match(ref.key.removeprefix("outcomes/")))]
    return max([state.newest.epoch - 1, *(number for number in named if number >= state.newest.epoch)])


def _forgotten_through(state: State) -> int:
    """Return the newest version that holds only ids which need not be remembered any more; 0 if there is none."""
    days = max(state.remember_days, state.newest.ledger.remember_days)
    horizon = state.newest.log_at - timedelta(days=days)
    low, high = 0, state.newest.version
    while high - low > 1:
        middle = (low + high) // 2
        if state.chain.entry(middle).log_at < horizon:
            low = middle
        else:
            high = middle
    return low


def pages(state: State) -> Iterator[ObjectInfo]:
    """Yield result pages of cleaned-up versions, and old ones of direct reads."""
    write_ids = state.write_ids()
    owners: dict[str, int | None] = {}
    for info in state.chain.store.list(f"{state.chain.folder}/pages/"):
        part = info.key.split("/")[3]
        match = _NUMBERED.fullmatch(part)
        if part == "direct":
            if state.now - info.modified_at > timedelta(hours=state.policy.page_hours):
                yield info
        elif match and int(match[1]) <= state.newest.version:
            if part not in owners:
                owners[part] = _owner(state, int(match[1]), match[2], write_ids)
            if owners[part] is not None and owners[part] not in write_ids:
                yield info


def _owner(state: State, number: int, write_id: str, write_ids: dict[int, str]) -> int | None:
    """Return the version whose outcomes name pages, None if it may not be committed yet.

    Pages are stored before the commit; after a crash their batch gets a later number, that of the next batch.
    """
    if (write_ids.get(number) or state.chain.entry(number).write_id) == write_id:
        return number
    last = min(number + OWNER_LOOKS_MAX, state.newest.version)
    return next((v for v in range(number + 1, last + 1) if state.chain.entry(v).outcomes is not None), None)


def archives(state: State) -> Iterator[ObjectInfo]:
    """Yield archived tables that no kept archive names.

    The newest archive is kept, since the next one builds on it, and so are those that may be incomplete yet. All are
    kept while one index is damaged, since it may name any file.
    """
    chain = state.chain
    found: dict[int, list[ObjectInfo]] = defaultdict(list)
    for info in chain.store.list(f"{chain.folder}/archive/"):
        part = info.key.split("/")[3]
        if _ARCHIVE.fullmatch(part):
            found[int(part)].append(info)
    indexed = [n for n, infos in found.items() if any(i.key.endswith("/index.json") for i in infos)]
    if not indexed:
        return
    complete_through = min(max(indexed), state.newest.announced_version)
    try:
        indexes = [archived for n in indexed if (archived := read_archive(chain, n)) is not None]
    except CorruptError:
        return
    kept = _kept_archives(state, indexes, complete_through)
    needed = {chain.key(ref.key) for archived in kept for ref in archived.files.values()}
    needed |= {chain.key(index_key(archived.version)) for archived in kept}
    for number in sorted(n for n in found if n <= complete_through):
        infos = sorted(found[number], key=lambda info: not info.key.endswith("/index.json"))
        yield from (info for info in infos if info.key not in needed)


def _kept_archives(state: State, indexes: Sequence[Archived], complete_through: int) -> list[Archived]:
    asked_since = state.now - timedelta(hours=state.policy.keep_all_hours)
    always = {a.version for a in indexes if a.version > complete_through or (a.asked and a.at >= asked_since)}
    policy = evolve(state.policy, keep_all_hours=min(state.policy.archive_hours, state.policy.keep_all_hours))
    kept = kept_versions(((a.version, a.at) for a in indexes), state.now, policy, always | state.pinned)
    return [a for a in indexes if a.version in kept]


def ended_pins(state: State) -> Iterator[ObjectInfo]:
    """Yield pins that ended more than `PIN_AGE` ago."""
    for pin in list_pins(state.chain):
        if pin.until is not None and state.now - pin.until > PIN_AGE:
            info = state.chain.store.head(pin_key(state.chain, pin.name))
            if info is not None:
                yield info


def _numbered(state: State, folder: str) -> Iterator[tuple[ObjectInfo, int, str, bool]]:
    """Yield objects with number, write id and whether it is a run; skip other names and versions to come."""
    for info in state.chain.store.list(f"{state.chain.folder}/{folder}"):
        match = _NUMBERED.fullmatch(info.key.rpartition("/")[2])
        if match and int(match[1]) <= state.newest.version:
            yield info, int(match[1]), match[2], match[3] == ".run"
