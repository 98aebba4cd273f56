"""One transaction of a batch: runs requests in their order on the open data, batchable neighbours together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from attrs import evolve, frozen

from teatree.contracts.errors import AppError, Code, CorruptError, OperatorError, RequestError, TeatreeError
from teatree.contracts.formats.notices import Outcome, Status, outcome_of
from teatree.contracts.formats.requests import Request
from teatree.contracts.probe import Probe
from teatree.contracts.settings import LimitSettings
from teatree.engine.apply.ledger import EarlierOutcome, Ledger, LostOutcome
from teatree.engine.apply.outcomes import lost, refusal, repeated
from teatree.engine.base import During, WriteConnection
from teatree.engine.errors import not_enough_memory
from teatree.functions.arguments import Call, CallContext
from teatree.functions.pages import Page, column_types, cut_pages, page_key
from teatree.functions.query import QueryResult
from teatree.functions.registry import Registry
from teatree.functions.traits import Function, Nature, Traits
from teatree.functions.waiting_calls import CallGroup, WaitingCalls
from teatree.storage.ledger.segments import Entry, Role
from teatree.storage.versions.packs import checksum


class UnexpectedError(OperatorError):
    """An internal error in one request: it ends as `failed`, its neighbours commit."""

    def __init__(self, function: str, cause: Exception) -> None:
        reason = f"{type(cause).__name__}: {cause}"[:300]
        super().__init__(Code.INTERNAL, f"{function} failed because of an error in Teatree: {reason}", where="function")


@frozen
class BatchContext:
    """The connection through which a batch is applied to a model, and the services that it uses."""

    connection: WriteConnection
    ledger: Ledger
    call_context: CallContext
    """What functions may use beside their handle."""
    functions: Registry
    put_page: Callable[[str, bytes], None]
    """Stores a page under its key below the model's folder."""
    during: During
    """Surrounds each run of a function of an app."""
    probe: Probe


@frozen
class NextVersion:
    """The version that a batch will become, and facts about earlier ones that its transactions need."""

    version: int
    write_id: str
    shipped_version: int
    """The newest version whose commits the engine may forget."""
    offset_of: Callable[[int], int]
    """Returns the offset of a published version; raises `unknown_version`."""


@frozen
class AppChange:
    """The app that a model has from now on; None for none."""

    name: str | None


@frozen
class Item:
    """One request of a batch, with an earlier use of its id."""

    request: Request
    earlier: EarlierOutcome | LostOutcome | None = None
    """Its first outcome, in an earlier batch."""
    twin: Request | None = None
    """An earlier request of the same batch under the same id."""


@frozen
class ExtraChecks:
    """What is checked before a request runs since one of its batch failed; each costs a query."""

    keys: bool = False
    """Waiting calls that repeat a key are found before they run: an append repeated one, and others are likely to."""
    rows: bool = False
    """Memory is measured before each request that makes rows: one may have made too many."""


