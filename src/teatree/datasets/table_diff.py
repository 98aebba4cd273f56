"""The differences of two databases on one connection: rows by key where there is one, else as multisets.

Exact: duplicates count, NULL equals NULL, and values that DuckDB calls equal but writes differently (0.0 and -0.0, one
month and 30 days) differ. A column that one side does not have is NULL there; one whose type changed is compared as
text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING

from attrs import frozen

from teatree.contracts.names import OWN_SCHEMA, fold
from teatree.datasets.ddl import quote

if TYPE_CHECKING:
    import duckdb

_VALUE_IS_TEXT = re.compile(
    r"BOOLEAN|U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DECIMAL\(\d+,\s*\d+\)|VARCHAR|JSON|BLOB|BIT|UUID|DATE|TIME(_NS)?"
    r"|TIMESTAMP(_S|_MS|_NS)?|TIMESTAMP WITH TIME ZONE|ENUM\(.*\)",
    re.DOTALL,
)
"""Types whose equal values have one text; all others are compared as text too."""


class Presence(StrEnum):
    """On which sides a table is."""

    BOTH = "both"
    ADDED = "added"
    DROPPED = "dropped"


class Change(StrEnum):
    """What became of a row."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@frozen
class Column:
    """A column of one side."""

    name: str
    type: str
    nullable: bool
    default: str | None


@frozen
class Table:
    """A table of one side."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]

    @property
    def title(self) -> str:
        """The name that users know."""
        return self.name if self.schema == "main" else f"{self.schema}.{self.name}"


@frozen
class SchemaChange:
    """One change of a table's columns, or of its primary key."""

    what: str
    """`column added`, `column dropped`, `type`, `nullable`, `default`, `primary key`."""
    column: str | None
    before: str | None
    after: str | None


@frozen
class RowChange:
    """One row that differs: its values before and after, as DuckDB writes them."""

    change: Change
    before: dict[str, str | None] | None
    after: dict[str, str | None] | None


@frozen
class TableDiff:
    """What became of one table."""

    table: str
    presence: Presence
    key: tuple[str, ...]
    """The columns that rows were matched by; empty: whole rows were counted, and a changed row is a removed and an
    added one."""
    rows_added: int
    rows_removed: int
    rows_changed: int
    schema: tuple[SchemaChange, ...]
    rows: tuple[RowChange, ...] = ()
    """Some of the rows, up to as many of each kind as were asked for."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs."""
        counts = self.rows_added or self.rows_removed or self.rows_changed
        return not counts and not self.schema and self.presence is Presence.BOTH


def read_tables(con: duckdb.DuckDBPyConnection, database: str) -> dict[str, Table]:
    """Return a database's user tables by their folded titles."""
    columns: dict[tuple[str, str], list[Column]] = {}
    for schema, table, name, kind, nullable, default in con.execute(
        "SELECT schema_name, table_name, column_name, data_type, is_nullable, column_default FROM duckdb_columns()"
        " WHERE database_name = ? AND NOT internal AND schema_name <> ?"
        " AND (schema_name, table_name) IN (SELECT (schema_name, table_name) FROM duckdb_tables()"
        " WHERE database_name = ?) ORDER BY schema_name, table_name, column_index",
        [database, OWN_SCHEMA, database],
    ).fetchall():
        columns.setdefault((schema, table), []).append(Column(name, kind, nullable, default))
    keys = {
        (schema, table): tuple(names)
        for schema, table, names in con.execute(
            "SELECT schema_name, table_name, constraint_column_names FROM duckdb_constraints()"
            " WHERE database_name = ? AND constraint_type = 'PRIMARY KEY'",
            [database],
        ).fetchall()
    }
    tables = (Table(*place, tuple(found), keys.get(place, ())) for place, found in columns.items())
    return {fold(table.title): table for table in tables}


def diff_table(
    con: duckdb.DuckDBPyConnection,
    before: tuple[str, Table] | None,
    after: tuple[str, Table] | None,
    rows_max: int = 0,
) -> TableDiff:
    """Return what became of a table; each side is a database and its table, None where there is none."""
    if before is None or after is None:
        return _one_side(con, before, after, rows_max)
    schema = tuple(_schema_changes(before[1], after[1]))
    match = _match(before[1], after[1])
    differ = _ByKey(before, after, match) if match.key else _ByCount(before, after, match)
    added, removed, changed = differ.count(con)
    rows: list[RowChange] = []
    for change, count in zip(Change, (added, removed, changed), strict=True):
        if rows_max and count:
            rows += differ.rows(con, change, rows_max)
    return TableDiff(after[1].title, Presence.BOTH, match.key, added, removed, changed, schema, tuple(rows))


