"""Tables of a model: their names, types that are long or unknown, and what many of them cost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from attrs import evolve

from one_writer import OneWriter, Sent
from teatree.contracts.errors import Code
from teatree.contracts.formats.manifest import Manifest
from teatree.contracts.formats.notices import Outcome, Status
from teatree.contracts.settings import Settings, StoreSettings
from teatree.datasets.catalog_tables import read_table, read_tables
from teatree.engine.open_file import open_file

FOLDED_ALIKE = (
    ("İx", "ix"),
    ("ΟΔΟΣ", "οδοσ"),
    ("Ä", "ä"),
    ("\N{LATIN SMALL LETTER LONG S}", "s"),
    ("\N{KELVIN SIGN}", "k"),
)
"""Names that are equal for Python or SQL's `lower`, and different for DuckDB's catalog."""


def created(name: str, **columns: str) -> Sent:
    """Return a request that creates a table."""
    described = [{"name": column, "type": kind} for column, kind in columns.items()]
    return Sent("create_table", {"table": name, "columns": described})


def done(*outcomes: Outcome) -> None:
    """Check that requests were done."""
    assert [o.status for o in outcomes] == [Status.DONE] * len(outcomes), [o.error for o in outcomes]


def code_of(outcome: Outcome) -> str:
    """Return the code that a request was refused with."""
    assert outcome.error is not None
    return str(outcome.error["code"])


def newest(writer: OneWriter) -> Manifest:
    """Return the newest manifest, as readers parse it."""
    manifest = writer.chain.newest()
    assert manifest is not None
    return manifest


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[OneWriter]:
    """Return a model without tables but `good` and `t`."""
    opened = OneWriter(tmp_path, [{"table": "t", "columns": [{"name": "id", "type": "BIGINT"}]}])
    yield opened
    opened.close()


@pytest.mark.parametrize(("one", "two"), FOLDED_ALIKE)
def test_names_are_equal_where_duckdbs_are(writer: OneWriter, one: str, two: str) -> None:
    """A to Z equal a to z in the name of a table, a column and a member; no other letters are equal."""
    kind = f'STRUCT("{one}" INTEGER, "{two}" INTEGER)'
    done(*writer.apply(created(one, **{one: "INTEGER", two: kind}), created(two, v="INTEGER")))
    row = {one: 1, two: {one: 2, two: 3}}
    done(
        *writer.apply(Sent("append", {"table": one, "rows": [row]}), Sent("append", {"table": two, "rows": [{"V": 4}]}))
    )
    assert writer.rows(f'SELECT * FROM "{one}"') == [row]
    changed = Sent("update", {"table": one, "set": {one: 5}, "where": {one: 1}})
    done(
        *writer.apply(
            changed, Sent("alter_table", {"table": one, "rename": {one: "z"}}), Sent("drop_table", {"table": two})
        )
    )
    assert writer.rows(f'SELECT * FROM "{one}"') == [{"z": 5, two: row[two]}]
    assert [entry.name for entry in newest(writer).tables] == sorted(["good", "t", one])
    (again,) = writer.apply(created("T", v="INTEGER"))
    assert code_of(again) == Code.TABLE_EXISTS
    writer.check_good_rows()


def test_a_type_is_read_back_though_its_text_grew(writer: OneWriter) -> None:
    """An accepted type is never too long to be read from the file, a manifest or an Arrow schema."""
    enum = "ENUM(" + ",".join(f"'v{i:011d}'" for i in range(65_536)) + ")"
    members = "STRUCT(" + ",".join(f"a{i} DEC" for i in range(60)) + ")"
    nested = f"MAP({members},{members}[])"
    assert len(enum) < 1_000_000
    done(
        *writer.apply(
            created("e", c=enum),
            created("n", c=nested),
            Sent("append", {"table": "e", "rows": [{"c": "v00000000007"}]}),
        )
    )
    assert writer.rows("SELECT c FROM e") == [{"c": "v00000000007"}]
    entry = next(entry for entry in newest(writer).tables if entry.name == "e")
    assert (entry.rows, entry.fault) == (1, None)
    assert len(str(entry.schema["c"].dtype)) > 1_000_000


def test_descriptions_are_bounded(writer: OneWriter) -> None:
    """The size of all tables in a manifest has a limit for every function; the model continues."""
    enum = "ENUM(" + ",".join(f"'{'v' * 30_000}{i}'" for i in range(33)) + ")"
    done(*writer.apply(*(created(f"e{i}", c=enum) for i in range(8))))
    add = {"name": "more", "type": enum}
    for bad in (created("e8", c=enum), Sent("alter_table", {"table": "e7", "add": add})):
        assert code_of(writer.between(bad)) == Code.OUT_OF_RANGE
    done(*writer.apply(Sent("drop_table", {"table": "e0"}), created("e8", c=enum)))
    assert len(newest(writer).tables) == 10
    writer.check_good_rows()


def test_one_table_reads_as_all_do() -> None:
    """The look-up of one table has the same result as a scan of the catalog, for any columns."""
    with duckdb.connect() as con:
        con.execute(
            """CREATE TABLE "a ""b.c"("x.y" ENUM('it''s'), "s t" STRUCT("q r" DECIMAL(5, 1), "SELECT" TIMETZ[]),
            d TIMESTAMP DEFAULT now(), e INTEGER DEFAULT 3 + 4 NOT NULL, f VARCHAR DEFAULT 'it''s', g INT DEFAULT NULL,
            h INTERVAL DEFAULT to_days(3), k INTEGER, l VARCHAR, PRIMARY KEY(l, k))"""
        )
        con.execute(
            "CREATE TABLE plain(id INTEGER PRIMARY KEY); CREATE TABLE odd(v VARIANT); CREATE VIEW v AS FROM plain"
        )
        tables = read_tables(con)
        assert [table.name for table in tables] == ['a "b.c', "odd", "plain"]
        assert [read_table(con, table.name) for table in tables] == tables
        assert tables[0].primary_key == ("l", "k")
        assert tables[1].fault is not None


@pytest.fixture
def forked(tmp_path: Path) -> Iterator[OneWriter]:
    """Return a model that began as a fork of a file whose table `odd` has a type that models do not have."""
    writer = OneWriter(tmp_path / "models")
    settings = Settings(store=StoreSettings(url=(tmp_path / "models" / "store").absolute().as_uri()))
    settings = evolve(settings, nats=evolve(settings.nats, prefix="t"))
    with open_file(tmp_path / "own.duckdb", name="own", settings=settings) as file:
        file.connection.execute("CREATE TABLE good(n BIGINT); CREATE TABLE odd(id INTEGER, v VARIANT)")
        file.connection.execute("INSERT INTO odd VALUES (1, 'text'), (2, 3)")
        file.publish()
    done(*writer.apply(Sent("create_model", {"from": {"model": "own"}})))
    yield writer
    writer.close()


def test_a_table_that_cannot_be_described_harms_only_itself(forked: OneWriter) -> None:
    """Requests for it are refused, its neighbours are done, versions are published and name its error."""
    for bad in (
        Sent("append", {"table": "odd", "rows": [{"id": 1}]}),
        Sent("alter_table", {"table": "odd", "rename": {"id": "x"}}),
        Sent("sql", {"statement": "INSERT INTO odd (id) VALUES (3)"}),
        Sent("delete", {"table": "ODD", "where": {}}),
        Sent("archive", {"tables": ["odd"]}),
    ):
        assert code_of(forked.between(bad)) == Code.TABLE_NOT_DESCRIBED
    forked.check_good_rows()
    faults = {entry.name: (entry.rows, entry.fault) for entry in newest(forked).tables}
    assert faults["good"] == (10, None)
    assert faults["odd"][0] == 2
    assert "VARIANT" in str(faults["odd"][1])
    assert forked.rows("SELECT count(*) AS n FROM odd") == [{"n": 2}]


def test_a_table_that_cannot_be_described_is_dropped_and_restored(forked: OneWriter) -> None:
    """`drop_table` removes it; `restore` restores versions with it and without it."""
    first = newest(forked).version
    done(*forked.apply(Sent("drop_table", {"table": "odd"})))
    second = newest(forked)
    assert [entry.name for entry in second.tables] == ["good"]
    done(*forked.apply(Sent("restore", {"version": first})))
    assert forked.rows("SELECT id, v::VARCHAR AS v FROM odd ORDER BY id") == [
        {"id": 1, "v": "text"},
        {"id": 2, "v": "3"},
    ]
    assert [entry.fault is None for entry in newest(forked).tables] == [True, False]
    done(*forked.apply(Sent("restore", {"version": second.version})))
    assert [entry.name for entry in newest(forked).tables] == ["good"]


def test_a_schema_change_reads_one_table(writer: OneWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are created and dropped without a scan of the catalog for each, also after a rollback."""
    scans: list[int] = []

    def counted(con: duckdb.DuckDBPyConnection) -> object:
        scans.append(1)
        return read_tables(con)

    monkeypatch.setattr("teatree.engine.duckdb.handle.read_tables", counted)
    for start in range(3):
        made = [created(f"t{start}_{i}", v="INTEGER") for i in range(5)]
        done(*writer.apply(*made, Sent("drop_table", {"table": f"t{start}_4"})))
        bad = Sent("sql", {"statement": "INSERT INTO t VALUES ('x')"})
        assert code_of(writer.between(bad)) == Code.TYPE_MISMATCH
    assert len(scans) <= 1
    assert len(newest(writer).tables) == 14
