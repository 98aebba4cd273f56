"""The version chain of one model: manifests by number, each created only if absent.

The chain is the truth. Its numbers have no gaps and a key once used is never freed, so the newest manifest is found by
galloping over existence: a hint makes it two requests, no hint makes it 2*log2(N).
"""

from __future__ import annotations

from teatree.contracts.errors import Code, FencedError, RequestError
from teatree.contracts.manifest import Manifest, read_manifest
from teatree.contracts.names import goal_model_id
from teatree.storage.objects import NotFoundError, ObjectStore


class Chain:
    """Reads and extends one model's manifests."""

    def __init__(self, store: ObjectStore, prefix: str, model: str) -> None:
        self.store = store
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
        """Return a version's manifest; raises `unknown_version` if there is none, `corrupt` if it is damaged."""
        key = self.manifest_key(version)
        try:
            return read_manifest(self.store.get(key), key)
        except NotFoundError:
            raise RequestError(
                Code.UNKNOWN_VERSION,
                f"{self.model} has no version {version}.",
                where=key,
                hint="`teatree versions` lists what there is.",
            ) from None

    def newest(self, hint: int = 0) -> Manifest | None:
        """Return the newest manifest, or None if the model never had one.

        `hint` is a version that may exist; a good one saves requests, a bad one costs some.
        """
        number = self.newest_version(hint)
        return self.get(number) if number else None

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
        found = self.get(manifest.version)
        if found.write_id != manifest.write_id:
            raise FencedError(
                f"Version {manifest.version} of {self.model} was written by another manager (epoch {found.epoch}).",
                where=key,
            )
