"""The probe of a store: whether it does what Teatree relies on, checked once per store, and recorded in it.

A store that ignores the condition of a write takes two managers' versions under one number without an error; one that
ignores ranges sends whole packs for blocks; a list that lacks keys hides versions. Such faults stay unnoticed for days.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from teatree.contracts.errors import Code, CorruptError, OperatorError
from teatree.storage.objects.base import NotFoundError, ObjectStore

FOLDER = "probe"
PASSED = f"{FOLDER}/passed"
FORMAT = 1
RACERS = 4
"""Writers that create one key at the same time."""
_BODY = b"0123456789"


def ensure_probed(store: ObjectStore) -> None:
    """Check a store unless that was done; raises `wrong_configuration` with what it does not do."""
    mark = f"{FORMAT} {store.url}".encode()
    with suppress(NotFoundError):  # no probe has passed yet
        if store.get(PASSED) == mark:
            return
    probe(store)
    store.put(PASSED, mark)


def probe(store: ObjectStore) -> None:
    """Check a store with some small objects, which are deleted again; raises `wrong_configuration`."""
    folder = f"{FOLDER}/{secrets.token_hex(8)}"
    keys = [f"{folder}/{name}" for name in ("a", "b", "raced")]
    try:
        for check in (_creates_once, _creates_once_in_a_race, _overwrites, _reads_ranges, _lists):
            check(store, folder)
    finally:
        store.delete(keys)
    if store.head(keys[0]) is not None:
        raise _fault(store, "shows an object after it was deleted")


def _creates_once(store: ObjectStore, folder: str) -> None:
    if not store.put_if_absent(f"{folder}/a", _BODY):
        raise _fault(store, "refuses to create an object that is not there (a put with `If-None-Match: *`)")
    if store.put_if_absent(f"{folder}/a", b"another") or store.get(f"{folder}/a") != _BODY:
        raise _fault(store, "ignores the condition of a write: it creates an object twice (`If-None-Match: *`)")


def _creates_once_in_a_race(store: ObjectStore, folder: str) -> None:
    bodies = [secrets.token_bytes(16) for _ in range(RACERS)]
    with ThreadPoolExecutor(RACERS, "teatree-probe") as pool:
        created = list(pool.map(lambda body: store.put_if_absent(f"{folder}/raced", body), bodies))
    winners = [body for body, won in zip(bodies, created, strict=True) if won]
    if len(winners) != 1 or store.get(f"{folder}/raced") != winners[0]:
        raise _fault(store, f"lets {len(winners)} of {RACERS} writers at the same time create one object")


def _overwrites(store: ObjectStore, folder: str) -> None:
    store.put(f"{folder}/b", b"before")
    store.put(f"{folder}/b", _BODY)
    info = store.head(f"{folder}/b")
    if store.get(f"{folder}/b") != _BODY or info is None or info.size_bytes != len(_BODY):
        raise _fault(store, "does not show what was written last")


def _reads_ranges(store: ObjectStore, folder: str) -> None:
    def read() -> bool:
        return store.get_range(f"{folder}/a", 3, 4) == _BODY[3:7]

    if not _holds(read):
        raise _fault(store, "does not read a range of an object (`Range: bytes=…`)")


def _lists(store: ObjectStore, folder: str) -> None:
    listed = [info.key for info in store.list(f"{folder}/")]
    after = [info.key for info in store.list(f"{folder}/", start_after=f"{folder}/a")]
    if listed != [f"{folder}/a", f"{folder}/b", f"{folder}/raced"] or after != listed[1:]:
        raise _fault(store, "does not list what was just written, in the order of keys, from a key on")


def _holds(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except CorruptError:  # more or fewer bytes than were asked for
        return False


def _fault(store: ObjectStore, what: str) -> OperatorError:
    return OperatorError(
        Code.WRONG_CONFIGURATION,
        f"The object store {store.url} cannot be used: it {what}.",
        where="TEATREE_STORE_URL",
        hint="Use a store, or a release of it, that does; or a local file system rather than a network's.",
    )
