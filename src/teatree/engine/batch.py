"""Applying a batch: one transaction for many requests, and the culprit found when it fails.

DuckDB has no savepoints, and any error aborts the whole transaction. So when a batch fails it is rolled back; what
stands before the culprit is applied and committed first, then the culprit begins the next transaction: if it fails
there, it is rejected on exactly the state that its predecessors left, and the transaction of those that follow commits
that. Appends are inserted together: when one of them repeats a key, they are run again with their keys looked up first
(`waiting_appends`); whatever else they fail with, the batch is halved until the culprit stands alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

import structlog
from attrs import frozen

from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError, TeatreeError
from teatree.contracts.notices import Outcome
from teatree.contracts.requests import LogPosition, Request
from teatree.engine.commits import Commit, is_committed, record_commit
from teatree.engine.duckdb_errors import InvalidatedError
from teatree.engine.outcomes import refusal
from teatree.engine.rows_watch import TooManyRowsError, UnsureRowsError
from teatree.engine.transaction import Item, ModelFile, NextVersion, Transaction, UnexpectedError
from teatree.storage.segments import Entry, Role, decode_segment, encode_segment

FAILED_CODES = frozenset({Code.TIMED_OUT, Code.OVER_LIMIT, Code.SOURCE_UNAVAILABLE})
"""Faults that are one request's own, though not its mistake: it ends as `failed`, its neighbours commit."""

SINGLES_MIN = 16
SINGLES_MAX = 256
"""Requests that get a transaction each after one failed close behind another: twice as many each time."""


@frozen
class Applied:
    """What a batch did: committed, not shipped."""

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
    has_created: bool = False
    """Whether it began the model's life."""
    dropped: bool = False
    """Whether it ended the model's life."""


@frozen
class _GaveUp:
    """Requests over which DuckDB gave its database up for want of memory."""

    seqs: frozenset[int]
    culprit: int | None
    error: RetryError


