"""What the library logs, as a server's structured log receives it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from structlog.testing import capture_logs

from teatree.contracts.logs import forward_events


@contextmanager
def captured_events() -> Iterator[list[Any]]:
    """Collect the lines of the structured log, the library's events among them."""
    logger = logging.getLogger("teatree")
    before = logger.handlers, logger.level, logger.propagate
    forward_events(structlog.get_logger())
    try:
        with capture_logs() as logs:
            yield logs
    finally:
        logger.handlers, logger.level, logger.propagate = before
