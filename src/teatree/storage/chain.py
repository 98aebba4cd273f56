"""The version chain of one model: manifests by number, each created only if absent.

The chain is the truth. Its numbers have no gaps and a key once used is never freed, so the newest manifest is found by
galloping over existence: a hint makes it two requests, no hint makes it 2*log2(N). A clean-up leaves a stub under the
key of a version that nobody needs any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from teatree.contracts.errors import Code, CorruptError, FencedError, RequestError
from teatree.contracts.manifest import Manifest, Stub, read_entry
from teatree.contracts.names import goal_model_id
from teatree.storage.objects import NotFoundError, ObjectStore
from teatree.storage.retained import read_retained

LOOKS_MAX = 20
"""Manifests looked at on each side for the version nearest to one that was cleaned up."""


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
            found = read_entry(self.store.get(key), key)
        except NotFoundError:
            raise RequestError(
                Code.UNKNOWN_VERSION,
                f"{self.model} has no version {version}.",
                where=key,
                hint="`teatree versions` lists what there is.",
            ) from None
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
        """Yield the numbers of the versions that may have a manifest, newest first; what they leave out has none."""
        retained = read_retained(self.store, self.folder)
        through = retained.through if retained else 0
        yield from range(self.newest_version(through), through, -1)
        if retained:
            yield from (k.version for k in reversed(retained.versions))

    def newest(self, hint: int = 0) -> Manifest | None:
        """Return the newest manifest, or None if the model never had one.

        `hint` is a version that may exist; a good one saves requests, a bad one costs some.
        """
        number = self.newest_version(hint)
        while number:
            found = self.entry(number)
            if isinstance(found, Manifest):
                return found
            newer = self.newest_version(number)  # it was cleaned up a moment ago: there are newer ones
            if newer == number:
                raise CorruptError("The newest manifest is a stub.", where=self.manifest_key(number))
            number = newer
        return None

    def newest_version(self, hint: int = 0) -> int:
        """Return the number of the newest manifest, 0 if there is none."""
        low = hint if hint and self._exists(hint) else 0
        step = 1
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

    def _exists(self, version: int) -> bool:
        return self.store.head(self.manifest_key(version)) is not None

    def create(self, manifest: Manifest) -> None:
        """Create a version's manifest: THE commit point.

        Raises `fenced` if another writer created it first; a lost reply to our own creation is recognised by the write
        id. A `RetryError` leaves open whether it was created: call again with the same manifest.
        """
        key = self.manifest_key(manifest.version)
        if self.store.put_if_absent(key, manifest.to_json()):
            return
        found = self.entry(manifest.version)
        if found.write_id != manifest.write_id:
            raise FencedError(
                f"Version {manifest.version} of {self.model} was written by another manager (epoch {found.epoch}).",
                where=key,
            )
