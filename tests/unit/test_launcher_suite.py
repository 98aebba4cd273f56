"""The suite of `teatree.testing` on the launcher of processes, with both event loops, and on the tests' fake one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from launcher_places import FakePlace, ProcessPlace
from teatree.testing.launchers import LauncherPlace, LauncherSuite


class TestProcessLauncher(LauncherSuite):
    """Managers as processes."""

    @pytest.fixture(params=[None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
    def place(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LauncherPlace]:
        """Return a data folder."""
        place = ProcessPlace(tmp_path, request.param)
        yield place
        place.close()


class TestFakeLauncher(LauncherSuite):
    """The launcher with which the dispatcher is tested."""

    @pytest.fixture
    def place(self) -> LauncherPlace:
        """Return an empty set."""
        return FakePlace()
