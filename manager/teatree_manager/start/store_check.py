"""Checking that the object store holds the model's versions: a new model in an empty store would hide them."""

from __future__ import annotations

from teatree.contracts.errors import Code, OperatorError
from teatree.contracts.formats.manifest import Manifest
from teatree.storage.model_folder import ModelFolder
from teatree.storage.versions.chain import Chain


def check_store(chain: Chain, folder: ModelFolder, newest: Manifest | None, recorded_version: int) -> None:
    """Raise `corrupt` if the catalog or this host has a version beyond the `newest` one of the store."""
    found_version = newest.version if newest else 0
    local_version = folder.newest_version()
    has_file = next(folder.read_write.glob("*/model.duckdb"), None) is not None
    if max(recorded_version, local_version) <= found_version and (newest is not None or not has_file):
        return
    known = "this host has its file"
    if recorded_version > found_version:
        known = f"the catalog has version {recorded_version}"
    elif local_version:
        known = f"this host has the file of version {local_version}"
    raise OperatorError(
        Code.CORRUPT,
        f"The object store has no version of {chain.model} beyond {found_version}; {known}.",
        where=chain.store.url,
        hint="Is TEATREE_STORE_URL right, and its disk mounted? If its manifests vanished, restore them or run"
        f" `teatree repair {chain.model}`; if the versions are lost, delete {folder.versions} and run"
        " `teatree catalog rebuild`.",
    )
