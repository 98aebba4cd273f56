"""Applying a batch: one transaction for many requests, and the culprit found when it fails.

DuckDB has no savepoints, and any error aborts the whole transaction. So when a batch fails it is rolled back; what
stands before the culprit is applied and committed first, then the culprit alone, then the rest. Appends are inserted
together: if the culprit is one of them, the batch is halved until it stands alone. It is rejected on exactly the state
that its predecessors left, and its neighbours commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

import structlog
from attrs import frozen

from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError, TeatreeError
from teatree.contracts.requests import LogPosition, Request
from teatree.engine.commits import Commit, committed_position, record_commit
from teatree.engine.duckdb_errors import InvalidatedError
from teatree.engine.rows_watch import TooManyRowsError
from teatree.engine.transaction import Item, Parts, Target, Transaction, UnexpectedError
from teatree.storage.segments import Entry, Role, decode_segment, encode_segment

FAILED_CODES = frozenset({Code.TIMED_OUT, Code.OVER_LIMIT, Code.SOURCE_UNAVAILABLE})
"""Faults that are one request's own, though not its mistake: it ends as `failed`, its neighbours commit."""


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
    born: bool = False
    """Whether it began the model's life."""
    dropped: bool = False
    """Whether it ended the model's life."""


class Batch:
    """One batch on its way into the file: what its transactions have committed so far. One thread uses it."""

    def __init__(self, parts: Parts, target: Target, last_effect_seq: int) -> None:
        self._parts = parts
        self._target = target
        self._last_effect_seq = last_effect_seq
        self._last: LogPosition | None = None
        self._entries: list[Entry] = []
        self._segments: list[bytes] = []
        self._changed_tables: set[str] = set()
        self._archive: tuple[str, ...] | None = None
        self._dropped = False

    def apply(self, requests: Sequence[Request]) -> Applied:
        """Apply requests in their order; return when all are committed, each with its outcome.

        Raises a `RetryError` (disk full, store away) or an `OperatorError` if it could not through no fault of a
        request: what is committed of the batch stays, and `committed_position` tells how far that is.
        """
        if requests:
            self._commit(_items(requests, self._parts))
        return self._applied()

    def refuse(self, request: Request, error: TeatreeError) -> Applied:
        """Commit that a request had no effect, and why."""
        self._commit_refusal(Item(request), error)
        return self._applied()

    @property
    def offset(self) -> int:
        """Sequence of the last request that it committed, 0 before the first."""
        return self._last.seq if self._last else 0

    def use(self, parts: Parts) -> None:
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
        self._archive = archive if archive is not None else self._archive
        self._dropped = commit.dropped
        self._parts.ledger.add(self._target.version, entries)

    def _applied(self) -> Applied:
        last = self._last
        if last is None:
            raise OperatorError(Code.INTERNAL, "A batch without requests was applied.")
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

    def _commit(self, items: Sequence[Item]) -> None:
        """Commit the items, each with its outcome, in as few transactions as their faults allow."""
        waiting = [items]
        while waiting:
            part = waiting.pop()
            transaction = self._transaction()
            try:
                self._in_transaction(transaction, partial(Transaction.run, items=part), part)
            except InvalidatedError:
                raise
            except (RequestError, RetryError, UnexpectedError) as e:
                if isinstance(e, RetryError) and e.code not in FAILED_CODES:
                    raise
                self._after_failure(waiting, part, transaction.culprit, e)

    def _after_failure(
        self, waiting: list[Sequence[Item]], part: Sequence[Item], culprit: int | None, error: TeatreeError
    ) -> None:
        """Commit the refusal of an item that failed on what its predecessors left; leave the others to be committed.

        Where they can have had no part in it, it is not tried again after they are committed: it costs its time once.
        """
        if len(part) == 1:
            self._commit_refusal(part[0], error)
        elif culprit is not None and (culprit == 0 or _is_its_own(error)):
            if culprit > 0:
                self._commit(part[:culprit])
            self._commit_refusal(part[culprit], error)
            if part[culprit + 1 :]:
                waiting.append(part[culprit + 1 :])
        else:
            waiting.extend(reversed(_apart(part, culprit)))

    def _commit_refusal(self, item: Item, error: TeatreeError) -> None:
        if isinstance(error, UnexpectedError):
            structlog.get_logger().error("a request met a fault of ours", seq=item.request.seq, exc_info=error)
        self._in_transaction(self._transaction(), lambda t: t.refuse(item, error), [item])

    def _transaction(self) -> Transaction:
        return Transaction(self._parts, self._target, self._entries, self._last_effect_seq)

    def _in_transaction(
        self, transaction: Transaction, work: Callable[[Transaction], None], items: Sequence[Item]
    ) -> None:
        parts = self._parts
        last = items[-1].request
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
                record_commit(parts.database, commit, self._target.shipped_version)
                parts.failpoint("manager.apply.before_commit")
        except BaseException:
            parts.handle.forget()
            raise
        if committed_position(parts.database).seq != last.seq:
            parts.handle.forget()
            raise OperatorError(Code.INTERNAL, f"The commit of request {last.seq} did not take effect.")
        self._take(commit, transaction.entries, transaction.archive)
        parts.failpoint("manager.apply.after_commit")


def _is_its_own(error: TeatreeError) -> bool:
    """Return whether an error would have been the same without those that wait for the commit with it."""
    return error.code is Code.TIMED_OUT or isinstance(error, TooManyRowsError)


def archive_of(entries: Sequence[Entry]) -> tuple[str, ...] | None:
    """Return the tables that the last `archive` request among these outcomes names, None if there is none."""
    firsts = [e.outcome for e in entries if e.role is Role.FIRST and e.outcome.result]
    barriers = [outcome for outcome in firsts if outcome.function == "archive"]
    return tuple(barriers[-1].result["tables"]) if barriers else None


def _apart(items: Sequence[Item], culprit: int | None) -> list[Sequence[Item]]:
    """Return the parts to commit one by one: around the culprit if it is known, else halves."""
    if culprit is None:
        middle = len(items) // 2
        return [items[:middle], items[middle:]]
    parts = [items[:culprit], items[culprit : culprit + 1], items[culprit + 1 :]]
    return [part for part in parts if part]


def _items(requests: Sequence[Request], parts: Parts) -> list[Item]:
    priors = parts.ledger.find([r.request_id for r in requests])
    firsts: dict[str, Request] = {}
    items: list[Item] = []
    for request in requests:
        prior = priors.get(request.request_id)
        twin = None
        if prior is None and (twin := firsts.get(request.request_id)) is None:
            firsts[request.request_id] = request
        items.append(Item(request, prior, twin))
    return items
