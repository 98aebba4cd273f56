"""A user's DuckDB file without any service: open, change, publish versions of it, call an app's functions on it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import duckdb
from attrs import evolve

from teatree.contracts.environment import process_environ, read_settings
from teatree.contracts.errors import Code, RequestError
from teatree.contracts.names import check_model
from teatree.contracts.settings import Settings, StoreSettings, store_at
from teatree.engine.duckdb.user_file import UserFile
from teatree.engine.file_publisher import FilePublisher, Published
from teatree.storage.objects.stores import open_store
from teatree.storage.versions.chain import Chain

if TYPE_CHECKING:
    from teatree.engine.file_calls import FileCalls
    from teatree.functions.app.app import App
    from teatree.functions.app.handles import Write
    from teatree.functions.app.stubs import Stubs

_NOT_IN_NAMES = re.compile(r"[^a-z0-9_]+")


def open_file(
    path: str | Path,
    store: str | None = None,
    *,
    name: str | None = None,
    app: App | None = None,
    settings: Settings | None = None,
) -> OpenFile:
    """Open a DuckDB file, or create it, to work with it, to publish versions of it, and to call an app's functions.

    `store` holds the versions: `s3://bucket/prefix`, `file:///folder` or the path of a folder; by default the
    environment's. With an `app` none is needed. `name` is the model's name there, made from the file's if left out.

    Raises `busy` if the file is open elsewhere, `bad_source` if it is no DuckDB file, `bad_name`.
    """
    found = settings or read_settings(process_environ())
    if store is not None:
        found = evolve(found, store=store_at(found.store, store))
    place = Path(path).absolute()
    model = check_model(name) if name is not None else _model_name(place)
    needs_store = app is None or bool(found.store.url)
    chain = Chain(open_store(found.store), found.nats.prefix, model) if needs_store else None
    return OpenFile(UserFile(place.resolve()), model, chain, app, found)


def _model_name(path: Path) -> str:
    made = _NOT_IN_NAMES.sub("_", path.stem.lower()).strip("_")
    try:
        return check_model(made)
    except RequestError as e:
        raise RequestError(
            Code.BAD_NAME, f"{path.name!r} yields no model name.", where="name", hint="Give one with `name`."
        ) from e


class OpenFile:
    """A DuckDB file that this process has open. `publish` and `call` may be called while other threads write."""

    def __init__(
        self, file: UserFile, name: str, chain: Chain | None, app: App | None = None, settings: Settings | None = None
    ) -> None:
        self.name = name
        """The model's name, in the store and for the functions of an app."""
        self._file = file
        self._chain = chain
        self._publisher = FilePublisher(file, chain) if chain is not None else None
        self._app = app
        self._settings = settings or Settings()
        self._lock = threading.Lock()
        self._calls: FileCalls | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"OpenFile({str(self.path)!r}, name={self.name!r})"

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The connection to work with; threads take a `cursor()` of it each."""
        return self._file.connection

    def sql(self, query: str, **options: Any) -> duckdb.DuckDBPyRelation:
        """Run SQL, as DuckDB's own `sql` does."""
        return self.connection.sql(query, **options)

    def close(self) -> None:
        """Close the file; what was not published stays in it."""
        with self._lock:
            if self._calls is not None:
                self._calls.close()
            self._file.close()

    def publish(self) -> Published:
        """Publish the committed state as the next version, and return it; the newest one if nothing differs from it.

        Only changed blocks are uploaded. Raises `fenced` if another publisher used this name since this one's last
        version, `model_exists` if the name belongs to a model with a log, `corrupt` for a damaged block.
        """
        if self._publisher is None:
            open_store(StoreSettings())  # raises what is not set
            raise AssertionError
        return self._publisher.publish()

    def call(self, name: str, /, *, request_id: str | None = None, **arguments: Any) -> Any:
        """Call a function of the app that the file was opened with, and return its result.

        A mutation is one transaction: all that it did, or nothing if it raises. A query reads what is committed. The
        function's own errors pass as they are. One call runs at a time. `request_id` seeds the function's random
        generator; a new one if left out.

        Raises `unknown_function`, what `AppFunction.read_arguments` raises, `busy` if another transaction of this
        process changed the same rows.
        """
        if self._app is None:
            raise RequestError(
                Code.USAGE,
                f"{self.path.name} was opened without an app.",
                where="app",
                hint="Open it with `teatree.open(path, app=app)`.",
            )
        calls = self.calls
        return calls.call(calls.function(self._app, name), arguments, request_id)

    @contextmanager
    def transaction(self) -> Iterator[Write]:
        """Give the handle of an app's mutations for the time of the block: to work with, or to pass to a function.

        What it did is committed at the end, or undone after any error; one transaction or call runs at a time.
        """
        with self.calls.transaction("A transaction") as handle:
            yield handle

    def bind(self, app: App | None = None) -> Stubs:
        """Return the functions of an app, that of the file if left out, as methods that call them on this file."""
        from teatree.functions.app.stubs import Stubs  # noqa: PLC0415 - only those who use an app need it

        found = app if app is not None else self._app
        if found is None:
            raise RequestError(Code.USAGE, "There is no app whose functions could be bound.", where="app")
        calls = self.calls
        return Stubs(found, calls.call)

    @property
    def calls(self) -> FileCalls:
        """What runs functions on this file, whatever their app."""
        from teatree.engine.file_calls import FileCalls  # noqa: PLC0415 - only those who use an app need it

        with self._lock:
            if self._calls is None:
                self._calls = FileCalls(self._file, self.name, self._chain, self._settings)
            return self._calls
