"""What clients send: random requests from a seed, and what each client learned of them."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from attrs import Factory, define
from pyarrow import csv, feather, parquet

from teatree import connect
from teatree.client.model import Model
from teatree.client.model_requests import Wait
from teatree.client.sending.message import Message
from teatree.contracts.errors import RetryError, TeatreeError
from teatree.contracts.names import ANONYMOUS
from teatree.contracts.settings import Settings
from torture.app import requests as calls
from torture.app.requests import APPS, COUNTERS
from torture.fixed_requests import (
    BAD_REQUESTS,
    CREATE_INCARNATION,
    EXTRA,
    EXTRA_COLUMNS,
    FAILED_REQUESTS,
    HEAVY_REQUESTS,
    IDS_MAX,
    LASTING,
    MAIN,
    MODELS,
    NEVER,
    RECREATED,
    SECOND,
    TOO_BIG,
    columns_of,
)
from torture.oracle import BAD, COUNTER_QUERY, COUNTER_SQL, DELETE_SQL, HEAVY, PAIR_SQL, PAIRS_QUERY

TIMEOUT_MS = 6_000
BAD_SENDER_NAME = "No-1"
HISTORY_MAX = 200
"""Requests that a client may send again."""
HEAVY_READ_CODES = frozenset({"timed_out", "over_limit", "result_too_large", "unavailable", "busy"})
HEAVY_PAUSE_S = 120.0
"""Seconds from one such request of a client to its next, on average: each occupies its model until its limit."""
USE_PAUSE_S = 60.0
"""Likewise for `use_app`: the model's manager leaves after each."""
DIRECT_CODES = frozenset({"timed_out", "unavailable", "busy", "bad_app"})


@define
class ClientRecord:
    """What one client knows of one request."""

    at_s: float
    client: str
    model: str
    function: str
    request_id: str
    seq: int | None = None
    """Its sequence, if the client received one."""
    sender: str | None = None
    """Who it must be from, if the client knows its sequence."""
    kind: str | None = None
    code: str | None = None
    version: int | None = None
    count: int | None = None


