"""What can be observed from outside: log, notices, versions, catalog and archives, by readers that are not Teatree's.

The log and the notices are read with nats-py, manifests as JSON, versions with duckdb, archives as Parquet,
the catalog with psycopg. Only the pull of a version is Teatree's: it is under test.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import duckdb
import nats
import psycopg
from attrs import frozen
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from teatree.client.versions.pull import pull_version
from teatree.contracts.settings import NatsSettings, Settings
from teatree.storage.objects.base import NotFoundError
from teatree.storage.objects.stores import open_store
from teatree.storage.versions.chain import Chain
from torture.loss import MARKS
from torture.oracle import BAD_SENDER, REPEATED_HEADER, UNUSABLE_ID, Accepted

TERMINAL = ("done", "rejected", "failed")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SENDER = re.compile(r"_|[a-z][a-z0-9_]{0,62}")


@frozen
class StoredNotice:
    """One notice as it is stored in the stream."""

    place: int
    tokens: tuple[str, ...]
    """What follows `teatree.notify` in its subject."""
    body: bytes


async def read_stream(settings: NatsSettings, stream: str, subjects: str) -> list[Any]:
    """Return all messages of a stream, by an ordinary consumer."""
    client = await nats.connect(settings.url, user=settings.user, password=settings.password)
    try:
        js = client.jetstream(timeout=20)
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE, filter_subject=subjects)
        consumer = await js.pull_subscribe("", stream=stream, config=config)
        waiting = (await consumer.consumer_info()).num_pending or 0
        found: list[Any] = []
        while len(found) < waiting:
            found += await consumer.fetch(min(1_000, waiting - len(found)), timeout=20)
        return found
    finally:
        await client.close()


async def last_seq(settings: NatsSettings) -> int:
    """Return the sequence of the last request in the log."""
    client = await nats.connect(settings.url, user=settings.user, password=settings.password)
    try:
        return (await client.jetstream(timeout=20).stream_info("REQUESTS")).state.last_seq
    finally:
        await client.close()


async def read_log(settings: NatsSettings) -> list[Accepted]:
    """Return all requests of the log, in its order."""
    return [_accepted(message) for message in await read_stream(settings, "REQUESTS", "teatree.request.>")]


def _accepted(message: Any) -> Accepted:
    _, _, model, function, sender = message.subject.split(".")
    headers = message.headers or {}
    seq = message.metadata.sequence.stream
    ids = [value for name, value in headers.items() if name.lower() == "teatree-request-id"]
    given = ids[0] if ids else None
    if len(ids) > 1:
        request_id = f"seq-{seq}"
        function = REPEATED_HEADER
    elif not _SENDER.fullmatch(sender) and model != MARKS:  # their last token is no sender
        request_id = f"seq-{seq}"
        function = BAD_SENDER
    elif given is None:
        request_id = f"seq-{seq}"
    elif _ID.fullmatch(given):
        request_id = given
    else:
        request_id = f"seq-{seq}"
        function = UNUSABLE_ID
    at = message.metadata.timestamp.timestamp()
    return Accepted(seq, model, function, request_id, message.data, headers.get("Teatree-Group"), at, sender)


async def read_notices(settings: NatsSettings) -> list[StoredNotice]:
    """Return all notices that are still kept."""
    messages = await read_stream(settings, "NOTICES", "teatree.notify.>")
    return [StoredNotice(m.metadata.sequence.stream, tuple(m.subject.split(".")[2:]), m.data) for m in messages]


class Versions:
    """The versions of one model in the object store."""

    def __init__(self, settings: Settings, model: str) -> None:
        self.model = model
        self.chain = Chain(open_store(settings.store), "teatree", model)
        self.manifests: list[dict[str, Any]] = []

    def refresh(self) -> list[dict[str, Any]]:
        """Return all manifests from number 1 on; one that is missing in the middle ends the list."""
        while (found := self.read(len(self.manifests) + 1)) is not None:
            self.manifests.append(found)
        return self.manifests

    def read(self, number: int) -> dict[str, Any] | None:
        """Return the manifest or stub of a number; None if there is none."""
        try:
            manifest: dict[str, Any] = json.loads(self.chain.store.get(self.chain.manifest_key(number)))
        except NotFoundError:
            return None
        return manifest

    def is_cleaned_up(self, number: int) -> bool:
        """Return whether a version was cleaned up."""
        return "stub" in (self.read(number) or {})

    def planned(self) -> set[int]:
        """Return the versions that an unfinished clean-up was about to delete."""
        deletions = [self.chain.store.get(info.key) for info in self.chain.store.list(self.chain.key("cleanup/"))]
        return {number for deletion in deletions for number in json.loads(deletion)["versions"]}

    def numbers(self) -> list[int]:
        """Return the numbers that have a manifest, by listing the store."""
        listed = self.chain.store.list(self.chain.key("manifests/"))
        names = [info.key.rsplit("/", 1)[-1] for info in listed]
        return sorted(int(name) for name in names if name.isdigit())

    def content(self, number: int, folder: Path) -> dict[str, list[str]]:
        """Pull a version and return its content."""
        path = folder / f"{self.model}-{number}.duckdb"
        path.unlink(missing_ok=True)
        try:
            pull_version(self.chain, path, version=number)
            return file_content(path)
        finally:
            for file in folder.glob(f"*{path.name}*"):
                file.unlink(missing_ok=True)

    def archive(self, number: int, folder: Path) -> dict[str, list[str]] | None:
        """Return the content of the Parquet archive of a version; None if it has none."""
        store = self.chain.store
        try:
            index = json.loads(store.get(self.chain.key(f"archive/{number:020d}/index.json")))
        except NotFoundError:
            return None
        content: dict[str, list[str]] = {}
        for name, table in index["tables"].items():
            path = folder / "table.parquet"
            path.write_bytes(store.get(self.chain.key(table["key"])))
            with duckdb.connect() as con:
                content[name] = _table_content(con, f"read_parquet('{path}')")
            path.unlink()
        return content


def file_content(path: Path) -> dict[str, list[str]]:
    """Return every user table of a DuckDB file as text: its columns, then its rows in order of their text."""
    with duckdb.connect(str(path), read_only=True, config={"threads": 1}) as con:
        names = con.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'main' AND table_catalog = ?",
            [path.stem],
        ).fetchall()
        return {name: _table_content(con, f'"{name}"') for (name,) in names}


def _table_content(con: duckdb.DuckDBPyConnection, source: str) -> list[str]:
    columns = [(row[0], row[1]) for row in con.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
    return [repr(columns), *sorted(repr(row) for row in con.execute(f"SELECT * FROM {source}").fetchall())]


def catalog(settings: Settings, model: str) -> dict[str, Any]:
    """Return PostgreSQL's rows about a model."""
    with psycopg.connect(settings.postgres.url or "", password=settings.postgres.password) as con:
        row = con.execute(
            "SELECT goal_model_id, version, applied_offset, lifecycle, epoch FROM goal_model WHERE name = %s", [model]
        ).fetchone()
        if row is None:
            return {}
        ids = [row[0]]
        versions = con.execute("SELECT version FROM goal_model_version WHERE goal_model_id = %s ORDER BY 1", ids)
        numbers = [number for (number,) in versions]
        requests = con.execute(
            "SELECT request_id, seq, state, version FROM request_log WHERE goal_model_id = %s", ids
        ).fetchall()
    return {
        "version": row[1], "offset": row[2], "lifecycle": row[3], "epoch": row[4], "versions": numbers,
        "requests": {request_id: (seq, state, version) for request_id, seq, state, version in requests},
    }  # fmt: skip
