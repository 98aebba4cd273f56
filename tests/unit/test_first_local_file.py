"""The first local file after a restore yields to requests, but no read waits for it in vain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from published import LIMITS, PublishedModel
from teatree.contracts.probe import NO_PROBE
from teatree.contracts.settings import ManagerSettings, StoreSettings
from teatree.engine.local.reads import LocalReads
from teatree.engine.local.versions import LocalVersions
from teatree.storage.model_folder import ModelFolder, model_folder
from teatree_manager.followers.local_file import LocalFollower


@asynccontextmanager
async def held(store: StoreSettings, folder: Path) -> AsyncIterator[tuple[LocalFollower, ModelFolder]]:
    """Yield a running follower that holds its first file back, and its folder."""
    with PublishedModel(store, folder) as model:
        place = model_folder(model.settings.data, model.name)
        reads = LocalReads(LIMITS, place.archive_staging)
        versions = LocalVersions(model.chain, place, ManagerSettings(), NO_PROBE, reads.in_use)
        follower = LocalFollower(versions, reads)
        follower.hold()
        follower.follow(model.create({"t": {"id": "BIGINT"}}))
        running = asyncio.create_task(follower.run())
        await asyncio.sleep(0.1)
        assert not place.versions.exists()
        assert follower.is_catching_up
        yield follower, place
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        reads.close()
        versions.close()


@pytest.mark.parametrize("caller", ["a read", "its manager"])
async def test_it_waits_until_it_is_needed(file_store: StoreSettings, tmp_path: Path, caller: str) -> None:
    """A read causes it to be made at once, without a call of the manager."""
    async with held(file_store, tmp_path) as (follower, folder):
        if caller == "its manager":
            follower.release()
        assert await follower.wait_for(1, 60_000)
        assert folder.current.exists()
