"""Hooks of pytest: a test that hangs fails with every thread's traceback, and a failure is printed when it happens."""

from __future__ import annotations

import faulthandler
import os
import sys
from typing import Any

import pytest

from process_monitor import start_monitor

HANG_MARGIN_S = 30
"""Seconds after a test's time-out at which its process is ended."""
_STDERR = pytest.StashKey[int]()
"""The descriptor of the process's standard error, which a test's output does not reach."""


class FailureReports:
    """Prints why a test failed when it fails: a run that does not come to its end has no summary."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print a failure's traceback."""
        if report.failed:
            self._terminal.ensure_newline()
            self._terminal.write_sep("_", f"failed: {report.nodeid} ({report.when})", red=True)
            self._terminal.write_line(report.longreprtext)
            self._terminal.flush()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Keep standard error; report failures at once in the process that has a terminal: workers have none."""
    config.stash[_STDERR] = os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2)
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        config.pluginmanager.register(FailureReports(terminal))


def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> None:
    """Let a timer in C end the process some time after the time-out, which only raises an exception in Python code.

    pytest-xdist then reports the test as failed, and another worker runs the other tests.
    """
    limit_s = settings.timeout + HANG_MARGIN_S
    faulthandler.dump_traceback_later(limit_s, exit=True, file=item.config.stash[_STDERR])


def pytest_timeout_cancel_timer() -> None:
    """End the timer with the test."""
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session", autouse=True)
def process_monitor(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Limit the memory of this process, and end what it leaves running."""
    start_monitor(tmp_path_factory.getbasetemp(), pytestconfig.stash[_STDERR])