def _one_side(
    con: duckdb.DuckDBPyConnection, before: tuple[str, Table] | None, after: tuple[str, Table] | None, rows_max: int
) -> TableDiff:
    here = after or before
    if here is None:
        raise ValueError("A table is on one side at least.")
    database, table = here
    change, presence = (Change.REMOVED, Presence.DROPPED) if after is None else (Change.ADDED, Presence.ADDED)
    counts = con.execute(f"SELECT count(*) FROM {_place(database, table)}").fetchall()
    texts = ", ".join(f"CAST({quote(c.name)} AS VARCHAR)" for c in table.columns)
    found = con.execute(f"SELECT {texts} FROM {_place(database, table)} LIMIT {rows_max}").fetchall()
    names = [c.name for c in table.columns]
    rows = tuple(_row(change, dict(zip(names, values, strict=True))) for values in found)
    added, removed = (0, counts[0][0]) if after is None else (counts[0][0], 0)
    return TableDiff(table.title, presence, (), added, removed, 0, (), rows)


def _row(change: Change, values: dict[str, str | None]) -> RowChange:
    return RowChange(change, None, values) if change is Change.ADDED else RowChange(change, values, None)


@frozen
class _Pair:
    """A column as both sides have it; None where one has it not."""

    before: Column | None
    after: Column | None

    @property
    def is_same_type(self) -> bool:
        return self.before is not None and self.after is not None and self.before.type == self.after.type

    def side(self, place: int) -> list[str]:
        """Return the expressions by which the column is compared on side 0 or 1."""
        column = (self.before, self.after)[place]
        if column is None:
            return ["NULL::VARCHAR"]
        name = quote(column.name)
        if not self.is_same_type:
            return [f"CAST({name} AS VARCHAR)"]
        return [name] if _VALUE_IS_TEXT.fullmatch(column.type) else [name, f"CAST({name} AS VARCHAR)"]

    def text(self, place: int) -> str | None:
        """Return the expression by which the column is shown, None if the side has it not."""
        column = (self.before, self.after)[place]
        return None if column is None else f"CAST({quote(column.name)} AS VARCHAR)"


@frozen
class _Match:
    """How the columns of two tables go together."""

    pairs: tuple[_Pair, ...]
    key: tuple[str, ...]
    key_places: tuple[int, ...]


def _match(before: Table, after: Table) -> _Match:
    there = {fold(c.name): c for c in before.columns}
    here = {fold(c.name): c for c in after.columns}
    names = [*here, *(name for name in there if name not in here)]
    pairs = tuple(_Pair(there.get(name), here.get(name)) for name in names)
    key = [fold(name) for name in after.primary_key]
    places = tuple(names.index(name) for name in key)
    same = set(key) == {fold(name) for name in before.primary_key} and all(pairs[p].is_same_type for p in places)
    return _Match(pairs, after.primary_key if same else (), places if same else ())


def _schema_changes(before: Table, after: Table) -> Iterator[SchemaChange]:
    there = {fold(c.name): c for c in before.columns}
    here = {fold(c.name): c for c in after.columns}
    for name, column in there.items():
        if name not in here:
            yield SchemaChange("column dropped", column.name, column.type, None)
    for name, column in here.items():
        old = there.get(name)
        if old is None:
            yield SchemaChange("column added", column.name, None, column.type)
            continue
        if old.type != column.type:
            yield SchemaChange("type", column.name, old.type, column.type)
        if old.nullable != column.nullable:
            yield SchemaChange("nullable", column.name, str(old.nullable).lower(), str(column.nullable).lower())
        if old.default != column.default:
            yield SchemaChange("default", column.name, old.default, column.default)
    if before.primary_key != after.primary_key:
        yield SchemaChange(
            "primary key", None, ", ".join(before.primary_key) or None, ", ".join(after.primary_key) or None
        )


def _place(database: str, table: Table) -> str:
    return f"{quote(database)}.{quote(table.schema)}.{quote(table.name)}"