class Transaction:
    """Runs requests; the caller begins, commits or rolls back."""

    def __init__(
        self,
        context: BatchContext,
        next_version: NextVersion,
        earlier: Mapping[str, Outcome],
        refused: Sequence[Entry],
        last_effect_seq: int,
        checks: ExtraChecks,
    ) -> None:
        """`earlier` are the outcomes of this batch so far, by id; those that were `refused` are not committed yet."""
        self._context = context
        self._handle = context.connection.handle
        self._limits = context.call_context.limits
        self._next_version = next_version
        self._earlier = earlier
        self._outcomes: dict[str, Outcome] = {}
        self._waiting: tuple[Function, WaitingCalls] | None = None
        """Calls of a batchable function that were checked and answered, but not run yet."""
        self._checks = checks
        self._effect_seq_before = last_effect_seq
        self.entries: list[Entry] = list(refused)
        self.last_effect_seq = last_effect_seq
        self.archive: tuple[str, ...] | None = None
        self.dropped = False
        """Whether a request dropped the model."""
        self.app_change: AppChange | None = None
        """What a request changed the model's app to."""
        self.culprit: int | None = None
        """After an error: the place of the item that caused it; None if it may be any of the waiting calls."""

    def run(self, items: Sequence[Item]) -> None:
        """Run the items; after an exception the whole transaction is void."""
        for place, item in enumerate(items):
            self._context.probe.point("manager.apply.request", request=item.request)
            if item.earlier is not None or item.twin is not None:
                self._answer(item)
            else:
                self._run_one(item.request, place)
        self._flush()

    def _answer(self, item: Item) -> None:
        """End a resend with the first outcome, and refuse another body under a used id."""
        request = item.request
        if self._checks.keys:
            self._flush()  # the first can be a waiting call that the flush refuses
        if isinstance(item.earlier, LostOutcome):
            self._keep(lost(request, item.earlier))
            return
        if item.earlier is not None:
            first, version = item.earlier.entry.outcome, item.earlier.version
        else:
            first, version = self._outcomes.get(request.request_id) or self._earlier[request.request_id], None
        self._keep(repeated(request, first, version))

    def _run_one(self, request: Request, place: int) -> None:
        statements = self._handle.statements
        self.culprit = place
        try:
            function = self._find(request)
            call = Call(request, self._context.call_context)
            if call.expected_version is not None and self._checks.keys:
                statements = self._flush_before(place)  # a waiting call that is refused has no effect
            self._check_expected_version(call)
            waiting = self._waiting_calls(function, request)
            if self._waiting is None or self._waiting[1] is not waiting:
                statements = self._flush_before(place)
            if waiting is None:
                self._run_function(request, function, call)
            else:
                self._wait(function, waiting, call)
        except (RequestError, AppError) as e:
            if self._handle.statements != statements:
                raise  # the transaction holds part of it, or is void
            self._keep(refusal(request, e, self._context.functions.traits(request.function)))
        except TeatreeError:
            raise
        except MemoryError as e:
            raise not_enough_memory() from e
        except Exception as e:
            raise UnexpectedError(request.function, e) from e
        self.culprit = None

    def _flush_before(self, place: int) -> int:
        """Run the waiting calls before the item at a place; return the number of statements so far."""
        self._flush()
        self.culprit = place
        return self._handle.statements

    def _find(self, request: Request) -> Function:
        if request.invalid is not None:
            raise request.invalid
        return self._context.functions.require(request.function)

    def _run_function(self, request: Request, function: Function, call: Call) -> None:
        connection, limits, traits = self._context.connection, self._limits, function.traits
        handle = self._handle
        handle.written.clear()
        limit_ms = _time_ms_max(traits, limits)
        stuck_ms = limit_ms + limits.stuck_ms_max
        during = nullcontext() if traits.app is None else self._context.during(request, stuck_ms)
        with connection.time_limit(limit_ms, request.function, [request]) as block:
            with during, connection.memory_limit(traits, exactly=self._checks.rows):
                result = function.run(handle, call)
            pages = cut_pages(result, limits.pages_max, block.check) if isinstance(result, QueryResult) else []
        done = partial(
            outcome_of,
            request,
            Status.DONE,
            tables=tuple(sorted(handle.written)),
            app=traits.app,
            reads=call.reads,
        )
        self._done(request, function, result, pages, done)

    def _check_expected_version(self, call: Call) -> None:
        expected = call.expected_version
        if expected is None:
            return
        try:
            offset = self._next_version.offset_of(expected)
        except RequestError as e:  # its `where` names an object in the store
            raise RequestError(e.code, e.message, where="expected_version", hint=e.hint) from None
        except CorruptError as e:
            raise RequestError(
                Code.BAD_SOURCE,
                f"Version {expected} cannot be compared with: {e.message}",
                where="expected_version",
                hint="Read the newest version and decide again.",
            ) from e
        if self.last_effect_seq > offset:
            raise RequestError(
                Code.STALE_VERSION,
                f"Request {self.last_effect_seq} of the log changed the model after version {expected}.",
                where="expected_version",
                hint="Read the newest version and decide again.",
            )

    def _waiting_calls(self, function: Function, request: Request) -> WaitingCalls | None:
        """Return the waiting calls that a request can join, None if it must run alone."""
        if function.waiting is None:
            return None
        known = self._waiting
        waiting = known[1] if known is not None and known[0] is function else function.waiting()
        return waiting if waiting.takes(request) else None

    def _wait(self, function: Function, waiting: WaitingCalls, call: Call) -> None:
        """Check a call and keep it to be run together with its neighbours."""
        result, tables = waiting.add(len(self.entries), self._handle, call)
        self._waiting = function, waiting
        self._keep(Entry(outcome_of(call.request, Status.DONE, result=result, effect=True, tables=tables)))
        if waiting.size_bytes > self._limits.rows_bytes_max:
            self._flush()

    def _flush(self) -> None:
        """Run the waiting calls."""
        self.culprit = None
        if self._waiting is None:
            return
        function, waiting = self._waiting
        limit_ms = _time_ms_max(function.traits, self._limits)
        for group in waiting.groups():
            with self._context.connection.time_limit(limit_ms, function.name, group.requests):
                try:
                    self._run_group(function, group)
                except MemoryError as e:
                    raise not_enough_memory() from e
        self._waiting = None

    def _run_group(self, function: Function, group: CallGroup) -> None:
        handle = self._handle
        refusals = group.refusals(handle) if self._checks.keys else {}
        for place, error in refusals.items():
            self._refuse_waiting(place, error, function.traits)
        if refusals:
            effects = (e.outcome.seq for e in self.entries if e.outcome.effect)
            self.last_effect_seq = max(effects, default=self._effect_seq_before)
        group.run(handle, without=refusals.keys())

    def _refuse_waiting(self, place: int, error: RequestError, traits: Traits) -> None:
        """Replace the outcome of a call that was not run after all."""
        error.where = error.where or traits.error_place
        done = self.entries[place].outcome
        refused = evolve(done, status=Status.REJECTED, result=None, error=error.to_dict(), effect=False, tables=())
        self.entries[place] = Entry(refused)
        self._outcomes[done.request_id] = refused

    def _done(
        self, request: Request, function: Function, result: Any, pages: Sequence[Page], done: partial[Outcome]
    ) -> None:
        """Keep the outcome that `done` makes of a result."""
        match function.traits.nature:
            case Nature.READS if isinstance(result, QueryResult):
                shown, stored = self._store_pages(request, result, pages)
                self._keep(Entry(done(result=shown, pages=stored)))
            case Nature.READS:
                self._keep(Entry(done(result=result)))
            case Nature.BARRIER:
                handle = self._handle
                self.archive = tuple(handle.table(name).name for name in result)
                self._keep(Entry(done(result={"tables": list(self.archive or handle.tables())})))
            case Nature.WRITES:
                self._keep(Entry(done(result=result, effect=True)))
            case Nature.ENDS:
                self.dropped = True
                self._keep(Entry(done(result={}, effect=True)))
            case Nature.CONFIGURES:
                self.app_change = AppChange(result)
                self._keep(Entry(done(result={"app": result})))
            case Nature.BEGINS:
                raise RequestError(Code.MODEL_EXISTS, f"The model {request.model!r} exists already.", where="model")

    def _store_pages(
        self, request: Request, answer: QueryResult, pages: Sequence[Page]
    ) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
        """Store a query's pages before the commit, so that they can be published again after a crash."""
        stored: list[dict[str, Any]] = []
        for page in pages:
            key = page_key(self._next_version.version, self._next_version.write_id, request.request_id, page.number)
            self._context.put_page(key, page.body)
            stored.append(
                {
                    "ref": key,
                    "rows": page.rows,
                    "bytes": len(page.body),
                    "format": page.format,
                    "checksum": checksum(page.body),
                }
            )
        return {"rows": answer.rows.num_rows, "pages": len(stored), "columns": column_types(answer)}, tuple(stored)

    def _keep(self, entry: Entry) -> None:
        self.entries.append(entry)
        outcome = entry.outcome
        if entry.role is Role.FIRST:
            self._outcomes[outcome.request_id] = outcome
        if outcome.effect:
            self.last_effect_seq = outcome.seq


def _time_ms_max(traits: Traits, limits: LimitSettings) -> int:
    if traits.time_ms_max is not None:
        return traits.time_ms_max
    if traits.nature is Nature.READS:
        return limits.query_time_ms_max
    return limits.load_time_ms_max if traits.copies else limits.request_time_ms_max
