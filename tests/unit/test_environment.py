"""Settings read from the environment: invalid values are refused when they are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from teatree.contracts.environment import connection_environ, read_settings
from teatree.contracts.errors import Code, OperatorError


@pytest.mark.parametrize("value", ["", "abc", "-1", "nan", "inf", "1e30", "9" * 30])
@pytest.mark.parametrize(
    "variable",
    ["TEATREE_LIMITS_REMEMBER_DAYS", "TEATREE_RETENTION_KEEP_ALL_HOURS", "TEATREE_DISPATCHER_RETENTION_DAYS"],
)
def test_no_such_number(tmp_path: Path, variable: str, value: str) -> None:
    """A number out of range, or a value that is no number, is refused: it would drop ids, or clean versions up."""
    with pytest.raises(OperatorError) as refused:
        read_settings({variable: value}, tmp_path)
    assert refused.value.code is Code.WRONG_CONFIGURATION
    assert refused.value.where == variable
    assert variable in str(refused.value)


def test_a_text(tmp_path: Path) -> None:
    """A setting of a group can be a text, and the connections of a process are passed on whole."""
    environ = {
        "TEATREE_DISPATCHER_LAUNCHER": "pods",
        "TEATREE_PREFIX": "plan",
        "TEATREE_NATS_URL": "nats://x:1",
        "TEATREE_STORE_SECRET_KEY": "k",
        "TEATREE_POSTGRES_READER_URL": "postgresql://r@x/d",
    }
    settings = read_settings(environ, tmp_path)
    assert settings.dispatcher.launcher == "pods"
    again = read_settings(connection_environ(settings), tmp_path)
    assert (again.nats, again.store, again.postgres) == (settings.nats, settings.store, settings.postgres)
    assert again.nats.prefix == "plan"


def test_zero(tmp_path: Path) -> None:
    """Zero is allowed for a pause, a margin or an optional limit, never for a required one."""
    settings = read_settings({"TEATREE_RETENTION_INTERVAL_MS": "0", "TEATREE_RETENTION_HOURLY_DAYS": "0"}, tmp_path)
    assert (settings.retention.interval_ms, settings.retention.hourly_days) == (0, 0.0)
    for name in ("LIMITS_REMEMBER_DAYS", "LIMITS_THREADS", "READS_WORKERS_MAX", "DISPATCHER_MANAGERS_MAX"):
        with pytest.raises(OperatorError):
            read_settings({f"TEATREE_{name}": "0"}, tmp_path)
