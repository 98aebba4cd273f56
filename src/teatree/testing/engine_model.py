"""A model of an engine under test: its log in memory, its store and data in a folder, one writer after the other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import field, frozen
from typing_extensions import override

from teatree.contracts.errors import RetryError
from teatree.contracts.failpoints import PlaceListener
from teatree.contracts.formats.manifest import Manifest, ModelState, StreamStamp
from teatree.contracts.formats.notices import Outcome, Status
from teatree.contracts.formats.requests import HEADER_REQUEST_ID, Request, read_request
from teatree.contracts.probe import probe_for
from teatree.contracts.settings import LimitSettings, StoreSettings
from teatree.engine.base import Engine, Engines
from teatree.engine.model_context import ModelContext
from teatree.engine.open_model import OpenModel
from teatree.engine.publish.prepared import Author, PreparedVersion
from teatree.engine.publish.shipping import ship
from teatree.engine.writer import Writer
from teatree.functions.registry import Registry, built_in_functions
from teatree.functions.sources import Sources
from teatree.storage.ledger.segments import Entry, Role, read_segment
from teatree.storage.model_folder import model_folder
from teatree.storage.objects.stores import open_store
from teatree.storage.versions.chain import Chain

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
STAMP = StreamStamp("REQUESTS", "2026-01-01T00:00:00Z")
TABLE = {
    "table": "t",
    "columns": [{"name": "id", "type": "BIGINT"}, {"name": "v", "type": "VARCHAR"}],
    "primary_key": ["id"],
}
TRIES_MAX = 3


class Killed(BaseException):
    """The writer's process ends here."""


@frozen
class NewRequest:
    """A request to send."""

    function: str
    arguments: dict[str, Any] = field(factory=dict)
    request_id: str | None = None


class KillAt(PlaceListener):
    """Ends the process at one place, once."""

    def __init__(self) -> None:
        self.place: str | None = None

    @override
    def arrive(self, place: str) -> None:
        if place == self.place:
            self.place = None
            raise Killed


