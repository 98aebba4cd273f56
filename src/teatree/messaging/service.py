"""Direct reads: a NATS service (micro, ADR-32) on a model's query subjects.

Each read is a separate task, which its handler may have wait for its turn; a repeat joins it, and it is cancelled when
its client gives up (`asked_reads`). Only when too many wait a read is answered `busy`. Every service
answers `$SRV.PING`, `INFO` and `STATS`, by which the `nats` tool finds and watches it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Self

from teatree.contracts.clock import Timer
from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError, TeatreeError
from teatree.contracts.formats.codec import dump_json, utc_text
from teatree.contracts.formats.requests import CANCEL_FUNCTION
from teatree.contracts.names import new_id
from teatree.contracts.read_settings import ReadSettings
from teatree.messaging.asked_reads import AskedRead, AskedReads
from teatree.messaging.bus import Bus
from teatree.messaging.frames import reply_subject
from teatree.messaging.headers import decode_headers

HEADER_ERROR = "Nats-Service-Error"
HEADER_ERROR_CODE = "Nats-Service-Error-Code"
QUEUE = "q"
"""The queue group that the convention gives to every endpoint: one instance answers a request."""
_TYPES = {"PING": "ping_response", "INFO": "info_response", "STATS": "stats_response"}

LOOK_MS = 1_000
"""Milliseconds between checks for reads that were given up."""

QueryHandler = Callable[[AskedRead], Awaitable[tuple[bytes, Mapping[str, str]]]]
"""Takes a direct read and returns body and headers of its answer; it is cancelled once no client waits for it."""


async def serve(
    bus: Bus, model: str, handler: QueryHandler, settings: ReadSettings, *, version: str, description: str = ""
) -> QueryService:
    """Start to answer the direct reads of a model; an error of the handler is sent as its read's answer."""
    service = QueryService(bus, model, handler, settings, version=version, description=description)
    await service.start()
    return service


async def reply_error(bus: Bus, reply: str, error: TeatreeError, more: Mapping[str, str] | None = None) -> None:
    """Reply to a direct read with an error: its number and text in headers, and our own form in the body."""
    text = "".join(c if c.isprintable() else " " for c in str(error)).strip()[:1_000]
    headers = {HEADER_ERROR_CODE: str(_number(error)), HEADER_ERROR: text, "Content-Type": "application/json"}
    await bus.publish(reply, dump_json({"error": error.to_dict()}), {**headers, **(more or {})})


def service_name(prefix: str, model: str) -> str:
    """Return the name under which a model's reads are found."""
    return f"{prefix}-query-{model}"


