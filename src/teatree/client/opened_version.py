"""A version opened for questions in this process: a DuckDB of our own with the version attached lazily."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import duckdb

from teatree.client.attach import attach_chain
from teatree.contracts.errors import Code, RequestError, TeatreeError
from teatree.contracts.settings import Settings
from teatree.datasets.arrow import lossless
from teatree.datasets.dataset import Dataset
from teatree.datasets.ddl import quote
from teatree.datasets.parameters import check_parameter
from teatree.datasets.results import exportable, plain_table, result_schema
from teatree.storage.chain import Chain

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
    """A version, and a temporary database beside it for what the user makes; times are in UTC. One thread uses it."""

    def __init__(
        self,
        chain: Chain,
        settings: Settings,
        *,
        version: int | None = None,
        at: datetime | str | None = None,
        follow: bool = False,
    ) -> None:
        """Open the newest version, or a named one; the parameters and errors are those of `teatree.attach`."""
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
        """Let the version go."""
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
        """Answer one SELECT; raises `bad_sql`, or what is wrong with the version."""
        statements = self.statements(sql)
        answer = self.run(sql, parameters) if [s.type for s in statements] == [duckdb.StatementType.SELECT] else None
        if answer is None:
            raise RequestError(
                Code.SQL_NOT_ALLOWED,
                "A version answers one SELECT at a time.",
                where="sql",
                hint="`teatree shell` takes any statements.",
            )
        return answer

    def run(self, sql: str, parameters: Parameters = None) -> Dataset | None:
        """Run one statement, whatever it is; return its rows, None if it gives none."""
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
        """Return what was wrong: with the version if a read failed, else with the SQL."""
        fault = self._attached.take_fault()
        if fault is not None:
            return fault
        text = " ".join(str(error).split("\n\nLINE ")[0].split())
        return RequestError(Code.BAD_SQL, _CLASS.sub("", text, count=1), where="sql")


def _named(parameters: Parameters) -> list[tuple[Any, Any]]:
    return list(parameters.items() if isinstance(parameters, Mapping) else enumerate(parameters or ()))
