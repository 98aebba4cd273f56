"""Finding changed blocks through DuckDB's free list finds what hashing every block finds, after any change of a file.

`TEATREE_TEST_ROUNDS` sets the number of random batches of each case; the default suits a quick run, a thorough one
needs thousands.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest
from blake3 import blake3

import mutations
from mutations import Mutations
from teatree.contracts.errors import CorruptError
from teatree.contracts.settings import LimitSettings
from teatree.engine.duckdb.block_file import BLOCK_BYTES
from teatree.engine.duckdb.changes import changeable, read_checkpoint
from teatree.engine.duckdb.database import Database
from teatree.engine.duckdb.snapshot import Capture, capture, captured_checkpoint
from teatree.storage.versions.frames import unpack
from teatree.storage.versions.packs import BlockTable
from teatree.storage.versions.reader import HEADER_BYTES

ROUNDS = int(os.environ.get("TEATREE_TEST_ROUNDS", "30"))
READ_EVERY = 10
"""Rounds between full reads of the mirrored file."""
BLOCKS_MAX = 400
"""Size beyond which the file is emptied, to keep rounds short."""

_CRASHING = """
import os, signal, sys
from pathlib import Path
from mutations import Mutations
from teatree.contracts.settings import LimitSettings
from teatree.engine.duckdb.database import Database
database = Database(Path(sys.argv[1]), LimitSettings())
mutations = Mutations(int(sys.argv[2]))
for _ in range(3):
    mutations.batch(database)
    if sys.argv[3] == "checkpointed":
        database.checkpoint()