class QueryService:
    """The running service of one model; made by `serve`."""

    def __init__(
        self, bus: Bus, model: str, handler: QueryHandler, settings: ReadSettings, *, version: str, description: str
    ) -> None:
        self._bus = bus
        self._model = model
        self._handler = handler
        self._asked = AskedReads(settings)
        self._look: Timer | None = None
        self._endpoint = bus.subjects.query_model(model)
        self._identity = {
            "name": service_name(bus.prefix, model),
            "id": new_id(),
            "version": version,
            "metadata": {"model": model},
        }
        self._description = description or f"Direct reads of the goal model {model}"
        self._started = bus.clock.now()
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests = 0
        self._errors = 0
        self._last_error = ""
        self._busy_ns = 0

    async def start(self) -> None:
        """Subscribe, to reads first: a service that answers pings answers reads."""
        name, instance = self._identity["name"], self._identity["id"]
        self._closers.append(await self._bus.subscribe_sink(self._endpoint, self._query, QUEUE))
        for verb in _TYPES:
            for subject in (f"$SRV.{verb}", f"$SRV.{verb}.{name}", f"$SRV.{verb}.{name}.{instance}"):
                self._closers.append(await self._bus.subscribe_sink(subject, self._control))

    async def close(self, timeout_ms: float = 10_000) -> None:
        """Unsubscribe, then let the reads that run finish; after `timeout_ms` they are cancelled."""
        while self._closers:
            await self._closers.pop()()
        if self._look is not None:
            self._look.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout_ms / 1000)
            for task in late:
                task.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- reads ---

    def _query(self, subject: bytes, raw_reply: bytes, block: bytes | None, body: bytes) -> None:
        reply = reply_subject(raw_reply)
        if not reply:
            return  # there is no subject for an answer
        name = subject.decode("utf-8", "replace")
        try:
            _, function = self._bus.subjects.parse_query(name)
        except TeatreeError as e:
            self._spawn(self._refuse(reply, e))
            return
        read = AskedRead(function, decode_headers(block), body, reply, self._bus.clock.monotonic_ms())
        if function == CANCEL_FUNCTION:
            given_up = self._asked.find(read.client, read.request_id)
            if given_up is not None:
                given_up.cancel()
        elif not self._asked.repeated(read) and self._make_room(read):
            self._asked.add(read)
            task = self._spawn(self._answer(name, read))
            task.add_done_callback(lambda _: self._asked.remove(read))
            read.cancel = task.cancel
            self._look_later()

    def _make_room(self, read: AskedRead) -> bool:
        """Refuse reads until there is room for this one; return False if it is the one that is refused."""
        while (crowded_out := self._asked.crowded_out(read)) is not None:
            busy = RetryError(
                Code.BUSY,
                f"{len(self._asked)} reads of {self._model} run or wait, which is the limit.",
                where="model",
                hint="Ask again a little later.",
            )
            self._asked.remove(crowded_out)
            crowded_out.cancel()
            self._spawn(self._refuse(crowded_out.reply, busy))
            if crowded_out is read:
                return False
        return True

    def _look_later(self) -> None:
        if self._look is None:
            self._look = self._bus.clock.call_later(LOOK_MS / 1000, self._look_for_given_up)

    def _look_for_given_up(self) -> None:
        self._look = None
        for read in self._asked.given_up(self._bus.clock.monotonic_ms()):
            read.cancel()
        if len(self._asked):
            self._look_later()

    async def _answer(self, subject: str, read: AskedRead) -> None:
        began_s = self._bus.clock.monotonic()
        try:
            answer, headers = await self._handler(read)
            await self._bus.publish(read.reply, answer, headers)
        except TeatreeError as e:
            await self._refuse(read.reply, e)
        except Exception as e:  # noqa: BLE001  a fault of ours is the answer of this one read, and is counted
            await self._refuse(read.reply, OperatorError(Code.INTERNAL, f"{type(e).__name__}: {e}", where=subject))
        finally:
            self._requests += 1
            self._busy_ns += round((self._bus.clock.monotonic() - began_s) * 1e9)

    async def _refuse(self, reply: str, error: TeatreeError) -> None:
        self._errors += 1
        self._last_error = str(error)
        if error.code is Code.BODY_TOO_LARGE:
            error = RequestError(
                Code.RESULT_TOO_LARGE, "The answer does not fit into one message.", where=error.where, hint="Use pages."
            )
        try:
            await reply_error(self._bus, reply, error)
        except RetryError as e:  # the read times out at its client; the statistics hold the cause
            self._last_error = f"{error}; and the answer was lost: {e}"

    # --- requests of the convention ---

    def _control(self, subject: bytes, reply: bytes, _block: bytes | None, _body: bytes) -> None:
        verb = subject.decode().split(".")[1]
        if reply_subject(reply):
            answer = {"type": f"io.nats.micro.v1.{_TYPES[verb]}", **self._identity, **self._details(verb)}
            self._spawn(self._inform(reply_subject(reply), dump_json(answer)))

    async def _inform(self, reply: str, answer: bytes) -> None:
        if self._bus.is_connected:
            await self._bus.publish(reply, answer)

    def _details(self, verb: str) -> dict[str, Any]:
        endpoint = {"name": "query", "subject": self._endpoint, "queue_group": QUEUE}
        match verb:
            case "INFO":
                return {"description": self._description, "endpoints": [{**endpoint, "metadata": {}}]}
            case "STATS":
                stats = {
                    "num_requests": self._requests,
                    "num_errors": self._errors,
                    "last_error": self._last_error,
                    "processing_time": self._busy_ns,
                    "average_processing_time": self._busy_ns // max(self._requests, 1),
                }
                return {"started": utc_text(self._started), "endpoints": [{**endpoint, **stats}]}
            case _:
                return {}

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _number(error: TeatreeError) -> int:
    """Return the HTTP-like number that the convention requires beside our code."""
    match error.code:
        case Code.UNKNOWN_MODEL | Code.UNKNOWN_FUNCTION | Code.UNKNOWN_TABLE | Code.UNKNOWN_VERSION:
            return 404
        case Code.UNAVAILABLE | Code.BUSY | Code.HELD_OFF:
            return 503
        case Code.TIMED_OUT:
            return 504
        case _:
            return 400 if isinstance(error, RequestError) else 500
