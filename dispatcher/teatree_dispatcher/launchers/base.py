"""The launcher's interface: it starts managers and lists which ones run, on this host or wherever it puts them."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Sequence

from attrs import frozen

from teatree.contracts.exit_reason import ExitReason


@frozen
class ManagerExit:
    """How a manager ended."""

    code: int
    """Its exit code; negative for a signal."""
    reason: ExitReason | None = None
    """The reason that it wrote, if it could."""


@frozen
class ManagerRun:
    """One manager, from its start until its end was taken in."""

    model: str
    id: str
    """No other manager has it, earlier or later."""
    exit: ManagerExit | None = None
    """How it ended; None while it runs."""


class Launcher(abc.ABC):
    """Starts managers that outlive it. Several launchers may serve the same models: managers exclude each other.

    `list` and `find` are the truth of the moment, and all that the dispatcher decides on; `watch` only makes it look
    sooner. Ended managers are listed until they are released, so that none is missed while nothing watches. All calls
    come from one event loop, which none of them blocks for long. Raises `RetryError` for what can succeed later.
    """

    @abc.abstractmethod
    async def launch(self, model: str) -> ManagerRun:
        """Start a manager, even if one runs: the new one finds whether that one hangs."""

    @abc.abstractmethod
    async def list(self) -> Sequence[ManagerRun]:
        """Return all managers that run, started by this launcher or not, and those of it that ended unreleased."""

    async def find(self, model: str) -> Sequence[ManagerRun]:
        """Return those of one model: quicker than `list` where that is possible."""
        return [run for run in await self.list() if run.model == model]

    @abc.abstractmethod
    def watch(self) -> AsyncIterator[ManagerRun]:
        """Yield all that `list` returns, and then for ever each manager of this launcher that starts, and that ends."""

    @abc.abstractmethod
    async def release(self, run: ManagerRun) -> None:
        """Remove a manager that has ended from the list: its end was taken in. A second time does nothing."""

    @abc.abstractmethod
    async def dismiss(self, model: str) -> None:
        """Ask a model's manager to finish its work and end, if one runs."""

    @abc.abstractmethod
    async def unfinished(self) -> Sequence[str]:
        """Return the models without a manager whose last one ended before it had published all outcomes."""

    @abc.abstractmethod
    async def fingerprint(self, model: str) -> str:
        """Return a text that changes when an operator changes the model's files, or what it is started with."""

    async def prepare(self) -> None:  # noqa: B027  most have nothing to prepare
        """Make the next launch quick, if that is possible; called in every round of the dispatcher."""

    async def close(self) -> None:  # noqa: B027  likewise
        """End what was prepared, and every `watch`; managers keep running."""
