"""Pulling a version: an ordinary file that later pulls patch with the changed blocks; on every store."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
from attrs import evolve

from damage import flipped
from published import PublishedModel
from servers import S3_IS_SLOW
from teatree.client.versions.pull import pull_version
from teatree.contracts.errors import Code, RequestError, RetryError, TeatreeError
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.settings import StoreSettings
from teatree.storage.objects.stores import open_store
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.reader import layout_of

TABLES = {"sales": {"id": "BIGINT", "site": "VARCHAR", "amount": "DOUBLE"}}
ROWS = 300_000
FILL = f"INSERT INTO sales SELECT range, md5(range::VARCHAR), random() FROM range({ROWS})"


@pytest.fixture
def model(object_store_settings: StoreSettings, tmp_path: Path) -> Iterator[PublishedModel]:
    """Return a model of some blocks, its newest version 3."""
    with PublishedModel(object_store_settings, tmp_path) as published:
        published.create(TABLES)
        published.sql(FILL)
        yield published


def append(model: PublishedModel, rows: int = 1_000) -> Manifest:
    """Publish one more version."""
    return model.sql(f"INSERT INTO sales SELECT {ROWS} + range, md5(range::VARCHAR), random() FROM range({rows})")


def count(path: Path) -> int:
    """Return the rows of a pulled file, as the plain library reads it."""
    with duckdb.connect(str(path), read_only=True) as con:
        found = con.execute("SELECT count(*), count(DISTINCT id) FROM sales").fetchone()
    assert found is not None
    assert found[0] == found[1]
    return int(found[0])


@pytest.mark.slow_on_s3
def test_a_later_pull_moves_little_more_than_the_changed_blocks(model: PublishedModel, tmp_path: Path) -> None:
    """A pull patches the existing file; it moves, manifest and block table included, at most 1.2 x the change."""
    path = tmp_path / "mine" / "sales.duckdb"
    path.parent.mkdir()
    first = pull_version(model.chain, path)
    assert (first.version, count(path)) == (3, ROWS)
    manifest = append(model)
    second = pull_version(model.chain, path)
    assert manifest.pack is not None
    assert (second.version, count(path)) == (4, ROWS + 1_000)
    assert 0 < second.fetched_blocks < layout_of(manifest).block_count / 4
    assert second.moved_bytes + len(manifest.to_json()) <= 1.2 * manifest.pack.size_bytes
    again = pull_version(model.chain, path)
    assert (again.version, again.fetched_blocks) == (4, 0)
    assert not list(path.parent.glob("*.part"))


@pytest.mark.slow_on_s3
def test_an_older_version_comes_back_bit_for_bit(model: PublishedModel, tmp_path: Path) -> None:
    """Whatever file is at the path, the pulled one is exactly the version's."""
    append(model)
    fresh, used = tmp_path / "fresh.duckdb", tmp_path / "used.duckdb"
    pull_version(model.chain, fresh, version=3)
    pull_version(model.chain, used)
    pull_version(model.chain, used, version=3)
    assert fresh.read_bytes() == used.read_bytes()
    pull_version(model.chain, used, version=2)
    assert count(used) == 0


def test_a_moment_names_the_newest_version_of_that_time(model: PublishedModel, tmp_path: Path) -> None:
    """`at` is compared with the versions' times; before the first there is none, after the last it is the newest."""
    path = tmp_path / "sales.duckdb"
    newest = append(model)
    for version in (3, 4):
        manifest = model.chain.get(version)
        assert pull_version(model.chain, path, at=manifest.at).version == version
        assert pull_version(model.chain, path, at=manifest.at - timedelta(microseconds=1)).version == version - 1
    assert pull_version(model.chain, path, at=newest.at + timedelta(days=1)).version == 4
    with pytest.raises(RequestError) as early:
        pull_version(model.chain, path, at="1999-01-01T00:00:00Z")
    assert early.value.code == Code.UNKNOWN_VERSION
    with pytest.raises(RequestError) as strange:
        pull_version(model.chain, path, at="yesterday")
    assert strange.value.code == Code.BAD_ARGUMENT
    with pytest.raises(RequestError) as both:
        pull_version(model.chain, path, at=newest.at, version=4)
    assert both.value.code == Code.USAGE


