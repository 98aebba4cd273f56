"""The synchronous API, for notebooks and scripts: the same sessions and models, without `await`.

Each session runs its own event loop in one background thread, so it works with and without a running event loop (as in
Jupyter). Threads may share a session. It belongs to the process that opened it, and its calls cannot be nested: a
generator given to `send_many` runs in the session's thread. Every method wraps its asynchronous counterpart, with the
same parameters and the same docstring.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from concurrent.futures import CancelledError, Future
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from teatree.client.model import Model
from teatree.client.session import Session, client_settings
from teatree.contracts.errors import Code, RequestError, TeatreeError
from teatree.contracts.settings import Settings

if TYPE_CHECKING:
    import duckdb

    from teatree.client.versions.attach import Attached
    from teatree.functions.app.app import App
    from teatree.functions.app.stubs import Stubs

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class LoopThread:
    """An event loop in a separate thread; any thread of the process that made it may run coroutines there."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self._running: set[Future[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="teatree-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine there and wait for it; Ctrl-C cancels it. Raises `usage` where that would never end."""
        try:
            self._check_caller()
            with self._lock:
                if self._closed:
                    raise _unusable("The session is closed.", "Open another one with `connect_sync`.")
                future = asyncio.run_coroutine_threadsafe(work, self._loop)
                self._running.add(future)
        except TeatreeError:
            work.close()
            raise
        try:
            return future.result()
        except CancelledError:
            raise _unusable("The session was closed during this call.", "Close it when its calls have ended.") from None
        except KeyboardInterrupt:
            future.cancel()
            raise
        finally:
            self._running.discard(future)

    def finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the clean-up of a call; does nothing once the loop is closed."""
        if self._closed or self._pid != os.getpid():
            work.close()
        else:
            self.run(work)

    def stop(self, last: Callable[[], Awaitable[None]] | None = None) -> None:
        """Cancel running calls, run `last`, then end the loop and its thread; does nothing the second time.

        In a process that was forked it does nothing either: loop, thread and connection belong to the parent.
        """
        if self._pid != os.getpid():
            return
        self._check_caller()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            running = list(self._running)
        for future in running:
            future.cancel()
        try:
            asyncio.run_coroutine_threadsafe(self._end(last), self._loop).result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _end(self, last: Callable[[], Awaitable[None]] | None) -> None:
        try:
            if last is not None:
                await last()
        finally:
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            await self._loop.shutdown_asyncgens()

    def _check_caller(self) -> None:
        if self._pid != os.getpid():
            raise _unusable(
                "The session was opened in another process, before a fork.", "Open one in each process, after the fork."
            )
        if threading.current_thread() is self._thread:
            raise _unusable(
                "A session cannot be used inside one of its calls: in a generator that it reads, or in a callback.",
                "Collect what is needed before the call, or use a second session.",
            )


def _unusable(message: str, hint: str) -> RequestError:
    return RequestError(Code.USAGE, message, where="session", hint=hint)


class _SyncFacade(Generic[T]):
    """The base of synchronous classes: an asynchronous object and its event loop."""

    def __init__(self, inner: T, thread: LoopThread) -> None:
        self._inner = inner
        self._thread = thread

    def __repr__(self) -> str:
        return f"Sync{self._inner!r}"


def _blocking(method: Callable[Concatenate[Any, P], Awaitable[R]]) -> Callable[Concatenate[Any, P], R]:
    """Return a method that waits for its asynchronous counterpart."""

    @functools.wraps(method)
    def call(facade: _SyncFacade[Any], /, *args: P.args, **kwargs: P.kwargs) -> R:
        async def work() -> R:
            return await method(facade._inner, *args, **kwargs)  # noqa: SLF001 - members of the facade

        return facade._thread.run(work())  # noqa: SLF001

    return call


def _iterating(
    method: Callable[Concatenate[Any, P], AsyncGenerator[R, None]],
) -> Callable[Concatenate[Any, P], Generator[R, None, None]]:
    """Return a method that iterates over what its asynchronous counterpart yields."""

    @functools.wraps(method)
    def call(facade: _SyncFacade[Any], /, *args: P.args, **kwargs: P.kwargs) -> Generator[R, None, None]:
        items = method(facade._inner, *args, **kwargs)  # noqa: SLF001

        async def step() -> R:
            return await anext(items)

        async def close() -> None:
            await items.aclose()

        try:
            while True:
                try:
                    item = facade._thread.run(step())  # noqa: SLF001
                except StopAsyncIteration:
                    return
                yield item
        finally:
            facade._thread.finish(close())  # noqa: SLF001

    return call


