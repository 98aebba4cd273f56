"""The version chain of one model: manifests by number, each created only if absent.

The chain is authoritative. Its numbers have no gaps and a key once used is never freed: a clean-up leaves a stub. So a
number that is missing below a known one is damage, and never taken as the chain's end (docs/decisions/0023). Known
numbers are that of the object `head`, the caller's, and those of all manifests in a window around these.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from itertools import islice

from attrs import frozen

from teatree.contracts.errors import Code, CorruptError, DamageWarning, FencedError, RequestError
from teatree.contracts.formats.manifest import Manifest, Stub, read_entry
from teatree.contracts.names import goal_model_id
from teatree.storage.objects.base import NotFoundError, ObjectStore
from teatree.storage.reread import reread
from teatree.storage.versions.head import read_head
from teatree.storage.versions.retained import read_retained

LOOKS_MAX = 20
"""Manifests looked at on each side for the version nearest to one that was cleaned up."""
WINDOW = 64
"""Numbers on each side of a known one at which manifests are looked for: as many may be missing in a row without hiding
those behind them, and S3 answers for all by one listing."""


@frozen
class ChainCheck:
    """What is known about the end of a chain."""

    newest: int
    """The highest number that has a manifest or a stub, 0 if none has."""
    known: int
    """The highest number that ever had one, as far as the store and the caller know; beyond `newest` if it vanished."""
    missing: tuple[int, ...]
    """Numbers below `known` whose manifests vanished, as far as was checked: up to `WINDOW` back and more."""


# More than ten public methods: manifests are created, read, listed and cut, by number.
class Chain:
    """Reads and extends one model's manifests."""

    def __init__(self, store: ObjectStore, prefix: str, model: str) -> None:
        self.store = store
        self.prefix = prefix
        self.model = model
        self.goal_model_id = str(goal_model_id(prefix, model))
        self.folder = f"models/{self.goal_model_id}"

    def manifest_key(self, version: int) -> str:
        """Return the key of a version's manifest."""
        return f"{self.folder}/manifests/{version:020d}"

    def key(self, relative: str) -> str:
        """Return the key of an object that a manifest names relative to the model's folder."""
        return f"{self.folder}/{relative}"

    def get(self, version: int) -> Manifest:
        """Return a version's manifest.

        Raises `unknown_version` if there is none, or if it was cleaned up, and then names its neighbours; `corrupt` if
        it is damaged.
        """
        found = self.entry(version)
        if isinstance(found, Stub):
            raise self._cleaned_up(version)
        return found

    def entry(self, version: int) -> Manifest | Stub:
        """Return a version's manifest, or what a clean-up left of it; raises `unknown_version`, `corrupt`."""
        key = self.manifest_key(version)
        try:
            found = reread(lambda: read_entry(self.store.get(key), key))
        except NotFoundError:
            raise self._not_there(version) from None
        if (found.version, found.goal_model_id) != (version, self.goal_model_id):
            raise CorruptError(
                f"The manifest is that of version {found.version} of model {found.goal_model_id}.", where=key
            )
        return found

    def _cleaned_up(self, version: int) -> RequestError:
        retained = read_retained(self.store, self.folder)
        kept = [k.version for k in retained.versions] if retained else []
        through = retained.through if retained else 0
        newer = range(max(through, version) + 1, self.newest_version(max(through, version)) + 1)
        near = [
            self._first_kept(v for v in reversed(kept) if v < version),
            self._first_kept(v for part in (kept, newer) for v in part if v > version),
        ]
        named = " and ".join(str(v) for v in near if v is not None)
        which = "versions are" if None not in near else "version is"
        nearest = f"; the nearest kept {which} {named}" if named else ""
        return RequestError(
            Code.UNKNOWN_VERSION,
            f"Version {version} of {self.model} was cleaned up{nearest}.",
            where=self.manifest_key(version),
            hint="`teatree versions` lists what there is; `teatree pin` keeps a version.",
        )

    def _first_kept(self, versions: Iterable[int]) -> int | None:
        return next((v for v in islice(versions, LOOKS_MAX) if isinstance(self.entry(v), Manifest)), None)

    def kept_numbers(self) -> Iterator[int]:
        """Yield the numbers of the versions that may have a manifest, newest first; all others have none."""
        retained = read_retained(self.store, self.folder)
        through = retained.through if retained else 0
        yield from range(self.newest_version(through), through, -1)
        if retained:
            yield from (k.version for k in reversed(retained.versions))

    def newest(self, known: int = 0) -> Manifest | None:
        """Return the newest manifest, or None if the model never had one.

        `known` is a version that is known to have been there, 0 for none. Raises `corrupt` if a newer one than what is
        left is known; warns (`DamageWarning`) of what is missing below it.
        """
        end = self.end(known)
        self.report_missing(end)
        number = self._newest_of(end)
        while number:
            found = self.entry(number)
            if isinstance(found, Manifest):
                return found
            newer = self.newest_version(number)  # it was cleaned up a moment ago: there are newer ones
            if newer == number:
                raise CorruptError("The newest manifest is a stub.", where=self.manifest_key(number))
            number = newer
        return None

    def newest_version(self, known: int = 0) -> int:
        """Return the number of the newest version, 0 if there is none; raises `corrupt` if it vanished."""
        return self._newest_of(self.end(known))

    def _newest_of(self, end: ChainCheck) -> int:
        if end.newest < end.known:
            raise self.missing_error(end.known, end.newest)
        return end.newest

    def end(self, known: int = 0) -> ChainCheck:
        """Return what is known about the chain's end: three requests where `head` is not far behind."""
        head = read_head(self.store, self.folder)  # before the manifests: what it names was among them
        known = max(known, head.version if head else 0)
        first = max(known - WINDOW, 0) + 1 if known else self._gallop() + 1
        newest, missing = first - 1, list[int]()
        while present := self._present(range(first, first + 2 * WINDOW)):
            last = max(present)
            missing += self._confirmed(set(range(newest + 1, last)) - present)
            newest, first = last, first + 2 * WINDOW
            if first - newest > WINDOW:
                break
        if newest < known:
            newest = newest if self._exists(newest) else self._gallop()
            missing = [v for v in missing if v < newest] + self._confirmed(set(range(newest + 1, known + 1)))
        return ChainCheck(newest, max(known, newest), tuple(missing))

    def _present(self, numbers: range) -> set[int]:
        keys = [self.manifest_key(number) for number in numbers]
        return {int(key.rpartition("/")[2]) for key in self.store.present(keys)}

    def _confirmed(self, missing: set[int]) -> list[int]:
        """Return those that are still missing: versions are committed while others are looked for."""
        return [number for number in sorted(missing) if not self._exists(number)]

    def _gallop(self) -> int:
        """Return a number that has a manifest and none after it, 0 if the first has none: mostly the newest one."""
        low, step = 0, 1
        while self._exists(low + step):
            low += step
            step *= 2
        high = low + step  # does not exist
        while high - low > 1:
            middle = (low + high) // 2
            if self._exists(middle):
                low = middle
            else:
                high = middle
        return low

    def report_missing(self, end: ChainCheck) -> None:
        """Warn of versions that vanished below the newest, which does not need them."""
        below = [version for version in end.missing if version < end.newest]
        if below:
            more = f" So are {len(below) - 1} more near it." if len(below) > 1 else ""
            warnings.warn(f"{self.missing_error(below[0], end.newest)}{more}", DamageWarning, stacklevel=2)

    def missing_error(self, version: int, newest: int) -> CorruptError:
        """Return the error for a version whose manifest vanished."""
        left = f"the newest that is left is {newest}" if newest < version else f"version {newest} is there"
        return CorruptError(
            f"The manifest of version {version} of {self.model} is missing from the store; {left}.",
            where=self.manifest_key(version),
            hint=f"Restore the object from a backup of the store, or run `teatree repair {self.model}`.",
        )

    def _not_there(self, version: int) -> CorruptError | RequestError:
        newest = self.newest_version()
        if 0 < version < newest:  # the first version is 1
            return self.missing_error(version, newest)
        return RequestError(
            Code.UNKNOWN_VERSION,
            f"{self.model} has no version {version}.",
            where=self.manifest_key(version),
            hint="`teatree versions` lists what there is.",
        )

    def _exists(self, version: int) -> bool:
        return self.store.head(self.manifest_key(version)) is not None

    def create(self, manifest: Manifest) -> Manifest:
        """Create a version's manifest: THE commit point. Return the one that is in the store.

        Raises `fenced` if another writer created it first; a lost reply to our own creation is recognised by the write
        id. A `RetryError` leaves open whether it was created: call again with a manifest of the same write id, which
        differs at most in how long its steps took.
        """
        key = self.manifest_key(manifest.version)
        if self.store.put_if_absent(key, manifest.to_json()):
            return manifest
        found = self.entry(manifest.version)
        if found.write_id != manifest.write_id:
            raise FencedError(
                f"Version {manifest.version} of {self.model} was written by another manager (epoch {found.epoch}).",
                where=key,
            )
        return found if isinstance(found, Manifest) else manifest
