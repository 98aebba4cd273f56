"""The log of a manager and of its read workers: JSON lines on standard error."""

from __future__ import annotations

import logging
import sys

import structlog

from teatree.contracts.logs import forward_events


def configure_log() -> None:
    """Write the lines of this process, and what the library and functions of apps log, as JSON on standard error."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    forward_events(structlog.get_logger())