mutations.batch(database)
os.kill(os.getpid(), signal.SIGKILL)
"""


class Mirror:
    """A file under random change, and the copy that readers would have of it: built from packs alone."""

    def __init__(self, folder: Path, seed: int, storage_version: str | None) -> None:
        self.path = folder / "model.duckdb"
        self.copy = folder / "copy.duckdb"
        self.spool = folder / "spool"
        self.storage_version = storage_version
        self.mutations = Mutations(seed)
        self.database = self.open()
        self.last: Capture | None = None
        self.version = 0
        self.looked_at = 0
        self.blocks = 0

    def open(self) -> Database:
        return Database(self.path, LimitSettings(), self.storage_version)

    def reopen(self) -> None:
        self.database.close()
        self.database = self.open()
        if self.last is not None:
            seen = captured_checkpoint(self.database, self.last.layout)
            self.last = forget(self.last, unknown=seen is None)

    def capture(self) -> Capture:
        """Capture a version, bring the copy up to it, and compare."""
        self.version += 1
        before = self.last
        table = before.table if before else BlockTable.empty("models/m")
        since = before.checkpoint if before else None
        found = capture(self.database, table, since, self.version, f"{self.version:016x}", "models/m", self.spool)
        self._patch(found)
        self._compare(found)
        self.blocks += found.layout.block_count
        self.looked_at += int(changeable(since, found.checkpoint, found.layout.block_count).sum())
        found.path.unlink()
        self.last = found
        return found

    def _patch(self, found: Capture) -> None:
        pack = found.path.read_bytes()
        previous = self.last.table.entries["hash"] if self.last else np.zeros((0, 32), "u1")
        self.copy.touch()
        with self.copy.open("r+b") as file:
            file.truncate(found.layout.size_bytes)
            header = found.layout.header
            file.write(unpack(pack[header.offset :][: header.length], HEADER_BYTES, "header"))
            for index, entry in enumerate(found.table.entries):
                if index < len(previous) and (previous[index] == entry["hash"]).all():
                    continue
                assert int(entry["pack"]) == self.version
                frame = pack[int(entry["offset"]) :][: int(entry["length"])]
                file.seek(HEADER_BYTES + index * BLOCK_BYTES)
                file.write(unpack(frame, BLOCK_BYTES, "block"))

    def _compare(self, found: Capture) -> None:
        """Every block that DuckDB uses is in the copy as it is in the file; so is the header."""
        assert found.checkpoint is not None
        count = found.layout.block_count
        for index in np.flatnonzero(found.checkpoint.used[:count]):
            block = self.database.read_at(HEADER_BYTES + int(index) * BLOCK_BYTES, BLOCK_BYTES)
            assert blake3(block).digest() == found.table.entries["hash"][index].tobytes(), f"block {index}"
        assert not found.checkpoint.used[count:].any()
        with self.copy.open("rb") as copy:
            assert copy.read(HEADER_BYTES) == self.database.read_at(0, HEADER_BYTES)

    def read(self) -> None:
        """Every table of the copy equals that of the file, and every block that DuckDB names is in the block table."""
        tables = [n for (n,) in self.database.rows("SELECT table_name FROM duckdb_tables() WHERE NOT internal")]
        named = {b for (b,) in self.database.rows("SELECT block_id FROM pragma_metadata_info()")}
        assert self.last is not None
        assert self.last.checkpoint is not None
        assert named == set(np.flatnonzero(self.last.checkpoint.metadata).tolist())
        with duckdb.connect(str(self.copy), read_only=True) as con:
            for table in tables:
                query = f"SELECT count(*), bit_xor(hash(r)), min(r), max(r) FROM {table} r"
                assert con.execute(query).fetchall() == self.database.rows(query)
                blocks = self.database.rows(
                    "SELECT DISTINCT unnest(list_append(additional_block_ids, block_id))"
                    f" FROM pragma_storage_info('{table}') WHERE persistent AND block_id >= 0"
                )
                assert all(self.last.checkpoint.used[int(b)] for (b,) in blocks)
                for (key,) in self.database.rows(f"SELECT id FROM {table} USING SAMPLE 3 ROWS"):
                    by_index = f"SELECT count(*), max(text) FROM {table} WHERE id = {key}"
                    assert con.execute(by_index).fetchall() == self.database.rows(by_index)


def forget(last: Capture, *, unknown: bool) -> Capture:
    """Return a capture without its checkpoint if the file holds another one."""
    if not unknown:
        return last
    return Capture(last.layout, last.table, last.pack, last.path, last.blocks, None)


@pytest.mark.parametrize(("seed", "storage_version"), [(1, None), (2, None), (3, "v1.4.0"), (4, "v1.2.0")])
def test_random_batches_are_captured_whole(tmp_path: Path, seed: int, storage_version: str | None) -> None:
    """After any change the copy made of packs equals the file, and few blocks were read."""
    mirror = Mirror(tmp_path, seed, storage_version)
    for number in range(ROUNDS):
        mirror.mutations.batch(mirror.database)
        if number % 17 == 16:
            mirror.reopen()
        mirror.database.checkpoint()
        found = mirror.capture()
        if number % READ_EVERY == 0 or number == ROUNDS - 1:
            mirror.read()
        if found.layout.block_count > BLOCKS_MAX:
            for (name,) in mirror.database.rows("SELECT table_name FROM duckdb_tables()"):
                mirror.database.rows(f"DROP TABLE {name}")
    mirror.database.close()
    assert mirror.looked_at < mirror.blocks / 2


@pytest.mark.parametrize("how", ["committed", "checkpointed"])
def test_a_crashed_file_is_captured_whole(tmp_path: Path, how: str) -> None:
    """What a killed process left, checkpointed or only in the write-ahead log, is captured by the next one."""
    mirror = Mirror(tmp_path, 7, None)
    for seed in range(max(2, ROUNDS // 30)):
        mirror.mutations.batch(mirror.database)
        mirror.database.checkpoint()
        mirror.capture()
        mirror.database.close()
        script = [sys.executable, "-c", _CRASHING, str(mirror.path), str(seed), how]
        folders = [str(Path(mutations.__file__).parent), os.environ.get("PYTHONPATH", "")]
        ended = subprocess.run(
            script, env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)}, check=False, timeout=60
        )
        assert ended.returncode == -signal.SIGKILL
        mirror.database = mirror.open()
        assert mirror.last is not None
        seen = captured_checkpoint(mirror.database, mirror.last.layout)
        assert (seen is None) or how == "committed"
        mirror.last = forget(mirror.last, unknown=seen is None)
        mirror.database.checkpoint()
        mirror.capture()
        mirror.read()
    mirror.database.close()


def test_a_checkpoint_that_was_not_captured_is_not_skipped(tmp_path: Path) -> None:
    """Two checkpoints between two captures: a block may have been freed by one and used again by the other."""
    mirror = Mirror(tmp_path, 11, None)
    for number in range(ROUNDS // 3):
        for _ in range(1 + number % 3):
            mirror.mutations.batch(mirror.database)
            mirror.database.checkpoint()
        mirror.capture()
    mirror.read()
    mirror.database.close()


def test_cost_follows_the_change(tmp_path: Path) -> None:
    """A few rows more in a large table are a few blocks; freed blocks are not packed, however many there are."""
    with Database(tmp_path / "model.duckdb", LimitSettings()) as database:
        database.rows("CREATE TABLE t AS SELECT i AS id, hash(i) AS number FROM range(3_000_000) r(i)")
        database.checkpoint()
        first = capture(database, BlockTable.empty("m"), None, 1, "1" * 16, "m", tmp_path)
        database.rows("INSERT INTO t SELECT i, 1 FROM range(1_000) r(i)")
        database.checkpoint()
        second = capture(database, first.table, first.checkpoint, 2, "2" * 16, "m", tmp_path)
        assert first.layout.block_count > 80
        assert len(second.blocks) <= 5
        database.rows("DELETE FROM t WHERE id < 2_500_000")
        database.checkpoint()
        third = capture(database, second.table, second.checkpoint, 3, "3" * 16, "m", tmp_path)
        assert len(third.blocks) < 40
        assert third.checkpoint is not None
        looked_at = changeable(third.checkpoint, read_checkpoint(database), third.layout.block_count)
        assert looked_at.sum() == third.checkpoint.metadata.sum()


def test_a_damaged_block_is_not_captured(tmp_path: Path) -> None:
    """A flipped bit in a block that changed, or in the free list itself, stops the capture."""
    path = tmp_path / "model.duckdb"
    with Database(path, LimitSettings()) as database:
        database.rows("CREATE TABLE t AS SELECT i AS id, hash(i) AS number FROM range(300_000) r(i)")
        database.checkpoint()
        first = capture(database, BlockTable.empty("m"), None, 1, "1" * 16, "m", tmp_path)
        assert first.checkpoint is not None
        for block in (int(np.flatnonzero(first.checkpoint.metadata)[0]), first.blocks[0]):
            at = HEADER_BYTES + block * BLOCK_BYTES + 5_000
            flip(path, at)
            with pytest.raises(CorruptError):
                capture(database, BlockTable.empty("m"), None, 2, "2" * 16, "m", tmp_path)
            flip(path, at)


def flip(path: Path, at: int) -> None:
    """Flip a bit of a file that is open in this process; closing the descriptor would release DuckDB's lock."""
    descriptor = os.open(path, os.O_RDWR)
    byte = os.pread(descriptor, 1, at)
    os.pwrite(descriptor, bytes([byte[0] ^ 4]), at)
