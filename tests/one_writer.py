"""A model's writer without servers, for tests of what requests do: one process, a store in a folder, no log."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa

from teatree.contracts.formats.manifest import StreamStamp
from teatree.contracts.formats.notices import Outcome, Status
from teatree.contracts.formats.requests import CONTENT_ARROW, HEADER_ARGS, HEADER_CONTENT_TYPE, Request, read_request
from teatree.contracts.names import ANONYMOUS, new_id
from teatree.contracts.probe import NO_PROBE
from teatree.contracts.settings import CacheSettings, LimitSettings, StoreSettings
from teatree.engine.duckdb.data import DuckDBData
from teatree.engine.duckdb.database import Database
from teatree.engine.model_context import ModelContext, WriterHooks
from teatree.engine.open_model import OpenModel
from teatree.engine.others.other_versions import OtherVersions
from teatree.engine.publish.prepared import Author
from teatree.engine.publish.shipping import ship
from teatree.engine.writer import Writer
from teatree.functions.app.loading import INSTALLED_APPS, Apps
from teatree.functions.registry import Registry, built_in_functions
from teatree.functions.sources import Sources
from teatree.storage.model_folder import model_folder
from teatree.storage.objects.stores import open_store
from teatree.storage.versions.chain import Chain

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = "good"
"""The table that a bad request's neighbours append to."""


@attrs.frozen
class Sent:
    """A request to send: arguments as JSON, or a body as bytes."""

    function: str
    body: Any = b""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    sender: str = ANONYMOUS


def open_database(writer: Writer) -> Database:
    """Return the database of a model that has a file."""
    assert isinstance(writer.model, OpenModel)
    assert isinstance(writer.model.data, DuckDBData)
    return writer.model.data.database


def arrow(columns: Mapping[str, Any] | pa.Table, compression: str | None = None) -> bytes:
    """Return an Arrow stream of columns."""
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def arrow_headers(**args: Any) -> dict[str, str]:
    """Return the headers of an Arrow body with its arguments."""
    return {HEADER_CONTENT_TYPE: CONTENT_ARROW, HEADER_ARGS: json.dumps(args)}


class OneWriter:
    """A model `m` with the tables that it is made with, and an empty table `good`."""

    def __init__(
        self,
        folder: Path,
        tables: list[dict[str, Any]] = [],  # noqa: B006
        limits: LimitSettings | None = None,
        functions: Registry | None = None,
        app: str | None = None,
        apps: Apps = INSTALLED_APPS,
    ) -> None:
        self.sources = folder / "sources"
        self.sources.mkdir(parents=True)
        store = StoreSettings(url=(folder / "store").absolute().as_uri())
        self.chain = Chain(open_store(store), "t", "m")
        self.progress: list[tuple[str, float, str]] = []
        """The progress that requests reported: function, fraction, text."""
        context = ModelContext(
            self.chain,
            model_folder(folder / "data", "m"),
            limits or LimitSettings(),
            Sources((str(self.sources), str(folder / "data"), str(folder / "store")), store, folder / "data"),
            functions or built_in_functions(),
            NO_PROBE,
            WriterHooks(report=self._report),
            others=OtherVersions(self.chain.store, "t", limits or LimitSettings(), CacheSettings()),
            apps=apps,
        )
        self.writer = Writer(context, Author(StreamStamp("REQUESTS", "2026-01-01T00:00:00Z"), {}))
        self.writer.take_over(None)
        self._seq = 0
        self._good: list[int] = []
        if tables:
            good = {"table": GOOD, "columns": [{"name": "n", "type": "BIGINT"}]}
            (outcome,) = self.apply(Sent("create_model", {"tables": [good, *tables], "app": app}))
            assert outcome.status is Status.DONE, outcome.error

    def _report(self, request: Request, fraction: float, text: str) -> None:
        self.progress.append((request.function, fraction, text))

    def close(self) -> None:
        """Close the model's file."""
        self.writer.close()

    def restart(self, apps: Apps | None = None) -> None:
        """Continue with another writer, as after a manager has left; `apps` are those that it may load."""
        self.writer.close()
        context = self.writer.context
        self.writer = Writer(attrs.evolve(context, apps=apps or context.apps), Author(self.writer.manifest.stream, {}))
        left = self.writer.take_over(self.chain.newest())
        if left is not None:
            self.writer.advance_base(ship(left, self.writer.context))

    def apply(self, *sent: Sent) -> list[Outcome]:
        """Apply requests as one batch, ship it, and return their outcomes; each has exactly one."""
        requests = [self._request(one) for one in sent]
        applied = self.writer.apply(requests)
        prepared = self.writer.capture(applied, 0)
        self.writer.advance_base(ship(prepared, self.writer.context))
        outcomes = [entry.outcome for entry in applied.entries]
        assert [o.seq for o in outcomes] == [r.seq for r in requests]
        return outcomes

    def between(self, bad: Sent) -> Outcome:
        """Apply a request between two good neighbours in one batch, which must be done, and return its outcome."""
        before, outcome, after = self.apply(self._neighbour(), bad, self._neighbour())
        assert (before.status, after.status) == (Status.DONE, Status.DONE), (before.error, after.error)
        return outcome

    def _neighbour(self) -> Sent:
        self._good.append(len(self._good))
        return Sent("append", {"table": GOOD, "rows": [{"n": self._good[-1]}]})

    def check_good_rows(self) -> None:
        """Check that the neighbours' table holds each of their rows once, and nothing else."""
        assert self.rows(f"SELECT n FROM {GOOD} ORDER BY n") == [{"n": n} for n in self._good]

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Return a query's rows."""
        (outcome,) = self.apply(Sent("query", {"sql": sql, "page_size": 10_000}))
        assert outcome.status is Status.DONE, outcome.error
        pages = [json.loads(self.chain.store.get(self.chain.key(page["ref"]))) for page in outcome.pages]
        return [row for page in pages for row in page["rows"]]

    def _request(self, sent: Sent) -> Request:
        self._seq += 1
        body = sent.body if isinstance(sent.body, bytes) else json.dumps(sent.body).encode()
        headers = {"Teatree-Request-Id": new_id(), **sent.headers}
        at = _EPOCH + timedelta(seconds=self._seq)
        return read_request("m", sent.function, self._seq, at, headers, body, sent.sender)
