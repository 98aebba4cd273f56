"""The demo's scenario: many writers at once, the manager killed half-way, a reader that never fails meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, frozen

from teatree.cli.demo_data import DAYS, SALES_PER_DAY, SITES, TABLES, VISITS, Tally, days_of, to_text, visit_rows
from teatree.client.session import connect
from teatree.contracts.errors import Code, RetryError
from teatree.contracts.process import is_alive, read_process
from teatree.storage.model_folder import model_folder

if TYPE_CHECKING:
    from teatree.client.model import Model
    from teatree.client.session import Session
    from teatree.contracts.settings import Settings

IN_FLIGHT = 3
"""Requests that each site has on the way at once."""
READ_EVERY_S = 0.02
LOOK_EVERY_S = 0.2
CATCH_UP_S_MAX = 20.0
"""How long PostgreSQL, which lags, may take to catch up."""

Tell = Callable[[str], None]


@frozen
class Check:
    """One number that was sent, and what was found."""

    what: str
    sent: str
    found: str
    where: str

    @property
    def agrees(self) -> bool:
        """Whether nothing is missing and nothing is twice."""
        return self.sent == self.found


@define
class Reads:
    """What the reader saw."""

    count: int = 0
    failed: int = 0
    halves: int = 0
    """Reads that saw part of a request, or an older version than before."""
    versions: int = 0
    slowest_ms: float = 0.0


@frozen
class Report:
    """What the demo ends with."""

    checks: list[Check]
    reads: Reads
    requests: int
    versions: int
    killed_pid: int
    away_ms: float
    """From the kill to the next outcome."""
    seconds: float


class Demo:
    """One run against a running stack."""

    def __init__(self, settings: Settings, model: str, tell: Tell) -> None:
        self._settings = settings
        self._name = model
        self._tell = tell
        self._tally = Tally()
        self._half = asyncio.Event()
        self._singles = 0
        self._last_done_s = 0.0
        self._killed_pid = 0
        self._killed_at_s = 0.0
        self._away_ms = 0.0
        self._reads = Reads()

    async def run(self) -> Report:
        """Play the scenario; return all numbers, sent and found."""
        started_s = time.monotonic()
        async with connect(settings=self._settings, name="demo") as session:
            await session.create_model(self._name, tables=TABLES)
            self._tell(f"model {self._name} is there; {len(SITES)} sites and a bulk sender write at once")
            reading = asyncio.create_task(self._read())
            try:
                await self._write_all()
            finally:
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading
            self._tell("all is sent and done; now every number is compared")
            checks = await Comparison(session, self._name, self._tally).checks()
            versions = (await session.model(self._name).versions(1))[0].version
        return Report(
            checks=checks,
            reads=self._reads,
            requests=self._tally.requests,
            versions=versions,
            killed_pid=self._killed_pid,
            away_ms=self._away_ms,
            seconds=time.monotonic() - started_s,
        )

    # --- writers ---

    async def _write_all(self) -> None:
        try:
            async with asyncio.TaskGroup() as writers:
                for site in SITES:
                    writers.create_task(self._write_site(site))
                writers.create_task(self._write_visits())
                writers.create_task(self._kill_half_way())
        except BaseExceptionGroup as group:
            raise _first(group) from group

    async def _write_site(self, site: str) -> None:
        """Send a site's days over a connection of its own, a few requests on the way at once."""
        gate = asyncio.Semaphore(IN_FLIGHT)
        async with connect(settings=self._settings, name=f"demo-{site}") as session, asyncio.TaskGroup() as sending:
            model = session.model(self._name)
            previous_goal: asyncio.Task[None] | None = None
            for day in days_of(site):
                await gate.acquire()
                sending.create_task(self._send(gate, partial(self._append, model, site, day.sales)))
                if day.goal is not None:
                    if previous_goal is not None:
                        await previous_goal  # a later goal replaces it: their order matters
                    await gate.acquire()
                    previous_goal = sending.create_task(self._send(gate, partial(self._set_goal, model, day.goal)))

    async def _send(self, gate: asyncio.Semaphore, request: Callable[[], Awaitable[None]]) -> None:
        try:
            await request()
        finally:
            gate.release()
        self._singles += 1
        if self._singles * 2 >= len(SITES) * DAYS:
            self._half.set()
        if self._killed_at_s and not self._away_ms:
            self._away_ms = (time.monotonic() - self._killed_at_s) * 1000

    async def _append(self, model: Model, site: str, rows: list[dict[str, Any]]) -> None:
        receipt = await model.append("sales", rows)
        self._tally.heard(receipt.version)
        self._tally.add_sales(site, rows)

    async def _set_goal(self, model: Model, goal: dict[str, Any]) -> None:
        receipt = await model.upsert("goals", [goal])
        self._tally.heard(receipt.version)
        self._tally.set_goal(goal)

    async def _write_visits(self) -> None:
        """Send one-row requests in bulk."""
        rows = list(visit_rows())
        async with connect(settings=self._settings, name="demo-bulk") as session:
            requests = (("append", {"table": "visits", "rows": [row]}) for row in rows)
            summary = await session.model(self._name).send_many(requests, wait="done")
        self._tally.heard(summary.version)
        self._tally.add_visits(rows)
        self._tell(f"the bulk sender's {summary.sent:,} one-row requests are done, {summary.refused} refused")

    async def _kill_half_way(self) -> None:
        await self._half.wait()
        process = read_process(model_folder(self._settings.data, self._name).process)
        if process is None or not is_alive(process):
            raise RetryError(Code.UNAVAILABLE, "The demo finds no manager to kill.", where=self._name)
        self._killed_pid = process.pid
        self._killed_at_s = time.monotonic()
        os.kill(process.pid, signal.SIGKILL)
        self._tell(f"the manager (pid {process.pid}) is killed with SIGKILL, in the middle of its work")

    # --- the reader ---

    async def _read(self) -> None:
        """Open the newest local version again and again, as a laptop would; it never waits for the writer."""
        import duckdb  # noqa: PLC0415

        current = model_folder(self._settings.data, self._name).current
        while not current.exists():  # noqa: ASYNC110 - a file says nothing when it appears
            await asyncio.sleep(READ_EVERY_S)
        before = (0, 0)
        while True:
            started_s = time.monotonic()
            try:
                seen = await asyncio.to_thread(_count_sales, current)
            except (duckdb.Error, OSError) as e:
                self._reads.failed += 1
                self._tell(f"a read failed: {e}")
            else:
                self._reads.count += 1
                self._reads.halves += seen[1] % SALES_PER_DAY != 0 or seen < before
                self._reads.versions += seen != before
                before = seen
            self._reads.slowest_ms = max(self._reads.slowest_ms, (time.monotonic() - started_s) * 1000)
            await asyncio.sleep(READ_EVERY_S)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return one error of a group: the others follow from it."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _count_sales(path: Path) -> tuple[int, int]:
    """Return which version the link names, and the rows of `sales` in it."""
    import duckdb  # noqa: PLC0415

    while True:
        version = path.resolve()
        try:
            with duckdb.connect(str(version), read_only=True) as con:
                found = con.execute("SELECT count(*) FROM sales").fetchone()
        except duckdb.IOException:
            if version.exists():
                raise
            continue  # two versions passed between naming the file and opening it: the link names the next
        return int(version.stem), int(found[0]) if found else 0


