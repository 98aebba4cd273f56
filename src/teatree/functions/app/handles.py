"""Handles of an app's functions: `Read` and `Write`. The type of a parameter is the permission.

A handle ends with the function that it was made for, and works on that function's thread only. Neither has a public
name that leads to the access object below it, and a `Read` has none that changes anything.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from typing_extensions import override

from teatree.contracts.errors import Code, RequestError, TeatreeError
from teatree.contracts.formats.provenance import VersionRead
from teatree.contracts.names import check_table
from teatree.contracts.types.schema import Schema
from teatree.datasets.dataset import Dataset
from teatree.datasets.ddl import quote
from teatree.datasets.parameters import python_parameters
from teatree.datasets.python_forms import plain
from teatree.functions.app.rows import Rows, key_columns, named_rows, to_tables
from teatree.functions.builtins.tables import drop
from teatree.functions.builtins.upsert import upsert_key, upsert_rows
from teatree.functions.handles import Parameters, SqlAccess, SqlReadAccess
from teatree.functions.inserts import insert_once
from teatree.functions.others import Others
from teatree.functions.tables import add_table, make_table

A_co = TypeVar("A_co", bound=SqlReadAccess, covariant=True)


class HandleScope(Generic[A_co]):
    """The time for which a function has its handles, and what it did with them."""

    __slots__ = ("_access", "_ended", "_others", "_thread", "failure", "reads")

    def __init__(self, access: A_co, others: Others | None) -> None:
        self._access = access
        self._others = others
        self._thread = threading.get_ident()
        self._ended = False
        self.failure: TeatreeError | None = None
        """Why nothing that the function did can be kept, though it may have caught the error."""
        self.reads: dict[tuple[str, int | None], VersionRead] = {}
        """The versions of other models that it read, by how it named them."""

    @contextmanager
    def using(self) -> Iterator[A_co]:
        """Give the access for one use; raises `usage` where there must be none."""
        self.check()
        try:
            yield self._access
        except TeatreeError as e:
            self._note(e)
            raise

    def check(self) -> None:
        """Refuse a use after the end, on another thread, or after an error that ended the transaction."""
        if self._ended:
            raise _misuse("A handle was used after the function that it belongs to had ended.", "Use it within.")
        if threading.get_ident() != self._thread:
            raise _misuse(
                "A handle was used in another thread than its function's.",
                "Read what the thread needs first, and write its result when it has ended.",
            )
        if self.failure is not None:
            raise self.failure

    def other(self, model: str, version: int | None) -> SqlReadAccess:
        """Return another model's version, the same one each time that it is asked for."""
        self.check()
        if self._others is None:
            raise _misuse("There is no object store here from which another model could be read.", "Name a store.")
        known = self.reads.get((model, version))
        opened = self._others.open(model, known.version if known else version)
        self.reads[model, version] = opened.read
        return opened.access

    def end(self) -> None:
        """End the handles."""
        self._ended = True

    def _note(self, error: TeatreeError) -> None:
        """Keep an error that ended the transaction, or is no fault of the request: catching it changes neither."""
        is_over = not isinstance(error, RequestError) or (
            isinstance(self._access, SqlAccess) and self._access.is_aborted
        )
        if is_over and self.failure is None:
            self.failure = error


