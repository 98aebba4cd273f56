"""Functions of `.sql` files: a header, parameters that are bound, and statements of the right kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from plain_handles import CONTEXT, PlainRead, PlainWrite
from teatree import App, Code, OperatorError, RequestError
from teatree.functions.app.app_function import FunctionKind, HandleKind
from teatree.testing.apps import app_model

GOALS_OF = """-- query(site: str, limit: int = 100,
--       until: date | None = None, kinds: list[Literal['a', 'b']] = [])
-- The goals of a site,
-- largest first.
-- labels: task_type=report, team=sales
-- page_size: 500
SELECT * FROM goals WHERE site = $site AND ($until IS NULL OR day <= $until) AND kind IN $kinds LIMIT $limit;
"""
REPRICE = """
-- mutation reprice_all(pct: Decimal = 0.10, *, site: str)
-- alone: true
UPDATE prices SET price = price * (1 + $pct) WHERE site = $site; -- a ; in a comment
INSERT INTO log VALUES ('$pct; repriced', $site);
"""
FINAL = """-- mutation
DELETE FROM goals;
SELECT count(*) AS n FROM goals
"""


class NotedRead(PlainRead):
    """A handle that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []

    @override
    def sql(self, sql: str, parameters: Any = (), **_: Any) -> Any:
        self.asked.append(("sql", sql.strip(), parameters))
        return "rows"


class NotedWrite(PlainWrite):
    """A handle that notes what it is asked, and changes two rows each time."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []

    @override
    def sql(self, sql: str, parameters: Any = (), **_: Any) -> Any:
        self.asked.append(("sql", sql.strip(), parameters))
        return "rows"

    @override
    def execute(self, sql: str, parameters: Any = (), **_: Any) -> int:
        self.asked.append(("execute", sql.strip(), parameters))
        return 2


def app_of(folder: Path, **files: str) -> App:
    """Return an app with functions of files."""
    for name, text in files.items():
        (folder / f"{name}.sql").write_text(text)
    app = App("orders")
    app.sql(folder)
    return app


def test_a_query_binds_its_parameters(tmp_path: Path) -> None:
    """The header is a signature; arguments are read as those of a function in Python are."""
    app = app_of(tmp_path, goals_of=GOALS_OF)
    found = app.functions["goals_of"]
    assert (found.kind, found.handle, found.page_size) == (FunctionKind.QUERY, HandleKind.READ, 500)
    assert found.labels == {"task_type": "report", "team": "sales"}
    assert found.doc == "The goals of a site,\nlargest first."
    assert found.signature == (
        "goals_of(site: str, limit: int = 100, until: date | None = None, kinds: list[Literal['a', 'b']] = [])"
    )
    handle = NotedRead()
    arguments = found.read_arguments({"site": "x'; DROP TABLE goals; --", "kinds": ["a"]})
    assert found.run(arguments, handle, CONTEXT) == "rows"
    ((kind, sql, parameters),) = handle.asked
    assert (kind, sql.endswith("LIMIT $limit;")) == ("sql", True)
    assert parameters == {"site": "x'; DROP TABLE goals; --", "limit": 100, "until": None, "kinds": ["a"]}
    with pytest.raises(RequestError) as e:
        found.read_arguments({"site": "x", "kinds": ["a", "c"]})
    assert (e.value.code, e.value.where) == (Code.TYPE_MISMATCH, "kinds[1]")


def test_a_mutation_has_several_statements(tmp_path: Path) -> None:
    """Each statement gets the parameters that it uses; the result is how many rows were changed."""
    found = app_of(tmp_path, reprice=REPRICE).functions["reprice_all"]
    assert (found.kind, found.handle, found.alone) == (FunctionKind.MUTATION, HandleKind.WRITE, True)
    handle = NotedWrite()
    assert found.run(found.read_arguments({"site": "Graz"}), handle, CONTEXT) == {"rows": 4}
    assert [(kind, sorted(parameters)) for kind, _, parameters in handle.asked] == [
        ("execute", ["pct", "site"]),
        ("execute", ["site"]),
    ]
    assert str(handle.asked[0][2]["pct"]) == "0.1"


def test_a_mutation_can_end_with_a_select(tmp_path: Path) -> None:
    """Its rows are the result."""
    found = app_of(tmp_path, final=FINAL).functions["final"]
    handle = NotedWrite()
    assert found.run({}, handle, CONTEXT) == "rows"
    assert [kind for kind, _, _ in handle.asked] == ["execute", "sql"]


TYPED = """-- query(n: int, wide: int, x: float, amount: Decimal, text: str, day: date, at: datetime, zoned: datetime,
--       clock: time, took: timedelta, key: UUID, raw: bytes, flag: bool, none: int | None, many: list[int])
SELECT $n AS n, $wide AS wide, $x AS x, $amount AS amount, $text AS text, $day AS day, $at AS at, $zoned AS zoned,
  $clock AS clock, $took AS took, $key AS key, $raw AS raw, $flag AS flag, $none AS "none", $many AS many
