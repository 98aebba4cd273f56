"""The handles of an app's functions: what they do to a model, and what they refuse."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from teatree import Dataset, Field, RequestError, Schema
from teatree.contracts.errors import Code, RetryError
from teatree.contracts.settings import LimitSettings
from teatree.contracts.types.schema import parse_dtype
from teatree.engine.duckdb.database import Database
from teatree.engine.duckdb.handle import WriteHandle
from teatree.engine.errors import InvalidatedError
from teatree.functions.app.handles import Read, Write, read_handle, write_handle

MOMENT = datetime(2026, 2, 3, 4, 5, 6, 7, UTC)
ID = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")
HUGE = 2**100


class Colour(StrEnum):
    RED = "red"


class Size(Enum):
    BIG = 3


@attrs.frozen
class OrderItem:
    id: int
    amount: Decimal


@pytest.fixture
def access(tmp_path: Path) -> Iterator[WriteHandle]:
    """Yield the engine's handle in an open transaction."""
    limits = LimitSettings()
    with Database(tmp_path / "m.duckdb", limits) as database:
        handle = WriteHandle(database, limits)
        database.begin()
        handle.begin()
        yield handle
        database.rollback()


@pytest.fixture
def db(access: WriteHandle) -> Iterator[Write]:
    """Yield a handle for writing, and a table."""
    with write_handle(access) as handle:
        handle.create_table("t", {"id": "BIGINT", "amount": "DECIMAL(18,2)"}, primary_key="id")
        yield handle


def refused(caught: pytest.ExceptionInfo[RequestError]) -> tuple[Code, str | None]:
    """Return the code and the place of an error."""
    return caught.value.code, caught.value.where


def test_rows_of_every_form_are_taken(db: Write) -> None:
    """Dicts, instances, frames, Arrow tables and datasets are rows alike; a function sees what it wrote."""
    assert db.append("t", [{"id": 1, "amount": "0.10"}, {"id": 2}]) == 2
    assert db.append("t", [OrderItem(3, Decimal("0.30"))]) == 1
    assert db.append("t", pl.DataFrame({"id": [4], "amount": [Decimal("0.4")]})) == 1
    assert db.append("T", pa.table({"ID": [5]})) == 1
    assert db.append("t", db.sql("SELECT id + 10 AS id, amount FROM t WHERE id = 3")) == 1
    assert db.append("t", (row for row in [{"id": 20}])) == 1
    assert db.append("t", []) == 0
    assert db.table("t").rows() == [
        {"id": 1, "amount": Decimal("0.10")},
        {"id": 2, "amount": None},
        {"id": 3, "amount": Decimal("0.30")},
        {"id": 4, "amount": Decimal("0.40")},
        {"id": 5, "amount": None},
        {"id": 13, "amount": Decimal("0.30")},
        {"id": 20, "amount": None},
    ]


def test_rows_are_replaced_and_set_by_key(db: Write) -> None:
    """`replace` puts rows in place of all, `upsert` by the primary key or another one; `execute` counts its rows."""
    db.append("t", [{"id": 1, "amount": 1}, {"id": 2, "amount": 2}])
    assert db.upsert("t", [{"id": 2, "amount": 5}, {"id": 3, "amount": 3}]) == 2
    assert db.upsert("t", [{"id": 1, "amount": Decimal("7.5")}], key="id") == 1
    assert (
        db.execute("UPDATE t SET amount = amount + $plus WHERE id >= $least", {"plus": Decimal("0.5"), "least": 2}) == 2
    )
    assert db.sql("SELECT id, amount FROM t ORDER BY id").to_polars().rows() == [
        (1, Decimal("7.50")),
        (2, Decimal("5.50")),
        (3, Decimal("3.50")),
    ]
    assert db.replace("t", [{"id": 9}]) == 1
    assert len(db.table("t")) == 1
    with pytest.raises(RequestError) as caught:
        db.upsert("t", [{"id": 1}], key=["nosuch"])
    assert refused(caught) == (Code.UNKNOWN_COLUMN, "key.nosuch")


