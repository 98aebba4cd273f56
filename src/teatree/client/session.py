"""A session: the client's connection to all models of an installation."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve
from typing_extensions import Unpack

from teatree.client.connection import Connection
from teatree.client.listing import ModelInfo, list_models
from teatree.client.model import Model
from teatree.client.model_functions import SendOptions
from teatree.contracts.data_folder import check_data_folder
from teatree.contracts.environment import ENV_FILE, data_folder, process_environ, read_env_file, read_settings
from teatree.contracts.errors import Code, RequestError, RetryError
from teatree.contracts.names import check_sender
from teatree.contracts.probe import Listener
from teatree.contracts.settings import PostgresSettings, Settings, store_at

if TYPE_CHECKING:
    from teatree.client.sending.receipt import Receipt

_ADDRESSES = ("TEATREE_NATS_URL", "TEATREE_STORE_URL", "TEATREE_POSTGRES_URL")


def connect(
    url: str | None = None,
    *,
    data: str | Path | None = None,
    store: str | None = None,
    settings: Settings | None = None,
    sender: str | None = None,
    name: str = "teatree-client",
    wait_ms: int = 0,
    listeners: Sequence[Listener] = (),
) -> Session:
    """Return a session, to be used in an `async with`.

    Where to connect: `settings`; else the environment and, beneath it, `<data>/teatree.env` as `teatree up` writes it.
    `url` is another NATS, `store` another object store. Sending needs only NATS; `pull`, `diff` and `versions` only the
    object store, which is opened when first used. `sender` is who the requests of this session are from, for everyone
    to see: by default `TEATREE_SENDER`, else the name of this process's user. `wait_ms` is how long to retry connecting
    to NATS before entering raises `unavailable`. `listeners` receive the points of the probe (docs/points.md), for
    spans and metrics.
    """
    found = client_settings(url, data, settings, store, sender)
    return Session(found, name=name, wait_ms=wait_ms, listeners=listeners)


def client_settings(
    url: str | None,
    data: str | Path | None,
    settings: Settings | None,
    store: str | None = None,
    sender: str | None = None,
) -> Settings:
    """Return the settings of a session.

    Raises `bad_name` for a name that no sender can have, `unavailable` if no stack runs on the given folder, `usage` if
    neither a folder nor an address is given.
    """
    if settings is None:
        environ = process_environ()
        folder = None if data is None else Path(data)
        settings = read_settings(environ, folder)
        if not (url or store or any(environ.get(name) for name in _ADDRESSES)):
            _check_stack(environ, folder)
    if store is not None:
        # The catalog describes another store.
        settings = evolve(settings, store=store_at(settings.store, store), postgres=PostgresSettings())
    given = {"url": url, "sender": None if sender is None else check_sender(sender)}
    return evolve(settings, nats=evolve(settings.nats, **{k: v for k, v in given.items() if v is not None}))


def _check_stack(environ: Mapping[str, str], folder: Path | None) -> None:
    """Raise if there is no stack to connect to, instead of using a default folder silently."""
    named = folder or data_folder(environ)
    check_data_folder(named)
    if any(name in _ADDRESSES for name in read_env_file(named / ENV_FILE)):
        return
    if folder is None and not environ.get("TEATREE_DATA"):
        raise RequestError(
            Code.USAGE,
            f"No stack is named: there is neither --data nor TEATREE_DATA, and no stack runs on ./{named}.",
            hint="Name the folder of a running `teatree up` with --data or TEATREE_DATA.",
        )
    raise RetryError(
        Code.UNAVAILABLE,
        f"No stack runs on {named}: its {ENV_FILE} holds no address.",
        where=str(named),
        hint=f"Start one with `teatree up --data {shlex.quote(str(named))}`.",
    )


class Session(Connection):
    """A connection to an installation; members that need NATS raise `unavailable` while it is not open."""

    def model(self, name: str) -> Model:
        """Return a model by name, whether it exists or not; raises `bad_name`."""
        return Model(self, name)

    async def create_model(
        self,
        name: str,
        *,
        tables: Sequence[Mapping[str, Any]] = (),
        engine: str | None = None,
        storage_version: str | None = None,
        app: str | None = None,
        limits: Mapping[str, int] | None = None,
        **options: Unpack[SendOptions],
    ) -> Model:
        """Create a model, with its first tables as `create_table` takes them, and return it once it exists.

        `storage_version` (`v1.4.0`) keeps its files readable by that DuckDB. Raises `model_exists`.
        """
        args: dict[str, Any] = {
            "engine": engine,
            "storage_version": storage_version,
            "app": app,
            "limits": dict(limits) if limits else None,
            "tables": [dict(table) for table in tables] or None,
        }
        model = self.model(name)
        await model.send("create_model", {k: v for k, v in args.items() if v is not None}, **options)
        return model

    async def fork_model(
        self,
        origin: str,
        name: str,
        *,
        version: int | None = None,
        app: str | None = None,
        limits: Mapping[str, int] | None = None,
        **options: Unpack[SendOptions],
    ) -> Model:
        """Create a model as a fork of a version (the newest) of another one, and return it once it exists.

        The two share only blocks in the object store. Raises `model_exists`, `unknown_version`.
        """
        given = {"app": app, "limits": dict(limits) if limits else None}
        source = {"model": origin} if version is None else {"model": origin, "version": version}
        model = self.model(name)
        args = {"from": source, **{k: v for k, v in given.items() if v is not None}}
        await model.send("create_model", args, **options)
        return model

    async def drop_model(self, name: str, **options: Unpack[SendOptions]) -> Receipt:
        """Drop a model; its versions stay readable, and the name can be used again."""
        return await self.model(name).send("drop_model", **options)

    async def models(self) -> list[ModelInfo]:
        """Return all models: from the catalog if PostgreSQL is set, otherwise from the object store."""
        return await asyncio.to_thread(list_models, self.settings, lambda: self.store)
