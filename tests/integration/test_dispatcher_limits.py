"""The limit of managers on a host, managers that crash repeatedly for one reason, and the expiry of old requests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from dispatcher_world import SETTINGS, World, until
from teatree.contracts.exit_reason import ExitReason
from teatree.contracts.formats.manifest import ModelState
from teatree.contracts.names import goal_model_id
from teatree.contracts.settings import PostgresSettings
from teatree.storage.catalog.catalog import Catalog
from teatree.storage.catalog.goal_model import ensure_row
from teatree.storage.catalog.migrations.migrate import migrate
from teatree.storage.catalog.postgres import Postgres
from teatree.storage.catalog.rows import ModelRow, RequestRow, RequestState


@pytest.fixture
def postgres(postgres_server: PostgresSettings) -> Iterator[Postgres]:
    """Return a database with an empty catalog."""
    migrate(postgres_server)
    postgres = Postgres(postgres_server)
    yield postgres
    postgres.close()


def row(catalog: Catalog, model: str) -> ModelRow | None:
    """Return the catalog's row of a model."""
    return catalog.model(model)


class TestRoom:
    async def test_an_idle_manager_makes_room(self, world: World) -> None:
        """A model beyond the limit takes the place of the least recently used idle manager."""
        for seq, model in enumerate(("a", "b"), 1):
            await world.send(model, "create_model", "x")
            world.publish(model, seq, ModelState.ACTIVE)
            world.launcher.alive.add(model)
        await world.send("b", "append", "busy")  # and is not applied
        world.start(world.make(world.launcher, attrs.evolve(SETTINGS, managers_max=2, evict_idle_ms_min=0)))
        await world.rounds()
        assert world.launcher.alive == {"a", "b"}
        await world.send("c", "create_model", "x")
        await until(lambda: "c" in world.launcher.alive)
        assert world.launcher.alive == {"b", "c"}

    async def test_no_one_is_idle(self, world: World, postgres: Postgres) -> None:
        """While all managers are busy a further model waits, and the catalog shows it with the reason."""
        await world.send("a", "create_model", "x")
        world.launcher.alive.add("a")
        catalog = Catalog(postgres)
        settings = attrs.evolve(SETTINGS, managers_max=1, evict_idle_ms_min=0)
        world.start(world.make(world.launcher, settings, catalog))
        await world.send("b", "create_model", "x")
        await until(lambda: (found := row(catalog, "b")) is not None and found.state == "waits")
        found = row(catalog, "b")
        assert found is not None
        assert "1 run on this host" in (found.waits or "")
        assert world.launcher.alive == {"a"}


class TestStuck:
    async def test_the_same_again(self, world: World, postgres: Postgres) -> None:
        """A model whose managers end three times with one error is stopped with it, and managers are still started."""
        catalog = Catalog(postgres)
        world.launcher.dies_with = 1
        world.launcher.reason = ExitReason(1, "internal", "KeyError: 'x'")
        await world.send("sales", "create_model", "x")
        world.start(world.make(world.launcher, catalog=catalog))
        await until(lambda: (found := row(catalog, "sales")) is not None and found.state == "stopped")
        found = row(catalog, "sales")
        assert found is not None
        assert found.error is not None
        assert "KeyError: 'x'" in found.error["message"]
        assert "teatree resume sales" in found.error["message"]
        launched = len(world.launcher.launched)
        assert launched >= 3
        await until(lambda: len(world.launcher.launched) > launched)

    async def test_an_unavailable_part(self, world: World, postgres: Postgres) -> None:
        """Managers that end because NATS is unavailable do not stop their model."""
        catalog = Catalog(postgres)
        world.launcher.dies_with = 1
        world.launcher.reason = ExitReason(1, "unavailable", "NATS does not answer.", is_passing=True)
        await world.send("sales", "create_model", "x")
        world.start(world.make(world.launcher, catalog=catalog))
        await until(lambda: len(world.launcher.launched) > 4)
        await world.rounds()
        found = row(catalog, "sales")
        assert found is None or found.error is None


async def test_old_requests_are_not_listed_for_ever(world: World, postgres: Postgres) -> None:
    """Requests that ended longer ago than the setting are deleted from the catalog; younger ones stay."""
    catalog = Catalog(postgres)
    model_id, now = goal_model_id(world.bus.prefix, "sales"), datetime.now(UTC)
    with postgres.transaction() as session:
        ensure_row(session, model_id, "sales")
    catalog.record_requests(
        [
            RequestRow(model_id, name, seq, "append", RequestState.DONE, now, 1, finished_at=now - timedelta(days=days))
            for seq, (name, days) in enumerate((("old", 1.1), ("young", 0.9)), 1)
        ]
    )
    world.start(world.make(world.launcher, catalog=catalog))
    await until(lambda: [r.request_id for r in catalog.requests("sales")] == ["young"])