@S3_IS_SLOW
def test_a_modified_file_is_detected(model: PublishedModel, tmp_path: Path) -> None:
    """Bytes that another program changed, even with the old times set again, never reach the pulled version."""
    path, pure = tmp_path / "sales.duckdb", tmp_path / "pure.duckdb"
    pull_version(model.chain, path)
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(12_288 + 5 * 262_144 + 1_000)
        file.write(b"\xff" * 64)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    manifest = append(model)
    pulled = pull_version(model.chain, path)
    pull_version(model.chain, pure)
    assert path.read_bytes() == pure.read_bytes()
    assert pulled.fetched_blocks < layout_of(manifest).block_count / 2  # the others were hashed and kept
    assert pull_version(model.chain, path, rehash=True).fetched_blocks == 0


@S3_IS_SLOW
def test_rows_written_into_a_pulled_file_are_replaced(model: PublishedModel, tmp_path: Path) -> None:
    """Local changes never mix into a version: checkpointed ones are replaced, a write-ahead log is refused."""
    path = tmp_path / "sales.duckdb"
    pull_version(model.chain, path)
    with duckdb.connect(str(path)) as con:
        con.execute("DELETE FROM sales WHERE id < 1000")
        con.execute("CREATE TABLE mine AS SELECT 1 AS i")
        con.execute("CHECKPOINT")
        with pytest.raises(RetryError) as busy:
            pull_version(model.chain, path)
        assert busy.value.code == Code.BUSY
    pull_version(model.chain, path)
    assert count(path) == ROWS
    path.with_name("sales.duckdb.wal").write_bytes(b"local commits")
    with pytest.raises(RequestError) as log:
        pull_version(model.chain, path)
    assert "write-ahead log" in log.value.message


@S3_IS_SLOW
def test_a_reader_keeps_the_file_that_it_has_open(model: PublishedModel, tmp_path: Path) -> None:
    """A pull changes nothing for an open reader; opening the path afterwards reads the new version."""
    path = tmp_path / "sales.duckdb"
    pull_version(model.chain, path)
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            (
                f"import duckdb, sys; con = duckdb.connect({str(path)!r}, read_only=True); print('open', flush=True); "
                "sys.stdin.readline(); print(con.execute('SELECT count(*), sum(id) FROM sales').fetchone())"
            ),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    append(model)
    pull_version(model.chain, path)
    out, _ = child.communicate("\n", timeout=60)
    assert out == f"({ROWS}, {ROWS * (ROWS - 1) // 2})\n"
    assert count(path) == ROWS + 1_000


@S3_IS_SLOW
def test_a_file_that_another_process_writes_is_busy(model: PublishedModel, tmp_path: Path) -> None:
    """A file that is open for writing elsewhere is busy, and is not changed."""
    path = tmp_path / "sales.duckdb"
    pull_version(model.chain, path, version=2)
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import duckdb, sys; con = duckdb.connect({str(path)!r}); print('open', flush=True); sys.stdin.readline()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    with pytest.raises(RetryError) as busy:
        pull_version(model.chain, path)
    child.communicate("\n", timeout=60)
    assert busy.value.code == Code.BUSY
    pull_version(model.chain, path)
    assert count(path) == ROWS


class _StopError(Exception):
    """Ends a pull half-way."""


@pytest.mark.parametrize("begin", ["fresh", "patching"])
def test_an_interrupted_pull_resumes(model: PublishedModel, tmp_path: Path, begin: str) -> None:
    """Blocks from before the interruption are verified and kept; until the end the path has the old file, or none."""
    path, pure = tmp_path / "sales.duckdb", tmp_path / "pure.duckdb"
    if begin == "patching":
        pull_version(model.chain, path, version=2)
    pull_version(model.chain, pure)
    total = layout_of(model.chain.get(3)).size_bytes
    old = path.read_bytes() if path.exists() else None

    def stop(done: int, _: int) -> None:
        if done > total * 0.6:
            raise _StopError

    with pytest.raises(_StopError):
        pull_version(model.chain, path, progress=stop)
    assert (path.read_bytes() if path.exists() else None) == old
    part = path.with_name("sales.duckdb.part")
    with part.open("r+b") as file:  # and a power cut did this to it
        file.seek(12_288 + 262_144)
        file.write(b"\0" * 1_000)
    whole = pull_version(model.chain, tmp_path / "other.duckdb")
    pulled = pull_version(model.chain, path)
    assert path.read_bytes() == pure.read_bytes()
    assert pulled.fetched_blocks < 0.6 * whole.fetched_blocks
    assert not part.exists()


