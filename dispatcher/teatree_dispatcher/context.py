"""What the parts of a dispatcher share."""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen
from structlog.typing import FilteringBoundLogger

from teatree.contracts.settings import DispatcherSettings, LimitSettings
from teatree.functions.registry import Registry
from teatree.messaging.bus import Bus


@frozen
class DispatcherContext:
    """The connection, whose probe and clock are used, what there is to call, and the settings of a dispatcher."""

    bus: Bus
    functions: Registry
    log: FilteringBoundLogger
    settings: DispatcherSettings
    limits: LimitSettings = field(factory=LimitSettings)
    """Those of the managers."""
    log_index: Path | None = None
    """The file of the log's index."""
