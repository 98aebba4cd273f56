"""One version's file, opened read-only and locked down: what answers queries on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from teatree.contracts.settings import LimitSettings
from teatree.datasets.ddl import quote_literal
from teatree.engine.database import limit_temp
from teatree.engine.duckdb_errors import DamagedFileError, DamagedVersionError, translate
from teatree.engine.guard import check_query, lock_down
from teatree.engine.handle import fetch_rows
from teatree.functions.handles import Parameters


class OpenVersion:
    """A version's file in a database of its own; two databases of one process cannot share a file."""

    def __init__(
        self, path: Path, limits: LimitSettings, *, outbox: Path | None = None, temp: Path | None = None
    ) -> None:
        """`outbox` is the one folder into which our own statements may copy, `temp` holds DuckDB's temporary files.

        Without `temp` they lie beside the file: then no other process may have it open with temporary files too.
        """
        self.users = 0
        self.path = path
        self.file = path.open("rb")
        with self.judging():
            self._open(limits, outbox, temp)

    def close(self) -> None:
        """Close it; the descriptor last, since closing it ends DuckDB's lock too."""
        self.connection.close()
        self.file.close()

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Tell damage as that of a version's file: the read-write file is another one."""
        try:
            yield
        except DamagedFileError as e:
            raise DamagedVersionError(e.message, where=str(self.path)) from e

    def _open(self, limits: LimitSettings, outbox: Path | None, temp: Path | None) -> None:
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": limits.threads,
            "memory_limit": f"{limits.memory_bytes_max}B",
        }
        if temp is not None:
            config["temp_directory"] = str(temp)
        try:
            self.connection = duckdb.connect(str(self.path), read_only=True, config=config)
            if outbox is not None:
                outbox.mkdir(parents=True, exist_ok=True)
                self.connection.execute(f"SET allowed_directories = [{quote_literal(str(outbox))}]")
            limit_temp(self.connection, limits)
            lock_down(self.connection)
        except duckdb.Error as e:
            self.file.close()
            raise translate(e) from e

    def answer(self, sql: str, parameters: Parameters, limits: LimitSettings) -> pa.Table:
        """Return the rows of one guarded query; one thread at a time asks, `interrupt` ends it from another.

        Raises `sql_not_allowed`, `bad_sql`, `timed_out`, `over_limit`, `result_too_large`; DamagedVersionError.
        """
        check_query(sql, self.connection)
        with self.judging():
            return fetch_rows(self.connection, sql, parameters, limits)
