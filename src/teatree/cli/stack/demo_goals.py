"""The demo's goals: computed by the app `sales_goals` behind the queue, and once more in this process."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from teatree.cli.stack.demo_check import Check
from teatree.cli.stack.demo_data import SITES, SalesTotals

if TYPE_CHECKING:
    from teatree.client.model import Model
    from teatree.functions.app.app import App

APP = "sales_goals"
PERIOD = "2026-03"
SET_GOALS = {
    "goal_period": PERIOD,
    "basis_period": "2026-01-01/2026-03-01",
    "pct": 5,
    "pct_by_site": {"north": "12.5"},
}
DIMENSIONS = ("site", "product", "customer", "salesperson")
SITE_GOAL = "1234567.89"
Call = tuple[str, Mapping[str, Any]]


def installed_app() -> App | None:
    """Return the app, None if it is not installed."""
    from teatree.functions.app.loading import Apps  # noqa: PLC0415 - with what it imports, only for the demo

    apps = Apps()
    if APP not in apps.names:
        return None
    loaded = apps.load(APP)
    if loaded.error is not None:
        raise loaded.error
    return loaded.app


@frozen(eq=False)
class AppGoals:
    """The goals of one model."""

    app: App
    model: Model
    totals: SalesTotals
    calls: list[Call] = field(factory=list)
    """Those of which the goals are the result, from the last `set_goals` on."""

    async def set_goals(self) -> None:
        """Compute all goals behind the queue, in place of those that were there."""
        self.calls.clear()
        await self._call("set_goals", SET_GOALS)

    async def compare(self) -> list[Check]:
        """Compute the goals of all lines, edit some, and return them beside those of library mode."""
        await self.set_goals()
        await self._call("edit_goal", {"goal_period": PERIOD, "site": SITES[0], "amount": SITE_GOAL})
        rows = await self.model.call("goals_by", dimensions=list(DIMENSIONS))
        leaf = {name: rows.rows()[0][name] for name in DIMENSIONS}
        await self._call("edit_goal", {"goal_period": PERIOD, "leaf": leaf, "amount": "0.00"})
        self.totals.requests += 1  # the query
        with tempfile.TemporaryDirectory(prefix="teatree-demo-goals-") as folder:
            pulled = Path(folder) / "queue.duckdb"
            await self.model.pull(pulled)
            return await asyncio.to_thread(self._checks, pulled, Path(folder) / "library.duckdb")

    async def _call(self, name: str, arguments: Mapping[str, Any]) -> None:
        reply = await self.model.call_for_reply(name, arguments)
        self.calls.append((name, arguments))
        self.totals.requests += 1
        self.totals.saw_version(reply.version)

    def _checks(self, pulled: Path, path: Path) -> list[Check]:
        """Run the same calls on the same lines in a file of this process, and compare all leaves."""
        from teatree.engine.open_file import open_file  # noqa: PLC0415 - DuckDB, only here

        with open_file(path, app=self.app) as library:
            con = library.connection
            con.execute(f"ATTACH '{pulled}' AS queue (READ_ONLY)")
            con.execute("CREATE TABLE lines AS FROM queue.lines")
            for name, arguments in self.calls:
                library.call(name, **arguments)
            where = "app, in library mode"
            checks = []
            for site in SITES:
                expected, behind_queue = (
                    str(con.execute(f"SELECT sum(goal) FROM {table} WHERE site = ?", [site]).fetchall()[0][0])
                    for table in ("goals", "queue.goals")
                )
                checks.append(Check(f"goal of {site}", expected, behind_queue, where))
            differing = "(FROM {0} EXCEPT ALL FROM {1})"
            found = con.execute(
                "SELECT (SELECT count(*) FROM goals), (SELECT count(*) FROM site_locks),"
                f" (SELECT count(*) FROM {differing.format('goals', 'queue.goals')})"
                f" + (SELECT count(*) FROM {differing.format('queue.goals', 'goals')})"
            ).fetchall()
        ((leaves, locks, different),) = found
        self.totals.goal_rows.update(goals=leaves, site_locks=locks)
        return [*checks, Check(f"other goals among {leaves} leaves", "0", str(different), where)]