VALUES: list[tuple[str, Any, Any]] = [
    ("BOOLEAN", True, True),
    ("BIGINT", 2**60 + 1, 2**60 + 1),
    ("BIGINT", np.int64(5), 5),
    ("BIGINT", Size.BIG, 3),
    ("HUGEINT", HUGE, HUGE),
    ("DOUBLE", 0.1, 0.1),
    ("DOUBLE", np.float64(0.1), 0.1),
    ("DECIMAL(18,2)", Decimal("1.50"), Decimal("1.50")),
    ("DECIMAL(18,2)", 1.5, Decimal("1.50")),
    ("DECIMAL(18,1)", np.float32(0.1), Decimal("0.1")),
    ("VARCHAR", "ä", "ä"),
    ("VARCHAR", Colour.RED, "red"),
    ("ENUM('red')", Colour.RED, "red"),
    ("DATE", date(2026, 2, 3), date(2026, 2, 3)),
    ("DATE", "2026-02-03", date(2026, 2, 3)),
    ("DATE", np.datetime64("2026-02-03"), date(2026, 2, 3)),
    ("TIME", time(1, 2, 3, 4), time(1, 2, 3, 4)),
    ("TIMESTAMP", MOMENT.replace(tzinfo=None), MOMENT.replace(tzinfo=None)),
    ("TIMESTAMPTZ", MOMENT, MOMENT),
    ("TIMESTAMPTZ", datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)),
    ("INTERVAL", timedelta(days=1, microseconds=5), (0, 0, 86_400_000_005_000)),
    ("INTERVAL", pa.MonthDayNano([1, 2, 3_000]), (1, 2, 3_000)),
    ("UUID", ID, ID),
    ("BLOB", b"\0\xff", b"\0\xff"),
    ("BLOB", bytearray(b"ab"), b"ab"),
    ("JSON", {"a": [1, Decimal("1.50"), date(2026, 2, 3), (Colour.RED,)]}, '{"a":[1,1.50,"2026-02-03",["red"]]}'),
    ("BIGINT[]", (1, None, np.int32(3)), [1, None, 3]),
    ("DATE[]", [date(2026, 2, 3)], [date(2026, 2, 3)]),
    ("DOUBLE[2]", np.array([1.0, 2.0]), [1.0, 2.0]),
    ("STRUCT(id BIGINT, amount DECIMAL(9,2))", OrderItem(1, Decimal("0.1")), {"id": 1, "amount": Decimal("0.10")}),
    ("MAP(DATE, BIGINT)", {date(2026, 2, 3): 5}, [(date(2026, 2, 3), 5)]),
    ("MAP(VARCHAR, UUID)", {"a": ID}, [("a", ID)]),
]


@pytest.mark.parametrize(("kind", "given", "expected"), VALUES)
def test_values_of_python_are_exact(db: Write, kind: str, given: Any, expected: Any) -> None:
    """A value comes back as it was given, and again after the rows that were read are written."""
    db.create_table("v", {"x": kind})
    db.append("v", [{"x": given}, {"x": None}])
    db.append("v", db.table("v"))
    assert [row["x"] for row in db.table("v").rows()] == [expected, None, expected, None]


