"""The built-in functions of a model, each a method that sends one request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from typing_extensions import Unpack

from teatree.client import query as queries
from teatree.client.model_requests import ModelRequests, Wait
from teatree.client.request_args import given, listed, plain, table_args
from teatree.client.sending.receipt import Receipt
from teatree.client.sending.waiting import OnNotice

Rows = Any
"""A list of objects, or anything with `__arrow_c_stream__`."""


class SendOptions(TypedDict, total=False):
    """Options of every request; see `Model.send`."""

    request_id: str | None
    wait: Wait
    expected_version: int | None
    timeout_ms: float
    on_notice: OnNotice | None


# More than ten public methods: one for each built-in function.
class ModelFunctions(ModelRequests):
    """The built-in functions of one model."""

    async def append(self, table: str, rows: Rows, **options: Unpack[SendOptions]) -> Receipt:
        """Append rows: a list of objects, or Arrow data."""
        return await self._send_rows("append", {"table": table}, rows, options)

    async def replace(self, table: str, rows: Rows, **options: Unpack[SendOptions]) -> Receipt:
        """Replace all rows of a table."""
        return await self._send_rows("replace", {"table": table}, rows, options)

    async def upsert(
        self, table: str, rows: Rows, *, key: Sequence[str] | None = None, **options: Unpack[SendOptions]
    ) -> Receipt:
        """Insert rows, or overwrite those with the same `key` (the primary key if left out)."""
        return await self._send_rows("upsert", given(table=table, key=listed(key)), rows, options)

    async def update(
        self,
        table: str,
        set: Mapping[str, Any],
        where: Mapping[str, Any],
        **options: Unpack[SendOptions],
    ) -> Receipt:
        """Set columns of the rows whose columns equal all of `where`."""
        return await self.send("update", {"table": table, "set": dict(set), "where": dict(where)}, **options)

    async def delete(self, table: str, where: Mapping[str, Any], **options: Unpack[SendOptions]) -> Receipt:
        """Delete the rows whose columns equal all of `where`."""
        return await self.send("delete", {"table": table, "where": dict(where)}, **options)

    async def create_table(
        self,
        table: str,
        columns: Mapping[str, str] | Sequence[Mapping[str, Any]],
        *,
        primary_key: Sequence[str] | None = None,
        if_not_exists: bool = False,
        **options: Unpack[SendOptions],
    ) -> Receipt:
        """Create a table; columns as `{"id": "BIGINT"}`, or as objects with `name`, `type`, `nullable`, `default`."""
        args = table_args(table, columns, primary_key)
        return await self.send("create_table", args | given(if_not_exists=if_not_exists or None), **options)

    async def alter_table(
        self,
        table: str,
        *,
        add: Mapping[str, Any] | None = None,
        drop: str | None = None,
        rename: Mapping[str, str] | None = None,
        **options: Unpack[SendOptions],
    ) -> Receipt:
        """Change a table's columns: exactly one of `add` (a column), `drop` (a name), `rename` ({old: new})."""
        return await self.send("alter_table", given(table=table, add=add, drop=drop, rename=rename), **options)

    async def drop_table(self, table: str, **options: Unpack[SendOptions]) -> Receipt:
        """Drop a table."""
        return await self.send("drop_table", {"table": table}, **options)

    async def load(
        self,
        table: str,
        uri: str,
        *,
        mode: Literal["append", "replace", "create"] = "append",
        csv: Mapping[str, Any] | None = None,
        **options: Unpack[SendOptions],
    ) -> Receipt:
        """Load a file by reference, read by the manager: Parquet, CSV or Arrow from a place that the operator allowed.

        `csv` are the options of a CSV file: `delimiter`, `quote`, `encoding`, `null`, `decimal`, `thousands`,
        `date_format`, `timestamp_format`, `header`.
        """
        return await self.send("load", {"table": table, "uri": uri, "mode": mode, **(csv or {})}, **options)

    async def sql(
        self, statement: str, parameters: queries.Parameters = None, **options: Unpack[SendOptions]
    ) -> Receipt:
        """Run one INSERT, UPDATE, DELETE or MERGE; `parameters` are a list for `?` or an object for `$name`."""
        return await self.send("sql", given(statement=statement, parameters=plain(parameters)), **options)

    async def use_app(self, app: str, **options: Unpack[SendOptions]) -> Receipt:
        """Give the model an app, or another one: from then on requests can call its functions."""
        return await self.send("use_app", {"app": app}, **options)

    async def archive(self, tables: Sequence[str] | None = None, **options: Unpack[SendOptions]) -> Receipt:
        """Return once the Parquet archive of this moment is complete, of all tables if none is named.

        If the store lost the blocks of this version, a later one is archived: `result["archive"]` is its number.
        """
        return await self.send("archive", given(tables=listed(tables)), **options)

    async def restore(self, version: int, **options: Unpack[SendOptions]) -> Receipt:
        """Make the tables equal those of an earlier version, in a new one; those in between stay in the history."""
        return await self.send("restore", {"version": version}, **options)

    async def _send_rows(self, function: str, args: dict[str, Any], rows: Rows, options: SendOptions) -> Receipt:
        if hasattr(rows, "__arrow_c_stream__"):
            return await self.send(function, args, arrow=rows, **options)
        return await self.send(function, args, rows=rows, **options)
