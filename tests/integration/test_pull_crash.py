"""A pull that is killed at each of its steps: no partial file under the final name, and the next pull resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from published import PublishedModel
from teatree.client.versions.pull import pull_version
from teatree.contracts.environment import connection_environ
from teatree.contracts.settings import StoreSettings

TABLES = {"t": {"id": "BIGINT", "text": "VARCHAR"}}
ROWS = 50_000
FILL = "INSERT INTO t SELECT range + {}, md5(range::VARCHAR) FROM range({})"
PLACES = (
    "pull.copy.begin",
    "pull.copy.end",
    "pull.block",
    "pull.header.begin",
    "pull.rename.begin",
    "pull.rename.end",
)
QUICK = {"pull.block", "pull.rename.end"}


@pytest.fixture
def model(object_store_settings: StoreSettings, tmp_path: Path) -> Iterator[PublishedModel]:
    """Return a model with two versions of rows."""
    with PublishedModel(object_store_settings, tmp_path) as published:
        published.create(TABLES)
        published.sql(FILL.format(0, ROWS))
        yield published


def count(path: Path) -> int:
    """Return the rows of a pulled file."""
    with duckdb.connect(str(path), read_only=True) as con:
        found = con.execute("SELECT count(DISTINCT id) FROM t").fetchone()
    assert found is not None
    return int(found[0])


def killed_pull(model: PublishedModel, path: Path, place: str, folder: Path) -> int:
    """Pull in another process that crashes at a failpoint; return its exit code."""
    plan = folder / "failpoints.json"
    plan.write_text(json.dumps({place: {"action": "crash"}}))
    environ = {**os.environ, **connection_environ(model.settings), "TEATREE_FAILPOINTS": str(plan)}
    command = [sys.executable, "-m", "teatree.cli.main", "pull", model.name, str(path)]
    return subprocess.run(command, env=environ, check=False, capture_output=True, timeout=60).returncode


@pytest.mark.parametrize("place", [pytest.param(p, marks=[] if p in QUICK else [pytest.mark.slow]) for p in PLACES])
def test_a_killed_pull_leaves_the_old_file_or_the_new_one(model: PublishedModel, tmp_path: Path, place: str) -> None:
    """After a crash at any step the file is the whole old version or the whole new one, and the next pull succeeds."""
    path = tmp_path / "t.duckdb"
    pull_version(model.chain, path)
    model.sql(FILL.format(ROWS, ROWS))
    assert killed_pull(model, path, place, tmp_path) == -signal.SIGKILL
    assert count(path) == (2 * ROWS if place == "pull.rename.end" else ROWS)
    pull_version(model.chain, path)
    assert count(path) == 2 * ROWS
    assert not list(tmp_path.glob("*.part"))


def test_a_killed_first_pull_leaves_no_file_and_the_next_one_moves_only_the_rest(
    model: PublishedModel, tmp_path: Path
) -> None:
    """No file has the final name until it is whole; blocks that arrived are not fetched again."""
    path, other = tmp_path / "t.duckdb", tmp_path / "other.duckdb"
    assert killed_pull(model, path, "pull.header.begin", tmp_path) == -signal.SIGKILL
    assert not path.exists()
    assert pull_version(model.chain, path).fetched_blocks == 0
    assert pull_version(model.chain, other).fetched_blocks > 0
    assert count(path) == ROWS
