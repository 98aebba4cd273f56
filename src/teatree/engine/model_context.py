"""What the parts that write one model share."""

from __future__ import annotations

from attrs import evolve, frozen

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.formats.manifest import ModelOptions
from teatree.contracts.probe import Probe
from teatree.contracts.settings import LimitSettings
from teatree.engine.base import INSTALLED_ENGINES, EngineContext, Engines, OnStuck
from teatree.functions.arguments import CallContext, Report, no_report
from teatree.functions.history import History
from teatree.functions.registry import Registry
from teatree.functions.sources import Sources
from teatree.storage.model_folder import ModelFolder
from teatree.storage.versions.chain import Chain


@frozen
class WriterHooks:
    """What a writer calls while requests run."""

    report: Report = no_report
    """Publishes the progress of a long request."""
    on_stuck: OnStuck | None = None
    """Ends the process when requests of one transaction do not end, and no interrupt reaches them."""


@frozen
class ModelContext:
    """One model's chain and folder, and what its writer may use."""

    chain: Chain
    folder: ModelFolder
    limits: LimitSettings
    """The operator's; a model's own options replace some."""
    sources: Sources
    functions: Registry
    probe: Probe
    hooks: WriterHooks = WriterHooks()
    clock: Clock = SYSTEM_CLOCK
    engines: Engines = INSTALLED_ENGINES

    def with_options(self, options: ModelOptions) -> ModelContext:
        """Return the same with the limits that a model's options set."""
        return evolve(self, limits=evolve(self.limits, **options.limits))

    def for_functions(self, history: History | None = None) -> CallContext:
        """Return what functions may use beside their handle."""
        return CallContext(self.limits, self.sources, history, self.hooks.report, self.engines.names)

    def for_engine(self) -> EngineContext:
        """Return what the model's engine may use."""
        return EngineContext(self.chain, self.folder, self.limits, self.probe, self.clock, self.hooks.on_stuck)