@define
class Client:
    """One client with its session; it sends one request after the other."""

    name: str
    rng: random.Random
    settings: Settings
    records: list[ClientRecord]
    on_event: Callable[..., None]
    pause_s: float = 0.05
    history: dict[str, deque[tuple[str, Any, str]]] = Factory(dict)
    count: int = 0
    heavy_at_s: float = Factory(lambda self: time.time() + self.rng.random() * HEAVY_PAUSE_S, takes_self=True)
    use_at_s: float = Factory(lambda self: time.time() + self.rng.random() * USE_PAUSE_S, takes_self=True)

    async def run(self, stop: asyncio.Event) -> None:
        """Send requests until `stop` is set, also while parts are unavailable."""
        while not stop.is_set():
            try:
                async with connect(settings=self.settings, sender=self.name, name=self.name, wait_ms=2_000) as session:
                    while not stop.is_set():
                        await self._step(session.model(self._pick_model()))
                        await asyncio.sleep(self.rng.random() * 2 * self.pause_s)
            except RetryError as e:
                self.on_event("client", client=self.name, error=str(e))
                await asyncio.sleep(0.2)

    def _pick_model(self) -> str:
        return self.rng.choices(MODELS, (70, 20, 10))[0]

    def _id(self, prefix: str = "") -> str:
        self.count += 1
        return f"{prefix}{self.name}-{self.count}"

    async def _step(self, model: Model) -> None:
        if model.name == RECREATED:
            await self._send(model, *self._recreated(model))
            return
        if time.time() > self.heavy_at_s:
            self.heavy_at_s = time.time() + 2 * self.rng.random() * HEAVY_PAUSE_S
            await self._heavy(model)
            return
        if time.time() > self.use_at_s:
            self.use_at_s = time.time() + 2 * self.rng.random() * USE_PAUSE_S
            await self._send(model, "use_app", {"app": self.rng.choice(APPS)}, self._id())
            return
        kind = self.rng.random()
        past = self.history.setdefault(model.name, deque(maxlen=HISTORY_MAX))
        if kind < 0.08 and past:
            await self._again(model, past)
        elif kind < 0.14:
            await self._stale(model)
        elif kind < 0.18:
            await (self._refused_keys(model) if self.rng.random() < 0.1 else self._many(model))
        elif kind < 0.20:
            await self._without_id(model)
        elif kind < 0.21:
            await self._in_other_cases(model)
        elif kind < 0.23:
            await self._ask_directly(model)
        elif kind < 0.24:
            code, function, args = self.rng.choice(FAILED_REQUESTS)
            await self._send(model, function, args, self._id(f"{HEAVY}{code}--"))
        elif kind < 0.32:
            code, function, args = self.rng.choice(BAD_REQUESTS)
            await self._send(model, function, args, self._id(f"{BAD}{code}--"))
        else:
            await self._send(model, *self._random(model), self._id())

    # --- ways of sending ---

    async def _send(self, model: Model, function: str, args: Any, request_id: str, **options: Any) -> None:
        self.history.setdefault(model.name, deque(maxlen=HISTORY_MAX)).append((function, args, request_id))
        record = ClientRecord(time.time(), self.name, model.name, function, request_id)
        self.records.append(record)
        wait: Wait = "accepted" if self.rng.random() < 0.6 else "done"
        try:
            if isinstance(args, bytes):
                await self._publish(model, function, args, record)
                return
            receipt = await model.send(
                function, args, request_id=request_id, wait=wait, timeout_ms=TIMEOUT_MS, **options
            )
            record.seq, record.sender = (receipt.seq, self.name) if wait == "accepted" else (None, None)
            if wait == "done":
                record.kind, record.version = "done", receipt.version
                record.count = receipt.result.get("rows") if isinstance(receipt.result, dict) else None
        except TeatreeError as e:
            record.kind = "unknown" if e.code in ("unavailable", "timed_out", "busy") else "refused"
            record.code = str(e.code)

    async def _publish(self, model: Model, function: str, body: bytes, record: ClientRecord, **headers: str) -> None:
        bus = model.connection.bus
        if not headers:
            headers = {"Teatree-Request-Id": record.request_id}
        short = f"{bus.prefix}.request.{model.name}.{function}"
        sender = self.rng.choice([ANONYMOUS, self.name] + [BAD_SENDER_NAME] * ("X-Torture" in headers))
        subject = short if sender == ANONYMOUS and self.rng.random() < 0.7 else f"{short}.{sender}"
        record.seq, record.sender = (await bus.publish_log(subject, body, headers)).seq, sender

    async def _without_id(self, model: Model) -> None:
        """Publish as any NATS client can: without an id, with one that cannot be used, or as no valid sender."""
        record = ClientRecord(time.time(), self.name, model.name, "append", "")
        self.records.append(record)
        body = json.dumps(self._pair()).encode()
        headers = {"X-Torture": "1"} if self.rng.random() < 0.7 else {"Teatree-Request-Id": "no.such*id"}
        try:
            await self._publish(model, "append", body, record, **headers)
        except TeatreeError as e:
            record.kind, record.code = "unknown", str(e.code)

    async def _in_other_cases(self, model: Model) -> None:
        """Publish one id twice under names of other cases, or both names in one message, which must be refused."""
        names = self.rng.sample(("teatree-request-id", "TEATREE-REQUEST-ID", "Teatree-request-Id"), 2)
        request_id, body = self._id(), json.dumps(self._pair()).encode()
        both = dict.fromkeys(names, request_id)
        sent = [both] if self.rng.random() < 0.3 else [{name: request_id} for name in names]
        for headers in sent:
            record = ClientRecord(time.time(), self.name, model.name, "append", "" if len(headers) > 1 else request_id)
            self.records.append(record)
            try:
                await self._publish(model, "append", body, record, **headers)
            except TeatreeError as e:
                record.kind, record.code = "unknown", str(e.code)

    async def _heavy(self, model: Model) -> None:
        """Send what goes beyond a limit, through the log or past it: no other request may fail for it."""
        if self.rng.random() < 0.4:
            try:
                await model.query(self.rng.choice((NEVER, TOO_BIG)), timeout_ms=20_000)
            except TeatreeError as e:
                if e.code not in HEAVY_READ_CODES:
                    self.on_event("violation", what=f"a heavy read ended as {e}")
            else:
                self.on_event("violation", what="a read beyond its limits was answered")
            return
        code, function, args = self.rng.choice(HEAVY_REQUESTS)
        await self._send(model, function, args, self._id(f"{HEAVY}{code}--"))

    async def _ask_directly(self, model: Model) -> None:
        record = ClientRecord(time.time(), self.name, model.name, calls.DIRECT, "")
        self.records.append(record)
        try:
            record.version, answer = await calls.ask_directly(model)
            record.kind, record.count = "answered", answer["pairs"]
        except TeatreeError as e:
            record.kind, record.code = "unknown", str(e.code)
            if e.code not in DIRECT_CODES:
                self.on_event("violation", what=f"a direct call ended as {e}")

    async def _refused_keys(self, model: Model) -> None:
        """Send many appends of which about half repeat a key: each is refused alone."""
        ids = [self.rng.randrange(IDS_MAX) for _ in range(self.rng.randint(50, 300))]
        items = [Message("append", {"table": "items", "rows": [{"id": i}]}, request_id=self._id()) for i in ids]
        await self._send_many(model, items)

    async def _again(self, model: Model, past: deque[tuple[str, Any, str]]) -> None:
        function, args, request_id = self.rng.choice(list(past))
        if self.rng.random() < 0.3:
            function, args = "append", self._pair()
        await self._send(model, function, args, request_id)

    async def _stale(self, model: Model) -> None:
        """Read, then write with `expected_version`: refused if another client wrote in between."""
        try:
            answer = await model.query(COUNTER_QUERY, format="json", timeout_ms=3_000)
        except TeatreeError:
            return
        version = model.connection.seen_version(model.name)
        if version is None or len(answer) == 0:
            return
        args = {"table": "counter", "set": {"n": self.rng.randrange(1000)}, "where": {"id": 0}}
        await self._send(model, "update", {**args, "expected_version": version}, self._id())

    async def _many(self, model: Model) -> None:
        count = self.rng.randint(2, 60)
        items = [Message(*self._random(model, simple=True), request_id=self._id()) for _ in range(count)]
        past = self.history[model.name]
        items += [Message(f, a, request_id=i) for f, a, i in list(past)[-3:] if not isinstance(a, bytes)]
        past.extend((m.function, m.args, m.request_id) for m in items[:3])
        await self._send_many(model, items)

    async def _send_many(self, model: Model, items: list[Message]) -> None:
        group = self._id("group-")
        record = ClientRecord(time.time(), self.name, model.name, "send_many", group)
        self.records.append(record)
        try:
            summary = await model.send_many(items, group=group, wait="done", timeout_ms=TIMEOUT_MS)
        except TeatreeError as e:
            record.kind, record.code = "unknown", str(e.code)
            return
        record.kind, record.count = "summary", summary.applied + summary.already + summary.refused
        least = min(summary.applied, summary.already, summary.refused)
        if record.count != summary.sent or least < 0 or len(summary.refusals) > summary.refused:
            self.on_event("violation", what=f"{summary.sent} sent in group {group}, {record.count} reported: {summary}")

    # --- requests ---

    def _load(self) -> tuple[str, dict[str, Any]]:
        """Write a file where `load` may read it, and its rows as JSON beside it for the checker."""
        rng, root = self.rng, Path(self.settings.load_roots[0])
        if rng.random() < 0.6:
            table, rows = "pairs", [row for _ in range(rng.randint(1, 40)) for row in self._pair()["rows"]]
        else:
            table, rows = "items", [{"id": rng.randrange(IDS_MAX), "qty": 1} for _ in range(rng.randint(1, 3))]
        path = root / f"{self._id('load-')}.{rng.choice(['parquet', 'csv', 'arrow'])}"
        path.with_name(f"{path.name}.json").write_text(json.dumps(rows))
        columns = pa.Table.from_pylist(rows)
        match path.suffix:
            case ".parquet":
                parquet.write_table(columns, path)
            case ".csv":
                csv.write_csv(columns, path)
            case _:
                feather.write_feather(columns, str(path), compression="uncompressed")
        mode = "replace" if rng.random() < 0.1 else "append"
        return "load", {"table": table, "uri": str(path), "mode": mode}

    def _restore(self, model: Model) -> tuple[str, dict[str, Any]]:
        return "restore", {"version": self._version_of(model)}

    def _version_of(self, model: Model) -> int:
        """Return a version that was the newest one not long ago."""
        seen = model.connection.seen_version(model.name) or 1
        return max(seen - self.rng.randrange(6), 1)

    def _pair(self) -> dict[str, Any]:
        v = self.rng.randrange(1000)
        return {"table": "pairs", "rows": [{"a": self.rng.randrange(10), "v": v}, {"a": 0, "v": -v}]}

    def _item(self) -> dict[str, Any]:
        values = {
            "name": self.rng.choice(["apfel", "ber'g", "Ähre", "", None, "😀", "x" * 300]),
            "qty": self.rng.choice([None, self.rng.randrange(-5, 100)]),
            "price": self.rng.randrange(400) / 4,
            "flag": self.rng.choice([True, False, None]),
        }
        kept = {name: value for name, value in values.items() if self.rng.random() < 0.7}
        return {"id": self.rng.randrange(IDS_MAX), **kept}

    def _random(self, model: Model, *, simple: bool = False) -> tuple[str, dict[str, Any]]:
        rng = self.rng
        items = [self._item() for _ in range(rng.randint(1, 4))]
        one, n = {"id": items[0]["id"]}, rng.randrange(COUNTERS)
        choices: list[tuple[int, Callable[[], tuple[str, dict[str, Any]]]]] = [
            (10, lambda: ("append", {"table": "items", "rows": items})),
            (20, lambda: ("upsert", {"table": "items", "rows": items})),
            (20, lambda: ("append", self._pair())),
            (8, lambda: ("update", {"table": "items", "set": {"qty": rng.randrange(50)}, "where": one})),
            (4, lambda: ("update", {"table": "items", "set": {"flag": None}, "where": {"name": ""}})),
            (10, lambda: ("delete", {"table": "items", "where": one})),
            (12, lambda: ("sql", {"statement": COUNTER_SQL, "parameters": [rng.randrange(9), n]})),
            (5, lambda: ("sql", {"statement": PAIR_SQL, "parameters": [1, 5, 2, -5]})),
            (16, lambda: calls.change(rng)),
        ]  # fmt: skip
        if not simple:
            choices += [
                (2, lambda: ("sql", {"statement": DELETE_SQL, "parameters": [rng.randrange(40), rng.randrange(7)]})),
                (5, lambda: ("upsert", {"table": "counter", "rows": [{"id": rng.randrange(COUNTERS), "n": 0}]})),
                (5, lambda: ("query", {"sql": COUNTER_QUERY})),
                (5, lambda: ("query", {"sql": PAIRS_QUERY})),
                (1, lambda: ("replace", {"table": "items", "rows": items})),
                (1, lambda: ("replace", self._pair())),
                (1, lambda: ("archive", {})),
                (2, lambda: calls.slow(rng)),
                (6, lambda: calls.query(rng, model, LASTING[model.name == MAIN])),
                (14, self._schema),
                (3, self._load),
                (1, lambda: self._restore(model)),
            ]  # fmt: skip
        return rng.choices([make for _, make in choices], [weight for weight, _ in choices])[0]()

    def _schema(self) -> tuple[str, dict[str, Any]]:
        """Make, change, fill or drop one of the extra tables, whatever state it is in."""
        rng, table = self.rng, self.rng.choice(EXTRA)
        one, two = rng.sample(EXTRA_COLUMNS, 2)
        create: dict[str, Any] = {"table": table, "columns": columns_of({"id": "BIGINT", one: "BIGINT"})}
        if table in EXTRA[:2]:
            create["primary_key"] = ["id"]
        rows = [{"id": rng.randrange(20), one: rng.randrange(9)}]
        return rng.choices(
            [
                ("create_table", create),
                ("create_table", {**create, "if_not_exists": True}),
                ("alter_table", {"table": table, "add": {"name": two, "type": rng.choice(["BIGINT", "VARCHAR"])}}),
                ("alter_table", {"table": table, "drop": one}),
                ("alter_table", {"table": table, "rename": {one: two}}),
                ("drop_table", {"table": table}),
                ("append", {"table": table, "rows": [{"id": rng.randrange(20)}]}),
                ("upsert", {"table": table, "rows": [{"id": rng.randrange(20)}]}),
                ("update", {"table": table, "set": {"id": 5}, "where": {one: None}})
                if table not in EXTRA[:2]
                else ("delete", {"table": table, "where": {one: None}}),
                ("append", {"table": "nowhere", "rows": rows}),
            ],
            (4, 2, 4, 2, 2, 1, 6, 6, 2, 1),
        )[0]

    def _recreated(self, model: Model) -> tuple[str, Any, str]:
        kind = self.rng.random()
        if kind < 0.1:
            return "drop_model", {}, self._id()
        if kind < 0.25:
            origin = Model(model.connection, self.rng.choice((MAIN, SECOND)))
            return "create_model", {"from": {"model": origin.name, "version": self._version_of(origin)}}, self._id()
        if kind < 0.4:
            return "create_model", CREATE_INCARNATION, self._id()
        return "append", {"table": "items", "rows": [self._item()]}, self._id()