class Comparison:
    """Compares what was sent with what is found, by every way that there is to look."""

    def __init__(self, session: Session, model: str, tally: Tally) -> None:
        self._session = session
        self._model = session.model(model)
        self._tally = tally

    async def checks(self) -> list[Check]:
        """Return every number twice."""
        return [*await self._queried(), *await self._pulled(), await self._archived(), await self._catalogued()]

    async def _queried(self) -> list[Check]:
        tally, where = self._tally, "direct read"
        rows = await self._rows("SELECT count(*), count(DISTINCT id), sum(quantity), sum(amount) FROM sales")
        count, distinct, quantity, amount = rows[0]
        checks = [
            Check("rows of sales", str(tally.rows), str(count), where),
            Check("different ids", str(tally.rows), str(distinct), where),
            Check("sum of quantity", str(tally.quantity), str(quantity), where),
            Check("sum of amount", to_text(tally.cents), str(amount), where),
        ]
        by_site = dict(await self._rows("SELECT site, sum(amount) FROM sales GROUP BY site"))
        for site in SITES:
            sent = to_text(tally.cents_by_site[site])
            checks.append(Check(f"amount of {site}", sent, str(by_site.get(site)), where))
        count, amount = (await self._rows("SELECT count(*), sum(amount) FROM goals"))[0]
        goals = f"{len(tally.goals)} goals, {to_text(sum(tally.goals.values()))}"
        return [*checks, Check("goals, the last of each", goals, f"{count} goals, {amount}", where)]

    async def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        dataset = await self._model.query(sql, min_version=self._tally.version)
        return [tuple(row.values()) for row in dataset.to_rows()]

    async def _pulled(self) -> list[Check]:
        """Look into a file that was put together from the object store alone."""
        path = self._session.settings.data / f"{self._model.name}-pulled.duckdb"
        try:
            pulled = await self._model.pull(path)
            found = await asyncio.to_thread(_look_into, path)
        finally:
            path.unlink(missing_ok=True)
        where = f"version {pulled.version}, pulled"
        sent = (self._tally.rows, to_text(self._tally.cents), self._tally.visits, self._tally.visitors)
        names = ("rows of sales", "sum of amount", "rows of visits", "sum of customers")
        return [Check(name, str(a), str(b), where) for name, a, b in zip(names, sent, found, strict=True)]

    async def _archived(self) -> Check:
        from teatree.storage.archives import read_archive  # noqa: PLC0415

        receipt = await self._model.archive()
        self._tally.requests += 1
        chain = self._model.chain()
        archived = await asyncio.to_thread(read_archive, chain, receipt.version or 0)
        rows = {name: ref.rows for name, ref in archived.files.items()} if archived else {}
        sent = {"goals": len(self._tally.goals), "sales": self._tally.rows, "visits": VISITS}
        return Check("rows by table", _listed(sent), _listed(rows), f"Parquet of version {receipt.version}")

    async def _catalogued(self) -> Check:
        """Look into PostgreSQL, which may lag a little."""
        sent = self._tally.requests + 1  # and `create_model`
        give_up_s = time.monotonic() + CATCH_UP_S_MAX
        while True:
            found = await asyncio.to_thread(self._count_requests)
            if found == sent or time.monotonic() > give_up_s:
                return Check("requests done", str(sent), str(found), "PostgreSQL")
            await asyncio.sleep(LOOK_EVERY_S)

    def _count_requests(self) -> int:
        from teatree.storage.postgres import Postgres  # noqa: PLC0415

        postgres = Postgres(self._session.settings.postgres, application="teatree-demo")
        try:
            with postgres.transaction() as session:
                rows = session.rows(
                    "SELECT count(*) AS count FROM request_log JOIN goal_model USING (goal_model_id) "
                    "WHERE name = %(name)s AND request_log.state = 'done'",
                    {"name": self._model.name},
                )
        finally:
            postgres.close()
        return int(rows[0]["count"])


def _look_into(path: Path) -> tuple[Any, ...]:
    import duckdb  # noqa: PLC0415

    with duckdb.connect(str(path), read_only=True) as con:
        sales = con.execute("SELECT count(*), sum(amount) FROM sales").fetchone()
        visits = con.execute("SELECT count(*), sum(customer) FROM visits").fetchone()
    return (*(sales or ()), *(visits or ()))


def _listed(rows: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(rows.items()))
