"""Lazy reading: an attached read-only database whose blocks are fetched as queries touch them; on every store."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from attrs import evolve
from typing_extensions import override

from published import PublishedModel
from servers import S3_IS_SLOW, TestServers, file_store
from teatree.client.versions.attach import Attached, attach, attach_chain
from teatree.contracts.environment import connection_environ
from teatree.contracts.errors import Code, RequestError, TeatreeError
from teatree.contracts.settings import CacheSettings, Settings, StoreSettings
from teatree.storage.objects.base import ObjectStore
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.reader import layout_of

TABLES = {"sales": {"id": "BIGINT", "site": "VARCHAR", "amount": "DOUBLE"}}
ROWS = 1_000_000
"""Rows of the model that tests share."""
OWN_ROWS = 200_000
"""Rows of a model of a test's own: some blocks."""
SCAN = "SELECT count(*), sum(id), min(site), max(site), sum(amount) > 0 FROM {}.sales"
FAST = CacheSettings(follow_poll_ms=20)


@contextmanager
def published_model(store: StoreSettings, folder: Path, rows: int) -> Iterator[PublishedModel]:
    """Yield a model of some blocks, its newest version 3."""
    with PublishedModel(store, folder) as published:
        published.create(TABLES)
        published.sql(f"INSERT INTO sales SELECT range, 'site-' || (range % 40), random() FROM range({rows})")
        yield published


@pytest.fixture
def model(object_store_settings: StoreSettings, tmp_path: Path) -> Iterator[PublishedModel]:
    """Return a model of the test's own, for tests that publish versions or damage objects."""
    with published_model(object_store_settings, tmp_path, OWN_ROWS) as published:
        yield published


@pytest.fixture(scope="module", params=["file", "s3"])
def read_model(
    request: pytest.FixtureRequest, servers: TestServers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PublishedModel]:
    """Return a model on each kind of store in turn that all tests of this module share: they only read it."""
    folder = tmp_path_factory.mktemp("read_model")
    store = servers.fresh_bucket_prefix() if request.param == "s3" else file_store(folder / "store")
    with published_model(store, folder, ROWS) as published:
        yield published


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """Return a plain connection, with more threads than this machine has cores."""
    with duckdb.connect(config={"threads": 8}) as connection:
        yield connection


def cached(model: PublishedModel, tmp_path: Path) -> Settings:
    """Return settings with a cache folder."""
    return evolve(model.settings, cache_folder=tmp_path / "cache", cache=FAST)


def one(con: duckdb.DuckDBPyConnection, sql: str) -> Any:
    """Return the one value, or row, of a result."""
    row = con.execute(sql).fetchone()
    assert row is not None
    return row[0] if len(row) == 1 else row


