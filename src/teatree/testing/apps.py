"""A model for the tests of an app: a temporary file, in which its functions run as behind the queue, and no service."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.codec import parse_json
from teatree.contracts.settings import Settings, StoreSettings
from teatree.contracts.types.schema import Schema
from teatree.datasets.bad_value import BadValueError
from teatree.datasets.dataset import Dataset
from teatree.engine.file_calls import FileCalls
from teatree.engine.open_file import OpenFile, open_file
from teatree.functions.app.app import App
from teatree.functions.app.handles import Write
from teatree.functions.app.stubs import Stubs
from teatree.functions.app.values.dataset_rows import dataset_reader
from teatree.functions.app.values.results import result_json
from teatree.functions.handles import Parameters

Tables = Mapping[str, Any]
"""Each a Schema for an empty table, rows (their types are found), or what `Write.create_table` takes, and `rows`."""


class AppModel:
    """A model in a temporary file; `call` runs a function of the app on it."""

    def __init__(self, app: App, calls: FileCalls) -> None:
        self._app = app
        self._calls = calls

    def call(self, name: str, /, *, request_id: str | None = None, **arguments: Any) -> Any:
        """Call a function and return its result: in one transaction, undone after any error.

        As behind the queue, a result that cannot be sent is `bad_result`. The function's own errors pass as they are.
        """
        return self._calls.call(self._calls.function(self._app, name), arguments, request_id, _check_result)

    def call_json(self, name: str, arguments: str | bytes = b"{}") -> Any:
        """Call a function as a client in another language does: the arguments are JSON, and so is the result."""
        body = arguments.encode() if isinstance(arguments, str) else arguments
        members = parse_json(body)
        if not isinstance(members, dict):
            raise RequestError(Code.BAD_ARGUMENT, "The arguments must be a JSON object.", where="body")
        function = self._calls.function(self._app, name)
        return result_json(self._calls.call(function, members, None, _check_result))

    def bind(self) -> Stubs:
        """Return the app's functions as methods."""
        return Stubs(self._app, lambda function, arguments: self.call(function.name, **arguments))

    def sql(self, sql: str, parameters: Parameters = ()) -> Dataset:
        """Return the rows of one SELECT on what is committed."""
        with self.transaction() as db:
            return db.sql(sql, parameters)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return all rows of a table."""
        with self.transaction() as db:
            return db.table(table).rows()

    @contextmanager
    def transaction(self) -> Iterator[Write]:
        """Give the handle of a mutation for the time of the block, to pass to a function or to prepare a test."""
        with self._calls.transaction("A transaction") as handle:
            yield handle


@contextmanager
def app_model(
    app: App, tables: Tables | None = None, *, name: str = "model", others: Mapping[str, Tables] | None = None
) -> Iterator[AppModel]:
    """Make a model with tables for the time of the block.

    `others` are the tables of other models, which functions read with `db.other`: one version of each.
    """
    with tempfile.TemporaryDirectory(prefix="teatree-test-") as folder, ExitStack() as opened:
        settings = Settings(store=StoreSettings(url=(Path(folder) / "store").as_uri()))
        for other, content in (others or {}).items():
            with _opened(Path(folder), other, app, settings, content) as file:
                file.publish()
        file = opened.enter_context(_opened(Path(folder), name, app, settings, tables or {}))
        yield AppModel(app, file.calls)


def _opened(folder: Path, name: str, app: App, settings: Settings, tables: Tables) -> OpenFile:
    file = open_file(folder / f"{name}.duckdb", name=name, app=app, settings=settings)
    try:
        with file.transaction() as db:
            for table, content in tables.items():
                _make(db, table, content)
    except BaseException:
        file.close()
        raise
    return file


def _make(db: Write, name: str, content: Any) -> None:
    if isinstance(content, Schema):
        db.create_table(name, content)
    elif isinstance(content, Mapping):
        members = dict(content)
        rows = members.pop("rows", ())
        db.create_table(name, **members)
        db.append(name, rows)
    else:
        found = _dataset(name, content)
        db.create_table(name, found.schema)
        db.append(name, found)


def _dataset(name: str, rows: object) -> Dataset:
    try:
        return dataset_reader(None)(rows)
    except BadValueError as e:
        hint = "Give the types: {'columns': {'at': 'DATE'}, 'rows': [...]}."
        raise RequestError(e.code, e.message, where=f"tables.{name}{e.path}", hint=hint) from None


def _check_result(result: Any) -> None:
    if not isinstance(result, Dataset):
        result_json(result)
