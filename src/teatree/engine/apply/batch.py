"""Batches: many requests applied in one transaction, and the search for the culprit when it fails.

An engine needs no savepoints: any error may void the whole transaction. So when a batch fails it is rolled back; the
requests before the culprit are applied and committed first, then the culprit begins the next transaction: if it fails
there, it is rejected on exactly the state that its predecessors left, and the transaction of those that follow commits
the rejection. Appends are inserted together: when one of them repeats a key, they are run again with their keys looked
up first (`CallGroup.refusals`); after any other error, the batch is halved until the culprit is alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from attrs import evolve, field, frozen

from teatree.contracts.errors import AppError, Code, OperatorError, RequestError, RetryError, TeatreeError
from teatree.contracts.formats.manifest import ForkPoint, ModelOptions
from teatree.contracts.formats.notices import Outcome
from teatree.contracts.formats.provenance import AppCode
from teatree.contracts.formats.requests import LogPosition, Request
from teatree.contracts.formats.steps import Steps
from teatree.contracts.logs import log_event
from teatree.engine.apply.ledger import Ledger
from teatree.engine.apply.outcomes import refusal
from teatree.engine.apply.transaction import (
    AppChange,
    BatchContext,
    ExtraChecks,
    Item,
    NextVersion,
    Transaction,
    UnexpectedError,
)
from teatree.engine.commits import Commit
from teatree.engine.errors import InvalidatedError, TooManyRowsError, UnsureRowsError
from teatree.functions.registry import Registry
from teatree.functions.traits import Nature
from teatree.storage.ledger.segments import Entry, Role, decode_segment, encode_segment

FAILED_CODES = frozenset({Code.TIMED_OUT, Code.OVER_LIMIT, Code.SOURCE_UNAVAILABLE})
"""Errors that one request causes, though it is valid: it ends as `failed`, its neighbours commit."""

SINGLES_MIN = 16
SINGLES_MAX = 256
"""Requests that run in a transaction each after one failed shortly after another: twice as many each time."""


@frozen
class Creation:
    """What a `create_model` sets for the model's manifests."""

    options: ModelOptions
    fork_of: ForkPoint | None


@frozen
class Applied:
    """The result of a batch: committed, not shipped."""

    version: int
    write_id: str
    offset: int
    log_at: datetime
    last_effect_seq: int
    entries: tuple[Entry, ...]
    segment: bytes
    """The entries, encoded."""
    changed_tables: frozenset[str]
    archive: tuple[str, ...] | None = None
    """Tables of an `archive` request among them, () for all: its outcome waits for the archive."""
    creation: Creation | None = None
    """What its `create_model` set; None for a batch without one."""
    dropped: bool = False
    """Whether it dropped the model."""
    app_change: AppChange | None = None
    """What it changed the model's app to."""
    app: AppCode | None = None
    """The code of the app that it could call; None if there was none."""
    steps: Steps = field(factory=Steps.begin, eq=False)


@frozen
class _Invalidated:
    """Requests during which the engine invalidated its data because memory ran out."""

    seqs: frozenset[int]
    culprit: int | None
    error: RetryError


