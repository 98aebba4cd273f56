"""A model whose versions are made in this process, by the writer that managers use, without NATS."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from teatree.contracts.formats.manifest import Manifest, StreamStamp
from teatree.contracts.formats.notices import Outcome
from teatree.contracts.formats.requests import CONTENT_ARROW, CONTENT_JSON, Request
from teatree.contracts.names import new_id
from teatree.contracts.probe import NO_PROBE
from teatree.contracts.settings import LimitSettings, Settings, StoreSettings
from teatree.engine.apply.batch import Applied
from teatree.engine.model_context import ModelContext
from teatree.engine.publish.prepared import Author, PreparedVersion
from teatree.engine.publish.shipping import ship
from teatree.engine.writer import Writer
from teatree.functions.registry import built_in_functions
from teatree.functions.sources import Sources
from teatree.storage.model_folder import model_folder
from teatree.storage.objects.stores import open_store
from teatree.storage.versions.chain import Chain

LIMITS = LimitSettings(remember_rows_max=1_000_000, request_time_ms_max=3_600_000, rows_bytes_max=8_000_000_000)


class PublishedModel:
    """Requests in, versions out. Use as a context manager."""

    def __init__(self, store: StoreSettings, folder: Path, name: str = "sales", limits: LimitSettings = LIMITS) -> None:
        self.settings = Settings(store=store, data=folder / "data")
        self.name = name
        self.chain = Chain(open_store(store), self.settings.nats.prefix, name)
        context = ModelContext(
            self.chain,
            model_folder(self.settings.data, name),
            limits,
            Sources((), store),
            built_in_functions(),
            NO_PROBE,
        )
        self._writer = Writer(context, Author(StreamStamp("REQUESTS", "2026-01-01T00:00:00Z"), {"host": "test"}))
        self._writer.take_over(self.chain.newest())
        self._seq = self._writer.applied_position.seq

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    @property
    def writer(self) -> Writer:
        """The writer that makes the versions."""
        return self._writer

    def request(self, function: str, args: dict[str, Any], rows: pa.Table | None = None, **envelope: Any) -> Manifest:
        """Apply one request, publish the version that holds it and return its manifest; it must be done.

        `envelope` are members of the request.
        """
        outcome, manifest = self.send(function, args, rows, **envelope)
        assert outcome.error is None, outcome.error
        return manifest

    def send(
        self, function: str, args: dict[str, Any], rows: pa.Table | None = None, **envelope: Any
    ) -> tuple[Outcome, Manifest]:
        """Apply one request and publish the version that holds it; return its outcome and the version's manifest."""
        applied = self.apply(function, args, rows, **envelope)
        return applied.entries[0].outcome, self.publish(applied)

    def apply(self, function: str, args: dict[str, Any], rows: pa.Table | None = None, **envelope: Any) -> Applied:
        """Apply one request."""
        self._seq += 1
        body = json.dumps(args).encode()
        if rows is not None:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, rows.schema) as stream:
                stream.write_table(rows)
            body = sink.getvalue().to_pybytes()
        request = Request(
            model=self.name,
            function=function,
            seq=self._seq,
            at=datetime.now(UTC),
            request_id=new_id(),
            body=body,
            content_type=CONTENT_JSON if rows is None else CONTENT_ARROW,
            args=None if rows is None else json.dumps(args),
            **envelope,
        )
        return self._writer.apply([request])

    def publish(self, applied: Applied) -> Manifest:
        """Publish the version that holds the applied requests."""
        prepared = self._writer.capture(applied, applied.version - 1)
        shipped = self.ship(prepared)
        self._writer.advance_base(shipped)
        return shipped.manifest

    def ship(self, prepared: PreparedVersion) -> PreparedVersion:
        """Upload a captured version; return it with the manifest that is in the store."""
        return ship(prepared, self._writer.context)

    def create(self, tables: dict[str, dict[str, str]], **options: Any) -> Manifest:
        """Create the model with tables as {name: {column: type}}."""
        listed = [
            {"table": table, "columns": [{"name": n, "type": t} for n, t in columns.items()]}
            for table, columns in tables.items()
        ]
        return self.request("create_model", {"tables": listed, **options})

    def sql(self, statement: str) -> Manifest:
        """Run one statement."""
        return self.request("sql", {"statement": statement})