# More than ten public methods: a method for each thing that a test does to a model.
class EngineModel:
    """One model; `log` has its requests, and each writer continues where the chain or its data end."""

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        *,
        name: str = "m",
        functions: Registry | None = None,
        limits: LimitSettings | None = None,
    ) -> None:
        """Models in one folder share a store."""
        self.engine = engine
        self.log: list[Request] = []
        self.kill = KillAt()
        self._folder = folder
        self._functions = functions or built_in_functions()
        self._limits = limits or LimitSettings()
        self._store = StoreSettings(url=(folder / "store").absolute().as_uri())
        self.chain = Chain(open_store(self._store), "t", name)
        self.writer = self._new_writer("host")

    def _new_writer(self, host: str) -> Writer:
        context = ModelContext(
            self.chain,
            model_folder(self._folder / host, self.chain.model),
            self._limits,
            Sources((), self._store),
            self._functions,
            probe_for([self.kill]),
            engines=Engines.of(self.engine),
        )
        return Writer(context, Author(STAMP, {"host": host}))

    # --- the log -----------------------------------------------------------------------------------------------------

    def publish(self, *sent: NewRequest) -> list[Request]:
        """Append requests to the log."""
        requests = []
        for one in sent:
            seq = len(self.log) + 1
            headers = {HEADER_REQUEST_ID: one.request_id or f"r{seq}"}
            body = json.dumps(one.arguments).encode()
            at = _EPOCH + timedelta(seconds=seq)
            requests.append(read_request(self.chain.model, one.function, seq, at, headers, body))
            self.log.append(requests[-1])
        return requests

    def created(self, *tables: dict[str, Any], **options: Any) -> EngineModel:
        """Take the model over and create it with some tables; return it."""
        self.take_over()
        arguments = {"engine": self.engine.name, "tables": list(tables), **options}
        (outcome,) = self.run(NewRequest("create_model", arguments))
        assert outcome.status is Status.DONE, outcome.error
        return self

    # --- writers -----------------------------------------------------------------------------------------------------

    def take_over(self, host: str = "host") -> Writer:
        """Take the model over by a new writer on a host, publish what a crash left, and return the writer."""
        self.writer = writer = self._new_writer(host)
        left = writer.take_over(self.chain.newest())
        if left is not None:
            self._ship(left)
        return writer

    def end(self) -> None:
        """End the writer as a kill would: what is not shipped stays as it is."""
        self.writer.close()

    def run(self, *sent: NewRequest, batch_max: int = 1_000) -> list[Outcome]:
        """Publish requests; apply and ship what the model has not applied; return the outcomes of these requests."""
        requests = self.publish(*sent)
        self.carry(batch_max)
        outcomes = self.outcomes()
        return [outcomes[request.seq] for request in requests]

    def carry(self, batch_max: int = 1_000) -> None:
        """Apply and ship what follows in the log."""
        rest = [request for request in self.log if request.seq > self.writer.applied_position.seq]
        while rest:
            batch = self._next_batch(rest, batch_max)
            rest = rest[len(batch) :]
            self._apply(batch)

    def _next_batch(self, rest: Sequence[Request], batch_max: int) -> Sequence[Request]:
        for place, request in enumerate(rest[:batch_max]):
            is_alone = self._functions.traits(request.function).alone or self.writer.state is not ModelState.ACTIVE
            if is_alone:
                return rest[: max(place, 1)]
        return rest[:batch_max]

    def _apply(self, batch: Sequence[Request]) -> None:
        todo = batch
        for _ in range(TRIES_MAX):
            try:
                applied = self.writer.apply(todo)
                break
            except RetryError:
                todo = self.writer.rest_of(batch)
        else:
            applied = self.writer.apply(todo)
        self._ship(self.writer.capture(applied, 0))

    def _ship(self, prepared: PreparedVersion) -> None:
        self.writer.advance_base(ship(prepared, self.writer.context))

    # --- what is published -------------------------------------------------------------------------------------------

    def manifests(self) -> list[Manifest]:
        """Return all manifests of the chain."""
        return [self.chain.get(number) for number in range(1, self.chain.newest_version() + 1)]

    def entries(self) -> list[Entry]:
        """Return all published outcomes, each with its role, in their order."""
        chain = self.chain
        return [entry for manifest in self.manifests() for entry in read_segment(chain.store, chain.folder, manifest)]

    def outcomes(self) -> dict[int, Outcome]:
        """Return the published outcomes by sequence; each request has one, and each id takes effect once."""
        entries = self.entries()
        found = {entry.outcome.seq: entry.outcome for entry in entries}
        assert len(found) == len(entries), "a request has two outcomes"
        firsts = [entry.outcome.request_id for entry in entries if entry.role is Role.FIRST]
        assert len(set(firsts)) == len(firsts), "an id took effect twice"
        return found

    def rows(self, sql: str = "SELECT * FROM t ORDER BY ALL", version: int | None = None) -> list[dict[str, Any]]:
        """Return a query's rows of a published version, restored from the store; by default of the newest."""
        manifest = self.chain.get(version or self.chain.newest_version())
        place = self._folder / "read" / f"{manifest.version}.{self.engine.name}"
        self.engine.restore(self.chain, manifest, place)
        reader = self.engine.read(place, self._limits)
        try:
            found: list[dict[str, Any]] = reader.answer(sql, (), self._limits).to_pylist()
        finally:
            reader.close()
        return found

    def ids(self, version: int | None = None) -> list[int]:
        """Return the ids of the rows of `t`, sorted."""
        return [row["id"] for row in self.rows("SELECT id FROM t ORDER BY id", version)]

    @property
    def open_model(self) -> OpenModel:
        """The state of the writer's model, which has data."""
        assert isinstance(self.writer.model, OpenModel)
        return self.writer.model


def add(*ids: int, request_id: str | None = None, **arguments: Any) -> NewRequest:
    """Return an `append` of rows with these ids."""
    rows = [{"id": n, "v": str(n)} for n in ids]
    return NewRequest("append", {"table": "t", "rows": rows, **arguments}, request_id)