# More than ten public methods: those of `Model`.
class SyncModel(_SyncFacade[Model]):
    """A `Model` whose methods return when they are done."""

    @property
    def name(self) -> str:
        """The model's name."""
        return self._inner.name

    send = _blocking(Model.send)
    call = _blocking(Model.call)
    call_for_reply = _blocking(Model.call_for_reply)
    functions = _blocking(Model.functions)
    send_many = _blocking(Model.send_many)
    outcome = _blocking(Model.outcome)
    dead_letters = _blocking(Model.dead_letters)
    dead_letter = _blocking(Model.dead_letter)
    send_again = _blocking(Model.send_again)
    append = _blocking(Model.append)
    replace = _blocking(Model.replace)
    upsert = _blocking(Model.upsert)
    update = _blocking(Model.update)
    delete = _blocking(Model.delete)
    create_table = _blocking(Model.create_table)
    alter_table = _blocking(Model.alter_table)
    drop_table = _blocking(Model.drop_table)
    load = _blocking(Model.load)
    load_file = _blocking(Model.load_file)
    sql = _blocking(Model.sql)
    use_app = _blocking(Model.use_app)
    archive = _blocking(Model.archive)
    find_version = _blocking(Model.find_version)
    restore = _blocking(Model.restore)
    diff = _blocking(Model.diff)
    query = _blocking(Model.query)
    ask = _blocking(Model.ask)
    follow = _iterating(Model.follow)
    watch = _iterating(Model.watch)
    versions = _blocking(Model.versions)
    pull = _blocking(Model.pull)

    def bind(self, app: App, *, direct: bool = False) -> Stubs:
        """Return the functions of an imported app as methods with their signatures: see `Model.bind`."""
        from teatree.functions.app.stubs import Stubs  # noqa: PLC0415 - only those who import an app need it

        return Stubs(app, partial(_blocking(Model.call_function), self, direct=direct))

    def attach(
        self,
        con: duckdb.DuckDBPyConnection,
        *,
        version: int | None = None,
        at: datetime | str | None = None,
        follow: bool = False,
        alias: str | None = None,
    ) -> Attached:
        """Attach a version to a DuckDB connection, its blocks fetched as queries need them: see `teatree.attach`."""
        return self._inner.attach(con, version=version, at=at, follow=follow, alias=alias)


def _blocking_model(
    method: Callable[Concatenate[Any, P], Awaitable[Model]],
) -> Callable[Concatenate[Any, P], SyncModel]:
    """Return a method that waits for its asynchronous counterpart and returns its model as a `SyncModel`."""
    run = _blocking(method)

    @functools.wraps(method)
    def call(facade: _SyncFacade[Any], /, *args: P.args, **kwargs: P.kwargs) -> SyncModel:
        return SyncModel(run(facade, *args, **kwargs), facade._thread)  # noqa: SLF001

    return call


class SyncSession(_SyncFacade[Session]):
    """A `Session` whose methods return when they are done; `close` it, or use it in a `with`."""

    @property
    def settings(self) -> Settings:
        """The settings that it was opened with."""
        return self._inner.settings

    def model(self, name: str) -> SyncModel:
        """Return a model by name, whether it exists or not; raises `bad_name`."""
        return SyncModel(self._inner.model(name), self._thread)

    create_model = _blocking_model(Session.create_model)
    fork_model = _blocking_model(Session.fork_model)
    drop_model = _blocking(Session.drop_model)
    models = _blocking(Session.models)

    def close(self) -> None:
        """Disconnect, and end the background thread; does nothing the second time."""
        self._thread.stop(self._inner.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect_sync(
    url: str | None = None,
    *,
    data: str | Path | None = None,
    settings: Settings | None = None,
    sender: str | None = None,
    name: str = "teatree-client",
    wait_ms: int = 0,
) -> SyncSession:
    """Return an open session for code without `await`; the parameters are those of `connect`."""
    session = Session(client_settings(url, data, settings, sender=sender), name=name, wait_ms=wait_ms)
    thread = LoopThread()
    try:
        thread.run(session.open())
    except BaseException:
        thread.stop()
        raise
    return SyncSession(session, thread)
