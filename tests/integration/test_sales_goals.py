"""The example `sales_goals` behind the queue: its goals are those of library mode, to the cent."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from drawn_lines import Drawn, draw
from processes import MODEL, Installation, ManagerServer
from sales_goals import app
from servers import TestServers
from teatree import Dataset, connect
from teatree.client.model import Model
from teatree.contracts.errors import RequestError
from teatree.contracts.settings import Settings, StoreSettings
from teatree.testing.apps import AppModel, app_model

pytestmark = pytest.mark.asyncio(loop_scope="module")
PERIOD = "2021"
SEED = 3
SET_GOALS = {"goal_period": PERIOD, "basis_period": "2020-01-10/2020-03-01", "pct": Decimal("12.5")}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model(
    servers: TestServers, manager_server: ManagerServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Model]:
    """Return a model with the app, behind the queue."""
    folder = tmp_path_factory.mktemp("goals")
    settings = Settings(
        nats=servers.fresh_nats(), store=StoreSettings(url=f"file://{folder}/store"), data=folder / "data"
    )
    made = await Installation.make(settings, manager_server, folder)
    await made.created({"app": "sales_goals"})
    async with connect(settings=settings) as session:
        yield session.model(MODEL)
    await made.close()


def calls(lines: Drawn) -> list[tuple[str, dict[str, Any]]]:
    """Return calls of all functions; some of the edits are refused."""
    dice = random.Random(SEED)
    leaves = [{name: row[name] for name in lines.dimensions} for row in lines.rows]
    found: list[tuple[str, dict[str, Any]]] = [("set_goals", SET_GOALS)]
    found += [
        ("edit_goal", {"goal_period": PERIOD, "amount": Decimal(amount), "leaf": dice.choice(leaves)})
        for amount in ("0.00", "12.34", "1000000.00", "5.00", "0.01")
    ]
    site = next(leaf["site"] for leaf in leaves if leaf["site"] is not None)
    found += [
        ("edit_goal", {"goal_period": PERIOD, "amount": Decimal("98765.43"), "site": site}),
        ("goals_by", {"dimensions": ["site"]}),
        ("goals_by", {"dimensions": list(lines.dimensions), "page": 1}),
        ("progress_of", {"goal_period": PERIOD}),
        ("locked_goals", {"goal_period": PERIOD}),
        ("unlock", {"goal_period": PERIOD}),
    ]
    return found


async def behind_queue(model: Model, name: str, arguments: dict[str, Any]) -> Any:
    """Return a result, or the error that the caller gets."""
    try:
        return plain(app.functions[name].read_result(await model.call(name, arguments)))
    except RequestError as e:
        return (e.code, e.where)


def in_process(model: AppModel, name: str, arguments: dict[str, Any]) -> Any:
    """Return the same, in library mode."""
    try:
        return plain(model.call(name, **arguments))
    except RequestError as e:
        return (e.code, e.where)


def plain(result: Any) -> Any:
    """Return rows as Python values."""
    return result.rows() if isinstance(result, Dataset) else result


async def test_goals_behind_the_queue_are_those_of_library_mode(model: Model, tmp_path: Path) -> None:
    """Each call has the same result or the same error, and all leaves are equal in the end."""
    lines = draw(SEED)
    assert lines.dimensions[0] == "site"
    pq.write_table(lines.table, tmp_path / "lines.parquet")
    await model.load_file("lines", tmp_path / "lines.parquet", mode="create")
    with app_model(app, tables={"lines": lines.table}) as library:
        for name, arguments in calls(lines):
            expected = in_process(library, name, arguments)
            assert await behind_queue(model, name, arguments) == expected, name
        order = "FROM goals ORDER BY ALL NULLS LAST"
        expected_rows = library.sql(f"SELECT * {order}").rows()
        assert (await model.query(f"SELECT * {order}")).rows() == expected_rows
        assert len(expected_rows) > 100
    logged = await model.call_for_reply("goals_by", {"dimensions": ["site"]})
    direct = await model.call("goals_by", dimensions=["site"], direct=True, min_version=logged.version)
    assert direct.rows() == logged.result.rows()
