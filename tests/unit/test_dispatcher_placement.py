"""What a model needs, and when its manager may start again: decisions without effects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.exit_reason import EXIT_OPERATOR, EXIT_STUCK
from teatree.contracts.formats.manifest import Manifest, ManifestKind, ModelState, StreamStamp, read_manifest
from teatree.contracts.formats.requests import LogPosition, read_request
from teatree.contracts.settings import DispatcherSettings
from teatree.messaging.subjects import Subjects
from teatree_dispatcher.leases import AGAIN_MS, LeaseWatch
from teatree_dispatcher.model_registry import LogPlace, ModelStatus
from teatree_dispatcher.placement import (
    STOPPED_MS,
    Need,
    PlacementInput,
    PublishedState,
    Restart,
    after_exit,
    log_mismatch,
    need,
    published,
)
from teatree_dispatcher.rejecter import rejection

HANGING_MS = DispatcherSettings().hanging_ms_min
ALIVE = PublishedState(ModelState.ACTIVE, offset=10, version=3, log_created="a")
DROPPED = PublishedState(ModelState.DROPPED, offset=10, version=3, log_created="a")
INPUT = PlacementInput(last_seq=10, last_drop_seq=0, published=ALIVE, rejected_through=0, create_seq=0, is_served=False)


class TestNeed:
    @pytest.mark.parametrize(
        ("changes", "wanted"),
        [
            ({"last_seq": 0, "published": None}, Need.NOTHING),
            ({"published": None}, Need.REFRESH),
            ({}, Need.NOTHING),
            ({"last_seq": 11}, Need.MANAGER),
            ({"last_seq": 11, "is_served": True}, Need.NOTHING),
            ({"last_seq": 11, "is_served": True, "last_drop_seq": 11}, Need.REFRESH),
            ({"last_seq": 11, "is_served": True, "last_drop_seq": 9}, Need.NOTHING),
            ({"published": DROPPED}, Need.NOTHING),
            ({"published": DROPPED, "last_seq": 11}, Need.REJECT),
            ({"published": DROPPED, "last_seq": 11, "is_served": True}, Need.REJECT),
            ({"published": DROPPED, "last_seq": 11, "rejected_through": 11}, Need.NOTHING),
            ({"published": DROPPED, "last_seq": 15, "rejected_through": 11, "create_seq": 12}, Need.MANAGER),
            ({"published": DROPPED, "last_seq": 15, "create_seq": 12, "is_served": True}, Need.REFRESH),
            ({"published": attrs.evolve(DROPPED, offset=12), "last_seq": 15, "create_seq": 12}, Need.REJECT),
            ({"published": PublishedState(), "last_seq": 1}, Need.REJECT),
            ({"log_mismatch": True, "last_seq": 2}, Need.MANAGER),
            ({"log_mismatch": True, "last_seq": 2, "is_served": True}, Need.NOTHING),
            ({"log_mismatch": True, "last_seq": 2, "published": DROPPED}, Need.MANAGER),
        ],
    )
    def test_each(self, changes: dict[str, object], wanted: Need) -> None:
        """A manager for requests beyond an incarnation's offset, a rejection for those outside, else nothing."""
        assert need(attrs.evolve(INPUT, **changes)) is wanted  # type: ignore[arg-type]

    def test_other_log(self) -> None:
        """An offset is valid only in its log, and only up to the log's end."""
        assert not log_mismatch(ALIVE, "a", 10)
        assert log_mismatch(ALIVE, "b", 10)
        assert log_mismatch(ALIVE, "a", 9)
        assert not log_mismatch(PublishedState(), "b", 0)
        assert not log_mismatch(None, "b", 0)

    def test_read_back(self) -> None:
        """A model's state is read back from its manifest as it was written."""
        at = datetime(2026, 1, 1, tzinfo=UTC)
        manifest = Manifest(
            model="sales",
            goal_model_id="x",
            version=3,
            write_id="0",
            parent_write_id="",
            kind=ManifestKind.BATCH,
            epoch=1,
            state=ModelState.ACTIVE,
            at=at,
            log_at=at,
            offset=10,
            stream=StreamStamp("REQUESTS", "a"),
            content_version=1,
            content_write_id="0",
            user_version=1,
            last_effect_seq=1,
            announced_version=0,
        )
        assert published(read_manifest(manifest.to_json(), "here")) == attrs.evolve(ALIVE, log_at=at)
        assert published(read_manifest(manifest.to_json(), "here")).is_alive
        assert published(None) == PublishedState()

    def test_idle(self) -> None:
        """A model whose offset belongs to another log is not idle, whatever the end of that log."""
        at = datetime(2026, 1, 1, tzinfo=UTC)
        status = ModelStatus("sales", last_seq=3, published=ALIVE)
        assert status.is_idle(LogPlace("a", LogPosition(10, at)))
        assert not status.is_idle(LogPlace("b", LogPosition(10, at)))


