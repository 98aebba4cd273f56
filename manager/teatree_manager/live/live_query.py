"""One watched query: its lease, its last answer, and what a run makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

from attrs import define, field, frozen
from blake3 import blake3

from teatree.contracts.errors import TeatreeError
from teatree.contracts.formats.live import LiveKind, LiveNotice
from teatree.contracts.names import new_id
from teatree.functions.handles import Parameters
from teatree_manager.read_workers.live_work import LiveReply, Ran

NAME_DIGITS = 32


@frozen
class RanAt:
    """What a run returned, and the version that it ran on."""

    version: int
    reply: LiveReply


@define(eq=False)
class LiveQuery:
    """The state of one query, for as long as it is watched."""

    name: str
    """Made from the statement and its parameters."""
    sql: str
    parameters: Parameters
    folder: Path
    """Where its answers are kept."""
    answers: int = 0
    """How many answers it had: each is a file."""
    lease_until_ms: float = 0
    formats: tuple[str, ...] = ()
    """The forms that watchers asked for; a form stays as long as the query does."""
    key_columns: tuple[str, ...] | None = None
    """What identifies the rows of its answer; None before the first answer."""
    tables: frozenset[str] = frozenset()
    """Folded names of those that it reads."""
    series: str = ""
    since: int = 0
    """The first version that has its answer."""
    through: int = 0
    """The last version that is known to have it."""
    changed_in: int = 0
    """The newest version that changed one of its tables."""
    due_at: int = 0
    """The first version after its answer's that may have changed one: a run on an earlier one is in vain."""
    ran_ms: float = 0
    """When it ran last."""
    error: TeatreeError | None = None
    """Why it is not watched any more."""
    turn: asyncio.Lock = field(factory=asyncio.Lock)
    """Its runs, and the reads of its answer, are one at a time."""

    @property
    def kept(self) -> Path:
        """The file of its last answer."""
        return self._file(self.answers)

    @property
    def keep_as(self) -> Path:
        """The file of its next answer."""
        return self._file(self.answers + 1)

    def _file(self, number: int) -> Path:
        return self.folder / f"{self.name}.{number}.arrow"

    def forget(self) -> None:
        """Delete what is kept for it."""
        for path in (self.kept, self.keep_as):
            path.unlink(missing_ok=True)

    @property
    def is_stale(self) -> bool:
        """Whether a table changed after the version that it ran on last."""
        return self.key_columns is not None and self.changed_in > self.through

    def may_have_changed(self, changed: Collection[str], version: int) -> None:
        """Note which tables, by folded name, a version changed."""
        if self.tables.isdisjoint(changed):
            return
        if not self.is_stale:
            self.due_at = version
        self.changed_in = version

    def is_due(self, newest: int) -> bool:
        """Return whether a run on a version can find another answer."""
        return self.is_stale and newest >= self.due_at

    def advance(self, version: int) -> None:
        """Take a version that is followed and served as one that has the same answer, if no table changed."""
        if self.key_columns is not None and not self.is_stale:
            self.through = max(self.through, version)

    def is_held(self, series: str, version: int) -> bool:
        """Return whether who holds the answer of a version in a series has the last one."""
        return bool(series) and series == self.series and self.since <= version <= self.through

    def asked_for(self, form: str, until_ms: float) -> None:
        """Renew the lease for a watcher that wants a form."""
        self.lease_until_ms = max(self.lease_until_ms, until_ms)
        if form not in self.formats:
            self.formats = (*self.formats, form)

    def ran(self, model: str, result: RanAt) -> dict[str, LiveNotice]:
        """Take over what a run returned; return what to publish, by form."""
        notices = self._take_over(model, result)
        self.due_at = self.through + 1
        return notices

    def _take_over(self, model: str, result: RanAt) -> dict[str, LiveNotice]:
        head = result.reply.head
        if Ran(head["ran"]) is not Ran.SAME:
            self.kept.unlink(missing_ok=True)
            self.answers += 1
        key = tuple(head["key_columns"])
        match Ran(head["ran"]):
            case Ran.SAME:
                self.through = result.version
                return {}
            case Ran.FIRST:
                self.tables = frozenset(head["tables"])
                self._begin(key, result.version)
                return {}
            case Ran.OTHER:
                before = self.since, self.through
                self._begin(key, result.version)
                return self._anew(model, *before)
            case Ran.ANEW:
                before = self.since, self.through
                self.since = self.through = result.version
                return self._anew(model, *before)
            case Ran.CHANGED:
                notices = self._changes(model, result)
                self.since = self.through = result.version
                return notices

    def _begin(self, key: tuple[str, ...], version: int) -> None:
        self.key_columns, self.series = key, new_id()
        self.since = self.through = version

    def _anew(self, model: str, since: int, through: int) -> dict[str, LiveNotice]:
        notice = LiveNotice(LiveKind.ANEW, model, self.series, since, through, self.through)
        return dict.fromkeys(self.formats, notice)

    def _changes(self, model: str, result: RanAt) -> dict[str, LiveNotice]:
        notices: dict[str, LiveNotice] = {}
        start = 0
        for form, size in result.reply.head["sizes"].items():
            body = result.reply.body[start : start + size]
            start += size
            notices[form] = LiveNotice(
                LiveKind.CHANGE,
                model,
                self.series,
                self.since,
                self.through,
                result.version,
                self.key_columns or (),
                result.reply.head["counts"],
                body=body,
                is_arrow=form == "arrow",
            )
        return notices


def name_of(sql: str, parameters: Parameters) -> str:
    """Return the name of a query: the same for the same statement with the same parameters."""
    plain = sorted(parameters.items()) if isinstance(parameters, dict) else list(parameters)
    return _hash(repr((sql, plain)))


def subject_name(name: str, form: str) -> str:
    """Return the last token of the subject on which the changes of a query are published in a form."""
    return _hash(f"{name} {form}")


def _hash(text: str) -> str:
    return blake3(text.encode("utf-8", "surrogatepass")).hexdigest()[:NAME_DIGITS]
