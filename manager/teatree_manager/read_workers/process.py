"""A read worker's process as its manager sees it: started, given jobs, interrupted, killed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from functools import partial
from pathlib import Path
from typing import cast

from attrs import frozen
from typing_extensions import override

from teatree.contracts.clock import Clock, Timer
from teatree.contracts.formats.provenance import AppCode
from teatree.contracts.process import ALLOCATOR_ENVIRON, process_id
from teatree.contracts.read_settings import ReadSettings
from teatree_manager.read_workers.frames import FRAME, NUMBER, FrameKind

_ENVIRON = ("PATH", "PYTHON", "LD_", "LANG", "LC_", "TZ", "HOME", "TMPDIR", "MALLOC_", "VIRTUAL_ENV")
"""Prefixes of the variables that a worker gets: no settings and no credentials."""
EXIT_LOOKS, EXIT_LOOK_S = 50, 0.01
"""How often and how long apart the end of a worker is looked for that closed its socket."""
STDERR = 2
"""The descriptor of the manager's log."""


class Why(Enum):
    """Why a job is interrupted."""

    TIME = "time"
    MAKE_WAY = "make way"
    GIVEN_UP = "given up"


@frozen
class WorkerEnded(Exception):  # noqa: N818  an error only if a read was running
    """The worker ended before it answered."""

    why: Why | None
    """Why its job was interrupted before it was killed; None if it ended in the middle of it."""
    code: int
    """Its exit code, negative for a signal."""
    memory_bytes_peak: int
    place: str | None = None
    """Where its function was when its job was interrupted, if it ran one."""

    @override
    def __str__(self) -> str:
        return f"a read worker ended with exit code {self.code}"


