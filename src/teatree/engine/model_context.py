"""What the parts that write one model share."""

from __future__ import annotations

from contextlib import suppress

from attrs import evolve, frozen

from teatree.contracts.clock import SYSTEM_CLOCK, Clock
from teatree.contracts.formats.manifest import ModelOptions
from teatree.contracts.formats.provenance import AppCode
from teatree.contracts.probe import Probe
from teatree.contracts.settings import LimitSettings
from teatree.engine.base import INSTALLED_ENGINES, During, EngineContext, Engines, OnStuck, unguarded
from teatree.functions.app.import_mark import ImportMark
from teatree.functions.app.loading import INSTALLED_APPS, Apps, LoadedApp
from teatree.functions.app.model_functions import with_app
from teatree.functions.arguments import CallContext, Report, no_report
from teatree.functions.history import History
from teatree.functions.others import Others
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
    during: During = unguarded
    """Surrounds each run of a function of an app, which can keep Python's lock."""


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
    others: Others | None = None
    """Opens versions of other models; None where none can be read."""
    apps: Apps = INSTALLED_APPS
    app: LoadedApp | None = None
    """The app of a model that is open; its functions are among `functions`."""

    def with_options(self, options: ModelOptions) -> ModelContext:
        """Return the same with the limits that a model's options set."""
        return evolve(self, limits=evolve(self.limits, **options.limits))

    def with_app(self, name: str | None, recorded: AppCode | None) -> ModelContext:
        """Return the same with a model's app, if it has one, which is imported now.

        `recorded` is the code of it that was used last.
        """
        if name is None:
            with suppress(OSError):
                self.folder.function_names.unlink(missing_ok=True)
            return self
        loaded = self.apps.load(name, ImportMark(self.folder.app_import))
        functions = with_app(self.functions, loaded, recorded, may_change=self.apps.may_change)
        with suppress(OSError):  # only shells read it, which then complete no names
            names = sorted(loaded.app.functions) if loaded.app is not None else []
            self.folder.function_names.write_text("".join(f"{name}\n" for name in names))
        return evolve(self, functions=functions, app=loaded)

    def for_functions(self, history: History | None = None) -> CallContext:
        """Return what functions may use beside their handle."""
        return CallContext(
            self.limits,
            self.sources,
            history,
            self.hooks.report,
            self.engines.names,
            self.others,
            self.apps.check,
        )

    def for_engine(self) -> EngineContext:
        """Return what the model's engine may use."""
        return EngineContext(
            self.chain, self.folder, self.limits, self.probe, self.clock, self.hooks.on_stuck, self.others
        )