@pytest.mark.parametrize(
    ("kind", "given", "code", "where"),
    [
        ("VARCHAR", date(2026, 2, 3), Code.TYPE_MISMATCH, ""),
        ("DATE", MOMENT, Code.TYPE_MISMATCH, ""),
        ("TIMESTAMP", MOMENT, Code.TYPE_MISMATCH, ""),
        ("TIMESTAMPTZ", MOMENT.replace(tzinfo=None), Code.TYPE_MISMATCH, ""),
        ("TIMESTAMP_S", MOMENT.replace(tzinfo=None), Code.TYPE_MISMATCH, ""),
        ("BIGINT", True, Code.TYPE_MISMATCH, ""),
        ("BIGINT", 1.5, Code.LOSSY_NUMBER, ""),
        ("TINYINT", np.int64(300), Code.OUT_OF_RANGE, ""),
        ("DECIMAL(18,2)", Decimal("0.001"), Code.LOSSY_NUMBER, ""),
        ("DECIMAL(18,2)", Decimal("NaN"), Code.TYPE_MISMATCH, ""),
        ("INTERVAL", pa.MonthDayNano([0, 0, 1]), Code.LOSSY_NUMBER, ""),
        ("BIGINT[]", {1, 2}, Code.TYPE_MISMATCH, ""),
        ("BIGINT[]", [1, "x"], Code.TYPE_MISMATCH, "[1]"),
        ("STRUCT(id BIGINT)", {"id": date(2026, 2, 3)}, Code.TYPE_MISMATCH, ".id"),
        ("STRUCT(id BIGINT)", {5: 1}, Code.TYPE_MISMATCH, ""),
        ("MAP(DATE, BIGINT)", {5: 1}, Code.TYPE_MISMATCH, "[0]"),
        ("JSON", {5: 1}, Code.TYPE_MISMATCH, ""),
        ("JSON", [float("nan")], Code.TYPE_MISMATCH, ""),
        ("JSON", object(), Code.TYPE_MISMATCH, ""),
        ("UUID", object(), Code.TYPE_MISMATCH, ""),
    ],
)
def test_a_value_that_would_change_is_refused_by_its_place(
    db: Write, kind: str, given: Any, code: Code, where: str
) -> None:
    """A value of another type, or that would lose digits, is an error that names the row and the column."""
    db.create_table("v", {"x": kind})
    with pytest.raises(RequestError) as caught:
        db.append("v", [{"x": None}, {"x": given}])
    assert refused(caught) == (code, f"rows[1].x{where}")
    db.append("v", [{"x": None}])  # nothing reached the transaction


@pytest.mark.parametrize(
    ("rows", "where"),
    [
        ({"id": [1]}, "rows"),
        ("id", "rows"),
        (5, "rows"),
        ([5], "rows[0]"),
        ([{5: 1}], "rows[0]"),
        ([{}], "rows[0].id"),
        ([OrderItem], "rows[0]"),
    ],
)
def test_what_is_no_rows_is_refused(db: Write, rows: Any, where: str) -> None:
    """Something else than rows is an error of the tree."""
    with pytest.raises(RequestError) as caught:
        db.append("t", rows)
    assert caught.value.where == where


def test_rows_join_as_tables(db: Write) -> None:
    """A statement reads frames and datasets by name, with their exact types, and only that one."""
    db.append("t", [{"id": 1}, {"id": 2}])
    frame = pl.DataFrame({"id": [2, 3], "amount": [0.5, 1.5]})
    found = db.sql("SELECT t.id, f.amount FROM t JOIN f USING (id)", tables={"f": frame})
    assert found.rows() == [{"id": 2, "amount": 0.5}]
    assert db.execute("INSERT INTO t SELECT id, amount FROM F WHERE id > ?", [2], tables={"f": frame}) == 1
    huge = Dataset.from_rows([{"h": HUGE, "i": "P1D"}], schema_of(h="HUGEINT", i="INTERVAL"))
    assert db.sql("SELECT typeof(h) AS a, typeof(i) AS b FROM x", tables={"x": huge}).rows() == [
        {"a": "HUGEINT", "b": "INTERVAL"}
    ]
    for sql, tables, code in [
        ("SELECT * FROM f", None, Code.UNKNOWN_TABLE),
        ("SELECT * FROM T", {"T": frame}, Code.BAD_NAME),
        ("SELECT 1", {"_teatree_x": frame}, Code.BAD_NAME),
        ("SELECT 1", {"a": frame, "A": frame}, Code.BAD_NAME),
        ("SELECT 1", {"a": [{"id": 1}]}, Code.BAD_ARGUMENT),
        ("SELECT 1", {"a": pl.DataFrame({"a": [object()]})}, Code.TYPE_MISMATCH),
    ]:
        with pytest.raises(RequestError) as caught:
            db.sql(sql, tables=tables)
        assert caught.value.code is code, caught.value
    with pytest.raises(RequestError) as caught:
        db.execute("INSERT INTO f VALUES (1, 2)", tables={"f": frame})
    assert caught.value.code is Code.UNKNOWN_TABLE
    assert db.sql("SELECT count(*) AS n FROM t").rows() == [{"n": 3}]


