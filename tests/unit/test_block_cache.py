"""The cache of blocks on disk is bounded, shared by processes, and verified."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from blake3 import blake3

from teatree.contracts.errors import OperatorError
from teatree.storage.objects.local import LocalObjectStore
from teatree.storage.versions.block_cache import BlockCache
from teatree.storage.versions.blocks import BlockFetcher
from teatree.storage.versions.frames import Frame

BLOCK = 262_144


def block(number: int) -> tuple[bytes, bytes]:
    """Return a block and its hash."""
    body = number.to_bytes(8, "little") * (BLOCK // 8)
    return blake3(body).digest(), body


def test_what_was_put_is_found_again_by_any_process(tmp_path: Path) -> None:
    """Every process that uses the folder finds a block."""
    digest, body = block(1)
    cache = BlockCache(tmp_path / "cache", 100 * BLOCK)
    assert cache.get(digest) is None
    assert cache.put(digest, body)
    assert cache.get(digest) == BlockCache(tmp_path / "cache", 100 * BLOCK).get(digest) == body
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damaged_blocks_are_missing_and_removed(tmp_path: Path, damage: str) -> None:
    """A damaged file is never served."""
    digest, body = block(1)
    cache = BlockCache(tmp_path, 100 * BLOCK)
    cache.put(digest, body)
    path = next((tmp_path / "blocks").rglob(digest.hex()))
    path.write_bytes({"flip": b"\xff" + body[1:], "cut": body[:1_000], "empty": b""}[damage])
    assert cache.get(digest) is None
    assert not path.exists()


def test_the_least_recently_used_blocks_are_evicted_first(tmp_path: Path) -> None:
    """The folder stays within its limit, and keeps recently read blocks."""
    limit = 32 * BLOCK
    cache = BlockCache(tmp_path, limit)
    digests = []
    old = time.time() - 10_000
    for number in range(30):
        digest, body = block(number)
        cache.put(digest, body)
        path = next((tmp_path / "blocks").rglob(digest.hex()))
        os.utime(path, (old + number, old + number))
        digests.append(digest)
    assert cache.get(digests[0]) is not None  # used now
    for number in range(100, 120):
        cache.put(*block(number))
        assert cache.size_bytes() <= limit
    assert cache.get(digests[0]) is not None
    assert cache.get(digests[1]) is None
    assert cache.get(block(119)[0]) is not None


def test_a_cache_too_small_for_a_block_keeps_none(tmp_path: Path) -> None:
    """A tiny limit holds, too."""
    cache = BlockCache(tmp_path, 2 * BLOCK)
    assert not cache.put(*block(1))
    assert cache.size_bytes() == 0


def test_leftovers_of_a_crash_are_cleaned_up(tmp_path: Path) -> None:
    """A temporary file of a killed writer is removed once it is old, and never counted as a block."""
    cache = BlockCache(tmp_path, 32 * BLOCK)
    cache.put(*block(1))
    shard = next((tmp_path / "blocks").iterdir())
    old, new = shard / "a.tmp", shard / "b.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    cache.clean()
    assert not old.exists()
    assert new.exists()
    assert cache.size_bytes() == BLOCK


def test_processes_that_write_at_once_stay_within_the_limit(tmp_path: Path) -> None:
    """Processes write, read and clean up at the same time: no wrong block, no failure, no overflow."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[3])\n"
        "from pathlib import Path\n"
        "from test_block_cache import BLOCK, BlockCache, block\n"
        "cache = BlockCache(Path(sys.argv[1]), 48 * BLOCK)\n"
        "for turn in range(150):\n"
        "    digest, body = block((int(sys.argv[2]) * 31 + turn * 7) % 90)\n"
        "    found = cache.get(digest)\n"
        "    assert found is None or found == body\n"
        "    if found is None: assert cache.put(digest, body)\n"
    )
    here = str(Path(__file__).parent)
    workers = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "cache"), str(number), here])
        for number in range(4)
    ]
    assert [worker.wait(timeout=100) for worker in workers] == [0, 0, 0, 0]
    cache = BlockCache(tmp_path / "cache", 48 * BLOCK)
    assert 0 < cache.size_bytes() <= (48 + len(workers)) * BLOCK
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_a_cache_that_is_no_folder_is_an_error(tmp_path: Path) -> None:
    """A cache path that is no folder is an OperatorError."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError) as error:
        BlockCache(tmp_path / "file" / "cache", 48 * BLOCK)
    assert error.value.where == "TEATREE_CACHE_FOLDER"


def test_memory_holds_the_blocks_that_were_read_last(tmp_path: Path) -> None:
    """A fetcher keeps blocks in memory up to its limit, the least recently read ones leave it; 0 keeps none."""
    cache = BlockCache(tmp_path / "cache", 100 * BLOCK)
    frames = []
    for number in range(3):
        digest, body = block(number)
        cache.put(digest, body)
        frames.append(Frame(number, "pack", 0, BLOCK, BLOCK, digest))
    store = LocalObjectStore(tmp_path / "store")
    for blocks_max, order, from_cache in ((2, (0, 1, 0, 2, 0, 1), 4), (0, (0, 0), 2), (3, (0, 1, 2, 0, 1, 2), 3)):
        fetcher = BlockFetcher(store, cache, blocks_max * BLOCK)
        assert [fetcher.read([frames[number]]) for number in order] == [[block(number)[1]] for number in order]
        assert fetcher.stats().cached_blocks == from_cache
        fetcher.close()