class Batch:
    """One batch that is being applied, and what its transactions have committed so far. One thread uses it."""

    def __init__(self, context: BatchContext, next_version: NextVersion, last_effect_seq: int) -> None:
        self._context = context
        self._next_version = next_version
        self._last_effect_seq = last_effect_seq
        self._last: LogPosition | None = None
        self._entries: list[Entry] = []
        self._outcomes: dict[str, Outcome] = {}
        """By id: those of the entries, and of refused requests."""
        self._refused: list[tuple[Request, Entry]] = []
        """Refused since the last commit; they are committed with the next one."""
        self._checks = ExtraChecks()
        self._singles = SINGLES_MIN // 2
        self._segments: list[bytes] = []
        self._changed_tables: set[str] = set()
        self._archive: tuple[str, ...] | None = None
        self._dropped = False
        self._app_change: AppChange | None = None
        self._invalidated: _Invalidated | None = None
        self._checkpointed = True
        """Whether no table has changed since the last checkpoint."""

    def apply(self, requests: Sequence[Request]) -> Applied:
        """Apply requests in their order; return when all are committed, each with its outcome.

        Raises a `RetryError` (disk full, store unavailable) or an `OperatorError` for a failure that no request
        caused: what is committed of the batch stays, and `ModelData.commits` shows how far that is.
        """
        self._refused.clear()  # refused by a try that failed
        if requests:
            try:
                self._commit_after(self._invalidated, _items(requests, self._context.ledger))
            except RetryError as e:
                if e.code is Code.OVER_LIMIT and self._refused:  # its memory was not released: too little to refuse it
                    self._invalidated = self._invalidated or _Invalidated(frozenset({self._refused[-1][0].seq}), 0, e)
                raise
        return self._applied()

    def _commit_after(self, invalidated: _Invalidated | None, items: Sequence[Item]) -> None:
        """Commit the items; those of a transaction that exhausted the memory are not repeated in the same form."""
        self._invalidated = None
        seqs = invalidated.seqs if invalidated else frozenset()
        part = [item for item in items if item.request.seq in seqs]
        if invalidated is None or len(part) < len(seqs):  # none, or they were committed after all
            self._commit(items)
            return
        if before := [item for item in items if item.request.seq < min(seqs)]:
            self._commit(before)
        rest = [item for item in items if item.request.seq > max(seqs)]
        parts = self._after_failure(part, invalidated.culprit, invalidated.error)
        self._commit(*parts, *([rest] if rest else []))

    def refuse(self, request: Request, error: TeatreeError) -> Applied:
        """Commit that a request had no effect, and why."""
        self._refuse(request, error)
        self._commit_refused()
        return self._applied()

    @property
    def offset(self) -> int:
        """Sequence of the last request that it committed, 0 before the first."""
        return self._last.seq if self._last else 0

    def use(self, context: BatchContext) -> None:
        """Continue on data that were opened again."""
        self._context = context

    def adopt(self, commits: Sequence[Commit]) -> None:
        """Take over those of this batch that are missing here: their COMMIT failed after they reached the disk."""
        for commit in commits:
            if commit.write_id != self._next_version.write_id or commit.offset <= self.offset:
                continue
            entries = decode_segment(commit.outcomes, f"commit {commit.offset}")
            functions = self._context.functions
            self._take(commit, entries, archive_of(entries, functions), app_change_of(entries, functions))

    def _take(
        self,
        commit: Commit,
        entries: Sequence[Entry],
        archive: tuple[str, ...] | None,
        app_change: AppChange | None,
    ) -> None:
        self._last = LogPosition(commit.offset, commit.log_at)
        self._entries.extend(entries)
        self._segments.append(commit.outcomes)
        self._last_effect_seq = commit.last_effect_seq
        self._changed_tables.update(commit.changed_tables)
        self._checkpointed = self._checkpointed and not commit.changed_tables
        self._archive = archive if archive is not None else self._archive
        self._dropped = commit.dropped
        self._app_change = app_change or self._app_change
        self._context.ledger.add(self._next_version.version, entries)
        self._outcomes.update({e.outcome.request_id: e.outcome for e in entries if e.role is Role.FIRST})
        self._refused.clear()

    def _applied(self) -> Applied:
        last = self._last
        if last is None:
            raise OperatorError(Code.INTERNAL, "A batch without requests was applied.")
        if not self._context.connection.is_committed(last.seq):
            raise OperatorError(Code.INTERNAL, f"The data do not hold the commit of request {last.seq}.")
        return Applied(
            version=self._next_version.version,
            write_id=self._next_version.write_id,
            offset=last.seq,
            log_at=last.at,
            last_effect_seq=self._last_effect_seq,
            entries=tuple(self._entries),
            segment=self._segments[0] if len(self._segments) == 1 else encode_segment(self._entries),
            changed_tables=frozenset(self._changed_tables),
            archive=self._archive,
            dropped=self._dropped,
            app_change=self._app_change,
            app=self._context.functions.app_code,
        )

    def _commit(self, *parts: Sequence[Item]) -> None:
        """Commit parts of the items, each item with its outcome, in as few transactions as their errors allow."""
        waiting = list(reversed(parts))
        while waiting:
            part = waiting.pop()
            transaction = self._transaction()
            try:
                self._in_transaction(transaction, partial(Transaction.run, items=part), part)
            except InvalidatedError as e:
                if e.code is Code.OVER_LIMIT:  # it would recur, unlike a full disk
                    seqs = frozenset(item.request.seq for item in part)
                    self._invalidated = _Invalidated(seqs, transaction.culprit, e)
                raise
            except (RequestError, RetryError, AppError, UnexpectedError) as e:
                if isinstance(e, RetryError) and e.code not in FAILED_CODES:
                    raise
                waiting.extend(reversed(self._after_failure(part, transaction.culprit, e)))
        self._commit_refused()

    def _after_failure(self, part: Sequence[Item], culprit: int | None, error: TeatreeError) -> list[Sequence[Item]]:
        """Return what is to be committed next; the first item of a transaction is refused if it failed.

        An item whose error cannot depend on its predecessors is not tried again after them.
        """
        if culprit is None and error.code is Code.CONSTRAINT and not self._checks.keys:
            self._checks = evolve(self._checks, keys=True)
            return [part]
        if isinstance(error, UnsureRowsError):
            self._checks = evolve(self._checks, rows=True)
            return [part]
        if culprit and _is_its_own(error):
            self._commit(part[:culprit])
            part, culprit = part[culprit:], 0
        if culprit == 0 or len(part) == 1:
            if error.code is Code.CONSTRAINT and not self._checkpointed and self._may_move_keys(part[0].request):
                self._context.connection.checkpoint()
                self._checkpointed = True
                return [part]
            self._refuse(part[0].request, error)
            if not isinstance(error, RequestError):
                self._commit_refused()  # a failure can take long: it must not be repeated
            return [part[1:]] if len(part) > 1 else []
        if culprit is None:
            return [part[: len(part) // 2], part[len(part) // 2 :]]
        singles = self._next_singles(culprit)
        alone = [part[place : place + 1] for place in range(culprit, min(culprit + singles, len(part)))]
        rest = part[culprit + len(alone) :]
        return [part[:culprit], *alone, *([rest] if rest else [])]

    def _may_move_keys(self, request: Request) -> bool:
        """Return whether a request can change keys in place.

        DuckDB reports a duplicate for a key that another row of the same UPDATE gives up, but only if that row was
        written after the last checkpoint: the outcome must not depend on that, and so on the batch
        (docs/decisions/0020).
        """
        moves_keys = self._context.functions.traits(request.function).moves_keys
        return moves_keys is not None and moves_keys(request.body)

    def _next_singles(self, culprit: int) -> int:
        """Return how many requests run in a transaction each: where many fail, their predecessors would run twice."""
        is_close = culprit < SINGLES_MIN // 4
        self._singles = min(2 * self._singles, SINGLES_MAX) if is_close else SINGLES_MIN // 2
        return self._singles if is_close else 0

    def _refuse(self, request: Request, error: TeatreeError) -> None:
        """Refuse a request: the transaction of those that follow will commit the refusal."""
        if isinstance(error, UnexpectedError):
            log_event(logging.ERROR, "a request failed because of an internal error", failure=error, seq=request.seq)
        entry = refusal(request, error, self._context.functions.traits(request.function))
        self._outcomes[request.request_id] = entry.outcome
        self._refused.append((request, entry))

    def _commit_refused(self) -> None:
        """Commit refusals that no other request follows."""
        if self._refused:
            self._in_transaction(self._transaction(), lambda _: None, [Item(self._refused[-1][0])])

    def _transaction(self) -> Transaction:
        refused = [entry for _, entry in self._refused]
        return Transaction(
            self._context, self._next_version, self._outcomes, refused, self._last_effect_seq, self._checks
        )

    def _in_transaction(
        self, transaction: Transaction, work: Callable[[Transaction], None], items: Sequence[Item]
    ) -> None:
        connection, last = self._context.connection, items[-1].request
        committing = self._context.probe.step("manager.apply.commit", offset=last.seq)
        connection.begin([item.request for item in items])
        try:
            work(transaction)
            commit = Commit(
                version=self._next_version.version,
                write_id=self._next_version.write_id,
                offset=last.seq,
                log_at=last.at,
                last_effect_seq=transaction.last_effect_seq,
                changed_tables=tuple(sorted(connection.handle.changed_tables)),
                outcomes=encode_segment(transaction.entries),
                dropped=transaction.dropped,
            )
            committing.begin()
            connection.commit(commit, None if self._segments else self._next_version.shipped_version)
        except BaseException as e:
            committing.end(e)
            connection.rollback()
            raise
        self._take(commit, transaction.entries, transaction.archive, transaction.app_change)
        committing.end()


def _is_its_own(error: TeatreeError) -> bool:
    """Return whether an error cannot depend on the requests before it in the same transaction."""
    return error.code is Code.TIMED_OUT or isinstance(error, TooManyRowsError)


def archive_of(entries: Sequence[Entry], functions: Registry) -> tuple[str, ...] | None:
    """Return the tables that the last barrier among these outcomes names, None if there is none."""
    barriers = _results(entries, functions, Nature.BARRIER)
    return tuple(barriers[-1]["tables"]) if barriers else None


def app_change_of(entries: Sequence[Entry], functions: Registry) -> AppChange | None:
    """Return what the last of these outcomes that changed the model's app changed it to, None if there is none."""
    changes = _results(entries, functions, Nature.CONFIGURES)
    return AppChange(changes[-1]["app"]) if changes else None


def _results(entries: Sequence[Entry], functions: Registry, nature: Nature) -> list[Any]:
    firsts = [e.outcome for e in entries if e.role is Role.FIRST and e.outcome.result]
    return [outcome.result for outcome in firsts if functions.traits(outcome.function).nature is nature]


def _items(requests: Sequence[Request], ledger: Ledger) -> list[Item]:
    found = ledger.find([r.request_id for r in requests])
    firsts: dict[str, Request] = {}
    items: list[Item] = []
    for request in requests:
        earlier = found.get(request.request_id)
        twin = None
        if earlier is None and (twin := firsts.get(request.request_id)) is None:
            firsts[request.request_id] = request
        items.append(Item(request, earlier, twin))
    return items
