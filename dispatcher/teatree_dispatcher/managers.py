"""The managers of a dispatcher: started when due, and watched until they end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import attrs
from structlog.typing import FilteringBoundLogger

from teatree.contracts.clock import Clock
from teatree.contracts.errors import Code, OperatorError, RetryError, TeatreeError
from teatree.contracts.exit_reason import EXIT_ELSEWHERE, EXIT_OPERATOR, EXIT_STUCK
from teatree.contracts.probe import Probe
from teatree.contracts.retry import Backoff
from teatree.contracts.settings import DispatcherSettings
from teatree_dispatcher.catalog_view import CatalogView
from teatree_dispatcher.launchers.base import Launcher, ManagerExit, ManagerRun
from teatree_dispatcher.model_registry import ModelRegistry, ModelStatus
from teatree_dispatcher.placement import PublishedState, after_exit
from teatree_dispatcher.room import Room

AskChain = Callable[[ModelStatus], Awaitable[PublishedState]]


# More than ten public methods: what the loop and direct reads ask, and the errors of models that have no manager.
class Managers:
    """Starts managers with backoff."""

    def __init__(
        self,
        launcher: Launcher,
        settings: DispatcherSettings,
        log: FilteringBoundLogger,
        conditions: CatalogView,
        probe: Probe,
        clock: Clock,
    ) -> None:
        """`conditions` records what is wrong with a model that has no manager."""
        self._conditions = conditions
        self._launcher = launcher
        self._settings = settings
        self._probe = probe
        self._clock = clock
        self._log = log
        self._room = Room(settings.managers_max, settings.evict_idle_ms_min)
        self._admission = asyncio.Lock()
        """Held while a place is given: the loop and direct reads start managers."""
        self._starting: set[str] = set()
        """Models with a place whose manager is being started."""
        self._ended: set[str] = set()
        """Models of which a manager has ended, since `take_exits` last asked."""
        self.due_at_ms = float("inf")
        """When the next waiting manager may be started."""

    async def watch(self, wake: Callable[[], None]) -> None:
        """Note for ever the models whose managers end, and call `wake`: they are looked at sooner than by the timer."""
        backoff = Backoff(clock=self._clock)
        while True:
            try:
                async for run in self._launcher.watch():
                    backoff.reset()
                    if run.exit is not None:
                        self._ended.add(run.model)
                        wake()
            except RetryError as e:
                self._log.warning("the ends of managers are noticed by the timer alone", **e.to_dict())
            await backoff.pause()

    async def is_served(self, model: str) -> bool:
        """Return whether a manager runs, or is being started."""
        return model in self._starting or any(run.exit is None for run in await self._launcher.find(model))

    async def unfinished(self) -> Collection[str]:
        """Return the models whose last manager left outcomes unpublished."""
        return await self._launcher.unfinished()

    async def is_due(self, status: ModelStatus) -> bool:
        """Return whether a manager may be started now; otherwise `due_at_ms` comes no later than its turn."""
        restart = status.restart
        if restart.is_due(
            self._clock.monotonic_ms(), await self._launcher.fingerprint(status.model) if restart.stopped_by else ""
        ):
            return True
        self.due_at_ms = min(self.due_at_ms, restart.not_before_ms)
        return False

    async def start(self, status: ModelStatus) -> bool:
        """Start a manager unless one runs; return False if the model must wait for a place on this host."""
        async with self._admission:
            if await self.is_served(status.model):
                return True
            if not await self._admit(status):
                return False
            self._starting.add(status.model)
        try:
            await self._launch(status)
        finally:
            self._starting.discard(status.model)
        self._log.info("started a manager", model=status.model, offset=status.offset_at_launch, log_seq=status.last_seq)
        return True

    async def _admit(self, status: ModelStatus) -> bool:
        """Return whether there is a place for a manager; otherwise its model waits."""
        starting = set(self._starting)  # a launch that ends meanwhile can be missing in the list
        served = await self._served() | starting
        is_new = status.model not in self._room.waiting
        if self._room.admits(status.model, served, self._clock.monotonic_ms()):
            return True
        if is_new:
            self._probe.point("dispatcher.no_place", model=status.model)
            self._log.warning("no more managers on this host", model=status.model, waiting=len(self._room.waiting))
            self._conditions.report_waits(
                status.model,
                f"no manager can be started: {self._settings.managers_max} run on this host, and none of them is"
                " idle (TEATREE_DISPATCHER_MANAGERS_MAX)",
            )
        return False

    async def _served(self) -> set[str]:
        return {run.model for run in await self._launcher.list() if run.exit is None}

    def used(self, model: str) -> None:
        """Note that a model is used: its manager is not idle."""
        self._room.used(model, self._clock.monotonic_ms())

    @property
    def waiting(self) -> tuple[str, ...]:
        """The models that wait for a place on this host."""
        return self._room.waiting

    async def make_room(self, registry: ModelRegistry, ask_chain: AskChain) -> None:
        """Ask the least recently used idle managers to end, as many as other models wait for."""
        served = await self._served()
        for model in self._room.candidates(served, self._clock.monotonic_ms()):
            if self._room.missing(served) <= 0:
                return
            status = registry.status(model)
            known = await ask_chain(status)
            if known.offset < status.last_seq:
                continue  # it has requests to apply
            self._log.info("an idle manager makes room", model=model, waiting=len(self._room.waiting))
            await self._launcher.dismiss(model)
            self._room.dismissed(model, self._clock.monotonic_ms())

    async def start_contender(self, status: ModelStatus) -> None:
        """Start a second manager where one lets its lease end: it takes over if that one hangs, else it leaves."""
        self._log.warning("a manager hangs: starting another", model=status.model)
        await self._launch(status)

    async def _launch(self, status: ModelStatus) -> None:
        with self._probe.step("dispatcher.launch", model=status.model):
            await self._launcher.launch(status.model)
        self._conditions.forget_reports(status.model)
        status.was_served = True
        status.offset_at_launch = status.published.offset if status.published else 0

    async def take_exits(self, registry: ModelRegistry, ask_chain: AskChain, *, all_models: bool) -> set[str]:
        """Decide when each manager that has ended may be started again; return their models.

        Without `all_models` only the models are looked at whose end was watched.
        """
        ended, self._ended = self._ended, set()
        if all_models:
            runs = [run for run in await self._launcher.list() if run.exit is not None]
        else:
            runs = [run for model in sorted(ended) for run in await self._launcher.find(model)]
        for run in runs:
            await self._take_exit(run, registry.status(run.model), ask_chain)
        await self._launcher.prepare()
        return {run.model for run in runs}

    async def look(self, status: ModelStatus, ask_chain: AskChain) -> bool:
        """Return whether a manager of one model runs; the end of one that does not is taken in first."""
        runs = await self._launcher.find(status.model)
        for run in runs:
            await self._take_exit(run, status, ask_chain)
        return any(run.exit is None for run in runs)

    async def _take_exit(self, run: ManagerRun, status: ModelStatus, ask_chain: AskChain) -> None:
        if run.exit is None:
            return
        progressed = await self._progressed(status, ask_chain)
        status.was_served = False
        status.restart = after_exit(
            status.restart,
            run.exit.code,
            reason=_reason(run.exit),
            progressed=progressed,
            fingerprint=await self._launcher.fingerprint(run.model),
            now_ms=self._clock.monotonic_ms(),
            ms_min=self._settings.restart_ms_min,
            ms_max=self._settings.restart_ms_max,
        )
        if status.retries_at_once and status.restart.stopped_by is not None:
            status.restart = attrs.evolve(status.restart, not_before_ms=0)
        status.retries_at_once = False
        await self._launcher.release(run)
        self._probe.point("dispatcher.exit", model=run.model, code=run.exit.code)
        self._log_exit(run.model, run.exit.code, status)
        if status.restart.is_stuck:
            self._conditions.report_error(run.model, _stuck_error(status))

    async def _progressed(self, status: ModelStatus, ask_chain: AskChain) -> bool:
        try:
            status.published = await ask_chain(status)
        except TeatreeError as e:
            # Counts as no progress: the backoff is longer, and the next round meets the same error and reports it.
            self._log.info("a manager's progress could not be read", model=status.model, **e.to_dict())
            return False
        return status.published.offset > status.offset_at_launch

    def _log_exit(self, model: str, code: int, status: ModelStatus) -> None:
        wait_ms = max(0, round(status.restart.not_before_ms - self._clock.monotonic_ms()))
        match code:
            case 0:
                self._log.info("a manager left", model=model)
            case _ if code == EXIT_ELSEWHERE:
                self._log.info("a manager left: another one has the model", model=model, wait_ms=wait_ms)
            case _ if code == EXIT_STUCK:
                self._log.warning("a manager ended itself over a request that does not end", model=model)
            case _ if code == EXIT_OPERATOR:
                self._log.error("a manager stopped for an operator", model=model, wait_ms=wait_ms)
            case _:
                self._log.warning(
                    "a manager crashed", model=model, code=code, crashes=status.restart.crashes, wait_ms=wait_ms
                )

    def starting_error(self, model: str) -> RetryError:
        """Return the error for a reader whose model's manager is starting, or about to leave."""
        return RetryError(
            Code.UNAVAILABLE,
            f"The manager of {model} does not answer yet.",
            where="model",
            hint="Ask again in a moment.",
        )

    def waiting_error(self, status: ModelStatus) -> RetryError:
        """Return the error for a reader whose model's manager may not be started yet."""
        if status.model in self._room.waiting:
            return RetryError(
                Code.UNAVAILABLE,
                f"{status.model} waits for a place: {self._settings.managers_max} managers run on this host.",
                where="model",
                hint="Ask again; TEATREE_DISPATCHER_MANAGERS_MAX allows more.",
            )
        wait_s = max(0.0, status.restart.not_before_ms - self._clock.monotonic_ms()) / 1000
        why = "stopped for an operator" if status.restart.stopped_by else "crashed and waits to be started again"
        return RetryError(
            Code.UNAVAILABLE,
            f"The manager of {status.model} {why} ({wait_s:.0f} s).",
            where="model",
            hint="`teatree models` and its manager.log show why.",
        )


def _reason(ended: ManagerExit) -> str | None:
    """Return why a manager crashed, in the same words each time; None if it left, or if a part was unavailable."""
    if ended.code in (0, EXIT_ELSEWHERE, EXIT_OPERATOR, EXIT_STUCK) or (
        ended.reason is not None and ended.reason.is_passing
    ):
        return None
    if ended.reason is not None:
        return f"{ended.reason.code}: {ended.reason.message}"
    return f"ended by signal {-ended.code}" if ended.code < 0 else f"exit code {ended.code}"


def _stuck_error(status: ModelStatus) -> dict[str, Any]:
    return OperatorError(
        Code.INTERNAL,
        f"{status.restart.repeats} managers of {status.model} in a row ended with the same error:"
        f" {status.restart.reason}",
        where="manager.log",
        hint=f"A manager is started again in growing intervals; `teatree resume {status.model}` starts one now, with"
        " --restore from the newest version in the store.",
    ).to_dict()
