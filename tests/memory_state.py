"""What the in-memory engine of the tests holds, as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa
from attrs import evolve, field, frozen

from teatree.contracts.errors import Code, CorruptError, RequestError
from teatree.contracts.formats.codec import dump_json, structure, unstructure
from teatree.contracts.names import fold
from teatree.contracts.types.table_info import TableInfo
from teatree.datasets.arrow.types import to_arrow_schema
from teatree.engine.commits import Commit, Identity
from teatree.functions.handles import Parameters
from teatree.functions.inserts import duplicate_key


@frozen
class MemoryTable:
    """A table and its rows."""

    info: TableInfo
    rows: tuple[dict[str, Any], ...] = ()

    def with_rows(self, added: Sequence[dict[str, Any]]) -> MemoryTable:
        """Return it with more rows; raises `not_null` or `constraint`."""
        key, schema = self.info.primary_key, self.info.schema
        seen = {tuple(row[name] for name in key) for row in self.rows}
        for row in added:
            for column in schema:
                if row[column.name] is None and not column.nullable:
                    raise RequestError(Code.NOT_NULL, f"The column {column.name!r} does not take null.")
            values = tuple(row[name] for name in key)
            if key and values in seen:
                raise duplicate_key(", ".join(f"{n}: {v}" for n, v in zip(key, values, strict=True)))
            seen.add(values)
        return evolve(self, rows=(*self.rows, *added))


@frozen
class MemoryState:
    """All that a model holds; replaced as a whole."""

    identity: Identity
    tables: Mapping[str, MemoryTable] = field(factory=dict)
    """By folded name."""
    commits: tuple[Commit, ...] = ()

    def to_json(self) -> bytes:
        """Return it as one JSON object."""
        tables = [{"info": unstructure(table.info), "rows": table.rows} for table in self.tables.values()]
        commits = [{**unstructure(c), "outcomes": c.outcomes.hex()} for c in self.commits]
        return dump_json({"identity": unstructure(self.identity), "tables": tables, "commits": commits})

    def query(self, sql: str, parameters: Parameters) -> pa.Table:
        """Return a query's rows: DuckDB reads the tables as Arrow."""
        with duckdb.connect() as con:
            for table in self.tables.values():
                rows = pa.Table.from_pylist(list(table.rows), to_arrow_schema(table.info.schema))
                con.register(table.info.name, rows)
            try:
                return con.sql(sql, params=parameters or None).to_arrow_table()
            except duckdb.Error as e:
                raise RequestError(Code.BAD_SQL, str(e).splitlines()[0], where="sql") from e


def read_state(body: bytes, where: str) -> MemoryState:
    """Return what `to_json` wrote; raises `corrupt`."""
    try:
        members = orjson.loads(body)
    except ValueError as e:
        raise CorruptError("This is no model.", where=where) from e
    tables = [MemoryTable(structure(t["info"], TableInfo, where), tuple(t["rows"])) for t in members["tables"]]
    outcomes = [bytes.fromhex(c.pop("outcomes")) for c in members["commits"]]
    commits = [structure({**c, "outcomes": b""}, Commit, where) for c in members["commits"]]
    return MemoryState(
        structure(members["identity"], Identity, where),
        {fold(table.info.name): table for table in tables},
        tuple(evolve(c, outcomes=o) for c, o in zip(commits, outcomes, strict=True)),
    )


def write_whole(path: Path, body: bytes) -> None:
    """Write a file, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(body)
    part.replace(path)
