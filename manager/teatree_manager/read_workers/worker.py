"""`python -m teatree_manager.read_workers.worker`: a process that answers a manager's direct reads in turn.

It is started without any descriptor of its manager's but a socket (standard input) for jobs and a pipe for interrupts,
and without its settings and credentials. It opens version files read-only, which holds DuckDB's shared lock on them.
No fault of DuckDB can harm the writer from here: the manager kills a worker that does not end in time, and a crash or
full memory ends this process only. It ends with its manager: by the kernel's signal where there is one, and by the end
of the pipe.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
import pyarrow as pa

from teatree.contracts.clock import SYSTEM_CLOCK
from teatree.contracts.errors import (
    TRACEBACK_CHARS_MAX,
    AppError,
    Code,
    OperatorError,
    RequestError,
    RetryError,
    TeatreeError,
)
from teatree.contracts.formats.codec import dump_json, utc_text
from teatree.contracts.formats.provenance import AppCode
from teatree.contracts.formats.requests import (
    CONTENT_ARROW,
    CONTENT_JSON,
    HEADER_CONTENT_TYPE,
    HEADER_PAGES,
    HEADER_ROWS,
    HEADER_VERSION,
)
from teatree.engine.duckdb.open_version import OpenVersion
from teatree.engine.errors import DamagedVersionError
from teatree.functions.pages import Page, each_page
from teatree.functions.query import QueryResult
from teatree_manager.memory import limit_memory
from teatree_manager.read_workers.app_call import AppCall, OtherCodeError
from teatree_manager.read_workers.frames import (
    FRAME,
    NUMBER,
    FrameKind,
    ReadFault,
    ReadJob,
    frame,
    read_job,
    reply_frame,
)
from teatree_manager.read_workers.interrupts import Interrupts
from teatree_manager.read_workers.live_work import KeptAnswer, LiveBatch, LiveReply, used_processor_ms

if TYPE_CHECKING:
    from teatree_manager.read_workers.app_runner import AppRunner

NO_ROWS = QueryResult(pa.table({}), 1, "json")
PAGES_MAX = 300
"""Pages of an answer: the reply's header names them all."""
_PR_SET_PDEATHSIG = 1