# More than ten public methods: three are asyncio's own names.
class WorkerProcess(asyncio.Protocol):
    """One worker; answers one job at a time."""

    def __init__(
        self,
        settings: ReadSettings,
        environ: Mapping[str, str],
        temp: Path,
        freed: Callable[[WorkerProcess], None],
        ended: Callable[[WorkerProcess], None],
        clock: Clock,
    ) -> None:
        """`temp` is this worker's folder; `freed` is called when a job that no client waits for has ended."""
        self._settings = settings
        self._temp = temp
        self._freed = freed
        self._ended = ended
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._frame: asyncio.Future[tuple[int, bytes]] = self._loop.create_future()
        """The next frame from it; READY first."""
        self._timer: Timer | None = None
        self._number = 0
        self.is_busy = True
        """Whether it works on an answer."""
        self.app: AppCode | None = None
        """The app that it has imported."""
        self.why: Why | None = None
        """Why its job was interrupted."""
        self.place: str | None = None
        """Where the function of this job was when it was interrupted."""
        self.processor_ms = self.start_ms = 0.0
        """Processor time that it has used up to its last answer, or in all once it has ended; for its start."""
        self.is_ending = False
        """Whether it was killed: it gets no further job."""
        self._is_reaped = False
        self._has_ended = asyncio.Event()
        self._reaping: asyncio.Task[None] | None = None
        self.version: int | None = None
        """The version whose file it has open."""
        self.free_since_s = self._clock.monotonic()
        self._process, self._jobs, self._control = _start(settings, environ, temp)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    async def ready(self) -> None:
        """Wait until it has started; raises `WorkerEnded` if it has not."""
        await self._loop.create_unix_connection(lambda: self, sock=self._jobs)
        self._timer = self._clock.call_later(self._settings.start_ms_max / 1000, self.kill)
        await self._frame
        self.start_ms = self.processor_ms

    def next_number(self) -> int:
        """Return the number of the next job."""
        self._number += 1
        return self._number

    async def ask(self, frame: bytes, limit_ms: float, *, is_job: bool = True) -> tuple[int, bytes]:
        """Return kind and payload of its answer; it is interrupted after `limit_ms`, and killed a little later.

        If this is cancelled a job is interrupted too; what serves the next jobs as well is finished. `freed` is called
        when it has ended. Raises `WorkerEnded`.
        """
        self._frame = self._loop.create_future()
        self.is_busy = True
        self.why = self.place = None
        self._timer = self._clock.call_later(limit_ms / 1000, partial(self.interrupt, Why.TIME))
        self._transport.write(frame)  # type: ignore[union-attr]  # there since it is ready
        try:
            return await self._frame
        except asyncio.CancelledError:
            if is_job:
                self.interrupt(Why.GIVEN_UP)
            raise

    def release(self) -> None:
        """Let it close the version's file."""
        if self._transport is not None and self.version is not None:
            self._transport.write(FRAME.pack(FrameKind.RELEASE, 0))
            self.version = None

    def interrupt(self, why: Why) -> None:
        """Interrupt the job that runs; kill the worker if that does not help in time."""
        if not self.is_busy or self._is_reaped:
            return
        if self.why is None:
            self._stop_timer()
            self._timer = self._clock.call_later(self._settings.kill_margin_ms / 1000, self.kill)
            with suppress(OSError):  # it ended a moment ago
                os.write(self._control, NUMBER.pack(self._number))
        if self.why in (None, Why.MAKE_WAY):
            self.why = why

    def kill(self) -> None:
        """End it at once, and the processes that a function has started in its group."""
        self.is_ending = True
        if not self._is_reaped:
            with suppress(ProcessLookupError, PermissionError):  # the whole group has ended
                os.killpg(self.pid, signal.SIGKILL)

    async def close(self) -> None:
        """End it and wait for its end."""
        self.kill()
        if self._transport is None and not self._is_reaped:
            self._jobs.close()
            await self._reap()
        await self._has_ended.wait()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- the socket ---

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= FRAME.size:
            kind, length = FRAME.unpack_from(self._buffer)
            end = FRAME.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[FRAME.size : end])
            del self._buffer[:end]
            if kind == FrameKind.PLACE:
                self.place = payload.decode()
                continue
            if kind == FrameKind.USED:
                self.processor_ms = NUMBER.unpack(payload)[0] / 1000
                continue
            self._stop_timer()
            self.is_busy = False
            self.free_since_s = self._clock.monotonic()
            if self._frame.done():  # no client waits for it any more
                self._freed(self)
            else:
                self._frame.set_result((kind, payload))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._reaping = self._loop.create_task(self._reap())

    async def _exits(self) -> bool:
        """Return whether the process has begun to end: its descriptors are closed a moment before that."""
        for _ in range(EXIT_LOOKS):
            if process_id(self.pid) is None:
                return True
            await self._clock.sleep_async(EXIT_LOOK_S)
        return False

    async def _reap(self) -> None:
        is_ending = self.is_ending or await self._exits()
        self.kill()  # a worker that closed its socket cannot be used any more
        self._is_reaped = True
        self._stop_timer()
        _, status, used = await asyncio.to_thread(os.wait4, self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status) if is_ending else 0
        self.processor_ms = (used.ru_utime + used.ru_stime) * 1000
        os.close(self._control)
        await asyncio.to_thread(shutil.rmtree, self._temp, ignore_errors=True)
        if not self._frame.done():
            ended = WorkerEnded(self.why, self._process.returncode, used.ru_maxrss * 1024, self.place)
            self._frame.set_exception(ended)
        self._ended(self)
        self._has_ended.set()


def _start(
    settings: ReadSettings, environ: Mapping[str, str], temp: Path
) -> tuple[subprocess.Popen[bytes], socket.socket, int]:
    """Start a worker; return it, and the manager's ends of its socket and of its control pipe.

    Call it from the main thread: the kernel ends a worker when the thread that started it ends.
    """
    temp.mkdir(parents=True)
    jobs, theirs = socket.socketpair()
    listen, control = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(listen, True)
    order = {
        "manager_pid": os.getpid(),
        "control": listen,
        "memory_bytes_max": settings.process_memory_bytes_max,
        "temp": str(temp),
        "nice": settings.nice,
    }
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "teatree_manager.read_workers.worker", json.dumps(order)],
            stdin=theirs.fileno(),
            stdout=STDERR,  # what functions print is in the manager's log
            process_group=0,
            pass_fds=(listen,),
            env={**ALLOCATOR_ENVIRON, **{name: value for name, value in environ.items() if name.startswith(_ENVIRON)}},
        )
    except BaseException:
        jobs.close()
        os.close(control)
        raise
    finally:
        theirs.close()
        os.close(listen)
    jobs.setblocking(False)
    return process, jobs, control
