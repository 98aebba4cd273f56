"""The read workers of one model: started when reads wait, handed out by `ReadQueue`, ended when idle.

All of it runs on the manager's event loop, which only forwards bytes: a read costs it one write and one read. A read
that is past its time is interrupted, and its worker killed if that does not help; a worker that crashes fails one read.
Statements and clients that cause that repeatedly are held off (`ReadHolds`).
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Self

import structlog
from attrs import frozen

from teatree.contracts.clock import SYSTEM_CLOCK, Clock, Timer
from teatree.contracts.errors import AppError, Code, OperatorError, RetryError, TeatreeError, error_kind
from teatree.contracts.probe import NO_PROBE, Probe
from teatree.contracts.read_settings import ReadSettings
from teatree.contracts.settings import LimitSettings
from teatree.engine.errors import DamagedVersionError
from teatree.functions.query import Query
from teatree_manager.read_workers.app_call import AppCall, OtherCodeError
from teatree_manager.read_workers.frames import FrameKind, ReadFault, ReadJob, ask_frame, frame, load_frame, read_reply
from teatree_manager.read_workers.holds import ReadHolds
from teatree_manager.read_workers.live_work import KeptAnswer, LiveBatch
from teatree_manager.read_workers.process import Why, WorkerEnded, WorkerProcess
from teatree_manager.read_workers.queue import ReadQueue, Ticket

LOOK_S = 0.025
"""Seconds between checks, while reads wait, whether one waits for too long or one that runs has become long."""
LOAD_MARGIN_MS = 2_000
"""Milliseconds that a worker has beyond an import's time, to answer why it was too short."""
FILE_TRIES_MAX = 3
"""Version files that may be removed under one read before its client is asked to repeat it."""

StorePage = Callable[[int, int, bytes], Awaitable[None]]
"""Takes number, rows and body of a page after the first."""


@frozen
class Asked:
    """What a client reads."""

    client: str
    work: Query | AppCall | LiveBatch | KeptAnswer
    limits: LimitSettings
    time_ms_max: int
    """Milliseconds that its first page, and each further one, may take."""
    served: int
    """The newest version for which the newest file answers."""
    first_page_bytes_max: int