"""
SPREAD = """-- mutation(site: str, pct: Decimal = 10)
UPDATE goals SET amount = amount * (1 + $pct / 100) WHERE site = $site;
INSERT INTO goals SELECT $site || '2', sum(amount) FROM goals WHERE site = $site;
SELECT site, amount FROM goals WHERE starts_with(site, $site) ORDER BY site;
"""


def test_a_statement_has_the_values_of_its_arguments(tmp_path: Path) -> None:
    """Each type of a header reaches DuckDB as its type, with its value."""
    arguments: dict[str, Any] = {
        "n": 5,
        "wide": 2**70,
        "x": 0.1,
        "amount": "12345678901234567890.12",
        "text": "'; DROP TABLE goals; --",
        "day": "2026-01-31",
        "at": "2026-01-31T10:30:00.5",
        "zoned": "2026-01-31T10:30:00+02:00",
        "clock": "10:30:00",
        "took": "P1DT2H",
        "key": "01234567-89ab-cdef-0123-456789abcdef",
        "raw": "AAEC",
        "flag": True,
        "none": None,
        "many": [1, 2, 3],
    }
    with app_model(app_of(tmp_path, typed=TYPED)) as model:
        rows = model.call("typed", **arguments)
        (row,) = rows.to_json_rows()
    assert row == arguments | {
        "wide": str(2**70),
        "zoned": "2026-01-31T08:30:00Z",
        "at": "2026-01-31T10:30:00.500000",
        "took": "P1DT7200S",
    }
    types = {column.name: str(column.dtype) for column in rows.schema}
    assert (types["day"], types["zoned"], types["key"], types["raw"]) == (
        "DATE",
        "TIMESTAMP WITH TIME ZONE",
        "UUID",
        "BLOB",
    )


def test_a_mutation_in_sql_is_one_transaction(tmp_path: Path) -> None:
    """Its statements take effect together or not at all, guarded as those of clients."""
    (tmp_path / "secret.csv").write_text("a")
    reading = f"-- mutation\nDELETE FROM goals;\nINSERT INTO goals SELECT * FROM '{tmp_path}/secret.csv'"
    app = app_of(tmp_path, spread=SPREAD, reading=reading)
    tables = {
        "goals": {"columns": {"site": "VARCHAR", "amount": "DECIMAL(18,2)"}, "rows": [{"site": "a", "amount": 10}]}
    }
    with app_model(app, tables) as model:
        got = model.call("spread", site="a").to_json_rows()
        assert got == [{"site": "a", "amount": 11.0}, {"site": "a2", "amount": 11.0}]
        with pytest.raises(RequestError) as e:
            model.call("reading")
        assert e.value.code in {Code.SQL_NOT_ALLOWED, Code.UNKNOWN_TABLE}
        assert len(model.rows("goals")) == 2


BAD_FILES = [
    ("SELECT 1", "declares no function"),
    ("-- goals\nSELECT 1", "declares no function"),
    ("", "declares no function"),
    ("-- query(\nSELECT 1", "parameters that cannot be read"),
    ("-- query(site)\nSELECT $site", "no type for site"),
    ("-- query(site: VARCHAR)\nSELECT $site", "the type VARCHAR for site"),
    ("-- query(site: __import__('os').environ)\nSELECT $site", "the type __import__"),
    ("-- query(n: int = 'x')\nSELECT $n", "default that is no int"),
    ("-- query(n: int = print(1))\nSELECT $n", "no plain value: print(1)"),
    ("-- query(*n: int)\nSELECT $n", "* or /"),
    ("-- query(format: str)\nSELECT $format", "reserved name"),
    ("-- query(_handle: str)\nSELECT $_handle", "reserved name"),
    ("-- query(n: float | Decimal)\nSELECT $n", "ambiguous"),
    ("-- query(n: int)\nSELECT 1", "declares the parameter n, which no statement uses"),
    ("-- query\nSELECT $n", "uses $n, which its header does not declare"),
    ("-- query\nSELECT ?", "uses $1"),
    ("-- query\nSELECT 1; SELECT 2", "It has one SELECT"),
    ("-- query\nDELETE FROM goals", "It has one SELECT"),
    ("-- query\n", "It has one SELECT"),
    ("-- query\nSELEC 1", "cannot be parsed"),
    ("-- mutation\nCREATE TABLE goals (n INTEGER)", "create tables in Python"),
    ("-- mutation\nSELECT 1; DELETE FROM goals", "other statements than a mutation has"),
    ("-- mutation\nCOMMIT", "other statements"),
    ("-- mutation\n", "other statements"),
    ("-- mutation append\nDELETE FROM goals", "built-in"),
    ("-- mutation Append\nDELETE FROM goals", "not a function name"),
    ("-- mutation\n-- page_size: many\nDELETE FROM goals", "page_size: many"),
    ("-- mutation\n-- alone: yes\nDELETE FROM goals", "alone: yes"),
    ("-- mutation\n-- labels: report\nDELETE FROM goals", "labels that cannot be read"),
    ("-- query\n-- page_size: 0\nSELECT 1", "page_size of bad"),
]


@pytest.mark.parametrize(("text", "why"), BAD_FILES)
def test_a_file_with_a_fault_is_refused(tmp_path: Path, text: str, why: str) -> None:
    """The error names the file and what is wrong, before any request."""
    with pytest.raises(OperatorError) as e:
        app_of(tmp_path, bad=text)
    assert e.value.code == Code.BAD_APP
    assert why in f"{e.value.message} {e.value.hint}"
    assert e.value.where == f"{tmp_path}/bad.sql:1"


def test_a_folder_without_functions_is_refused(tmp_path: Path) -> None:
    """A wrong path is not an app without functions; a relative one is beside the module."""
    app = App("orders")
    with pytest.raises(OperatorError, match=r"There are no \.sql files"):
        app.sql(tmp_path)
    with pytest.raises(OperatorError, match="unit/no_such_folder is no folder"):
        app.sql("no_such_folder")
    (tmp_path / "latin.sql").write_bytes(b"-- query\nSELECT '\xe4'")
    with pytest.raises(OperatorError, match=r"latin\.sql cannot be read"):
        app.sql(tmp_path)