def main() -> NoReturn:
    """Run jobs until the manager ends or closes this worker."""
    order = json.loads(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal or a service manager signals the manager too
        signal.signal(number, signal.SIG_IGN)
    _end_with(order["manager_pid"])
    os.nice(order["nice"])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no gigabytes behind
    limit_memory(order["memory_bytes_max"])
    gc.freeze()  # walking over all loaded objects again and again would double the time of a page of JSON
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it ends without flushing
    jobs, control = _own_descriptors(order["control"])
    Worker(jobs, Interrupts(control), Path(order["temp"])).run()
    os._exit(0)  # nothing is left to clean up, and libraries would report their own clean-up in the manager's log


def _end_with(manager_pid: int) -> None:
    """Make the kernel kill this process when its manager ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != manager_pid:  # it ended a moment ago
            os._exit(0)


def _own_descriptors(control: int) -> tuple[socket.socket, int]:
    """Return the socket and the pipe, which no process that a function starts gets: it could outlive this one."""
    jobs = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.set_inheritable(control, False)

    def close() -> None:
        jobs.close()
        os.close(control)

    os.register_at_fork(after_in_child=close)
    return jobs, control


class Worker:
    """Answers jobs; keeps the version's file open between them."""

    def __init__(self, jobs: socket.socket, interrupts: Interrupts, temp: Path) -> None:
        """`temp` is a folder for the temporary files of this process alone."""
        self._jobs = jobs
        self._interrupts = interrupts
        self._temp = temp
        self._buffer = bytearray()
        self._sending = threading.Lock()
        self._apps: AppRunner | None = None
        """Made for the first call of an app's function: most workers need none."""
        self._placed = 0
        """The job whose place in the code was sent."""
        self._opened: OpenVersion | None = None
        self._opened_with: tuple[Path, int, int, int] | None = None
        self._job: ReadJob | None = None
        self._shown = NO_ROWS
        self._pages: Iterator[Page] = iter(())
        self._number = 1
        """The page that was made last."""

    def run(self) -> None:
        """Run jobs until the socket ends."""
        self._send(_used() + frame(FrameKind.READY))
        while (found := self._receive()) is not None:
            kind, payload = found
            match kind:
                case FrameKind.ASK:
                    self._job = read_job(payload)
                    self._reply(partial(self._first, self._job))
                case FrameKind.LOAD:
                    self._reply(partial(self._load, payload))
                case FrameKind.NEXT if self._job is not None:
                    self._reply(partial(self._next, self._job))
                case _:
                    self._forget_pages()
                    self._close()

    def _receive(self) -> tuple[int, bytes] | None:
        while True:
            if len(self._buffer) >= FRAME.size:
                kind, length = FRAME.unpack_from(self._buffer)
                end = FRAME.size + length
                if len(self._buffer) >= end:
                    payload = bytes(self._buffer[FRAME.size : end])
                    del self._buffer[:end]
                    return kind, payload
            data = self._jobs.recv(1 << 18)
            if not data:
                return None
            self._buffer += data

    def _send(self, message: bytes) -> None:
        with self._sending:
            self._jobs.sendall(message)

    def _reply(self, work: Callable[[], bytes]) -> None:
        try:
            reply = work()
        except DamagedVersionError as e:
            self._close()
            reply = _error(e, ReadFault.DAMAGED)
        except FileNotFoundError:
            reply = _error(RetryError(Code.UNAVAILABLE, "The version's file was removed."), ReadFault.REMOVED)
        except OtherCodeError as e:
            reply = _error(e, ReadFault.OTHER_CODE, app=e.name, version=e.version)
        except TeatreeError as e:
            if e.code is Code.OVER_LIMIT:  # memory that DuckDB still holds would be missing in the next read
                self._forget_pages()
                self._close()
            reply = _error(e)
        except MemoryError:
            self._forget_pages()
            self._close()
            hint = "Ask for less at once, or have the model's limits raised."
            fault = None if self._apps is None else ReadFault.FULL
            reply = _error(RetryError(Code.OVER_LIMIT, "It needs more memory than it may use.", hint=hint), fault)
        except Exception as e:  # noqa: BLE001  a fault of ours fails this one read only
            reply = _error(OperatorError(Code.INTERNAL, f"{type(e).__name__}: {e}"))
        self._send(_used() + reply)

    def _load(self, order: bytes) -> bytes:
        """Import an app; it is not interrupted, since it has its own limit."""
        from teatree_manager.read_workers.app_runner import AppRunner  # noqa: PLC0415

        self._apps = self._apps or AppRunner()
        members = json.loads(order)
        import_ms_max = members.pop("import_ms_max")
        self._apps.load(AppCode(**members), import_ms_max)
        return reply_frame(FrameKind.ANSWER, {})

    def _first(self, job: ReadJob) -> bytes:
        self._forget_pages()
        opened = self._open(job)
        with self._interrupts.during(job.number, partial(self._interrupt, job, opened)):
            result = self._result(job, opened)
            if isinstance(result, LiveReply):
                return reply_frame(FrameKind.ANSWER, result.head, result.body)
            if not isinstance(result, QueryResult):
                return self._plain_reply(job, result)
            self._shown = result
            self._check_size(job, 1)
            self._pages = each_page(result, PAGES_MAX)
            first = next(self._pages)
        if len(first.body) > job.first_page_bytes_max:
            raise _page_too_large("The first page", len(first.body), f"{job.first_page_bytes_max} fit into a reply")
        version = job.work.version if isinstance(job.work, KeptAnswer) else max(job.version, job.served)
        rows = result.rows.num_rows
        count = max(1, -(-rows // result.page_rows))
        headers = {
            HEADER_CONTENT_TYPE: CONTENT_ARROW if first.format == "arrow" else CONTENT_JSON,
            HEADER_VERSION: str(version),
            HEADER_PAGES: str(count),
            HEADER_ROWS: str(rows),
        }
        if count == 1:
            self._forget_pages()
        body = first.body if first.format == "arrow" else _with_members(first.body, version, rows)
        return reply_frame(FrameKind.ANSWER, {"headers": headers, "pages": count}, body)

    def _result(self, job: ReadJob, opened: OpenVersion) -> Any:
        """Return the rows of a query, the reply to a live one, or what a function returned, plain JSON or rows."""
        work = job.work
        if isinstance(work, AppCall):
            if self._apps is None:
                raise AssertionError
            return self._apps.run(work, opened, job.limits, max(job.version, job.served))
        if isinstance(work, LiveBatch):
            return work.run(opened, job.limits)
        if isinstance(work, KeptAnswer):
            return work.result(job.first_page_bytes_max)
        return QueryResult(opened.answer(work.sql, work.parameters, job.limits), work.page_rows, work.format)

    def _interrupt(self, job: ReadJob, opened: OpenVersion) -> None:
        """Interrupt a job's statement, from another thread; answer where its function is."""
        if isinstance(job.work, AppCall) and job.number != self._placed:
            self._placed = job.number
            self._send(frame(FrameKind.PLACE, _place_of_main_thread().encode("utf-8", "backslashreplace")))
        opened.interrupt()

    def _plain_reply(self, job: ReadJob, result: Any) -> bytes:
        version = max(job.version, job.served)
        body = dump_json({"version": version, "at": utc_text(SYSTEM_CLOCK.now()), "result": result})
        if len(body) > job.first_page_bytes_max:
            raise RequestError(
                Code.RESULT_TOO_LARGE,
                f"The result has {len(body)} bytes; {job.first_page_bytes_max} fit into a reply.",
                where=job.work.place,
                hint="Return a Dataset: its rows are sent in pages.",
            )
        headers = {HEADER_CONTENT_TYPE: CONTENT_JSON, HEADER_VERSION: str(version)}
        return reply_frame(FrameKind.ANSWER, {"headers": headers, "pages": 1}, body)

    def _next(self, job: ReadJob) -> bytes:
        self._check_size(job, self._number + 1)
        page = next(self._pages)
        if len(page.body) > job.page_bytes_max:
            raise _page_too_large(f"Page {page.number}", len(page.body), f"{job.page_bytes_max} is the most")
        if page.number * self._shown.page_rows >= self._shown.rows.num_rows:
            self._forget_pages()
        return reply_frame(FrameKind.ANSWER, {"page": page.number, "rows": page.rows}, page.body)

    def _forget_pages(self) -> None:
        """Free the memory of an answer."""
        self._pages, self._shown = iter(()), NO_ROWS

    def _check_size(self, job: ReadJob, number: int) -> None:
        """Refuse a page that is too large to be written as JSON: lack of memory there would end the process."""
        self._number = number
        if self._shown.format == "json":
            page_rows = self._shown.page_rows
            size_bytes = self._shown.rows.slice((number - 1) * page_rows, page_rows).nbytes
            if size_bytes > job.page_bytes_max:
                raise _page_too_large(f"Page {number}", size_bytes, f"{job.page_bytes_max} is the most")

    def _open(self, job: ReadJob) -> OpenVersion:
        limits = attrs.evolve(job.limits, temp_bytes_max=job.temp_bytes_max)
        wanted = (job.path, limits.threads, limits.memory_bytes_max, limits.temp_bytes_max)
        if self._opened is None or self._opened_with != wanted:
            self._close()
            self._opened = OpenVersion(job.path, limits, temp=self._temp)
            self._opened_with = wanted
        return self._opened

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.close()
        self._opened = None


def _used() -> bytes:
    """Return the frame with the processor time of this process."""
    return frame(FrameKind.USED, NUMBER.pack(round(used_processor_ms() * 1000)))


def _error(error: TeatreeError, fault: ReadFault | None = None, **more: str) -> bytes:
    where = None if error.where is None else _text(error.where)
    head: dict[str, Any] = {"code": str(error.code), "message": _text(error.message), "where": where}
    head["hint"] = None if error.hint is None else _text(error.hint)
    if isinstance(error, AppError) and error.traceback is not None:
        head["traceback"] = _text(error.traceback[-TRACEBACK_CHARS_MAX:])
    return reply_frame(FrameKind.ERROR, {**head, **more, "fault": fault})


def _place_of_main_thread() -> str:
    """Return where the code is that the main thread runs, by the user's frames."""
    from teatree.functions.app.user_traceback import user_place  # noqa: PLC0415

    found = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001  the documented way
    return "" if found is None else user_place(found)


def _text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _with_members(page: bytes, version: int, rows: int) -> bytes:
    members = dump_json({"version": version, "row_count": rows, "at": utc_text(SYSTEM_CLOCK.now())})
    return members[:-1] + b"," + page[1:]


def _page_too_large(what: str, size_bytes: int, limit: str) -> RequestError:
    return RequestError(
        Code.RESULT_TOO_LARGE,
        f"{what} has {size_bytes} bytes; {limit}.",
        where="page_size",
        hint="Ask for fewer rows a page.",
    )


if __name__ == "__main__":
    main()
