"""What the parts of one manager share."""

from __future__ import annotations

import uuid

import structlog
from attrs import field, frozen
from structlog.typing import FilteringBoundLogger

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.probe import Probe
from teatree.contracts.settings import Settings
from teatree.storage.catalog.catalog import Catalog
from teatree.storage.model_folder import ModelFolder
from teatree.storage.versions.chain import Chain
from teatree_manager.waits import WaitReasons


@frozen
class ManagerContext:
    """A manager's model, its settings, and the state that its parts report to each other."""

    settings: Settings
    chain: Chain
    folder: ModelFolder
    catalog: Catalog | None
    """None without PostgreSQL."""
    probe: Probe
    waits: WaitReasons = field(factory=WaitReasons)
    clock: Clock = SYSTEM_CLOCK

    @property
    def model(self) -> str:
        """The model's name."""
        return self.chain.model

    @property
    def goal_model_id(self) -> uuid.UUID:
        """The model's id in the catalog."""
        return uuid.UUID(self.chain.goal_model_id)

    @property
    def log(self) -> FilteringBoundLogger:
        """A logger that names the model."""
        logger: FilteringBoundLogger = structlog.get_logger().bind(model=self.model)
        return logger
