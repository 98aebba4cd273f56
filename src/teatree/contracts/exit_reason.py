"""Why a manager ended: its exit code and the reason that it wrote, read by the dispatcher that starts the next one."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
from attrs import asdict, frozen

from teatree.contracts.errors import Code, RetryError, TeatreeError

EXIT_ELSEWHERE = 75
"""Exit code of a manager that exits because another one owns the model (EX_TEMPFAIL)."""
EXIT_OPERATOR = 78
"""Exit code of a manager that needs an operator (EX_CONFIG)."""
EXIT_STUCK = 79
"""Exit code of a manager that a request has blocked: its successor starts at once, and answers that request."""
MESSAGE_CHARS_MAX = 1_000
_PASSING = frozenset({Code.UNAVAILABLE, Code.TIMED_OUT, Code.BUSY, Code.DISK_FULL, Code.LOG_FULL})


@frozen
class ExitReason:
    """The error that ended one manager process."""

    pid: int
    code: str
    message: str
    is_passing: bool = False
    """Whether an unavailable part is the reason: the next manager needs no help once that answers."""


def reason_of(error: BaseException) -> ExitReason:
    """Return why this process ends."""
    if isinstance(error, TeatreeError):
        is_passing = isinstance(error, RetryError) and error.code in _PASSING
        message = f"{error.message} (at {error.where})" if error.where else error.message
        return ExitReason(os.getpid(), str(error.code), message[:MESSAGE_CHARS_MAX], is_passing)
    message = f"{type(error).__name__}: {error}"
    return ExitReason(os.getpid(), str(Code.INTERNAL), message[:MESSAGE_CHARS_MAX])


def write_reason(path: Path, reason: ExitReason) -> None:
    """Write a reason to a file; raises OSError."""
    partial = path.with_suffix(".tmp")
    partial.write_bytes(orjson.dumps(asdict(reason)))
    partial.replace(path)


def read_reason(path: Path, pid: int) -> ExitReason | None:
    """Return the reason that process `pid` wrote, None if it wrote none: a signal ended it, for example."""
    try:
        found = ExitReason(**orjson.loads(path.read_bytes()))
    except (OSError, orjson.JSONDecodeError, TypeError):
        return None
    return found if found.pid == pid else None
