"""A version opened for queries in this process: a private DuckDB with the version attached lazily."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import duckdb

from teatree.client.versions.attach import attach_chain
from teatree.contracts.errors import Code, RequestError, TeatreeError
from teatree.contracts.settings import Settings
from teatree.datasets.arrow.types import lossless
from teatree.datasets.dataset import Dataset
from teatree.datasets.ddl import quote
from teatree.datasets.parameters import check_parameter
from teatree.datasets.results.results import exportable, plain_table, result_schema
from teatree.storage.versions.chain import Chain

Parameters = Sequence[Any] | Mapping[str, Any] | None
_WITH_ROWS = frozenset(
    {
        duckdb.StatementType.SELECT,
        duckdb.StatementType.EXPLAIN,
        duckdb.StatementType.PRAGMA,
        duckdb.StatementType.CALL,
        duckdb.StatementType.EXECUTE,
    }
)

_CLASS = re.compile(r"[A-Z][A-Za-z ]*? ?Error: ")


class OpenedVersion:
    """A version, and a temporary database for what the user creates; times are in UTC. For one thread."""

    def __init__(
        self,
        chain: Chain,
        settings: Settings,
        *,
        version: int | None = None,
        at: datetime | str | None = None,
        follow: bool = False,
    ) -> None:
        """Open the newest version, or a given one; the parameters and errors are those of `teatree.attach`."""
        self._con = duckdb.connect()
        try:
            lossless(self._con)
            self._con.execute("SET TimeZone = 'UTC'")
            self._attached = attach_chain(self._con, chain, settings, version=version, at=at, follow=follow)
            self._con.execute(f"USE {quote(self._attached.alias)}")
        except BaseException:
            self._con.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Detach the version."""
        self._attached.detach()
        self._con.close()

    @property
    def version(self) -> int:
        """The version that the next statement reads."""
        return self._attached.version

    def statements(self, text: str) -> list[duckdb.Statement]:
        """Return the statements in a text; raises `bad_sql`."""
        try:
            return self._con.extract_statements(text)
        except duckdb.Error as e:
            raise self._error(e) from e

    def ask(self, sql: str, parameters: Parameters = None) -> Dataset:
        """Run one SELECT; raises `bad_sql`, or the error of the version."""
        statements = self.statements(sql)
        rows = self.run(sql, parameters) if [s.type for s in statements] == [duckdb.StatementType.SELECT] else None
        if rows is None:
            raise RequestError(
                Code.SQL_NOT_ALLOWED,
                "Only one SELECT can be run on a version here.",
                where="sql",
                hint="`teatree shell` runs any statements.",
            )
        return rows

    def run(self, sql: str, parameters: Parameters = None) -> Dataset | None:
        """Run one statement of any kind; return its rows, None if it has none."""
        try:
            kind = self._con.extract_statements(sql)[0].type
            for name, value in _named(parameters):
                check_parameter(value, f"parameters[{name!r}]")
            relation = self._con.sql(sql, params=parameters)
            if kind not in _WITH_ROWS:
                return None
            schema = result_schema(relation)
            return Dataset(schema, plain_table(exportable(relation, schema).to_arrow_table(), schema))
        except duckdb.Error as e:
            raise self._error(e) from e

    def _error(self, error: duckdb.Error) -> TeatreeError:
        """Return the error of the version if a read failed, else that of the SQL."""
        fault = self._attached.take_fault()
        if fault is not None:
            return fault
        text = " ".join(str(error).split("\n\nLINE ")[0].split())
        return RequestError(Code.BAD_SQL, _CLASS.sub("", text, count=1), where="sql")


def _named(parameters: Parameters) -> list[tuple[Any, Any]]:
    return list(parameters.items() if isinstance(parameters, Mapping) else enumerate(parameters or ()))