PARAMETERS: list[tuple[Any, str, Any]] = [
    (None, '"NULL"', None),
    (True, "BOOLEAN", True),
    (HUGE, "HUGEINT", HUGE),
    (Decimal("1.50"), "DECIMAL(3,2)", Decimal("1.50")),
    (np.int8(3), "INTEGER", 3),
    (Colour.RED, "VARCHAR", "red"),
    (b"\0a", "BLOB", b"\0a"),
    (date(2026, 2, 3), "DATE", date(2026, 2, 3)),
    (MOMENT, "TIMESTAMP WITH TIME ZONE", MOMENT),
    (timedelta(days=1), "INTERVAL", (0, 1, 0)),
    (ID, "UUID", ID),
    ([1, 2], "INTEGER[]", [1, 2]),
    ((date(2026, 2, 3),), "DATE[]", [date(2026, 2, 3)]),
]


@pytest.mark.parametrize(("given", "kind", "expected"), PARAMETERS)
def test_parameters_are_values_of_python(db: Write, given: Any, kind: str, expected: Any) -> None:
    """A parameter has the type and the value that Python's has."""
    ((found,),) = (row.values() for row in db.sql("SELECT $x AS x", {"x": given}).rows())
    assert found == expected
    ((found,),) = (row.values() for row in db.sql("SELECT typeof(?)", [given]).rows())
    assert found == kind


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ([2**200], Code.OUT_OF_RANGE),
        (["\ud800"], Code.TYPE_MISMATCH),
        ([Decimal("NaN")], Code.OUT_OF_RANGE),
        ([object()], Code.BAD_ARGUMENT),
        ([{"a": 1}], Code.BAD_ARGUMENT),
        ({1: 2}, Code.BAD_ARGUMENT),
        ("abc", Code.BAD_ARGUMENT),
        ([[[object()]]], Code.BAD_ARGUMENT),
        ([1] * 1_001, Code.OUT_OF_RANGE),
    ],
)
def test_other_parameters_are_refused(db: Write, parameters: Any, code: Code) -> None:
    """What DuckDB would take as something else is an error that names its place."""
    with pytest.raises(RequestError) as caught:
        db.sql("SELECT ?", parameters)
    assert caught.value.code is code
    assert (caught.value.where or "").startswith("parameters")
    db.tables()


@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT",
        "ROLLBACK",
        "ATTACH 'x.duckdb'",
        "COPY t TO 'x.csv'",
        "DROP TABLE t",
        "SELECT * FROM 'x.csv'",
        "SELECT * FROM _teatree.commits",
        "SET threads = 1",
        "UPDATE _teatree.commits SET version = 1",
        "SELECT 1; SELECT 2",
        "",
        5,
    ],
)
def test_the_guard_holds(db: Write, sql: Any) -> None:
    """What clients may not run, an app's function may not: neither as a query nor as a change."""
    for run in (db.sql, db.execute):
        with pytest.raises(RequestError) as caught:
            run(sql)
        assert caught.value.code in (Code.SQL_NOT_ALLOWED, Code.BAD_SQL)
    assert db.tables() == ("t",)


def test_tables_are_made_and_dropped(db: Write) -> None:
    """Columns are types by name, a schema, or what a request has; what exists can be left as it is."""
    assert db.create_table("a", schema_of(x="ENUM('a')", y="BIGINT"))
    assert db.create_table(
        "b", [{"name": "n", "type": "BIGINT", "nullable": False, "default": 5}, {"name": "m", "type": "DATE"}]
    )
    assert not db.create_table("A", {"x": "BIGINT"}, if_not_exists=True)
    db.append("b", [{"m": date(2026, 1, 1)}])
    assert db.table("b").rows() == [{"n": 5, "m": date(2026, 1, 1)}]
    assert db.tables() == ("a", "b", "t")
    assert [str(column.dtype) for column in db.schema("a")] == ["ENUM('a')", "BIGINT"]
    assert db.drop_table("a")
    assert not db.drop_table("a", if_exists=True)
    for call, code in [
        (lambda: db.create_table("t", {"x": "BIGINT"}), Code.TABLE_EXISTS),
        (lambda: db.create_table("_teatree_x", {"x": "BIGINT"}), Code.BAD_NAME),
        (lambda: db.create_table("c", {"x": "NOSUCH"}), Code.BAD_ARGUMENT),
        (lambda: db.create_table("c", {}), Code.MISSING_ARGUMENT),
        (lambda: db.create_table("c", [5]), Code.BAD_ARGUMENT),  # type: ignore[list-item]
        (lambda: db.create_table("c", {"x": "BIGINT"}, primary_key="y"), Code.UNKNOWN_COLUMN),
        (lambda: db.drop_table("a"), Code.UNKNOWN_TABLE),
        (lambda: db.table("nosuch"), Code.UNKNOWN_TABLE),
        (lambda: db.schema(5), Code.BAD_ARGUMENT),  # type: ignore[arg-type]
    ]:
        with pytest.raises(RequestError) as caught:
            call()  # type: ignore[no-untyped-call]
        assert caught.value.code is code, caught.value