def test_a_killed_pull_leaves_the_old_file_and_resumes(model: PublishedModel, tmp_path: Path) -> None:
    """SIGKILL in the middle: the old file reads as before, and the next pull succeeds."""
    path = tmp_path / "sales.duckdb"
    pull_version(model.chain, path, version=2)
    script = (
        "import os, sys, signal\n"
        "from pathlib import Path\n"
        "from teatree.client.versions.pull import pull_version\n"
        "from teatree.contracts.environment import process_environ, read_settings\n"
        "from teatree.storage.versions.chain import Chain\n"
        "from teatree.storage.objects.stores import open_store\n"
        "settings = read_settings(process_environ())\n"
        "def kill(done, total):\n"
        "    if done > total // 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "chain = Chain(open_store(settings.store), settings.nats.prefix, 'sales')\n"
        "pull_version(chain, Path(sys.argv[1]), progress=kill)\n"
    )
    store = model.settings.store
    environ = os.environ | {"TEATREE_STORE_URL": store.url}
    if store.access_key and store.secret_key:
        environ |= {"TEATREE_STORE_ACCESS_KEY": store.access_key, "TEATREE_STORE_SECRET_KEY": store.secret_key}
    ended = subprocess.run([sys.executable, "-c", script, str(path)], env=environ, timeout=100, check=False)
    assert ended.returncode == -9
    assert count(path) == 0
    assert path.with_name("sales.duckdb.part").exists()
    pull_version(model.chain, path)
    assert count(path) == ROWS