class _ByKey:
    """Rows matched by their primary key."""

    def __init__(self, before: tuple[str, Table], after: tuple[str, Table], match: _Match) -> None:
        self._match = match
        sides = [self._side(place, *side) for place, side in enumerate((before, after))]
        on = " AND ".join(f"b.k{i} = a.k{i}" for i in range(len(match.key)))
        self._joined = f"({sides[0]}) b FULL OUTER JOIN ({sides[1]}) a ON {on}"
        width = sum(len(pair.side(0)) for pair in match.pairs)
        differs = " OR ".join(f"b.c{i} IS DISTINCT FROM a.c{i}" for i in range(width))
        self._where = {
            Change.ADDED: "b.present IS NULL",
            Change.REMOVED: "a.present IS NULL",
            Change.CHANGED: f"b.present AND a.present AND ({differs})",
        }

    def _side(self, place: int, database: str, table: Table) -> str:
        pairs = self._match.pairs
        keys = [f"{pairs[p].side(place)[0]} AS k{i}" for i, p in enumerate(self._match.key_places)]
        compared = [part for pair in pairs for part in pair.side(place)]
        texts = [f"{pair.text(place) or 'NULL'} AS t{i}" for i, pair in enumerate(pairs)]
        columns = [*keys, *(f"{part} AS c{i}" for i, part in enumerate(compared)), *texts]
        return f"SELECT true AS present, {', '.join(columns)} FROM {_place(database, table)}"

    def count(self, con: duckdb.DuckDBPyConnection) -> tuple[int, int, int]:
        """Return how many rows were added, removed and changed."""
        counts = ", ".join(f"count(*) FILTER (WHERE {where})" for where in self._where.values())
        added, removed, changed = con.execute(f"SELECT {counts} FROM {self._joined}").fetchall()[0]
        return added, removed, changed

    def rows(self, con: duckdb.DuckDBPyConnection, change: Change, rows_max: int) -> list[RowChange]:
        """Return the first rows of one kind, by key."""
        pairs = self._match.pairs
        texts = [f"{side}.t{i}" for side in "ba" for i in range(len(pairs))]
        order = ", ".join(f"coalesce(b.k{i}, a.k{i})" for i in range(len(self._match.key)))
        wanted = f"{self._joined} WHERE {self._where[change]} ORDER BY {order} LIMIT {rows_max}"
        found = con.execute(f"SELECT {', '.join(texts)} FROM {wanted}").fetchall()
        return [
            RowChange(
                change,
                None if change is Change.ADDED else _values(pairs, 0, row[: len(pairs)]),
                None if change is Change.REMOVED else _values(pairs, 1, row[len(pairs) :]),
            )
            for row in found
        ]


class _ByCount:
    """Whole rows, counted."""

    def __init__(self, before: tuple[str, Table], after: tuple[str, Table], match: _Match) -> None:
        self._pairs = match.pairs
        sides = [self._side(place, *side) for place, side in enumerate((before, after))]
        self._only = {
            Change.ADDED: f"{sides[1]} EXCEPT ALL {sides[0]}",
            Change.REMOVED: f"{sides[0]} EXCEPT ALL {sides[1]}",
        }

    def _side(self, place: int, database: str, table: Table) -> str:
        compared = [part for pair in self._pairs for part in pair.side(place)]
        columns = ", ".join(f"{part} AS c{i}" for i, part in enumerate(compared))
        return f"SELECT {columns} FROM {_place(database, table)}"

    def count(self, con: duckdb.DuckDBPyConnection) -> tuple[int, int, int]:
        """Return how many rows were added and removed; none was changed, since rows without a key are not matched."""
        added, removed = (
            con.execute(f"SELECT count(*) FROM ({self._only[change]})").fetchall()[0][0]
            for change in (Change.ADDED, Change.REMOVED)
        )
        return added, removed, 0

    def rows(self, con: duckdb.DuckDBPyConnection, change: Change, rows_max: int) -> list[RowChange]:
        """Return some rows of one kind."""
        place = 1 if change is Change.ADDED else 0
        firsts: list[str] = []
        width = 0
        for pair in self._pairs:
            firsts.append(f"CAST(c{width} AS VARCHAR)")
            width += len(pair.side(place))
        found = con.execute(f"SELECT {', '.join(firsts)} FROM ({self._only[change]}) LIMIT {rows_max}").fetchall()
        return [_row(change, _values(self._pairs, place, row)) for row in found]


def _values(pairs: tuple[_Pair, ...], place: int, texts: tuple[str | None, ...]) -> dict[str, str | None]:
    """Return the values of one side's own columns, by their names."""
    columns = ((pair.before, pair.after)[place] for pair in pairs)
    return {column.name: text for column, text in zip(columns, texts, strict=True) if column is not None}
