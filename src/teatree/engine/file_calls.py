"""Calls of an app's functions on a user's file: what a manager does with requests, without any service.

A call has its own connection, so that it neither sees nor ends the transactions of the file's user. Its SQL is guarded
as behind the queue: what works here works there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any

import duckdb
from typing_extensions import override

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError
from teatree.contracts.names import check_request_id, new_id
from teatree.contracts.settings import Settings
from teatree.datasets.arrow.types import lossless
from teatree.engine.duckdb.block_file import run_rows
from teatree.engine.duckdb.handle import OpenDatabase, WriteHandle
from teatree.engine.duckdb.user_file import UserFile
from teatree.engine.others.other_versions import OtherVersions
from teatree.functions.app.app import App
from teatree.functions.app.app_function import AppFunction, FunctionKind, HandleKind
from teatree.functions.app.context import Context
from teatree.functions.app.handles import Write, read_handle, write_handle
from teatree.functions.handles import Parameters
from teatree.storage.versions.chain import Chain

Check = Callable[[Any], object]
"""Called with a function's result before its transaction is committed; raises if it cannot be."""


class CallConnection(OpenDatabase):
    """The connection of calls on a file."""

    def __init__(self, file: UserFile) -> None:
        try:
            self._con = file.connection.cursor()
        except duckdb.ConnectionException:
            raise RequestError(Code.USAGE, f"{file.path.name} is closed.", where=str(file.path)) from None
        self._con.execute("SET SESSION TimeZone = 'UTC'")
        lossless(self._con, of_session=True)

    @property
    @override
    def connection(self) -> duckdb.DuckDBPyConnection:
        return self._con

    @override
    def rows(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        return run_rows(self._con, sql, parameters)

    def close(self) -> None:
        """Close it; the file stays open."""
        self._con.close()


class FileCalls:
    """Calls functions on one file, one call at a time."""

    def __init__(
        self, file: UserFile, model: str, chain: Chain | None, settings: Settings, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """`chain` leads to the store from which functions read other models; without it they read none."""
        self._file = file
        self._model = model
        self._settings = settings
        self._clock = clock
        self._lock = threading.RLock()
        self._is_running = False
        self._others = None if chain is None else _others(chain, settings)

    def close(self) -> None:
        """Close what calls opened."""
        if self._others is not None:
            self._others.close()

    @staticmethod
    def function(app: App, name: str) -> AppFunction:
        """Return a function of an app; raises `unknown_function`."""
        functions = app.functions
        found = functions.get(name)
        if found is None:
            raise RequestError(
                Code.UNKNOWN_FUNCTION,
                f"The app {app.name} has no function {name!r}.",
                where="function",
                hint=f"It has: {', '.join(sorted(functions)) or 'none'}.",
            )
        return found

    def call(
        self,
        function: AppFunction,
        arguments: Mapping[str, Any],
        request_id: str | None = None,
        check: Check = lambda _: None,
    ) -> Any:
        """Run a function and return its result; its changes are committed, or rolled back after any error."""
        given = function.read_arguments(arguments)
        found_id = new_id() if request_id is None else check_request_id(request_id, "request_id")
        context = Context(found_id, self._clock.now(), self._model, function.name)
        if function.kind is FunctionKind.MUTATION:
            with self.transaction(function.name) as handle:
                result = function.run(given, handle, context)
                check(result)
            return result
        if function.handle is HandleKind.NONE:
            result = function.run(given, None, context)
        else:
            with self._handle(function.name) as access, read_handle(access, self._others) as reading:
                result = function.run(given, reading, context)
        check(result)
        return result

    @contextmanager
    def transaction(self, what: str) -> Iterator[Write]:
        """Give a handle for the time of the block; what it did is committed at the end, or undone after any error."""
        with self._handle(what) as access:
            with write_handle(access, self._others) as handle:
                yield handle
            access.run("COMMIT")

    @contextmanager
    def _handle(self, what: str) -> Iterator[WriteHandle]:
        """Give access in a transaction, which is rolled back if it was not committed."""
        with self._alone(what), closing(CallConnection(self._file)) as connection:
            connection.rows("BEGIN")
            try:
                yield WriteHandle(connection, self._settings.limits)
            except OperatorError as e:
                if isinstance(e.__cause__, duckdb.TransactionException):  # a conflict with a transaction of the user's
                    raise _busy(e) from e
                raise
            finally:
                with suppress(duckdb.Error):  # it was committed, or is void
                    connection.connection.execute("ROLLBACK")

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        with self._lock:
            if self._is_running:
                raise RequestError(
                    Code.USAGE,
                    f"{name} was called by a function that runs on the same file.",
                    where="function",
                    hint="Call it as a Python function, and pass the handle on.",
                )
            self._is_running = True
            try:
                yield
            finally:
                self._is_running = False


def _busy(error: OperatorError) -> RetryError:
    return RetryError(
        Code.BUSY,
        f"Another transaction of this process changed the same rows or tables: {error.message}",
        hint="Call it again when that one has ended.",
    )


def _others(chain: Chain, settings: Settings) -> OtherVersions:
    return OtherVersions(chain.store, chain.prefix, settings.limits, settings.cache, settings.cache_folder)