class TestRestart:
    def test_at_once_the_first_time(self) -> None:
        """A model's first manager starts without a delay."""
        assert Restart().is_due(0, "")

    def test_back_off(self) -> None:
        """The wait after a manager that crashes without progress doubles each time, up to a limit."""
        restart = Restart()
        waits = []
        for _ in range(6):
            restart = after_exit(restart, -9, progressed=False, fingerprint="", now_ms=1000, ms_min=100, ms_max=1500)
            waits.append(restart.not_before_ms - 1000)
        assert waits == [100, 200, 400, 800, 1500, 1500]
        assert not restart.is_due(2499, "")
        assert restart.is_due(2500, "")

    def test_progress_forgives(self) -> None:
        """After a crash with progress the wait is short again; a manager that left may be started again at once."""
        tired = Restart(crashes=9, not_before_ms=5)
        crashed = after_exit(tired, 1, progressed=True, fingerprint="", now_ms=0, ms_min=100, ms_max=9e9)
        assert (crashed.crashes, crashed.not_before_ms) == (1, 100)
        assert after_exit(tired, 0, progressed=True, fingerprint="", now_ms=0, ms_min=100, ms_max=9e9) == Restart()

    def test_the_same_again(self) -> None:
        """Three managers in a row that crash for the same reason make their model stuck; another reason does not."""

        def crashed(restart: Restart, reason: str | None, *, progressed: bool = False) -> Restart:
            return after_exit(
                restart, 1, reason=reason, progressed=progressed, fingerprint="", now_ms=0, ms_min=100, ms_max=9e9
            )

        twice = crashed(crashed(Restart(), "a"), "a")
        assert not twice.is_stuck
        assert crashed(twice, "a").is_stuck
        assert crashed(crashed(twice, "a"), "a").is_stuck
        for other in (crashed(twice, "b"), crashed(twice, None), crashed(twice, "a", progressed=True)):
            assert not other.is_stuck
        assert not crashed(crashed(crashed(Restart(), None), None), None).is_stuck

    def test_operator(self) -> None:
        """After a manager that stopped for an operator the next one waits until something has changed, or for long."""
        stopped = after_exit(
            Restart(), EXIT_OPERATOR, progressed=True, fingerprint="x", now_ms=0, ms_min=100, ms_max=30_000
        )
        assert not stopped.is_due(STOPPED_MS - 1, "x")
        assert stopped.is_due(1, "y")
        assert stopped.is_due(STOPPED_MS, "x")

    def test_a_manager_that_ended_itself_over_a_request(self) -> None:
        """Its successor begins at once, however many crashed before: it rejects that request."""
        tired = Restart(crashes=8, not_before_ms=5_000)
        ended = after_exit(tired, EXIT_STUCK, progressed=False, fingerprint="", now_ms=0, ms_min=100, ms_max=30_000)
        assert ended.is_due(0, "")

    def test_many_crashes(self) -> None:
        """Thousands of crashes do not overflow the wait."""
        restart = after_exit(
            Restart(crashes=5_000), 1, progressed=False, fingerprint="", now_ms=0, ms_min=100, ms_max=30_000
        )
        assert restart.not_before_ms == 30_000


class TestLeases:
    def test_hanging(self) -> None:
        """A lease that stays ended is noticed, then again only after a while; one that is renewed in time never is."""
        watch = LeaseWatch(HANGING_MS)
        now = datetime.now(UTC)
        leases = {"dead": now - timedelta(seconds=60), "well": now + timedelta(hours=1), "none": None}
        assert watch.hanging(leases, now, 0) == []
        assert watch.hanging(leases, now, HANGING_MS) == ["dead"]
        assert watch.hanging(leases, now, HANGING_MS + 1) == []
        assert watch.hanging(leases, now, HANGING_MS + AGAIN_MS) == ["dead"]
        assert watch.hanging({"dead": now + timedelta(hours=1)}, now, HANGING_MS + AGAIN_MS) == []
        assert watch.hanging(leases, now, 10 * AGAIN_MS) == []


class TestRejection:
    def test_the_same_whenever(self) -> None:
        """A rejection depends on the request alone: published again, it is the same."""
        at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        request = read_request("sales", "append", 7, at, {"Teatree-Request-Id": "r1"}, b"{}")
        subject, body, headers = rejection(Subjects(), request)
        assert (subject, body, headers) == rejection(Subjects(), request)
        assert subject == "teatree.notify.sales.r1.rejected"
        assert b'"code":"unknown_model"' in body
        assert b'"at":"2026-01-02T03:04:05.000000Z"' in body
        assert b'"seq":7' in body

    def test_group(self) -> None:
        """A bulk sender receives it on its group's subject."""
        at = datetime(2026, 1, 2, tzinfo=UTC)
        headers = {"Teatree-Request-Id": "r1", "Teatree-Group": "g1"}
        subject, body, _ = rejection(Subjects(), read_request("sales", "append", 7, at, headers, b"{}"))
        assert subject == "teatree.notify.sales.group.g1.done"
        assert b'"refused":1' in body

    def test_bad_name(self) -> None:
        """A request to an invalid name is rejected as `bad_name`, whatever its function."""
        status = ModelStatus("Bad-Name")
        assert isinstance(status.name_error, RequestError)
        assert status.name_error.code is Code.BAD_NAME
        request = read_request("Bad-Name", "create_model", 1, datetime.now(UTC), {}, b"")
        assert b'"code":"bad_name"' in rejection(Subjects(), request)[1]
