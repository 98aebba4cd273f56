"""What the parts that write one model share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from teatree.contracts.failpoints import Failpoint
from teatree.contracts.requests import Request
from teatree.contracts.settings import LimitSettings
from teatree.functions.arguments import Report, no_report
from teatree.functions.registry import Registry
from teatree.functions.sources import Sources
from teatree.storage.chain import Chain
from teatree.storage.model_folder import ModelFolder


@frozen
class WriterHooks:
    """What a writer calls while requests run."""

    report: Report = no_report
    """Publishes the progress of a long request."""
    on_stuck: Callable[[Sequence[Request]], None] | None = None
    """Ends the process when requests of one transaction do not end, and no interrupt reaches them."""


@frozen
class ModelContext:
    """One model's chain and folder, and what its writer may use."""

    chain: Chain
    folder: ModelFolder
    limits: LimitSettings
    """The defaults; a model's own options replace some."""
    sources: Sources
    functions: Registry
    failpoint: Failpoint
    hooks: WriterHooks = WriterHooks()
