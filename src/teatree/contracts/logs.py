"""Where the library logs: Python's standard logging, so that a laptop needs no other; a server forwards it."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from typing_extensions import override

_NAME = "teatree"
MEMBERS = "members"
"""The attribute of a log record that holds its event's members."""


class StructuredLog(Protocol):
    """A log whose lines are an event and its members, as structlog's."""

    def log(self, level: int, event: str, /, **members: Any) -> Any:
        """Write one line."""


def log_event(level: int, event: str, *, failure: BaseException | None = None, **members: Any) -> None:
    """Log an event with its members; with the traceback of `failure`, if there is one."""
    text = " ".join([event, *(f"{name}={value}" for name, value in members.items())])
    logging.getLogger(_NAME).log(level, "%s", text, exc_info=failure, extra={"event": event, MEMBERS: members})


def forward_events(log: StructuredLog) -> None:
    """Hand all events of this process to a structured log, in place of standard logging."""
    logger = logging.getLogger(_NAME)
    logger.handlers = [_Forwarder(log)]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _Forwarder(logging.Handler):
    def __init__(self, log: StructuredLog) -> None:
        super().__init__()
        self._log = log

    @override
    def emit(self, record: logging.LogRecord) -> None:
        members = dict(getattr(record, MEMBERS, {}))
        if record.exc_info:
            members["exc_info"] = record.exc_info
        self._log.log(record.levelno, getattr(record, "event", record.getMessage()), **members)
