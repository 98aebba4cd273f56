"""The repair of a chain whose manifests vanished: `head` restores the newest, stubs replace those below.

A stub holds what is still known of a version: its neighbours name its write ids, its number its objects. The version
itself is lost; later ones do not need it, and its outcomes are answered from its segment as before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum

from attrs import frozen
from blake3 import blake3

from teatree.contracts.errors import Code, CorruptError, RequestError
from teatree.contracts.formats.manifest import Manifest, ObjectRef, Stub
from teatree.storage.ledger.segments import decode_segment
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.head import read_head

UNKNOWN_WRITE_ID = "0" * 16
"""The write id of a version that no object and no neighbour names."""
_NAMED = re.compile(r"\d{20}-([0-9a-f]{16})")


class Way(StrEnum):
    """How a version was repaired."""

    RETURNED = "returned"
    """Its manifest is restored."""
    GIVEN_UP = "given up"
    """Only a stub is left: the version cannot be read, and does not count as damage any more."""


@frozen
class Repaired:
    """One version whose manifest had vanished."""

    version: int
    way: Way


def missing_versions(chain: Chain) -> list[int]:
    """Return all numbers below the highest known one that have neither manifest nor stub, ascending."""
    known = chain.end().known  # before the listing: later ones are not looked for
    keys = (info.key for info in chain.store.list(f"{chain.folder}/manifests/"))
    there = {int(key.rpartition("/")[2]) for key in keys}
    return [number for number in range(1, known + 1) if number not in there]


def repair(chain: Chain) -> list[Repaired]:
    """Restore the manifest that `head` holds, write stubs for the others; return what was done, ascending.

    A manager may run meanwhile. Raises `unknown_model`, or `corrupt` where neighbours of a gap are damaged themselves.
    """
    missing = missing_versions(chain)
    head = read_head(chain.store, chain.folder)
    if head is None and not chain.end().newest:
        raise RequestError(
            Code.UNKNOWN_MODEL, f"The object store has no model {chain.model!r}.", hint="`teatree models` lists them."
        )
    done = []
    if head is not None and head.version in missing:
        chain.create(head)
        missing.remove(head.version)
        done.append(Repaired(head.version, Way.RETURNED))
    after: Manifest | Stub | None = None
    for version in reversed(missing):
        if after is None or after.version != version + 1:
            after = chain.entry(version + 1)
        stub = _stub(chain, version, after, _before(chain, version, missing))
        chain.store.put_if_absent(chain.manifest_key(version), stub.to_json())
        after = stub
        done.append(Repaired(version, Way.GIVEN_UP))
    return sorted(done, key=lambda repaired: repaired.version)


def entry_or_stub(chain: Chain, version: int) -> Manifest | Stub:
    """Return a version's manifest, or the stub that `repair` would put in its place if it vanished.

    Raises `corrupt` as `Chain.entry` does if its outcomes cannot be found: callers need all of them.
    """
    try:
        return chain.entry(version)
    except CorruptError:
        if chain.store.head(chain.manifest_key(version)) is not None:
            raise
        after = entry_or_stub(chain, version + 1)
        stub = _stub(chain, version, after, _before(chain, version, (version,)))
        if stub.outcomes is None and after.epoch != version:  # else it was a writer's fence, which has none
            raise
        return stub


def _before(chain: Chain, version: int, missing: Iterable[int]) -> Manifest | Stub | None:
    """Return the nearest earlier version that is not missing; None if all are."""
    absent = set(missing)
    number = next((v for v in range(version - 1, 0, -1) if v not in absent), 0)
    return chain.entry(number) if number else None


def _stub(chain: Chain, version: int, after: Manifest | Stub, before: Manifest | Stub | None) -> Stub:
    """Return a version's stub from its neighbours: the next one holds its write id, by which its objects are named."""
    write_id = after.parent_write_id
    parent = before.write_id if before is not None and before.version == version - 1 else ""
    if version > 1 and not parent:
        parent = _write_id_of(chain, version - 1)
    earlier = before or after
    begins = after.epoch == after.version
    return Stub(
        model=chain.model,
        goal_model_id=chain.goal_model_id,
        version=version,
        write_id=write_id,
        parent_write_id=parent,
        epoch=earlier.epoch if begins and before else min(after.epoch, version),
        at=earlier.at,
        log_at=earlier.log_at,
        offset=before.offset if before else 0,
        pack=_object(chain, f"packs/{version:020d}-{write_id}"),
        outcomes=_object(chain, f"outcomes/{version:020d}-{write_id}"),
    )


def _write_id_of(chain: Chain, version: int) -> str:
    """Return the write id in the names of a version's objects, if there is but one."""
    found = {
        match[1]
        for folder in ("packs", "outcomes")
        for info in chain.store.list(f"{chain.folder}/{folder}/{version:020d}-")
        if (match := _NAMED.fullmatch(info.key.rpartition("/")[2]))
    }
    return found.pop() if len(found) == 1 else UNKNOWN_WRITE_ID


def _object(chain: Chain, relative: str) -> ObjectRef | None:
    key = chain.key(relative)
    if chain.store.head(key) is None:
        return None
    body = chain.store.get(key)
    rows = 0
    if relative.startswith("outcomes/"):
        try:
            rows = len(decode_segment(body, key))
        except CorruptError:  # `verify` reports this object
            rows = 0
    return ObjectRef(relative, len(body), blake3(body).hexdigest(), rows)
