"""The dispatcher's loop: every model with requests beyond its published offset has a manager, or gets one.

It is level-triggered: everything is decided from the log and the chain as they are, never from events. Hints and ended
managers only make it look sooner; the timer guarantees that it looks. One task runs the loop, one receives direct
reads; both belong to one event loop, and blocking work (store, PostgreSQL) runs on threads. Stopping it stops no
manager.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import attrs

from teatree.contracts.errors import Code, CorruptError, OperatorError, RequestError, RetryError, TeatreeError
from teatree.functions.traits import Nature
from teatree.messaging.log import WakeHints
from teatree.messaging.subjects import ADVANCED
from teatree.storage.objects.base import ObjectStore
from teatree.storage.versions.chain import Chain
from teatree_dispatcher.catalog_view import CatalogView
from teatree_dispatcher.context import DispatcherContext
from teatree_dispatcher.earlier_outcomes import EarlierOutcomes
from teatree_dispatcher.launchers.base import Launcher
from teatree_dispatcher.log_fault import log_fault
from teatree_dispatcher.log_view import LogView
from teatree_dispatcher.managers import Managers
from teatree_dispatcher.model_registry import ModelRegistry, ModelStatus
from teatree_dispatcher.placement import Need, PublishedState, need, published
from teatree_dispatcher.purge import purge
from teatree_dispatcher.reads import Pings, ReadObserver
from teatree_dispatcher.rejecter import Rejecter

HINT_PAUSE_S = 0.005
"""Seconds to wait for further hints, so that they are handled together."""
REJECT_ROUNDS_MAX = 10
"""Portions of requests rejected for one model before the others have their turn."""
CHAINS_AT_ONCE = 8
"""Chains read at the same time when many models are new."""


class Dispatcher:
    """Keeps managers running for the models that need one."""

    def __init__(
        self, context: DispatcherContext, store: ObjectStore, catalog: CatalogView, launcher: Launcher
    ) -> None:
        bus, functions, log = context.bus, context.functions, context.log
        self._bus = bus
        self._store = store
        self._catalog = catalog
        self._settings = context.settings
        self._clock = bus.clock
        self._probe = bus.probe
        self._log = log
        earlier = EarlierOutcomes(store, bus.subjects, context.limits, functions, bus.payload_bytes_max)
        self._rejecter = Rejecter(bus, earlier, functions)
        self._managers = Managers(launcher, context.settings, log, catalog, bus.probe, bus.clock)
        self._pings = Pings(bus)
        self._reads = ReadObserver(bus, self._answer_read)
        self._registry = ModelRegistry()
        self._view = LogView(bus, self._registry, functions.with_nature(Nature.ENDS), log, context.log_index)
        self._looked_at_ms = float("-inf")
        self._purged_at_ms = float("-inf")
        self._purge_fault: OperatorError | None = None
        self._trouble: str | None = None
        self._woken = asyncio.Event()
        self._unrejected: set[str] = set()
        """Models with more requests to reject, after the others had their turn."""

    async def run(self, stop: asyncio.Event) -> None:
        """Dispatch until `stop` is set; managers keep running."""
        hints = await WakeHints.open(self._bus)
        await self._reads.open()
        works = (
            self._reads.run(),
            self._catalog.run(self._start_contender),
            self._managers.watch(self._woken.set),
        )
        beside = [asyncio.create_task(work) for work in works]
        stopping = asyncio.create_task(stop.wait())
        try:
            await self._catalog.wait_first()
            while not stop.is_set():
                turn = asyncio.create_task(self._turn(hints))
                await asyncio.wait({turn, *beside, stopping}, return_when=asyncio.FIRST_COMPLETED)
                for task in (turn, *beside):
                    if task.done():
                        task.result()  # raises a fault of ours, which ends the process
                await _cancelled(turn)
        finally:
            await _cancelled(*beside, stopping)

    async def _turn(self, hints: WakeHints) -> None:
        """Look, then wait for a hint, an ended manager or the timer; after an error the timer tries again."""
        try:
            if self._clock.monotonic_ms() - self._looked_at_ms >= self._settings.poll_ms:
                with self._probe.step("dispatcher.look"):
                    await self._look_at_all(hints)
                await self._purge_when_due()
            else:
                with self._probe.step("dispatcher.look_hinted"):
                    await self._look_at_hinted(hints)
        except TeatreeError as e:
            self._looked_at_ms = self._clock.monotonic_ms()
            if str(e) != self._trouble:  # once, not with every try
                self._trouble = str(e)
                self._log.warning("the dispatcher cannot read the log", **e.to_dict())
            await self._clock.sleep_async(self._settings.poll_ms / 1000)
            return
        if self._trouble is not None:
            self._trouble = None
            self._log.info("the dispatcher can read the log again")
        await self._pause(hints)

    async def _pause(self, hints: WakeHints) -> None:
        due_ms = min(self._looked_at_ms + self._settings.poll_ms, self._managers.due_at_ms)
        timeout_s = max(0.001, (due_ms - self._clock.monotonic_ms()) / 1000)
        over = self._clock.sleep_async(timeout_s)
        waits = [asyncio.ensure_future(each) for each in (self._woken.wait(), hints.event.wait(), over)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancelled(*waits)
        if hints.event.is_set():
            await self._clock.sleep_async(HINT_PAUSE_S)

    # --- looking -----------------------------------------------------------------------------------------------------

    async def _look_at_all(self, hints: WakeHints) -> None:
        """Read from the log what is new, then look at every model that is not idle."""
        self._looked_at_ms = self._clock.monotonic_ms()
        self._woken.clear()
        self._retry_if_advanced(hints.take()[0])
        await self._view.read()
        for model in await self._managers.unfinished():
            self._registry.status(model)
        await self._managers.take_exits(self._registry, self._ask_chain, all_models=True)
        await self._look_at(self._registry, timed=True)

    async def _look_at_hinted(self, hints: WakeHints) -> None:
        """Look at the models that hints and ended managers name, without those that a manager serves."""
        self._woken.clear()
        models, missed = hints.take()
        self._retry_if_advanced(models)
        if missed:
            await self._look_at_all(hints)
            return
        again, self._unrejected = self._unrejected, set()
        ended = await self._managers.take_exits(self._registry, self._ask_chain, all_models=False)
        asked = ended | {model for model in models if not await self._is_well_served(model)}
        if asked:
            await self._view.read_models(asked)
        for model in models:
            self._managers.used(model)
        waiting = {status.model for status in self._registry if status.restart.crashes and not status.was_served}
        waiting |= set(self._managers.waiting)
        await self._look_at([self._registry.status(model) for model in sorted(asked | waiting | again)], timed=False)

    def _retry_if_advanced(self, models: set[str]) -> None:
        """Start managers again at once: an operator has resumed a model, or the models after the log was truncated."""
        if ADVANCED not in models:
            return
        models.discard(ADVANCED)
        for status in self._registry:
            status.retries_at_once = status.was_served  # that manager may have checked a moment too early
            status.restart = attrs.evolve(status.restart, not_before_ms=0)

    async def _is_well_served(self, model: str) -> bool:
        status = self._registry.find(model)
        known = status.published if status else None
        return known is not None and known.is_alive and await self._managers.is_served(model)

    async def _look_at(self, statuses: Iterable[ModelStatus], *, timed: bool) -> None:
        self._managers.due_at_ms = float("inf")
        statuses = list(statuses)
        unfinished = await self._managers.unfinished() if statuses else ()
        for status in statuses:
            status.is_unfinished = status.model in unfinished
        busy = [status for status in statuses if not status.is_idle(self._view.place)]
        slots = asyncio.Semaphore(CHAINS_AT_ONCE)
        await asyncio.gather(*(self._look_safely(status, slots, timed=timed) for status in busy))
        await self._managers.make_room(self._registry, self._ask_chain)

    async def _look_safely(self, status: ModelStatus, slots: asyncio.Semaphore, *, timed: bool) -> None:
        """Look at one model; an error is reported once, and does not affect the others."""
        try:
            async with slots:
                await self._look(status, timed=timed)
            status.trouble = None
        except TeatreeError as e:
            if status.trouble != str(e):
                status.trouble = str(e)
                self._log.warning("a model cannot be looked after", model=status.model, **e.to_dict())

    async def _look(self, status: ModelStatus, *, timed: bool) -> None:
        """Find out what one model needs, confirm it with the chain, do it."""
        is_fresh = status.name_error is not None
        if status.name_error is not None:
            status.published = PublishedState()
        # Checked before the chain is read: then what a manager published before it ended is read too.
        is_served = status.name_error is None and await self._managers.look(status, self._ask_chain)
        status.was_served = is_served
        for _ in range(REJECT_ROUNDS_MAX):
            if not is_served:
                status.log_truncated = await self._is_truncated(status)
            match need(status.placement_input(self._view.place, is_served=is_served)):
                case Need.NOTHING:
                    break
                case Need.REJECT:
                    await self._reject(status)
                case Need.MANAGER if not await self._managers.is_due(status):
                    break
                case Need.REFRESH | Need.MANAGER if not is_fresh and (timed or not is_served):
                    try:
                        status.published = await self._ask_chain(status)
                    except CorruptError:
                        if not is_served and await self._managers.is_due(status):
                            await self._managers.start(status)  # it finds the same, and records it for `teatree models`
                        raise
                    is_fresh = True
                case Need.MANAGER:
                    await self._managers.start(status)
                    break
                case Need.REFRESH:  # it is fresh: the manager works on the rest
                    break
        else:
            self._unrejected.add(status.model)
            self._woken.set()
        if status.name_error is not None and status.is_idle(self._view.place):
            self._registry.forget(status.model)

    async def _is_truncated(self, status: ModelStatus) -> bool:
        """Return whether the log lost an idle model's last request: later requests would be passed over silently."""
        known, place = status.published, self._view.place
        if known is None or not status.is_to_check(place):
            return False
        fault = await log_fault(self._bus, status.model, known)
        status.checked = (known.offset, place.losses)
        return fault is not None

    async def _start_contender(self, model: str) -> None:
        """Start a successor where a manager runs and lets its lease end."""
        status = self._registry.find(model)
        if status is not None and status.was_served and await self._managers.is_served(model):
            await self._managers.start_contender(status)

    async def _ask_chain(self, status: ModelStatus) -> PublishedState:
        chain = Chain(self._store, self._bus.prefix, status.model)
        known = max(status.published.version if status.published else 0, self._catalog.version(status.model))
        return published(await asyncio.to_thread(chain.newest, known))

    # --- requests outside an incarnation -----------------------------------------------------------------------------

    async def _reject(self, status: ModelStatus) -> None:
        if status.name_error is None and await self._catch_up(status):
            return
        found = await self._rejecter.reject(status.model, status.position, status.name_error)
        if found.rejected:
            self._log.info("rejected requests outside an incarnation", model=status.model, count=found.rejected)
        status.rejected_through, status.create_seq = found.rejected_through, found.create_seq
        if found.is_complete and not found.create_seq:
            # Also passes requests that cannot be read under this name: purged, or a subject that is not UTF-8.
            status.rejected_through = max(status.rejected_through, status.last_seq)

    async def _catch_up(self, status: ModelStatus) -> bool:
        """Read the chain if the catalog holds a newer version; return whether it does.

        Raises `corrupt` if the chain lacks it: no request is rejected on the evidence of a wrong store.
        """
        expected = self._catalog.version(status.model)
        if status.published is not None and expected <= status.published.version:
            return False
        status.published = await self._ask_chain(status)
        if expected > status.published.version:
            raise OperatorError(
                Code.CORRUPT,
                f"The catalog has version {expected} of {status.model};"
                f" the object store has {status.published.version}.",
                where=Chain(self._store, self._bus.prefix, status.model).folder,
                hint="Is TEATREE_STORE_URL right? If it is, run `teatree catalog rebuild`.",
            )
        return True

    # --- direct reads ------------------------------------------------------------------------------------------------

    async def _answer_read(self, model: str) -> TeatreeError | None:
        """Start the manager that a read needs; return the error for the reader, None while a manager serves."""
        status = self._registry.find(model) or ModelStatus(model)
        if status.name_error is not None:
            return status.name_error
        self._managers.used(model)
        if await self._managers.is_served(model):
            return None if await self._pings.has_service(model) else self._managers.starting_error(model)
        known = await self._ask_chain(status)
        if not known.is_alive:
            return self._not_alive(status, known)
        status = self._registry.status(model)
        status.published = known
        if not await self._managers.is_due(status):
            return self._managers.waiting_error(status)
        if not await self._managers.start(status):
            self._woken.set()  # the next round makes room
            return self._managers.waiting_error(status)
        return self._managers.starting_error(model)

    def _not_alive(self, status: ModelStatus, known: PublishedState) -> TeatreeError:
        if status.last_seq > max(status.rejected_through, known.offset):
            return RetryError(
                Code.UNAVAILABLE, f"{status.model} has requests that were not applied yet.", where="model"
            )
        return RequestError(
            Code.UNKNOWN_MODEL,
            f"There is no model {status.model!r}.",
            where="model",
            hint="`teatree models` lists what there is.",
        )

    # --- purging -----------------------------------------------------------------------------------------------------

    async def _purge_when_due(self) -> None:
        if self._clock.monotonic_ms() - self._purged_at_ms < self._settings.purge_interval_ms:
            return
        self._purged_at_ms = self._clock.monotonic_ms()
        before, self._purge_fault = self._purge_fault, None
        purged = await purge(self._bus, self._registry, self._settings.retention_days, self._done_with)
        if purged:
            self._log.info("purged the log", requests=purged)
        fault = self._purge_fault
        if fault is not None and str(fault) != str(before):  # once, not with every try
            self._log.warning("nothing is purged until a model is resumed", **fault.to_dict())

    async def _done_with(self, model: str) -> int | None:
        if self._bus.losses != self._view.place.losses:
            return None  # the log may have been truncated since it was read
        status = self._registry.find(model)
        if status is None:
            # An invalid name was answered and forgotten; a valid one arrived after the last round.
            return self._view.place.last_seq if ModelStatus(model).name_error is not None else 0
        if status.name_error is not None:
            return status.rejected_through
        known = await self._ask_chain(status)
        if known.offset and known.log_created != self._view.place.created:
            return 0  # the offset belongs to another log
        self._purge_fault = await log_fault(self._bus, model, known)
        if self._purge_fault is not None:
            return None
        return known.offset if known.is_alive else max(known.offset, status.rejected_through)


async def _cancelled(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