class ReadPool:
    """Answers queries of one model in separate processes."""

    def __init__(
        self,
        settings: ReadSettings,
        environ: Mapping[str, str],
        temp: Path,
        newest: Callable[[], tuple[int, Path] | None],
        probe: Probe = NO_PROBE,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`temp` is a folder for temporary files of all workers; `newest` returns the newest version and its file."""
        self._settings = settings
        self._environ = environ
        self._temp = temp
        self._newest = newest
        self._probe = probe
        self._clock = clock
        self._queue = ReadQueue(settings.workers_max, settings.long_workers_max, settings.long_ms)
        self._holds = ReadHolds(settings, clock)
        self._turns: dict[Ticket, asyncio.Future[WorkerProcess]] = {}
        self._running: dict[Ticket, WorkerProcess] = {}
        self._workers: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []
        """The one that was busy last is handed out first, so that unneeded ones stay idle and are ended."""
        self._starting: asyncio.Task[None] | None = None
        self._look: Timer | None = None
        self._idle_look: Timer | None = None
        self._numbers = itertools.count(1)
        self._ended_ms = 0.0
        """Processor time of the workers that have ended."""
        self._is_closed = False
        self._log = structlog.get_logger()
        shutil.rmtree(temp, ignore_errors=True)  # left by workers of an earlier manager

    @property
    def pids(self) -> list[int]:
        """The workers' processes."""
        return sorted(worker.pid for worker in self._workers)

    @property
    def processor_ms(self) -> float:
        """Processor time of all workers after their starts, up to their last answers."""
        return self._ended_ms + sum(worker.processor_ms - worker.start_ms for worker in self._workers)

    @property
    def waiting(self) -> int:
        """How many reads wait for a worker."""
        return len(self._queue)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def read(self, asked: Asked, store_page: StorePage) -> tuple[dict[str, str], bytes]:
        """Return headers and body of an answer; pages after the first are stored first, one by one; raises as `ask`."""
        head, body = await self.ask(asked, store_page)
        headers: dict[str, str] = head["headers"]
        return headers, body

    async def ask(self, asked: Asked, store_page: StorePage) -> tuple[dict[str, Any], bytes]:
        """Return head and body of a worker's answer, as `read` does.

        Raises what the query raises, `timed_out`, `over_limit`, `held_off`, `unavailable`; DamagedVersionError.
        """
        self._holds.check(asked.client, asked.work.key, self._clock.monotonic_ms())
        ticket = self._queue.join(asked.client, self._clock.monotonic_ms())
        try:
            while True:
                worker = await self._turn(ticket)
                try:
                    with self._probe.step("manager.read.run", client=asked.client, query=asked.work):
                        return await self._answer(worker, ticket, asked, store_page)
                except _MadeWayError:
                    self._queue.wait_again(ticket)
                finally:
                    self._running.pop(ticket, None)
                    self._free(worker)
        finally:
            self._queue.leave(ticket)
            self._hand_out()

    def release(self) -> None:
        """Let idle workers close files of versions that are not the newest any more."""
        newest = self._newest()
        for worker in self._idle:
            if newest is None or worker.version != newest[0]:
                worker.release()

    async def close(self) -> None:
        """End all workers."""
        self._is_closed = True
        for handle in (self._look, self._idle_look):
            if handle is not None:
                handle.cancel()
        if self._starting is not None:
            self._starting.cancel()
        await asyncio.gather(*(worker.close() for worker in list(self._workers)))

    # --- answering ---

    async def _turn(self, ticket: Ticket) -> WorkerProcess:
        turn: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        self._turns[ticket] = turn
        self._hand_out()
        try:
            with self._probe.step("manager.read.queue", client=ticket.client):
                return await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._running.pop(ticket, None)
                self._free(turn.result())
            raise
        finally:
            del self._turns[ticket]

    async def _answer(
        self, worker: WorkerProcess, ticket: Ticket, asked: Asked, store_page: StorePage
    ) -> tuple[dict[str, Any], bytes]:
        try:
            head, body = await self._first_page(worker, asked)
            ticket.may_make_way = False
            for _ in range(1, head.get("pages", 1)):
                reply = await worker.ask(frame(FrameKind.NEXT), asked.time_ms_max)
                page, page_body = _checked(*reply, worker, asked)
                await store_page(page["page"], page["rows"], page_body)
        except WorkerEnded as e:
            if e.why is Why.MAKE_WAY:
                raise _MadeWayError from None
            if self._is_closed:
                raise RetryError(
                    Code.UNAVAILABLE, "The model's manager ends; another one answers.", hint="Send the read again."
                ) from None
            self._blame(asked, worker, e)
            raise self._ended_error(e, asked) from None
        except OtherCodeError:
            worker.kill()  # Python cannot load a module anew: the next worker loads the code that is there then
            raise
        return head, body

    async def _first_page(self, worker: WorkerProcess, asked: Asked) -> tuple[dict[str, Any], bytes]:
        if isinstance(asked.work, AppCall) and worker.app != asked.work.app:
            await self._load(worker, asked, asked.work)
        for tries in itertools.count(1):
            newest = self._newest()
            if newest is None:
                raise RetryError(Code.UNAVAILABLE, "The model has no version to read yet.", hint="Try again shortly.")
            worker.version = newest[0]
            job = ReadJob(
                number=worker.next_number(),
                version=newest[0],
                path=newest[1],
                served=asked.served,
                work=asked.work,
                limits=asked.limits,
                temp_bytes_max=asked.limits.temp_bytes_max // self._settings.workers_max,
                first_page_bytes_max=asked.first_page_bytes_max,
                page_bytes_max=self._settings.page_bytes_max,
            )
            try:
                return _checked(*await worker.ask(ask_frame(job), asked.time_ms_max), worker, asked)
            except _FileRemovedError:
                if tries == FILE_TRIES_MAX:
                    raise
        raise AssertionError

    async def _load(self, worker: WorkerProcess, asked: Asked, call: AppCall) -> None:
        """Have a worker import the app of a call, which has a separate limit."""
        worker.next_number()
        reply = await worker.ask(load_frame(call), call.import_ms_max + LOAD_MARGIN_MS, is_job=False)
        _checked(*reply, worker, asked)
        worker.app = call.app

    def _blame(self, asked: Asked, worker: WorkerProcess, ended: WorkerEnded) -> None:
        self._holds.killed(asked.client, asked.work.key, self._clock.monotonic_ms())
        self._log.warning(
            "a read ended its worker",
            pid=worker.pid,
            why=ended.why.value if ended.why else None,
            code=ended.code,
            memory_bytes_peak=ended.memory_bytes_peak,
            client=asked.client,
            asked=asked.work.key[:200],
            place=ended.place,
        )

    def _ended_error(self, ended: WorkerEnded, asked: Asked) -> TeatreeError:
        if ended.why is Why.TIME:
            return _timed_out(asked, ended.place)
        noun, where = asked.work.noun, asked.work.place
        memory_bytes_max = self._settings.process_memory_bytes_max
        if ended.code == -9 or (memory_bytes_max and ended.memory_bytes_peak > memory_bytes_max // 3):
            return RetryError(
                Code.OVER_LIMIT,
                f"{noun} needs more memory than it may use: its process ended.",
                where=where,
                hint="Ask for less at once, or have the model's limits raised.",
            )
        return OperatorError(
            Code.INTERNAL,
            f"{noun} ended its process (exit code {ended.code}).",
            where=where,
            hint="That is a fault of DuckDB, Teatree or the function; other reads are not affected.",
        )

    # --- workers ---

    def _hand_out(self) -> None:
        """Give waiting reads their workers; start one, or let a long read make way, if there are too few."""
        if self._is_closed:
            return
        now_ms = self._clock.monotonic_ms()
        while self._idle and (ticket := self._queue.next(now_ms)) is not None:
            worker = self._idle.pop()
            self._running[ticket] = worker
            self._turns[ticket].set_result(worker)
        if not len(self._queue):
            return
        if not self._idle:
            if self._starting is None and self._needs_worker(now_ms):
                self._starting = asyncio.create_task(self._start())
            while (ticket := self._queue.must_make_way(now_ms)) is not None:
                self._running[ticket].interrupt(Why.MAKE_WAY)
        if self._look is None:
            self._look = self._clock.call_later(LOOK_S, self._look_again)

    def _needs_worker(self, now_ms: float) -> bool:
        if len(self._workers) >= self._settings.workers_max:
            return False
        return not self._workers or self._queue.waited_ms(now_ms) >= self._settings.wait_ms_max

    def _look_again(self) -> None:
        self._look = None
        self._hand_out()

    async def _start(self) -> None:
        worker = None
        try:
            temp = self._temp / str(next(self._numbers))
            worker = WorkerProcess(self._settings, self._environ, temp, self._free, self._ended, self._clock)
            self._workers.add(worker)
            await worker.ready()
        except (OSError, WorkerEnded) as e:
            self._log.error("a read worker could not be started", error=str(e))
            self._refuse_next(str(e))
        else:
            self._free(worker)
        finally:
            self._starting = None
            self._hand_out()

    def _refuse_next(self, reason: str) -> None:
        """Refuse one read because no worker could be started; the next read causes the next try."""
        ticket = self._queue.next(self._clock.monotonic_ms())
        if ticket is not None:
            self._turns[ticket].set_exception(
                RetryError(Code.UNAVAILABLE, f"A process to read in could not be started: {reason}", hint="Try again.")
            )

    def _free(self, worker: WorkerProcess) -> None:
        """Take a worker back, unless it has ended or still works on an answer that no client waits for."""
        if worker.is_busy or worker.is_ending or worker not in self._workers or worker in self._idle:
            return
        self._idle.append(worker)
        newest = self._newest()
        if newest is None or worker.version != newest[0]:
            worker.release()
        if self._idle_look is None:
            self._look_for_idle()
        self._hand_out()

    def _ended(self, worker: WorkerProcess) -> None:
        self._workers.discard(worker)
        self._ended_ms += worker.processor_ms - worker.start_ms
        if worker in self._idle:
            self._idle.remove(worker)
        self._hand_out()

    def _look_for_idle(self) -> None:
        """End the workers that were idle for a time, now and periodically while there are any."""
        now_s = self._clock.monotonic()
        idle_s = self._settings.idle_ms / 1000
        for worker in [worker for worker in self._idle if now_s - worker.free_since_s >= idle_s]:
            self._idle.remove(worker)
            worker.kill()
        self._idle_look = self._clock.call_later(idle_s / 4, self._look_for_idle) if self._workers else None


class _MadeWayError(Exception):
    """The read was interrupted so that another could run."""


class _FileRemovedError(RetryError):
    """The version's file was removed before the worker opened it."""


def _checked(kind: int, payload: bytes, worker: WorkerProcess, asked: Asked) -> tuple[dict[str, Any], bytes]:
    """Return head and body of an answer; raises the error that it is."""
    head, body = read_reply(payload)
    if kind == FrameKind.ANSWER:
        return head, body
    if worker.why is Why.MAKE_WAY:
        raise _MadeWayError
    code = Code(head["code"])
    if worker.why is Why.TIME and code is Code.TIMED_OUT:
        raise _timed_out(asked, worker.place)
    if head["fault"] == ReadFault.DAMAGED:
        raise DamagedVersionError(head["message"], where=head["where"])
    if head["fault"] == ReadFault.FULL:
        worker.kill()
    if "traceback" in head:
        raise AppError(code, head["message"], where=head["where"], hint=head["hint"], traceback=head["traceback"])
    if head["fault"] == ReadFault.OTHER_CODE:
        raise OtherCodeError(head["app"], head["version"])
    kind_of_error = _FileRemovedError if head["fault"] == ReadFault.REMOVED else error_kind(code)
    raise kind_of_error(code, head["message"], where=head["where"], hint=head["hint"])


def _timed_out(asked: Asked, place: str | None) -> RetryError:
    reached = f" It was at {place}." if place else ""
    return RetryError(
        Code.TIMED_OUT,
        f"{asked.work.noun} ran longer than {asked.time_ms_max} ms.{reached}",
        where=asked.work.place,
        hint="Ask for less at once, or have the model's limit raised.",
    )
