"""Versions of any DuckDB file, without any service."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from attrs import evolve

import teatree
from damage import flip
from processes import Installation
from published import PublishedModel
from servers import S3_IS_SLOW
from teatree.cli.main import run
from teatree.client.versions.attach import attach
from teatree.client.versions.diff import diff_versions
from teatree.client.versions.pull import list_versions, pull_version
from teatree.client.versions.verify import verify
from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError
from teatree.contracts.exit_reason import EXIT_OPERATOR
from teatree.contracts.settings import Settings, StoreSettings
from teatree.engine.open_file import OpenFile, open_file
from teatree.storage.objects.stores import open_store
from teatree.storage.versions.chain import Chain
from teatree.storage.versions.duckdb_file import is_open_for_writing_here
from teatree.storage.versions.reader import layout_of

ALL = "SELECT count(*), sum(x) FROM t"


@pytest.fixture
def settings(object_store_settings: StoreSettings, tmp_path: Path) -> Settings:
    """Return settings with a store only."""
    return Settings(store=object_store_settings, data=tmp_path / "none")


@pytest.fixture
def chain(settings: Settings) -> Chain:
    """Return the chain of the file `sales.duckdb`."""
    return Chain(open_store(settings.store), settings.nats.prefix, "sales")


@pytest.fixture
def opened(settings: Settings, tmp_path: Path) -> Iterator[OpenFile]:
    """Return a new file with some rows in it."""
    with open_file(tmp_path / "sales.duckdb", settings=settings) as file:
        file.connection.execute("CREATE TABLE t AS SELECT i AS x FROM range(300_000) r(i)")
        yield file


def _rows(chain: Chain, folder: Path, version: int | None = None, sql: str = ALL) -> list[tuple[object, ...]]:
    pulled = pull_version(chain, folder / f"pulled-{version}.duckdb", version=version)
    with duckdb.connect(str(pulled.path), read_only=True) as con:
        return con.execute(sql).fetchall()


def test_a_published_version_is_the_file(opened: OpenFile, chain: Chain, settings: Settings, tmp_path: Path) -> None:
    """It is pulled, attached and compared as a model's is; a later version uploads what changed."""
    first = opened.publish()
    assert (first.model, first.version, first.is_new, first.tables) == ("sales", 1, True, {"t": 300_000})
    opened.sql("INSERT INTO t SELECT 1 FROM range(10)")
    second = opened.publish()
    assert (second.version, second.tables) == (2, {"t": 300_010})
    assert second.pack_bytes < first.pack_bytes
    assert _rows(chain, tmp_path, 1) == [(300_000, 300_000 * 299_999 // 2)]
    assert _rows(chain, tmp_path) == opened.sql(ALL).fetchall()
    assert [info.version for info in list_versions(chain, 10)] == [2, 1]
    found = diff_versions(chain, settings, 1, 2)
    assert [(t.table, t.rows_added, t.rows_removed) for t in found.tables] == [("t", 10, 0)]
    with duckdb.connect() as con, attach(con, "sales", settings=settings):
        assert con.execute("SELECT count(*) FROM sales.t").fetchall() == [(300_010,)]


def test_a_version_equals_the_file_on_the_disk(opened: OpenFile, chain: Chain, tmp_path: Path) -> None:
    """After a publish the closed file and a pulled one are the same database, without any table of Teatree."""
    opened.publish()
    opened.sql("DELETE FROM t WHERE x % 2 = 0")
    opened.publish()
    opened.close()
    with duckdb.connect(str(opened.path), read_only=True) as con:
        assert con.execute("SELECT schema_name FROM duckdb_schemas() WHERE NOT internal").fetchall() in (
            [],
            [("main",)],
        )
        assert con.execute(ALL).fetchall() == _rows(chain, tmp_path)
    layout = layout_of(chain.get(2))
    assert opened.path.stat().st_size == layout.size_bytes
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("sales")) == ["sales.duckdb"]


def test_publishing_without_a_change_writes_nothing(opened: OpenFile, chain: Chain, settings: Settings) -> None:
    """It returns the newest version, also after the file was opened again."""
    first = opened.publish()
    again = opened.publish()
    assert (again.version, again.is_new, again.pack_bytes) == (first.version, False, 0)
    opened.close()
    with open_file(opened.path, settings=settings) as reopened:
        assert reopened.publish().is_new is False
        reopened.sql("UPDATE t SET x = 0 WHERE x = 1")
        assert reopened.publish().version == 2
        assert reopened.publish().version == 2
    assert chain.newest_version() == 2


@S3_IS_SLOW
def test_what_is_not_committed_is_not_published(opened: OpenFile, chain: Chain, tmp_path: Path) -> None:
    """An open transaction stays open, and is part of the version after its commit."""
    other = opened.connection.cursor()
    other.execute("BEGIN")
    other.execute("INSERT INTO t SELECT 7 FROM range(200_000)")
    first = opened.publish()
    assert first.tables == {"t": 300_000}
    assert _rows(chain, tmp_path, 1)[0][0] == 300_000
    other.execute("COMMIT")
    assert opened.publish().tables == {"t": 500_000}
    assert _rows(chain, tmp_path, 2)[0][0] == 500_000


def test_publishing_beside_writers_gives_whole_versions(opened: OpenFile, chain: Chain, tmp_path: Path) -> None:
    """Threads commit pairs of rows and large tables meanwhile: each version holds whole ones and counts its rows."""
    opened.sql("CREATE TABLE pairs(x BIGINT)")
    stop = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        con = opened.connection.cursor()
        number = 0
        try:
            while not stop.wait(0.002):
                number += 1
                con.execute("BEGIN")
                con.execute(f"INSERT INTO pairs VALUES ({number})")
                if number % 20 == 0:
                    con.execute("INSERT INTO pairs SELECT 0 FROM range(100_000)")
                    con.execute("DELETE FROM pairs WHERE x = 0")
                con.execute(f"INSERT INTO pairs VALUES (-{number})")
                con.execute("COMMIT")
        except BaseException as e:  # noqa: BLE001 - the test's thread checks it
            failures.append(e)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    versions = [opened.publish() for _ in range(8)]
    stop.set()
    for writer in writers:
        writer.join()
    assert not failures
    for version in versions:
        sums = _rows(chain, tmp_path, version.version, "SELECT sum(x), count(*) FROM pairs")
        assert sums[0][0] in (0, None)
        assert sums[0][1] == version.tables["pairs"]


def test_two_publishers_take_turns_or_one_is_fenced(
    opened: OpenFile, settings: Settings, chain: Chain, tmp_path: Path
) -> None:
    """A first publish follows the newest version; a publisher that finds another's newer version is fenced."""
    opened.publish()
    with open_file(tmp_path / "copy.duckdb", name="sales", settings=settings) as other:
        other.sql("CREATE TABLE t AS SELECT 1 AS x")
        assert other.publish().version == 2
        opened.sql("INSERT INTO t VALUES (1)")
        with pytest.raises(OperatorError) as caught:
            opened.publish()
        assert (caught.value.code, "Version 2" in caught.value.message) == (Code.FENCED, True)
        other.sql("INSERT INTO t VALUES (2)")
        assert other.publish().version == 3
    opened.close()
    with open_file(opened.path, settings=settings) as again:
        assert again.publish().version == 4
    assert [chain.get(n).epoch for n in (1, 2, 3, 4)] == [1, 2, 2, 4]
    assert _rows(chain, tmp_path, 4)[0][0] == 300_001


def test_publishers_at_the_same_time_lose_nothing(settings: Settings, chain: Chain, tmp_path: Path) -> None:
    """Six files under one name at once: each gets a separate version."""
    found: list[int] = []

    def publish(number: int) -> None:
        with open_file(tmp_path / f"{number}.duckdb", name="sales", settings=settings) as file:
            file.sql(f"CREATE TABLE t AS SELECT {number} AS x")
            found.append(file.publish().version)

    threads = [threading.Thread(target=publish, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [1, 2, 3, 4, 5, 6]
    sums = {_rows(chain, tmp_path, version)[0][1] for version in found}
    assert sums == {0, 1, 2, 3, 4, 5}


@S3_IS_SLOW
def test_a_file_of_any_kind_can_be_published(settings: Settings, tmp_path: Path) -> None:
    """Views, schemas, sequences, macros, indexes and types that models do not have come along."""
    with open_file(tmp_path / "any thing-1.duckdb", settings=settings) as file:
        for statement in (
            "CREATE SCHEMA s",
            "CREATE TYPE mood AS ENUM('a', 'b')",
            "CREATE SEQUENCE seq",
            "CREATE TABLE s.u(a UNION(i INTEGER, v VARCHAR), m mood, v VARIANT DEFAULT 1)",
            "CREATE TABLE w(a UNION(i INTEGER, v VARCHAR) CHECK (a IS NOT NULL), b INTEGER DEFAULT nextval('seq'))",
            "CREATE INDEX i ON w(b)",
            "CREATE VIEW seen AS SELECT b FROM w",
            "CREATE MACRO plus(a) AS a + 1",
            "INSERT INTO w(a) VALUES (1), ('x')",
            "INSERT INTO s.u(a, m) VALUES ('x', 'b')",
        ):
            file.connection.execute(statement)
        published = file.publish()
    assert (published.model, published.tables) == ("any_thing_1", {"s.u": 1, "w": 2})
    chain = Chain(open_store(settings.store), settings.nats.prefix, "any_thing_1")
    assert _rows(chain, tmp_path, 1, "SELECT plus(max(b)) FROM seen") == [(3,)]
    with open_file(tmp_path / "any thing-1.duckdb", settings=settings) as file:
        file.sql("INSERT INTO s.u(a) VALUES (5)")
        file.publish()
    found = diff_versions(chain, settings, 1, 2)
    assert [(t.table, t.rows_added) for t in found.tables] == [("s.u", 1)]


def test_a_model_can_begin_as_a_fork_of_a_published_file(settings: Settings, tmp_path: Path) -> None:
    """A file with plain tables becomes a model that shares its blocks; one with more than that is refused."""
    with open_file(tmp_path / "sales.duckdb", settings=settings) as file:
        file.connection.execute("CREATE TABLE t(x BIGINT PRIMARY KEY)")
        file.connection.execute("INSERT INTO t SELECT i FROM range(200_000) r(i)")
        file.publish()
        file.connection.execute("CREATE VIEW seen AS SELECT x FROM t")
        file.publish()
    with PublishedModel(settings.store, tmp_path, "plan") as model:
        refused, _ = model.send("create_model", {"from": {"model": "sales"}})
        assert refused.error is not None
        assert (refused.error["code"], "seen" in refused.error["message"]) == (Code.BAD_SOURCE, True)
        model.request("create_model", {"from": {"model": "sales", "version": 1}})
        last = model.request("append", {"table": "t", "rows": [{"x": 200_000}]})
        assert [(t.name, t.rows, t.primary_key) for t in last.tables] == [("t", 200_001, ("x",))]


@S3_IS_SLOW
def test_a_name_of_a_model_with_a_log_is_refused(settings: Settings, tmp_path: Path) -> None:
    """A file can never be published into a manager's chain."""
    with PublishedModel(settings.store, tmp_path, "sales") as model:
        model.create({"t": {"x": "BIGINT"}})
        with open_file(tmp_path / "sales.duckdb", settings=settings) as file:
            with pytest.raises(RequestError) as caught:
                file.publish()
            assert caught.value.code is Code.MODEL_EXISTS
        assert model.sql("INSERT INTO t VALUES (1)").version == 3


async def test_a_manager_leaves_a_published_file_alone(installation: Installation, tmp_path: Path) -> None:
    """Requests under the name of a published file make its manager stop with advice; the chain is unchanged."""
    with open_file(tmp_path / "sales.duckdb", settings=installation.settings) as file:
        file.sql("CREATE TABLE t AS SELECT 1 AS x")
        file.publish()
    await installation.publish("create_model", {}, "create")
    manager = installation.manager()
    assert await manager.exit_code() == EXIT_OPERATOR
    assert "teatree fork sales NEW" in manager.output()
    assert installation.chain.newest_version() == 1


# --- files that cannot be opened ---

HOLD = (
    "import duckdb, sys; con = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == 'r');"
    " print('open', flush=True); sys.stdin.read()"
)


@pytest.mark.parametrize("mode", ["rw", "r"])
def test_a_file_in_use_by_another_process_is_refused(file_store: StoreSettings, tmp_path: Path, mode: str) -> None:
    """The error names the other process, and opening works when that has ended."""
    path = tmp_path / "sales.duckdb"
    duckdb.connect(str(path)).close()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    with pytest.raises(RetryError) as caught:
        open_file(path, settings=Settings(store=file_store))
    assert (caught.value.code, "another process" in caught.value.message) == (Code.BUSY, True)
    holder.communicate("")
    with open_file(path, settings=Settings(store=file_store)) as file:
        assert file.publish().version == 1


def _others_are_locked_out(path: Path) -> bool:
    code = "import duckdb, sys; duckdb.connect(sys.argv[1])"
    return subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("link", [False, True])
def test_a_file_in_use_in_this_process_is_refused_and_stays_locked(
    file_store: StoreSettings,
    tmp_path: Path,
    link: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """The attempt does not release the other connection's lock, as POSIX would when a file is opened and closed."""
    path = named = tmp_path / "sales.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE t(x INTEGER)")
        if link:
            named = tmp_path / "link.duckdb"
            named.symlink_to(path)
        with pytest.raises(RetryError) as caught:
            open_file(named, settings=Settings(store=file_store))
        assert (caught.value.code, "this process" in caught.value.message) == (Code.BUSY, True)
        assert _others_are_locked_out(path)


def test_the_lock_holds_until_the_last_connection_is_closed(file_store: StoreSettings, tmp_path: Path) -> None:
    """Publishing reads the file without releasing its lock, and a relation that outlives `close` keeps it."""
    path = tmp_path / "sales.duckdb"
    file = open_file(path, settings=Settings(store=file_store))
    file.sql("CREATE TABLE t AS SELECT 1 AS x")
    file.publish()
    assert _others_are_locked_out(path)
    with pytest.raises(RetryError):
        open_file(path, settings=Settings(store=file_store))
    assert _others_are_locked_out(path)
    relation = file.sql("SELECT x FROM t")
    file.close()
    assert is_open_for_writing_here(path) == _others_are_locked_out(path)
    del relation
    assert not _others_are_locked_out(path)
    file.close()


def test_what_is_no_duckdb_file_is_refused(file_store: StoreSettings, tmp_path: Path) -> None:
    """Other bytes, an empty file, smaller blocks, a missing folder, an invalid name."""
    settings = Settings(store=file_store)
    text = tmp_path / "text.duckdb"
    text.write_text("no database " * 2_000)
    (tmp_path / "empty.duckdb").touch()
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{tmp_path / 'small.duckdb'}' AS s (BLOCK_SIZE 16384)")
        con.execute("CREATE TABLE s.t AS SELECT 1 AS x")
    for name, code in (
        ("text", Code.BAD_SOURCE),
        ("empty", Code.BAD_SOURCE),
        ("small", Code.BAD_SOURCE),
        ("nowhere/x", Code.USAGE),
        ("4711", Code.BAD_NAME),
    ):
        with pytest.raises(RequestError) as caught:
            open_file(tmp_path / f"{name}.duckdb", settings=settings)
        assert caught.value.code is code, name
    assert text.read_text().startswith("no database")
    with pytest.raises(RequestError):
        open_file(tmp_path / "x.duckdb", settings=settings, name="Sales")
    assert not (tmp_path / "x.duckdb").exists()


def test_a_damaged_block_is_never_published(file_store: StoreSettings, tmp_path: Path) -> None:
    """DuckDB would open the file; the error of publishing names the damaged block."""
    path = tmp_path / "sales.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE t AS SELECT hash(i) AS x FROM range(300_000) r(i)")
    flip(path, 12_288 + 262_144 + 100_000, bit=1)
    settings = Settings(store=file_store)
    with open_file(path, settings=settings) as opened, pytest.raises(OperatorError) as caught:
        opened.publish()
    assert caught.value.code is Code.CORRUPT
    assert "block 1" in str(caught.value)
    assert Chain(open_store(file_store), settings.nats.prefix, "sales").newest_version() == 0


def test_an_unavailable_store_changes_nothing(s3_server: StoreSettings, tmp_path: Path) -> None:
    """Publishing fails as unavailable, and the next publish succeeds."""
    away = evolve(s3_server, url="s3://bucket/x?endpoint=http://127.0.0.1:9")
    with open_file(tmp_path / "sales.duckdb", settings=Settings(store=away)) as file:
        file.sql("CREATE TABLE t AS SELECT 1 AS x")
        with pytest.raises(RetryError) as caught:
            file.publish()
        assert caught.value.code is Code.UNAVAILABLE
    with open_file(tmp_path / "sales.duckdb", settings=Settings(store=s3_server)) as file:
        assert file.publish().version == 1


# --- the library and the command line ---


def test_the_library_and_the_command_line_publish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`teatree.open` and `teatree publish`, then versions, pull and diff of that folder, without any environment."""
    for name in list(os.environ):
        if name.startswith("TEATREE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TEATREE_CACHE_FOLDER", "")
    monkeypatch.chdir(tmp_path)
    with teatree.open("sales.duckdb", store="versions") as m:
        m.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, x VARCHAR)")
        m.sql("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
        assert m.publish().version == 1
        m.sql("UPDATE t SET x = 'c' WHERE id = 2")
    assert run(["publish", "sales.duckdb", "versions"]) == 0
    assert "version 2 of sales" in capfd.readouterr().out
    assert run(["publish", "sales.duckdb", (tmp_path / "versions").as_uri()]) == 0
    assert "sales.duckdb is unchanged since version 2 of sales." in capfd.readouterr().out
    assert run(["versions", "sales", "--store", "versions", "--json"]) == 0
    assert capfd.readouterr().out.count("\n") == 2
    assert run(["models", "--store", "versions", "--json"]) == 0
    assert '"name":"sales","state":"active","version":2' in capfd.readouterr().out
    assert run(["diff", "sales", "1", "2", "--store", "versions", "--rows", "5"]) == 0
    assert "b → c" in capfd.readouterr().out
    assert run(["pull", "sales", "pulled.duckdb", "--version", "1", "--store", "versions"]) == 0
    with duckdb.connect("pulled.duckdb", read_only=True) as con:
        assert con.execute("SELECT x FROM t ORDER BY id").fetchall() == [("a",), ("b",)]
    assert run(["publish", "nothing.duckdb", "versions"]) == 2
    found = sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("."))
    assert found == ["pulled.duckdb", "sales.duckdb", "versions"]


def test_a_file_published_repeatedly_verifies_and_is_pulled_unchanged(settings: Settings, tmp_path: Path) -> None:
    """Each publisher begins an epoch; second schemas, views, macros, sequences and indexes are part of the file."""
    path = tmp_path / "mine.duckdb"
    with open_file(path, settings=settings, name="mine") as file:
        for statement in (
            "CREATE SEQUENCE counter",
            "CREATE TABLE x(id INTEGER PRIMARY KEY DEFAULT nextval('counter'), text VARCHAR, half AS (id / 2))",
            "CREATE INDEX by_text ON x(text)",
            "CREATE SCHEMA second",
            "CREATE TABLE second.x(id INTEGER)",
            'CREATE TABLE "second.x"(id INTEGER)',
            'CREATE SCHEMA _teatree; CREATE TABLE _teatree."commits"(id INTEGER)',
            "CREATE VIEW second.both AS SELECT id FROM main.x UNION ALL SELECT id FROM second.x",
            "CREATE MACRO twice(a) AS a * 2",
            "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE moods(m mood)",
        ):
            file.connection.execute(statement)
    for number in range(3):
        with open_file(path, settings=settings, name="mine") as file:
            file.connection.execute(f"INSERT INTO x(text) VALUES ('{number}'); INSERT INTO second.x VALUES ({number})")
            file.connection.execute("INSERT INTO \"second.x\" VALUES (7); INSERT INTO moods VALUES ('ok')")
            file.publish()
    chain = Chain(open_store(settings.store), settings.nats.prefix, "mine")
    report = verify(chain, all_versions=True)
    assert report.findings == ()
    assert (report.versions, {t.name: t.rows for t in chain.get(3).tables}['"main"."second.x"']) == (3, 3)
    everything = (
        "SELECT (SELECT sum(twice(id)) FROM second.both), (SELECT count(*) FROM x WHERE text = '1'), half FROM x"
    )
    assert _rows(chain, tmp_path, 3, everything) == [(18, 1, 0.5), (18, 1, 1.0), (18, 1, 1.5)]