class Batch:
    """One batch on its way into the file: what its transactions have committed so far. One thread uses it."""

    def __init__(self, parts: ModelFile, target: NextVersion, last_effect_seq: int) -> None:
        self._parts = parts
        self._target = target
        self._last_effect_seq = last_effect_seq
        self._last: LogPosition | None = None
        self._entries: list[Entry] = []
        self._outcomes: dict[str, Outcome] = {}
        """By id: those of the entries, and of what is refused."""
        self._refused: list[tuple[Request, Entry]] = []
        """Refused since the last commit; they are committed with the next one."""
        self._looks_keys_up = False
        """Whether an append repeated a key: others are likely to, and are found before they fail."""
        self._measures_rows = False
        """Whether a request may have made too many rows: from then on each one's rows are measured alone."""
        self._singles = SINGLES_MIN // 2
        self._segments: list[bytes] = []
        self._changed_tables: set[str] = set()
        self._archive: tuple[str, ...] | None = None
        self._dropped = False
        self._gave_up: _GaveUp | None = None
        self._checkpointed = True
        """Whether no table has changed since the last checkpoint."""

    def apply(self, requests: Sequence[Request]) -> Applied:
        """Apply requests in their order; return when all are committed, each with its outcome.

        Raises a `RetryError` (disk full, store away) or an `OperatorError` if it could not through no fault of a
        request: what is committed of the batch stays, and `committed_position` tells how far that is.
        """
        self._refused.clear()  # by a try that came to nothing
        if requests:
            try:
                self._commit_after(self._gave_up, _items(requests, self._parts))
            except RetryError as e:
                if e.code is Code.OVER_LIMIT and self._refused:  # its memory was not given back: no room to refuse it
                    self._gave_up = self._gave_up or _GaveUp(frozenset({self._refused[-1][0].seq}), 0, e)
                raise
        return self._applied()

    def _commit_after(self, gave_up: _GaveUp | None, items: Sequence[Item]) -> None:
        """Commit the items, but not those again as they were over which DuckDB gave its database up for memory."""
        self._gave_up = None
        seqs = gave_up.seqs if gave_up else frozenset()
        part = [item for item in items if item.request.seq in seqs]
        if gave_up is None or len(part) < len(seqs):  # none, or they were committed after all
            self._commit(items)
            return
        if before := [item for item in items if item.request.seq < min(seqs)]:
            self._commit(before)
        rest = [item for item in items if item.request.seq > max(seqs)]
        parts = self._after_failure(part, gave_up.culprit, gave_up.error)
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

    def use(self, parts: ModelFile) -> None:
        """Go on with the file opened again."""
        self._parts = parts

    def adopt(self, commits: Sequence[Commit]) -> None:
        """Take over this batch's commits of which it does not know: their COMMIT failed after the disk had them."""
        for commit in commits:
            if commit.offset <= self.offset:
                continue
            entries = decode_segment(commit.outcomes, f"commit {commit.offset}")
            self._take(commit, entries, archive_of(entries))

    def _take(self, commit: Commit, entries: Sequence[Entry], archive: tuple[str, ...] | None) -> None:
        self._last = LogPosition(commit.offset, commit.log_at)
        self._entries.extend(entries)
        self._segments.append(commit.outcomes)
        self._last_effect_seq = commit.last_effect_seq
        self._changed_tables.update(commit.changed_tables)
        self._checkpointed = self._checkpointed and not commit.changed_tables
        self._archive = archive if archive is not None else self._archive
        self._dropped = commit.dropped
        self._parts.ledger.add(self._target.version, entries)
        self._outcomes.update({e.outcome.request_id: e.outcome for e in entries if e.role is Role.FIRST})
        self._refused.clear()

    def _applied(self) -> Applied:
        last = self._last
        if last is None:
            raise OperatorError(Code.INTERNAL, "A batch without requests was applied.")
        if not is_committed(self._parts.database, last.seq):
            raise OperatorError(Code.INTERNAL, f"The file does not hold the commit of request {last.seq}.")
        return Applied(
            version=self._target.version,
            write_id=self._target.write_id,
            offset=last.seq,
            log_at=last.at,
            last_effect_seq=self._last_effect_seq,
            entries=tuple(self._entries),
            segment=self._segments[0] if len(self._segments) == 1 else encode_segment(self._entries),
            changed_tables=frozenset(self._changed_tables),
            archive=self._archive,
            dropped=self._dropped,
        )

    def _commit(self, *parts: Sequence[Item]) -> None:
        """Commit parts of the items, each item with its outcome, in as few transactions as their faults allow."""
        waiting = list(reversed(parts))
        while waiting:
            part = waiting.pop()
            transaction = self._transaction()
            try:
                self._in_transaction(transaction, partial(Transaction.run, items=part), part)
            except InvalidatedError as e:
                if e.code is Code.OVER_LIMIT:  # it would come again, unlike a full disk
                    seqs = frozenset(item.request.seq for item in part)
                    self._gave_up = _GaveUp(seqs, transaction.culprit, e)
                raise
            except (RequestError, RetryError, UnexpectedError) as e:
                if isinstance(e, RetryError) and e.code not in FAILED_CODES:
                    raise
                waiting.extend(reversed(self._after_failure(part, transaction.culprit, e)))
        self._commit_refused()

    def _after_failure(self, part: Sequence[Item], culprit: int | None, error: TeatreeError) -> list[Sequence[Item]]:
        """Return what is to be committed next; an item that failed before all others of its transaction is refused.

        Where its predecessors can have had no part in that, it is not tried again after them.
        """
        if culprit is None and error.code is Code.CONSTRAINT and not self._looks_keys_up:
            self._looks_keys_up = True
            return [part]
        if isinstance(error, UnsureRowsError):
            self._measures_rows = True
            return [part]
        if culprit and _is_its_own(error):
            self._commit(part[:culprit])
            part, culprit = part[culprit:], 0
        if culprit == 0 or len(part) == 1:
            if error.code is Code.CONSTRAINT and not self._checkpointed and _may_move_keys(part[0].request):
                self._parts.database.checkpoint()
                self._checkpointed = True
                return [part]
            self._refuse(part[0].request, error)
            if not isinstance(error, RequestError):
                self._commit_refused()  # what took its time is not to be tried again
            return [part[1:]] if len(part) > 1 else []
        if culprit is None:
            return [part[: len(part) // 2], part[len(part) // 2 :]]
        singles = self._next_singles(culprit)
        alone = [part[place : place + 1] for place in range(culprit, min(culprit + singles, len(part)))]
        rest = part[culprit + len(alone) :]
        return [part[:culprit], *alone, *([rest] if rest else [])]

    def _next_singles(self, culprit: int) -> int:
        """Return how many get a transaction each: where many fail, what precedes them would run twice."""
        is_close = culprit < SINGLES_MIN // 4
        self._singles = min(2 * self._singles, SINGLES_MAX) if is_close else SINGLES_MIN // 2
        return self._singles if is_close else 0

    def _refuse(self, request: Request, error: TeatreeError) -> None:
        """Refuse a request: the transaction of those that follow will commit that."""
        if isinstance(error, UnexpectedError):
            structlog.get_logger().error("a request met a fault of ours", seq=request.seq, exc_info=error)
        entry = refusal(request, error)
        self._outcomes[request.request_id] = entry.outcome
        self._refused.append((request, entry))

    def _commit_refused(self) -> None:
        """Commit what was refused behind all others."""
        if self._refused:
            self._in_transaction(self._transaction(), lambda _: None, [Item(self._refused[-1][0])])

    def _transaction(self) -> Transaction:
        refused = [entry for _, entry in self._refused]
        return Transaction(
            self._parts,
            self._target,
            self._outcomes,
            refused,
            self._last_effect_seq,
            looks_keys_up=self._looks_keys_up,
            measures_rows=self._measures_rows,
        )

    def _in_transaction(
        self, transaction: Transaction, work: Callable[[Transaction], None], items: Sequence[Item]
    ) -> None:
        parts = self._parts
        last = items[-1].request
        logged_bytes = parts.database.logged_bytes()
        parts.handle.begin()
        try:
            with parts.database.transaction([item.request for item in items]):
                work(transaction)
                segment = encode_segment(transaction.entries)
                commit = Commit(
                    version=self._target.version,
                    write_id=self._target.write_id,
                    offset=last.seq,
                    log_at=last.at,
                    last_effect_seq=transaction.last_effect_seq,
                    changed_tables=tuple(sorted(parts.handle.changed_tables)),
                    outcomes=segment,
                    dropped=transaction.dropped,
                )
                record_commit(parts.database, commit, None if self._segments else self._target.shipped_version)
                parts.failpoint("manager.apply.before_commit")
        except BaseException:
            parts.handle.forget()
            raise
        if parts.database.logged_bytes() <= logged_bytes:  # COMMIT after an error returns success
            parts.handle.forget()
            raise OperatorError(Code.INTERNAL, f"The commit of request {last.seq} did not take effect.")
        self._take(commit, transaction.entries, transaction.archive)
        parts.failpoint("manager.apply.after_commit")


def _is_its_own(error: TeatreeError) -> bool:
    """Return whether an error would have been the same without those that wait for the commit with it."""
    return error.code is Code.TIMED_OUT or isinstance(error, TooManyRowsError)


def _may_move_keys(request: Request) -> bool:
    """Return whether a request can change keys in place.

    DuckDB finds a key that another row of the same UPDATE gives up taken, but only where that row came after the last
    checkpoint: whether the request is done must not depend on that, and so on its batch (docs/decisions/0020).
    """
    body = request.body.lower()
    return request.function == "update" or (request.function == "sql" and (b"update" in body or b"\\u" in body))


def archive_of(entries: Sequence[Entry]) -> tuple[str, ...] | None:
    """Return the tables that the last `archive` request among these outcomes names, None if there is none."""
    firsts = [e.outcome for e in entries if e.role is Role.FIRST and e.outcome.result]
    barriers = [outcome for outcome in firsts if outcome.function == "archive"]
    return tuple(barriers[-1].result["tables"]) if barriers else None


def _items(requests: Sequence[Request], parts: ModelFile) -> list[Item]:
    found = parts.ledger.find([r.request_id for r in requests])
    firsts: dict[str, Request] = {}
    items: list[Item] = []
    for request in requests:
        earlier = found.get(request.request_id)
        twin = None
        if earlier is None and (twin := firsts.get(request.request_id)) is None:
            firsts[request.request_id] = request
        items.append(Item(request, earlier, twin))
    return items
