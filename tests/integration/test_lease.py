"""The lease against a real PostgreSQL: one holder at a time, by the database's clock."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from teatree.contracts.errors import Code, RetryError
from teatree.contracts.probe import NO_PROBE
from teatree.contracts.settings import BreakerSettings, ManagerSettings, PostgresSettings, Settings, StoreSettings
from teatree.storage.breaker import Breaker, CircuitOpenError
from teatree.storage.catalog.catalog import Catalog
from teatree.storage.catalog.lease import Holder, Lease, this_process
from teatree.storage.catalog.migrations.migrate import migrate
from teatree.storage.catalog.postgres import Postgres
from teatree.storage.model_folder import model_folder
from teatree.storage.objects.stores import open_store
from teatree.storage.versions.chain import Chain
from teatree_manager.context import ManagerContext
from teatree_manager.ownership import Ownership

MODEL = uuid.UUID(int=7)
LONG_MS = 600_000


@pytest.fixture
def postgres(postgres_server: PostgresSettings) -> Postgres:
    """Return a migrated database."""
    migrate(postgres_server)
    return Postgres(postgres_server)


@pytest.fixture
def lease(postgres: Postgres) -> Lease:
    """Return the lease on a model that does not exist yet."""
    return Lease(postgres, MODEL, "sales")


def _holder() -> Holder:
    return this_process("here")


def test_the_first_gets_it_and_the_second_gets_its_holder(lease: Lease) -> None:
    """A lease has one holder; a second process gets the first one's identity and the time left."""
    first, second = _holder(), _holder()
    assert lease.held() is None
    assert lease.acquire(first, LONG_MS) is None
    held = lease.acquire(second, LONG_MS)
    assert held is not None
    assert held.holder == first
    assert 0 < held.left_ms <= LONG_MS
    assert lease.held() is not None
    assert lease.acquire(first, LONG_MS) is None


def test_an_ended_lease_is_free_to_take_and_cannot_be_renewed_after(lease: Lease) -> None:
    """A holder that did not renew keeps its lease until another takes it; then renewing fails."""
    first, second = _holder(), _holder()
    assert lease.acquire(first, 0) is None
    assert lease.renew(first, 0)
    assert lease.acquire(second, LONG_MS) is None
    assert not lease.renew(first, LONG_MS)
    assert not lease.release(first)
    held = lease.held()
    assert held is not None
    assert held.holder == second


def test_a_released_lease_is_free(lease: Lease) -> None:
    """After an orderly release the next holder gets the lease at once."""
    first, second = _holder(), _holder()
    assert lease.acquire(first, LONG_MS) is None
    assert lease.release(first)
    assert lease.held() is None
    assert lease.acquire(second, LONG_MS) is None


def test_a_dead_holders_lease_is_seized_by_one(lease: Lease) -> None:
    """Of two processes that saw the same dead holder one gets its lease; the other cannot seize it afterwards."""
    dead, first, second = _holder(), _holder(), _holder()
    assert lease.acquire(dead, LONG_MS) is None
    assert lease.seize(dead, first, LONG_MS)
    assert not lease.seize(dead, second, LONG_MS)
    assert not lease.renew(dead, LONG_MS)
    assert lease.renew(first, LONG_MS)


def test_of_eight_at_once_one_gets_it(postgres_server: PostgresSettings, postgres: Postgres) -> None:
    """Of many that acquire at once, for a new model or after a lease ended, one gets it."""
    connections = [Postgres(postgres_server) for _ in range(8)]
    for turn in range(12):
        number = turn // 2  # each model has two turns: when it is new, and when its lease has ended
        leases = [Lease(each, uuid.UUID(int=number), f"sales_{number}") for each in connections]
        start = threading.Barrier(8)

        def acquire(i: int, leases: list[Lease] = leases, start: threading.Barrier = start) -> bool:
            start.wait()
            return leases[i].acquire(_holder(), LONG_MS) is None

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(acquire, range(8))).count(True) == 1
        held = leases[0].held()
        assert held is not None
        assert leases[0].renew(held.holder, 0)


def test_no_breaker_refuses_a_lease(postgres_server: PostgresSettings, postgres: Postgres) -> None:
    """A lease is renewed as soon as PostgreSQL can be reached, though the breaker is open; then the breaker closes."""
    breaker = Breaker("PostgreSQL", BreakerSettings(failures_max=1, open_ms_min=LONG_MS, open_ms_max=LONG_MS))
    guarded = Postgres(postgres_server, breaker=breaker)
    lease, holder = Lease(guarded, MODEL, "sales"), _holder()
    uses: list[Callable[[], bool]] = [
        lambda: lease.acquire(holder, LONG_MS) is None,
        lambda: lease.renew(holder, LONG_MS),
        lambda: lease.seize(holder, holder, LONG_MS),
        lambda: lease.release(holder),
    ]
    for use in uses:
        with pytest.raises(CircuitOpenError), breaker.guard():
            raise RetryError(Code.UNAVAILABLE, "PostgreSQL does not answer.")
        with pytest.raises(CircuitOpenError):
            Catalog(guarded).models()
        assert use()
        assert [row.name for row in Catalog(guarded).models()] == ["sales"]


def test_the_catalog_leaves_leases_alone(postgres: Postgres, lease: Lease) -> None:
    """A lease survives a rebuild of the catalog, which shows it."""
    holder = _holder()
    assert lease.acquire(holder, LONG_MS) is None
    Catalog(postgres).clear()
    held = lease.held()
    assert held is not None
    assert held.holder == holder
    found = Catalog(postgres).model("sales")
    assert found is not None
    assert found.writer is not None
    assert (found.writer["pid"], found.state) == (holder.pid, "absent")


async def test_a_manager_that_hangs_at_its_exit_loses_its_lease(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease is renewed while its holder works, and ends some time after its exit began, though the process runs."""
    monkeypatch.setattr("teatree_manager.ownership.LEAVE_MS_MAX", 0)
    settings = Settings(host="here", manager=ManagerSettings(lease_ms=LONG_MS))
    store = open_store(StoreSettings(url=(tmp_path / "store").as_uri()))
    chain = Chain(store, "teatree", "sales")
    context = ManagerContext(settings, chain, model_folder(tmp_path, "sales"), None, NO_PROBE)
    ownership = Ownership(context, postgres)
    ownership.acquire()
    keeping = asyncio.create_task(ownership.keep())
    await asyncio.sleep(0)
    assert not keeping.done()
    keeping.cancel()
    ownership.begin_leaving()
    await ownership.keep()
    ownership.release(has_finished=True)
