"""The demo's scenario: concurrent writers, the manager killed half-way, and a reader that must not fail meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, frozen

from teatree.cli.stack.demo_check import Check
from teatree.cli.stack.demo_compare import Comparison
from teatree.cli.stack.demo_data import DAYS, SALES_PER_DAY, SITES, TABLES, SalesTotals, days_of, visit_rows
from teatree.cli.stack.demo_goals import APP, AppGoals, installed_app
from teatree.client.session import connect
from teatree.contracts.clock import SYSTEM_CLOCK
from teatree.contracts.errors import Code, RetryError
from teatree.contracts.process import is_alive, read_process
from teatree.storage.model_folder import model_folder

if TYPE_CHECKING:
    from teatree.client.model import Model
    from teatree.contracts.settings import Settings

IN_FLIGHT = 3
"""Requests that each site has in flight at once."""
READ_EVERY_S = 0.02

Remark = Callable[[str], None]


@define
class Reads:
    """The counts of the reader."""

    count: int = 0
    failed: int = 0
    halves: int = 0
    """Reads that saw part of a request, or an older version than before."""
    versions: int = 0
    slowest_ms: float = 0.0


@frozen
class DemoReport:
    """The result of the demo."""

    checks: list[Check]
    reads: Reads
    requests: int
    versions: int
    killed_pid: int
    away_ms: float
    """From the kill to the first outcome of a request that was sent after it."""
    seconds: float


class Demo:
    """One run against a running stack."""

    def __init__(self, settings: Settings, model: str, remark: Remark) -> None:
        self._settings = settings
        self._name = model
        self._remark = remark
        self._totals = SalesTotals()
        self._half = asyncio.Event()
        self._singles = 0
        self._killed_pid = 0
        self._killed_at_s = 0.0
        self._away_ms = 0.0
        self._reads = Reads()
        self._goals: AppGoals | None = None

    async def run(self) -> DemoReport:
        """Run the scenario; return all numbers, sent and found."""
        started_s = SYSTEM_CLOCK.monotonic()
        async with connect(settings=self._settings, name="demo") as session:
            app = installed_app()
            model = await session.create_model(self._name, tables=TABLES, app=APP if app else None)
            if app is None:
                self._remark(f"the app {APP} (docs/examples) is not installed: no goals are computed")
            else:
                self._goals = AppGoals(app, model, self._totals)
            self._remark(f"model {self._name} is created; {len(SITES)} sites and a bulk sender write concurrently")
            reading = asyncio.create_task(self._read())
            try:
                await self._write_all()
            finally:
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading
            goals = await self._goals.compare() if self._goals else []
            self._remark("all requests are done; comparing every number")
            checks = [*await Comparison(session, self._name, self._totals).checks(), *goals]
            versions = (await session.model(self._name).versions(1))[0].version
        return DemoReport(
            checks=checks,
            reads=self._reads,
            requests=self._totals.requests,
            versions=versions,
            killed_pid=self._killed_pid,
            away_ms=self._away_ms,
            seconds=SYSTEM_CLOCK.monotonic() - started_s,
        )

    # --- writers ---

    async def _write_all(self) -> None:
        try:
            async with asyncio.TaskGroup() as writers:
                for site in SITES:
                    writers.create_task(self._write_site(site))
                writers.create_task(self._write_visits())
                writers.create_task(self._kill_half_way())
                writers.create_task(self._set_goals())
        except BaseExceptionGroup as group:
            raise _first(group) from group

    async def _write_site(self, site: str) -> None:
        """Send a site's days over a separate connection, with a few requests in flight."""
        gate = asyncio.Semaphore(IN_FLIGHT)
        async with connect(settings=self._settings, name=f"demo-{site}") as session, asyncio.TaskGroup() as sending:
            model = session.model(self._name)
            for rows in days_of(site):
                await gate.acquire()
                sending.create_task(self._send(gate, partial(self._append, model, site, rows)))

    async def _send(self, gate: asyncio.Semaphore, request: Callable[[], Awaitable[None]]) -> None:
        sent_after_kill = self._killed_at_s > 0.0
        try:
            await request()
        finally:
            gate.release()
        self._singles += 1
        if self._singles * 2 >= len(SITES) * DAYS:
            self._half.set()
        if sent_after_kill and not self._away_ms:
            self._away_ms = (SYSTEM_CLOCK.monotonic() - self._killed_at_s) * 1000

    async def _append(self, model: Model, site: str, rows: list[dict[str, Any]]) -> None:
        receipt = await model.append("lines", rows)
        self._totals.saw_version(receipt.version)
        self._totals.add_sales(site, rows)

    async def _write_visits(self) -> None:
        """Send one-row requests in bulk."""
        rows = list(visit_rows())
        async with connect(settings=self._settings, name="demo-bulk") as session:
            requests = (("append", {"table": "visits", "rows": [row]}) for row in rows)
            summary = await session.model(self._name).send_many(requests, wait="done")
        self._totals.saw_version(summary.version)
        self._totals.add_visits(rows)
        self._remark(f"the bulk sender's {summary.sent:,} one-row requests are done, {summary.refused} refused")

    async def _kill_half_way(self) -> None:
        await self._half.wait()
        process = read_process(model_folder(self._settings.data, self._name).process)
        if process is None or not is_alive(process):
            raise RetryError(Code.UNAVAILABLE, "The demo found no running manager to kill.", where=self._name)
        self._killed_pid = process.pid
        self._killed_at_s = SYSTEM_CLOCK.monotonic()
        os.kill(process.pid, signal.SIGKILL)
        self._remark(f"killed the manager (pid {process.pid}) with SIGKILL, in the middle of its work")

    async def _set_goals(self) -> None:
        """Have the app compute goals while lines are appended and the manager is killed."""
        await self._half.wait()
        if self._goals is not None:
            await self._goals.set_goals()

    # --- the reader ---

    async def _read(self) -> None:
        """Open the newest local version repeatedly, as a laptop would; it never waits for the writer."""
        import duckdb  # noqa: PLC0415

        current = model_folder(self._settings.data, self._name).current
        while not current.exists():
            await SYSTEM_CLOCK.sleep_async(READ_EVERY_S)
        before = (0, 0)
        while True:
            started_s = SYSTEM_CLOCK.monotonic()
            try:
                seen = await asyncio.to_thread(_count_lines, current)
            except (duckdb.Error, OSError) as e:
                self._reads.failed += 1
                self._remark(f"a read failed: {e}")
            else:
                self._reads.count += 1
                self._reads.halves += seen[1] % SALES_PER_DAY != 0 or seen < before
                self._reads.versions += seen != before
                before = seen
            self._reads.slowest_ms = max(self._reads.slowest_ms, (SYSTEM_CLOCK.monotonic() - started_s) * 1000)
            await SYSTEM_CLOCK.sleep_async(READ_EVERY_S)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return one error of a group: the others follow from it."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _count_lines(path: Path) -> tuple[int, int]:
    """Return which version the link names, and the rows of `lines` in it."""
    import duckdb  # noqa: PLC0415

    while True:
        version = path.resolve()
        try:
            with duckdb.connect(str(version), read_only=True) as con:
                found = con.execute("SELECT count(*) FROM lines").fetchone()
        except duckdb.IOException:
            if version.exists():
                raise
            continue  # two versions were published since the link was resolved: try the next one
        return int(version.stem), int(found[0]) if found else 0
