"""What the parts of one manager share."""

from __future__ import annotations

import uuid

import structlog
from attrs import field, frozen
from structlog.typing import FilteringBoundLogger

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.probe import Probe
from teatree.contracts.settings import Settings
from teatree.engine.model_context import ModelContext, WriterHooks
from teatree.engine.others.other_versions import OtherVersions
from teatree.functions.app.loading import Apps
from teatree.functions.registry import Registry
from teatree.functions.sources import Sources
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

    def for_writer(self, functions: Registry, hooks: WriterHooks) -> ModelContext:
        """Return what the model's writer may use."""
        settings, chain = self.settings, self.chain
        return ModelContext(
            chain,
            self.folder,
            settings.limits,
            Sources(settings.load_roots, settings.store, settings.data, self.folder.temp),
            functions,
            self.probe,
            hooks,
            self.clock,
            others=OtherVersions(chain.store, chain.prefix, settings.limits, settings.cache, settings.cache_folder),
            apps=Apps.of(settings.manager, settings.limits.kill_tries_max),
        )

    @property
    def log(self) -> FilteringBoundLogger:
        """A logger that names the model."""
        logger: FilteringBoundLogger = structlog.get_logger().bind(model=self.model)
        return logger