@S3_IS_SLOW
def test_a_full_disk_is_an_error_and_changes_nothing(model: PublishedModel, tmp_path: Path) -> None:
    """Without space for the file there is a clear error, the old file is unchanged, and no partial file is left."""
    path = tmp_path / "sales.duckdb"
    pull_version(model.chain, path, version=2)
    old = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) + 1_000_000, hard))
    try:
        with pytest.raises(RetryError) as full:
            pull_version(model.chain, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert full.value.code == Code.DISK_FULL
    assert path.read_bytes() == old
    assert not list(tmp_path.glob("*.part"))
    pull_version(model.chain, path)
    assert count(path) == ROWS


@S3_IS_SLOW
def test_a_file_that_is_no_database_is_left_alone(model: PublishedModel, tmp_path: Path) -> None:
    """A pull never overwrites what is not a DuckDB file, nor a folder."""
    path = tmp_path / "notes.txt"
    path.write_text("my only notes")
    for wrong in (path, tmp_path):
        with pytest.raises(RequestError) as error:
            pull_version(model.chain, wrong)
        assert error.value.code == Code.USAGE
    assert path.read_text() == "my only notes"


@S3_IS_SLOW
def test_two_pulls_of_one_file_exclude_each_other(model: PublishedModel, tmp_path: Path) -> None:
    """The second one fails as busy; the first one's file is whole."""
    path = tmp_path / "sales.duckdb"
    errors: list[TeatreeError] = []

    def pull_too(_: int, __: int) -> None:
        if not errors:
            try:
                pull_version(model.chain, path)
            except TeatreeError as e:
                errors.append(e)

    pull_version(model.chain, path, progress=pull_too)
    assert [error.code for error in errors] == [Code.BUSY]
    assert count(path) == ROWS


def damaged(chain: Chain, key: str, how: str, other: str) -> None:
    """Damage one object of the store."""
    body = chain.store.get(key)
    match how:
        case "missing":
            chain.store.delete([key])
        case "truncated":
            chain.store.put(key, body[: len(body) // 2])
        case "flipped":
            chain.store.put(key, flipped(body, len(body) // 2))
        case "swapped":
            chain.store.put(key, chain.store.get(other))


@pytest.mark.slow_on_s3
@pytest.mark.parametrize("how", ["missing", "truncated", "flipped", "swapped"])
@pytest.mark.parametrize("what", ["pack", "manifest"])
def test_damage_in_the_store_is_an_error_never_a_file(
    model: PublishedModel, tmp_path: Path, what: str, how: str
) -> None:
    """A missing, truncated, changed or swapped pack or manifest is an error; the old file stays, no new one is made."""
    append(model)
    path, new = tmp_path / "sales.duckdb", tmp_path / "new.duckdb"
    pull_version(model.chain, path, version=2)
    packs = {n: model.chain.get(n).pack for n in (3, 4)}
    assert packs[3] is not None
    assert packs[4] is not None
    if what == "pack":
        damaged(model.chain, model.chain.key(packs[3].key), how, model.chain.key(packs[4].key))
    else:
        damaged(model.chain, model.chain.manifest_key(3), how, model.chain.manifest_key(4))
    for target in (path, new):
        with pytest.raises(TeatreeError) as error:
            pull_version(model.chain, target, version=3)
        assert error.value.code in {Code.CORRUPT, Code.NOT_FOUND, Code.UNKNOWN_VERSION}
        assert error.value.where
    assert not new.exists()
    assert count(path) == 0


def test_wrong_credentials_are_reported(s3_server: StoreSettings, tmp_path: Path) -> None:
    """The error names the settings to check; nothing is written."""
    with PublishedModel(s3_server, tmp_path) as model:
        model.create(TABLES)
        for keys in ({"access_key": "unknown", "secret_key": "nothing"},):
            chain = Chain(open_store(evolve(s3_server, **keys)), model.settings.nats.prefix, "sales")
            with pytest.raises(TeatreeError) as error:
                pull_version(chain, tmp_path / "sales.duckdb")
            assert error.value.code == Code.NOT_AUTHORIZED
            assert "TEATREE_STORE_ACCESS_KEY" in (error.value.hint or "")
            assert "nothing" not in str(error.value)
    assert not (tmp_path / "sales.duckdb").exists()


def test_blocks_that_a_lazy_reader_fetched_are_not_moved_again(model: PublishedModel, tmp_path: Path) -> None:
    """Pulls use the cache of lazy readers too, and verify its blocks."""
    settings = evolve(model.settings, cache_folder=tmp_path / "cache")
    from teatree.client.versions.attach import attach_chain  # noqa: PLC0415

    with duckdb.connect() as con, attach_chain(con, model.chain, settings):
        con.execute("SELECT sum(id), max(site), sum(amount) FROM sales.sales").fetchall()
    pulled = pull_version(model.chain, tmp_path / "sales.duckdb", cache_folder=settings.cache_folder)
    assert pulled.fetched_blocks <= 3
    assert count(tmp_path / "sales.duckdb") == ROWS
    shutil.rmtree(tmp_path / "cache")


def test_an_unknown_model_or_version_is_reported(model: PublishedModel, tmp_path: Path) -> None:
    """Unknown names and numbers are the caller's errors."""
    with pytest.raises(RequestError) as version:
        pull_version(model.chain, tmp_path / "a.duckdb", version=99)
    assert version.value.code == Code.UNKNOWN_VERSION
    with pytest.raises(RequestError) as unknown:
        pull_version(Chain(model.chain.store, "teatree", "nothing"), tmp_path / "a.duckdb")
    assert unknown.value.code == Code.UNKNOWN_MODEL
    with pytest.raises(RequestError):
        pull_version(model.chain, tmp_path / "a.duckdb", version=1)  # the fence before the model was created
    assert not (tmp_path / "a.duckdb").exists()


@pytest.mark.parametrize("mark", ["teatree.env", "sales/manager.lock", "store/.tmp/x"])
@pytest.mark.parametrize("object_store_settings", ["file"], indirect=True)
def test_nothing_is_pulled_among_an_installations_own_files(model: PublishedModel, tmp_path: Path, mark: str) -> None:
    """A stack's data folder, a model's and a store's are refused, also through a link; other folders must exist."""
    own = tmp_path / "own"
    (own / mark).parent.mkdir(parents=True)
    (own / mark).touch()
    (own / "store" / "models").mkdir(parents=True, exist_ok=True)
    inside = {"teatree.env": own, "sales/manager.lock": own / "sales" / "versions", "store/.tmp/x": own / "store"}[mark]
    inside.mkdir(exist_ok=True)
    (tmp_path / "link").symlink_to(inside)
    for path in (inside / "a.duckdb", tmp_path / "link" / "a.duckdb"):
        with pytest.raises(RequestError, match="keeps its own files"):
            pull_version(model.chain, path)
    with pytest.raises(RequestError, match="There is no folder"):
        pull_version(model.chain, tmp_path / "none" / "a.duckdb")
    assert not list(own.rglob("*.duckdb"))