class Read:
    """The tables of a model as they are, for the function or dependency that takes it."""

    __slots__ = ("_scope", "_version")

    def __init__(self, scope: HandleScope[SqlReadAccess], version: tuple[str, int | None] | None = None) -> None:
        """Functions get theirs from Teatree: `write_handle`, `read_handle`."""
        self._scope = scope
        self._version = version

    def sql(self, sql: str, parameters: Parameters = (), *, tables: Mapping[str, Rows] | None = None) -> Dataset:
        """Return the rows of one SELECT on the model's tables, guarded as those of clients are.

        `parameters` are the values of `?` (a list) or `$name` (a dict). `tables` are rows that it can read beside them,
        by the names that it uses: a Dataset, a frame, an Arrow table.
        """
        values, rows = python_parameters(parameters), named_rows(tables)
        with self._using() as access:
            return access.dataset(plain(sql), values, rows)

    def table(self, name: str) -> Dataset:
        """Return all rows of a table; raises `unknown_table`."""
        with self._using() as access:
            return access.dataset(f"SELECT * FROM {quote(access.table(_name(name)).name)}", ())

    def tables(self) -> tuple[str, ...]:
        """Return the names of the tables, sorted."""
        with self._using() as access:
            return access.tables()

    def schema(self, name: str) -> Schema:
        """Return the columns of a table; raises `unknown_table`."""
        with self._using() as access:
            return access.table(_name(name)).schema

    def other(self, model: str, version: int | None = None) -> Read:
        """Return another model's version, the newest one if none is named, read lazily from the object store.

        Which one it was is recorded with the request. Rows of it join with the model's own: pass what its `sql` returns
        to `sql` or `execute` in `tables`. Raises `unknown_model`, `unknown_version`, `bad_source` for a damaged one.
        """
        self._scope.other(model, version)
        return Read(self._scope, (model, version))

    @contextmanager
    def _using(self) -> Iterator[SqlReadAccess]:
        if self._version is not None:
            yield self._scope.other(*self._version)
            return
        with self._scope.using() as access:
            yield access

    @override
    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Write(Read):
    """The tables of a model, to be changed in the transaction of one request: all that the function did, or nothing."""

    __slots__ = ("_writes",)

    def __init__(self, scope: HandleScope[SqlAccess]) -> None:
        """Functions get theirs from Teatree: `write_handle`."""
        super().__init__(scope)
        self._writes = scope

    def read_only(self) -> Read:
        """Return a handle on the same transaction that cannot write: what a dependency gets that asks for `Read`."""
        return Read(self._scope)

    def execute(self, sql: str, parameters: Parameters = (), *, tables: Mapping[str, Rows] | None = None) -> int:
        """Run one INSERT, UPDATE, DELETE or MERGE; return the number of rows changed. The parameters are `sql`'s."""
        values, rows = python_parameters(parameters), named_rows(tables)
        with self._writes.using() as access:
            return access.statement(plain(sql), values, rows)

    def append(self, table: str, rows: Rows) -> int:
        """Add rows to a table; return their number. A column that is left out has its default, else NULL.

        Rows are a list of dicts or of instances of attrs or dataclasses, a frame of Polars or pandas, an Arrow table or
        a Dataset. They are converted without loss: raises `type_mismatch` and its like, naming `rows[i].column`.
        """
        with self._writes.using() as access:
            info = access.table(_name(table))
            return sum(insert_once(access, info, part) for part in to_tables(rows, info.schema))

    def replace(self, table: str, rows: Rows) -> int:
        """Put rows in place of all that a table holds; return their number. They are those of `append`."""
        with self._writes.using() as access:
            info = access.table(_name(table))
            parts = to_tables(rows, info.schema)
            access.clear(info)
            return sum(insert_once(access, info, part) for part in parts)

    def upsert(self, table: str, rows: Rows, key: str | Sequence[str] | None = None) -> int:
        """Add rows, or set the columns that they name where a row with their key is there; return their number.

        `key` names the columns that identify a row; the primary key if left out. Rows are those of `append`.
        """
        with self._writes.using() as access:
            info = access.table(_name(table))
            columns = upsert_key(info, key_columns(key))
            return upsert_rows(access, info, to_tables(rows, info.schema, fill=False), columns)

    def create_table(
        self,
        table: str,
        columns: Schema | Mapping[str, str] | Sequence[Mapping[str, Any]],
        *,
        primary_key: str | Sequence[str] | None = None,
        if_not_exists: bool = False,
    ) -> bool:
        """Create a table; return False if it exists already and `if_not_exists` is set.

        `columns` are types by name (`{"id": "BIGINT"}`), a Schema, or what a request has: dicts with `name`, `type` and
        perhaps `nullable` and `default`.
        """
        key = key_columns(primary_key)
        with self._writes.using() as access:
            if isinstance(columns, Schema):
                return add_table(access, check_table(table), columns, key, "", exists_ok=if_not_exists)
            members = {"table": table, "columns": _columns(columns), "primary_key": key, "if_not_exists": if_not_exists}
            return make_table(access, members, "")

    def drop_table(self, name: str, *, if_exists: bool = False) -> bool:
        """Drop a table; return False if there is none and `if_exists` is set."""
        with self._writes.using() as access:
            return drop(access, _name(name), missing_ok=if_exists)


@contextmanager
def write_handle(access: SqlAccess, others: Others | None = None) -> Iterator[Write]:
    """Give a function its handle for the time of the block.

    An error that ended the transaction is raised at its end, though the function caught it.
    """
    scope = HandleScope(access, others)
    with _ending(scope):
        yield Write(scope)


@contextmanager
def read_handle(access: SqlReadAccess, others: Others | None = None) -> Iterator[Read]:
    """Give a function its handle for the time of the block; errors as in `write_handle`."""
    scope = HandleScope(access, others)
    with _ending(scope):
        yield Read(scope)


@contextmanager
def _ending(scope: HandleScope[SqlReadAccess]) -> Iterator[None]:
    try:
        yield
    except BaseException as e:
        scope.end()
        failure = scope.failure
        if failure is None or failure is e or isinstance(failure, RequestError):
            raise
        raise failure from failure.__cause__  # of the engine, which has to know it
    scope.end()
    if scope.failure is not None:
        raise scope.failure


def reads_of(handle: Read) -> tuple[VersionRead, ...]:
    """Return the versions of other models that a function has read, for its outcome."""
    found = set(handle._scope.reads.values())  # noqa: SLF001 - no name of a handle's own shows it
    return tuple(sorted(found, key=lambda read: (read.model, read.version)))


def is_failure(handle: Read, error: BaseException) -> bool:
    """Return whether an error is the engine's, of a statement that ended a function's transaction."""
    return handle._scope.failure is error  # noqa: SLF001 - likewise


def _columns(columns: Mapping[str, str] | Sequence[Mapping[str, Any]]) -> Any:
    if isinstance(columns, Mapping):
        return [{"name": name, "type": kind} for name, kind in columns.items()]
    return [dict(column) if isinstance(column, Mapping) else column for column in columns]


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise RequestError(Code.BAD_ARGUMENT, f"A table's name is a text, not {type(name).__name__}.", where="table")
    return name


def _misuse(message: str, hint: str) -> RequestError:
    return RequestError(Code.USAGE, message, where="handle", hint=hint)
