"""`teatree demo`."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from teatree.cli.exits import Exit
from teatree.cli.options import DEFAULT, Common
from teatree.cli.output import Output, counted
from teatree.contracts.environment import connection_environ, process_environ, read_settings

if TYPE_CHECKING:
    from teatree.cli.stack.demo_run import DemoReport
    from teatree.contracts.settings import Settings

MODEL = "demo"


def demo(*, s3: Annotated[bool, Parameter(negative="")] = False, common: Common = DEFAULT) -> int:
    """Run a demonstration on this machine, in a minute.

    Many writers, a killed manager, every number compared.

    Starts everything in a temporary folder, writes sales of four sites concurrently, kills the manager with SIGKILL
    half-way while a reader keeps reading and goals are computed by an app, and compares every number that was sent with
    what the model holds in the end, and every goal with what the same app computes in this process.
    Leaves no files; with --data it uses that folder and leaves the files.

    Example: teatree demo

    Parameters
    ----------
    s3
        Use a real S3 server for the object store, instead of a local folder.
    """
    from teatree.embedded.stack import Stack, StackOptions  # noqa: PLC0415 - the servers' wheels, only here

    output = Output(json=common.json)
    folder = nullcontext(str(common.data)) if common.data else tempfile.TemporaryDirectory(prefix="teatree-demo-")
    outside = set(connection_environ(read_settings({}, Path("/nonexistent")))) | {"TEATREE_DATA"}
    environ = {name: value for name, value in process_environ().items() if name not in outside}
    with folder as data:
        output.remark(f"starting NATS, PostgreSQL, the object store and the dispatcher in {data} …")
        stack = Stack(StackOptions(data=Path(data), s3=s3, environ=environ))
        with _uninterrupted_stop(stack.stop):
            stack.start()
            output.remark("everything runs")
            report = asyncio.run(_play(stack.settings, output))
            _print(output, report)
            output.remark("stopping everything …")
    return Exit.OK if _is_good(report) else Exit.INTERNAL


@contextmanager
def _uninterrupted_stop(stop: Callable[[], None]) -> Iterator[None]:
    """Stop the stack at the end, ignoring a second Ctrl-C meanwhile."""
    try:
        yield
    finally:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            stop()
        finally:
            signal.signal(signal.SIGINT, before)


async def _play(settings: Settings, output: Output) -> DemoReport:
    from teatree.cli.stack.demo_run import Demo  # noqa: PLC0415
    from teatree.client.session import connect  # noqa: PLC0415

    async with connect(settings=settings) as session:
        taken = {info.name for info in await session.models()}
    name = next(n for n in (MODEL, *(f"{MODEL}_{k}" for k in range(2, 10_000))) if n not in taken)
    return await Demo(settings, name, output.remark).run()


def _is_good(report: DemoReport) -> bool:
    reads = report.reads
    return all(check.agrees for check in report.checks) and reads.count > 0 and not reads.failed and not reads.halves


def _print(output: Output, report: DemoReport) -> None:
    reads = report.reads
    if output.json:
        checks = [
            {"what": c.what, "where": c.where, "sent": c.sent, "found": c.found, "agrees": c.agrees}
            for c in report.checks
        ]
        facts = {"requests": report.requests, "versions": report.versions, "seconds": round(report.seconds, 3)}
        reader = {"reads": reads.count, "failed": reads.failed, "halves": reads.halves, "versions": reads.versions}
        killed = {"pid": report.killed_pid, "away_ms": round(report.away_ms)}
        output.line({"ok": _is_good(report), **facts, "reader": reader, "killed": killed, "checks": checks})
        return
    rows = [(c.what, c.where, c.sent, c.found, "yes" if c.agrees else "NO") for c in report.checks]
    rows.append(
        (
            "reads that failed or saw a part",
            f"{counted(reads.count, 'read')} of {counted(reads.versions, 'version')}",
            "0",
            str(reads.failed + reads.halves),
            "yes" if reads.count and not reads.failed and not reads.halves else "NO",
        )
    )
    output.table(("what", "where", "sent", "found", "agrees"), rows, right=("sent", "found"))
    output.message(
        f"{counted(report.requests, 'request')} in {counted(report.versions, 'version')} and {report.seconds:.1f} s. "
        f"The manager was killed half-way; the first request sent after that was done {report.away_ms:,.0f} ms later. "
        f"The slowest read took {reads.slowest_ms:.0f} ms."
    )
    if _is_good(report):
        output.message("Every number agrees: nothing was lost or counted twice.", "bold green")
    else:
        output.message("Some numbers do not agree.", "bold red")