def test_a_handle_ends_with_its_function(access: WriteHandle) -> None:
    """A handle that was kept is refused, and so is one in another thread."""
    with write_handle(access) as db:
        db.create_table("t", {"id": "BIGINT"})
        view = db.read_only()
        errors: list[BaseException] = []

        def use() -> None:
            try:
                db.tables()
            except RequestError as e:
                errors.append(e)

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    for handle in (db, view):
        with pytest.raises(RequestError, match="had ended") as caught:
            handle.sql("SELECT 1")
        assert caught.value.code is Code.USAGE
    with pytest.raises(RequestError, match="had ended"):
        db.append("t", [{"id": 1}])
    assert "another thread" in str(errors[0])


def test_only_the_type_decides_the_permission(access: WriteHandle) -> None:
    """A `Read` has no way to write, in a mutation either, and no public name that leads to the access below it."""
    with write_handle(access) as db:
        db.create_table("t", {"id": "BIGINT"})
        view = db.read_only()
        assert not isinstance(view, Write)
        assert view.tables() == ("t",)
        public = {name for name in dir(view) if not name.startswith("_")}
        assert public == {"sql", "table", "tables", "schema", "other"}
        with pytest.raises(RequestError):
            view.sql("INSERT INTO t VALUES (1)")
        with pytest.raises(AttributeError):
            view.extra = 1  # type: ignore[attr-defined]
    with read_handle(access) as reading:
        assert type(reading) is Read


def test_an_error_that_ended_the_transaction_ends_the_function(access: WriteHandle) -> None:
    """A function that catches it cannot continue, and does not succeed: nothing that it wrote could be kept."""

    def keep_trying(db: Write) -> None:
        db.create_table("t", {"id": "BIGINT"}, primary_key=["id"])
        db.append("t", [{"id": 1}])
        with pytest.raises(RequestError):
            db.append("t", [{"id": 1}])
        with pytest.raises(RequestError, match="primary key"):
            db.sql("SELECT 1")

    with pytest.raises(RequestError) as caught, write_handle(access) as db:
        keep_trying(db)
    assert caught.value.code is Code.CONSTRAINT


def test_an_error_before_the_database_can_be_caught(db: Write) -> None:
    """What was refused before it reached the database leaves the function as it was."""
    with pytest.raises(RequestError):
        db.append("t", [{"id": "x"}])
    with pytest.raises(RequestError):
        db.sql("SELECT nosuch(")
    assert db.append("t", [{"id": 1}]) == 1


def test_an_error_of_the_engine_is_not_hidden(access: WriteHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that catches a failure of the database, or raises another error instead, does not hide it."""

    def broken(*_: object) -> Any:
        raise InvalidatedError(Code.OVER_LIMIT, "The database needs more memory.")

    monkeypatch.setattr(access, "dataset", broken)

    def hide(db: Write) -> None:
        try:
            db.sql("SELECT 1")
        except RetryError:
            raise KeyError("hidden") from None

    with pytest.raises(InvalidatedError), write_handle(access) as db:
        hide(db)
    with pytest.raises(RequestError, match="object store"), read_handle(access) as reading:
        reading.other("m")


def schema_of(**columns: str) -> Schema:
    """Return a schema of names and types."""
    return Schema(tuple(Field(name, parse_dtype(kind, "type")) for name, kind in columns.items()))
