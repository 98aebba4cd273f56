"""The dispatcher's view of the log: what it reads again after a restart or a lost connection, and what it must not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
from attrs import evolve

from log_bus import bus_with_streams, send
from teatree.contracts.errors import Code, RetryError
from teatree.contracts.settings import NatsSettings
from teatree.messaging.bus import Bus
from teatree.messaging.streams import log_config
from teatree_dispatcher import log_view
from teatree_dispatcher.log_index import read_log_index
from teatree_dispatcher.log_view import LogView
from teatree_dispatcher.model_registry import ModelRegistry


@pytest.fixture
async def bus(nats_server: NatsSettings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bus]:
    """Return a bus with both streams; a log of any size counts as a long one."""
    monkeypatch.setattr("teatree_dispatcher.log_view.SUBJECTS_MAX", 0)
    monkeypatch.setattr("teatree_dispatcher.log_view.INDEX_EVERY", 1)
    async with bus_with_streams(nats_server) as connected:
        yield connected


class View(LogView):
    """A view with a registry that tests can see."""

    def __init__(self, bus: Bus, index: Path | None = None) -> None:
        self.registry = ModelRegistry()
        super().__init__(bus, self.registry, ["drop_model"], structlog.get_logger(), index)

    async def requests(self) -> dict[str, int]:
        """Read what is new; return the last request of each model."""
        await self.read()
        return {status.model: status.last_seq for status in self.registry if status.last_seq}


async def lose_all_but_last(bus: Bus) -> None:
    """Purge the log, so that only what is remembered of its older messages is known."""
    await bus.js(f"STREAM.PURGE.{bus.subjects.requests_stream}", {"keep": 1})


async def test_restart(bus: Bus, tmp_path: Path) -> None:
    """A restarted dispatcher has the older part of the log from its index, and reads what is new."""
    path = tmp_path / "folder" / "index.json"
    await send(bus, "sales", 2)
    await bus.publish_log(bus.subjects.request("sales", "drop_model", "anna"), b"{}")
    await bus.publish_log(f"{bus.prefix}.request.Bad-Name.append", b"{}")
    await send(bus, "stock")
    assert await View(bus, path).requests() == {"sales": 3, "Bad-Name": 4, "stock": 5}
    await lose_all_but_last(bus)
    assert await View(bus).requests() == {"stock": 5}
    again = View(bus, path)
    assert await again.requests() == {"sales": 3, "Bad-Name": 4, "stock": 5}
    assert again.registry.status("sales").last_drop_seq == 3
    await send(bus, "other")
    assert await View(bus, path).requests() == {"sales": 3, "Bad-Name": 4, "stock": 5, "other": 6}


async def test_purged_names_leave_the_index(bus: Bus, tmp_path: Path) -> None:
    """A name whose requests were all before the log's first message is not written again."""
    path = tmp_path / "index.json"
    await send(bus, "sales", 2)
    view = View(bus, path)
    await view.read()
    await send(bus, "stock")
    await lose_all_but_last(bus)
    await view.read()
    index = read_log_index(path)
    assert index is not None
    assert index.requests == {"stock": 3}


async def test_index_of_another_log(bus: Bus, tmp_path: Path) -> None:
    """An index whose last message is not in the log, or of another log, or that is damaged, is not used."""
    path = tmp_path / "index.json"
    await send(bus, "sales", 2)
    await send(bus, "stock")
    await View(bus, path).read()
    good = path.read_text()
    index = read_log_index(path)
    assert index is not None
    await lose_all_but_last(bus)
    assert await View(bus, path).requests() == {"sales": 2, "stock": 3}
    for last in (evolve(index.last, at=datetime(2020, 1, 1, tzinfo=UTC)), evolve(index.last, seq=9)):
        assert evolve(index, last=last).write(path)
        assert await View(bus, path).requests() == {"stock": 3}
    for wrong in (good[:-5], good.replace('"sales":2', '"sales":1'), "", "[]"):
        path.write_text(wrong)
        assert await View(bus, path).requests() == {"stock": 3}
    path.write_text(good)
    await bus.js(f"STREAM.DELETE.{bus.subjects.requests_stream}")
    await bus.js(f"STREAM.CREATE.{bus.subjects.requests_stream}", log_config(bus, 1_000_000))
    await send(bus, "other", 4)
    assert await View(bus, path).requests() == {"other": 4}


async def test_disk_without_room(bus: Bus, tmp_path: Path) -> None:
    """An index that cannot be written is no reason to stop."""
    (tmp_path / "file").write_text("")
    await send(bus, "sales")
    assert await View(bus, tmp_path / "file" / "index.json").requests() == {"sales": 1}


async def test_lost_connection(bus: Bus) -> None:
    """After a lost connection nothing is read again that is before the last message of the last read."""
    view = View(bus)
    await send(bus, "sales", 2)
    await send(bus, "stock")
    await view.read()
    await lose_all_but_last(bus)
    bus.losses += 1
    await send(bus, "other")
    assert await view.requests() == {"sales": 2, "stock": 3, "other": 4}


async def test_lost_end(bus: Bus) -> None:
    """What was known beyond the last message of the last read is asked again: the log may have lost it."""
    view = View(bus)
    await send(bus, "sales")
    await view.read()
    await send(bus, "stock")
    await view.read_models(["stock"])
    assert view.registry.status("stock").last_seq == 2
    await bus.js(f"STREAM.MSG.DELETE.{bus.subjects.requests_stream}", {"seq": 2})
    bus.losses += 1
    assert await view.requests() == {"sales": 1}


async def test_lost_last_message(bus: Bus) -> None:
    """Without the last message of the last read all is read again."""
    view = View(bus)
    await send(bus, "sales")
    await send(bus, "stock")
    await view.read()
    await bus.js(f"STREAM.MSG.DELETE.{bus.subjects.requests_stream}", {"seq": 2})
    bus.losses += 1
    assert await view.requests() == {"sales": 1}


async def test_an_index_that_read_ahead(bus: Bus, tmp_path: Path) -> None:
    """What the index holds beyond its last message is asked again: the log may have lost it since."""
    path = tmp_path / "index.json"
    await send(bus, "sales", 2)
    await View(bus, path).read()
    index = read_log_index(path)
    assert index is not None
    ahead = evolve(index, requests={"sales": 3, "fresh": 4}, drops={"sales": 3})
    assert ahead.write(path)
    view = View(bus, path)
    assert await view.requests() == {"sales": 2}
    assert view.registry.status("sales").last_drop_seq == 0


async def test_a_read_that_fails_is_repeated(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost end is noticed by the next read, too, if the first one fails."""
    view = View(bus)
    await send(bus, "sales")
    await send(bus, "stock")
    await view.read()
    await send(bus, "sales")
    await view.read_models(["sales"])
    await bus.js(f"STREAM.MSG.DELETE.{bus.subjects.requests_stream}", {"seq": 3})
    bus.losses += 1

    async def fail(*_: object) -> None:
        raise RetryError(Code.TIMED_OUT, "lost")

    with monkeypatch.context() as patched:
        patched.setattr(log_view, "last_requests_of", fail)
        with pytest.raises(RetryError):
            await view.read()
    assert await view.requests() == {"sales": 1, "stock": 2}