def test_a_look_up_fetches_a_little_and_a_scan_everything_once(
    read_model: PublishedModel, con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Queries fetch what they touch; what was fetched is not fetched again, by this or another connection."""
    settings = cached(read_model, tmp_path)
    pack = read_model.chain.get(3).pack
    assert pack is not None
    with attach_chain(con, read_model.chain, settings) as attached:
        assert one(con, "SELECT site FROM sales.sales WHERE id = 723456") == "site-16"
        assert attached.stats().fetched_bytes < pack.size_bytes / 4
        expected = (ROWS, ROWS * (ROWS - 1) // 2, "site-0", "site-9", True)
        assert one(con, SCAN.format("sales")) == expected
        cold = attached.stats()
        assert cold.fetched_blocks <= layout_of(attached.manifest).block_count
        assert cold.reads < cold.fetched_blocks  # neighbours came together
        assert cold.fetched_bytes < 1.1 * pack.size_bytes
    with duckdb.connect() as other, attach_chain(other, read_model.chain, settings) as again:
        assert one(other, SCAN.format("sales")) == expected
        assert again.stats().fetched_bytes == 0
        assert again.stats().cached_blocks > 0


def test_an_attached_version_cannot_be_written(read_model: PublishedModel, con: duckdb.DuckDBPyConnection) -> None:
    """Versions are immutable."""
    with attach_chain(con, read_model.chain, read_model.settings):
        with pytest.raises(duckdb.Error, match="read-only"):
            con.execute("INSERT INTO sales.sales VALUES (1, 'a', 1.0)")
        assert one(con, "SELECT readonly FROM duckdb_databases() WHERE database_name = 'sales'") is True


def test_any_version_by_number_or_moment_beside_each_other(
    model: PublishedModel, con: duckdb.DuckDBPyConnection
) -> None:
    """Several versions of one model can be compared in one query."""
    newest = model.sql("DELETE FROM sales WHERE id >= 1000")
    attach(con, "sales", settings=model.settings)
    attach(con, "sales", version=3, alias="before", settings=model.settings)
    attach(con, "sales", at=model.chain.get(2).at, alias="empty", settings=model.settings)
    counts = "SELECT (SELECT count(*) FROM sales.sales), (SELECT count(*) FROM before.sales), (FROM empty.sales).id"
    assert one(con, counts.replace(", (FROM empty.sales).id", "")) == (1_000, OWN_ROWS)
    assert one(con, "SELECT count(*) FROM empty.sales") == 0
    with pytest.raises(RequestError) as taken:
        attach(con, "sales", version=newest.version, settings=model.settings)
    assert taken.value.code == Code.USAGE
    with pytest.raises(RequestError) as unknown:
        attach(con, "sales", version=99, alias="none", settings=model.settings)
    assert unknown.value.code == Code.UNKNOWN_VERSION
    with pytest.raises(RequestError) as nothing:
        attach(con, "nothing", settings=model.settings)
    assert nothing.value.code == Code.UNKNOWN_MODEL
    with pytest.raises(RequestError):
        attach(con, "sales", version=3, follow=True, alias="moving", settings=model.settings)


def test_threads_that_share_a_handle_do_not_mix_their_places(
    read_model: PublishedModel, con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Many queries on many threads, with next to no memory for blocks: every result is right."""
    tiny = evolve(cached(read_model, tmp_path), cache=CacheSettings(memory_bytes_max=1_000_000))
    con.execute("SET memory_limit = '60MB'")
    with attach_chain(con, read_model.chain, tiny):
        ids = [(i * 7_919) % ROWS for i in range(60)]

        def look(number: int) -> bool:
            with con.cursor() as cursor:
                low = ids[number]
                sql = f"SELECT count(*), sum(id), min(site) FROM sales.sales WHERE id BETWEEN {low} AND {low + 999}"
                top = min(low + 999, ROWS - 1)
                count, total, _ = one(cursor, sql)
                return bool(count == top - low + 1 and total == (low + top) * count // 2)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(look, range(len(ids))))


class CountingStore(ObjectStore):
    """A slow store that records the ranges which are read."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self.ranges: list[tuple[str, int, int]] = []

    @property
    @override
    def url(self) -> str:
        return self.inner.url

    @override
    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self.ranges.append((key, offset, length))
        time.sleep(0.02)
        return self.inner.get_range(key, offset, length)

    def __getattribute__(self, name: str) -> Any:
        if name in {"get", "stream", "put", "put_if_absent", "head", "list", "delete", "download"}:
            return getattr(object.__getattribute__(self, "inner"), name)
        return object.__getattribute__(self, name)

    get = stream = put = put_if_absent = head = list = delete = None  # type: ignore[assignment]


def test_a_block_that_many_want_is_fetched_once(
    read_model: PublishedModel, con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """When many threads need the same blocks at the same moment, each block is fetched once."""
    store = CountingStore(read_model.chain.store)
    chain = Chain(store, read_model.settings.nats.prefix, "sales")
    with attach_chain(con, chain, cached(read_model, tmp_path)) as attached:

        def scan(_: int) -> Any:
            with con.cursor() as cursor:
                return one(cursor, SCAN.format("sales"))

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(scan, range(8)))
        assert len(set(answers)) == 1
        assert attached.stats().fetched_blocks <= layout_of(attached.manifest).block_count
        assert len(store.ranges) == len(set(store.ranges))


def test_followers_move_between_queries_and_running_queries_keep_their_version(
    model: PublishedModel, con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Each version replaces the one before; a stream, a transaction and a prepared statement keep theirs."""
    with attach_chain(con, model.chain, cached(model, tmp_path), follow=True) as attached:
        con.execute("USE sales")
        reader = con.cursor().sql("SELECT id FROM sales.sales").to_arrow_reader(10_000)
        rows = reader.read_next_batch().num_rows
        transaction = con.cursor()
        transaction.execute("BEGIN")
        assert one(transaction, "SELECT count(*) FROM sales.sales") == OWN_ROWS
        published = model.sql("DELETE FROM sales WHERE id >= 1000")
        wait_for(attached, published.version)
        assert one(con, "SELECT count(*) FROM sales") == 1_000
        assert one(transaction, "SELECT count(*) FROM sales.sales") == OWN_ROWS
        transaction.execute("COMMIT")
        assert one(transaction, "SELECT count(*) FROM sales.sales") == 1_000
        assert rows + sum(batch.num_rows for batch in reader) == OWN_ROWS
        reader.close()


def wait_for(attached: Attached, version: int) -> None:
    """Wait until a follower serves a version."""
    deadline = time.monotonic() + 60
    while attached.version < version:
        assert time.monotonic() < deadline, attached.error
        time.sleep(0.01)


def test_a_reader_never_fails_while_versions_are_published(
    model: PublishedModel, con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Sums over whole versions stay right, query after query, while versions are published."""
    model.sql("DELETE FROM sales WHERE id >= 100000")
    versions = 15
    done = threading.Event()

    def publish() -> None:
        for _ in range(versions):
            model.sql("UPDATE sales SET amount = amount + 1, site = 'v' WHERE id < 50000")
        done.set()

    seen = set()
    model.sql("UPDATE sales SET amount = 0")
    with attach_chain(con, model.chain, cached(model, tmp_path), follow=True) as attached:
        writer = threading.Thread(target=publish)
        writer.start()
        while not done.is_set() or attached.version < model.chain.newest_version():
            low, high, count = one(con, "SELECT min(amount), max(amount), count(*) FROM sales.sales WHERE id < 50000")
            assert low == high
            assert count == 50_000
            seen.add(low)
        writer.join()
        assert one(con, "SELECT max(amount) FROM sales.sales") == versions
    assert len(seen) > 1


def test_without_a_cache_folder_nothing_is_written(
    read_model: PublishedModel, con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Lazy reading works without a disk."""
    with attach_chain(con, read_model.chain, read_model.settings) as attached:
        assert one(con, "SELECT count(*) FROM sales.sales WHERE amount >= 0") == ROWS
        assert attached.stats().cached_blocks == 0
    assert not (tmp_path / "cache").exists()


def test_a_damaged_cached_block_is_fetched_again(read_model: PublishedModel, tmp_path: Path) -> None:
    """A cached block that changed on disk is never served."""
    settings = cached(read_model, tmp_path)
    with duckdb.connect() as con, attach_chain(con, read_model.chain, settings):
        before = one(con, SCAN.format("sales"))
    blocks = [path for path in (tmp_path / "cache" / "blocks").rglob("*") if path.is_file()]
    assert len(blocks) > 10
    for path in blocks[::2]:
        body = bytearray(path.read_bytes())
        body[len(body) // 2] ^= 1
        path.write_bytes(body)
    blocks[1].write_bytes(b"")
    with duckdb.connect() as con, attach_chain(con, read_model.chain, settings) as attached:
        assert one(con, SCAN.format("sales")) == before
        assert attached.stats().fetched_blocks > 0


@pytest.mark.slow_on_s3
@pytest.mark.parametrize("how", ["missing", "truncated", "flipped", "swapped"])
def test_damage_in_the_store_is_an_error_never_a_wrong_answer(
    model: PublishedModel, con: duckdb.DuckDBPyConnection, tmp_path: Path, how: str
) -> None:
    """A query that reads a damaged pack fails with the reason; other versions can still be read."""
    model.sql("INSERT INTO sales SELECT range, md5(range::VARCHAR), random() FROM range(300000)")
    store, pack, other = model.chain.store, model.chain.get(3).pack, model.chain.get(4).pack
    assert pack is not None
    assert other is not None
    key = model.chain.key(pack.key)
    body = store.get(key)
    attached = attach_chain(con, model.chain, cached(model, tmp_path), version=3)
    match how:
        case "missing":
            store.delete([key])
        case "truncated":
            store.put(key, body[: len(body) // 2])
        case "flipped":
            noise = bytearray(body)
            for place in range(len(body) // 20, len(body), len(body) // 20):
                noise[place] ^= 16
            store.put(key, bytes(noise))
        case "swapped":
            store.put(key, store.get(model.chain.key(other.key)))
    with pytest.raises(duckdb.Error, match="corrupt") as shown:
        con.execute(SCAN.format("sales")).fetchall()
    assert "teatree" in str(shown.value) or "pack" in str(shown.value)
    fault = attached.take_fault()
    assert fault is not None
    assert fault.code == Code.CORRUPT
    assert fault.where
    assert attached.take_fault() is None
    attached.detach()
    attach_chain(con, model.chain, model.settings, version=2, alias="empty")
    assert one(con, "SELECT count(*) FROM empty.sales") == 0


def test_reading_a_version_that_was_cleaned_up_is_an_error(
    model: PublishedModel, con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Reading or attaching a version whose packs were deleted fails with the reason that it was cleaned up."""
    from teatree.contracts.formats.manifest import stub_of  # noqa: PLC0415

    manifest = model.chain.get(3)
    assert manifest.pack is not None
    attached = attach_chain(con, model.chain, cached(model, tmp_path), version=3)
    model.sql("DELETE FROM sales")
    model.chain.store.put(model.chain.manifest_key(3), stub_of(manifest).to_json())
    model.chain.store.delete([model.chain.key(manifest.pack.key)])
    with pytest.raises(duckdb.Error, match="cleaned up"):
        con.execute(SCAN.format("sales")).fetchall()
    fault = attached.take_fault()
    assert isinstance(fault, TeatreeError)
    assert fault.code == Code.UNKNOWN_VERSION
    with pytest.raises(RequestError, match="cleaned up"):
        attach_chain(con, model.chain, model.settings, version=3, alias="again")


def test_a_connection_that_was_detached_or_closed_releases_everything(
    read_model: PublishedModel, tmp_path: Path
) -> None:
    """Nothing is left of an attached version: no thread, no filesystem, no memory."""
    before = set(threading.enumerate())
    con = duckdb.connect()
    attached = attach_chain(con, read_model.chain, cached(read_model, tmp_path), follow=True)
    one(con, SCAN.format("sales"))
    reference = weakref.ref(attached)
    attached.detach()
    attached.detach()
    assert one(con, "SELECT count(*) FROM duckdb_databases() WHERE database_name = 'sales'") == 0
    assert not [name for name in con.list_filesystems() if "teatree" in name]
    con.close()
    del attached, con
    gc.collect()
    assert reference() is None
    # DuckDB's own threads stay listed as dummies after their end.
    left = [t for t in threading.enumerate() if t not in before and not t.name.startswith("Dummy-")]
    for thread in left:
        thread.join(30)
    assert not [thread.name for thread in left if thread.is_alive()]


@S3_IS_SLOW
def test_a_connection_is_closed_at_any_moment_of_following(model: PublishedModel, tmp_path: Path) -> None:
    """`con.close()` succeeds while the follower moves to another version, and the follower's thread ends with it."""
    model.sql("DELETE FROM sales")
    settings = evolve(cached(model, tmp_path), cache=CacheSettings(follow_poll_ms=1))
    for place in range(20):
        con = duckdb.connect()
        attached = attach_chain(con, model.chain, settings, follow=True)
        follower = attached._follower
        assert follower is not None
        publisher = threading.Thread(target=model.sql, args=("INSERT INTO sales VALUES (1, 'a', 1)",))
        publisher.start()
        time.sleep(place / 1000)
        con.close()
        publisher.join()
        follower.join(30)
        assert not follower.is_alive()
        assert attached.error is None


@pytest.mark.parametrize("follow", ["False", "True"])
def test_a_script_that_just_ends_ends_well(read_model: PublishedModel, tmp_path: Path, follow: str) -> None:
    """Detaching is optional: the process exits cleanly and prints nothing."""
    script = (
        "import duckdb, teatree\n"
        "con = duckdb.connect()\n"
        f"teatree.attach(con, 'sales', follow={follow})\n"
        "print(con.execute('SELECT count(*) FROM sales.sales WHERE amount >= 0').fetchone()[0])\n"
    )
    settings = cached(read_model, tmp_path)
    environ = connection_environ(settings) | {"TEATREE_CACHE_FOLDER": str(settings.cache_folder), "PATH": ""}
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=100, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{ROWS}\n", "")
