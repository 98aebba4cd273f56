"""The demo's checks: every number that was sent against what each way of reading finds."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teatree.cli.stack.demo_check import Check
from teatree.cli.stack.demo_data import SITES, VISITS, SalesTotals, to_text
from teatree.contracts.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from teatree.client.session import Session

AMOUNT = "sum(quantity * unit_price)::DECIMAL(18, 2)"
LOOK_EVERY_S = 0.2
CATCH_UP_S_MAX = 20.0
"""How long the catalog, which lags, may take to catch up."""


class Comparison:
    """Compares what was sent with what each way of reading finds."""

    def __init__(self, session: Session, model: str, totals: SalesTotals) -> None:
        self._session = session
        self._model = session.model(model)
        self._totals = totals

    async def checks(self) -> list[Check]:
        """Return every number, as sent and as found."""
        return [*await self._queried(), *await self._pulled(), await self._archived(), await self._cataloged()]

    async def _queried(self) -> list[Check]:
        totals, where = self._totals, "direct read"
        rows = await self._rows(f"SELECT count(*), count(DISTINCT id), sum(quantity), {AMOUNT} FROM lines")
        count, distinct, quantity, amount = rows[0]
        checks = [
            Check("rows of lines", str(totals.rows), str(count), where),
            Check("different ids", str(totals.rows), str(distinct), where),
            Check("sum of quantity", str(totals.quantity), str(quantity), where),
            Check("sum of amount", to_text(totals.cents), str(amount), where),
        ]
        by_site = dict(await self._rows(f"SELECT site, {AMOUNT} FROM lines GROUP BY site"))
        for site in SITES:
            sent = to_text(totals.cents_by_site[site])
            checks.append(Check(f"amount of {site}", sent, str(by_site.get(site)), where))
        return checks

    async def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        dataset = await self._model.query(sql, min_version=self._totals.version)
        return [tuple(row.values()) for row in dataset.rows()]

    async def _pulled(self) -> list[Check]:
        """Check a file that was pulled from the object store alone."""
        with tempfile.TemporaryDirectory(prefix="teatree-demo-pulled-") as folder:
            path = Path(folder) / f"{self._model.name}.duckdb"
            pulled = await self._model.pull(path)
            found = await asyncio.to_thread(_read_file, path)
        where = f"version {pulled.version}, pulled"
        sent = (self._totals.rows, to_text(self._totals.cents), self._totals.visits, self._totals.visitors)
        names = ("rows of lines", "sum of amount", "rows of visits", "sum of customers")
        return [Check(name, str(a), str(b), where) for name, a, b in zip(names, sent, found, strict=True)]

    async def _archived(self) -> Check:
        from teatree.storage.archives import read_archive  # noqa: PLC0415

        receipt = await self._model.archive()
        self._totals.requests += 1
        chain = self._model.chain()
        archived = await asyncio.to_thread(read_archive, chain, receipt.version or 0)
        rows = {name: ref.rows for name, ref in archived.files.items()} if archived else {}
        sent = {**self._totals.goal_rows, "lines": self._totals.rows, "visits": VISITS}
        return Check("rows by table", _listed(sent), _listed(rows), f"Parquet of version {receipt.version}")

    async def _cataloged(self) -> Check:
        """Check the catalog, which may lag a little."""
        sent = self._totals.requests + 1  # and `create_model`
        give_up_s = SYSTEM_CLOCK.monotonic() + CATCH_UP_S_MAX
        while True:
            found = await asyncio.to_thread(self._count_requests)
            if found == sent or SYSTEM_CLOCK.monotonic() > give_up_s:
                return Check("requests done", str(sent), str(found), "PostgreSQL")
            await SYSTEM_CLOCK.sleep_async(LOOK_EVERY_S)

    def _count_requests(self) -> int:
        from teatree.storage.catalog.postgres import Postgres  # noqa: PLC0415

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


def _read_file(path: Path) -> tuple[Any, ...]:
    import duckdb  # noqa: PLC0415

    with duckdb.connect(str(path), read_only=True) as con:
        lines = con.execute(f"SELECT count(*), {AMOUNT} FROM lines").fetchone()
        visits = con.execute("SELECT count(*), sum(customer) FROM visits").fetchone()
    return (*(lines or ()), *(visits or ()))


def _listed(rows: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(rows.items()))
