"""What a read worker does for live queries: run some and compare their answers with the last ones, or return one.

The last answer is a file, so that any worker can continue and one that is killed loses nothing. A run writes another
file, which only counts once its manager has the reply: so no change is lost with a reply.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from enum import StrEnum
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
from attrs import frozen

from teatree.contracts.errors import CorruptError, TeatreeError
from teatree.contracts.formats.codec import dump_json
from teatree.contracts.names import fold, new_id
from teatree.contracts.settings import LimitSettings
from teatree.datasets.answer_diff import AnswerDiff, diff_answers, is_key
from teatree.datasets.results.json_values import rows_to_json
from teatree.engine.duckdb.open_version import OpenVersion
from teatree.functions.handles import Parameters
from teatree.functions.pages import arrow_stream, column_types
from teatree.functions.query import QueryResult
from teatree.storage.disk import translating_disk_full

MARGIN = 4
"""A difference of so many times the bytes that a change may have is not encoded: no compression makes it fit."""
PLAIN_BYTES_MAX = 16_000
"""Bytes of a change up to which compressing it would take longer than finding it."""
JSON_FACTOR = 4
"""Bytes of JSON for a byte of Arrow, at most for ordinary rows: so many fewer rows are in a page."""


class Ran(StrEnum):
    """How a run ended."""

    FIRST = "first"
    """There was no answer before."""
    SAME = "same"
    CHANGED = "changed"
    """The body holds the change in each form."""
    ANEW = "anew"
    """The change is too large: watchers read anew."""
    OTHER = "other"
    """The columns, or what identifies rows, are others than before: nothing can be added up."""


@frozen
class LiveReply:
    """What a run returns, and what a batch of them does."""

    head: dict[str, Any]
    """Of a run `ran`, `rows` and `key_columns`; of a first one `tables`; of a change `counts` and `sizes`, bytes by
    form. Of a batch `heads`, and `ends` of the bodies."""
    body: bytes = b""

    @classmethod
    def joined(cls, replies: Sequence[LiveReply]) -> LiveReply:
        """Return the reply of a batch."""
        ends = list(accumulate(len(reply.body) for reply in replies))
        heads = [reply.head for reply in replies]
        return cls({"heads": heads, "ends": ends}, b"".join(reply.body for reply in replies))

    def parts(self) -> list[LiveReply]:
        """Return the replies of the runs of a batch."""
        starts = [0, *self.head["ends"]]
        places = zip(self.head["heads"], starts, self.head["ends"], strict=False)
        return [LiveReply(head, self.body[start:end]) for head, start, end in places]


@frozen
class LiveRun:
    """One run of a watched query."""

    sql: str
    parameters: Parameters
    kept: Path
    """The file of its last answer."""
    keep_as: Path
    """The file of this one, if it differs."""
    key_columns: tuple[str, ...] | None
    """What identifies the rows of the last answer; None if there is none."""
    formats: tuple[str, ...]
    """The forms in which a change is published."""
    change_bytes_max: int

    def run(self, opened: OpenVersion, limits: LimitSettings) -> LiveReply:
        """Run it on a version, and keep the answer if it differs; raises as `OpenVersion.answer` does."""
        if self.key_columns is None:
            read = opened.check_live(self.sql)
            rows = self._answer(opened, limits)
            return self._begin(rows, Ran.FIRST, _key_of(rows, read.primary_key), {"tables": sorted(read.tables)})
        rows = self._answer(opened, limits)
        body = _stream(rows)
        before_body = self.kept.read_bytes() if self.kept.exists() else b""
        if body == before_body:
            return self._reply(Ran.SAME, rows, self.key_columns)
        before = pa.ipc.open_stream(before_body).read_all() if before_body else pa.table({})
        if not rows.schema.equals(before.schema, check_metadata=True) or not _has_key(rows, self.key_columns):
            return self._begin(rows, Ran.OTHER, _key_of(rows, opened.check_live(self.sql).primary_key))
        diff = diff_answers(before, rows, self.key_columns)
        if not diff.rows:
            return self._reply(Ran.SAME, rows, self.key_columns)
        self._keep(body)
        return self._changed(rows, diff)

    def _answer(self, opened: OpenVersion, limits: LimitSettings) -> pa.Table:
        rows = opened.answer(self.sql, self.parameters, limits).combine_chunks()
        column_types(QueryResult(rows, 1, "json"))  # refuses what no page can hold
        return rows

    def _begin(self, rows: pa.Table, ran: Ran, key: tuple[str, ...], more: dict[str, Any] | None = None) -> LiveReply:
        self._keep(_stream(rows))
        return self._reply(ran, rows, key, **(more or {}))

    def _keep(self, body: bytes) -> None:
        with translating_disk_full("The answer of a watched query", self.keep_as):
            self.keep_as.write_bytes(body)

    def _changed(self, rows: pa.Table, diff: AnswerDiff) -> LiveReply:
        size_bytes = sum(part.nbytes for part in (diff.added, diff.changed, diff.removed))
        if size_bytes > MARGIN * self.change_bytes_max:
            return self._reply(Ran.ANEW, rows, self.key_columns)
        bodies = [_json(diff) if form == "json" else _arrow(diff) for form in self.formats]
        if any(len(body) > self.change_bytes_max for body in bodies):
            return self._reply(Ran.ANEW, rows, self.key_columns)
        sizes = dict(zip(self.formats, map(len, bodies), strict=True))
        counts = {"added": diff.added.num_rows, "changed": diff.changed.num_rows, "removed": diff.removed.num_rows}
        return self._reply(Ran.CHANGED, rows, self.key_columns, b"".join(bodies), sizes=sizes, counts=counts)

    def _reply(self, ran: Ran, rows: pa.Table, key: Sequence[str] | None, body: bytes = b"", **more: Any) -> LiveReply:
        return LiveReply({"ran": ran, "rows": rows.num_rows, "key_columns": list(key or ()), **more}, body)


@frozen
class LiveBatch:
    """Some runs on one version, one after the other."""

    runs: tuple[LiveRun, ...]
    used_ms_max: float
    """Milliseconds of processor time after which no further one begins."""

    @property
    def key(self) -> str:
        """Equal for runs of the same statement; a batch that must be killed does not count against one of them."""
        return self.runs[0].sql if len(self.runs) == 1 else new_id()

    @property
    def noun(self) -> str:
        """What errors call it."""
        return "The watched query"

    @property
    def place(self) -> str:
        """Where an error is that names no place itself."""
        return "sql"

    def run(self, opened: OpenVersion, limits: LimitSettings) -> LiveReply:
        """Run as many as there is time for; what the first one raises is raised, a later one that fails is left out."""
        until_ms = used_processor_ms() + self.used_ms_max
        replies: list[LiveReply] = []
        for run in self.runs:
            if replies and used_processor_ms() >= until_ms:
                break
            try:
                replies.append(run.run(opened, limits))
            except TeatreeError:
                if not replies:
                    raise
                break
        return LiveReply.joined(replies)


@frozen
class KeptAnswer:
    """The last answer of a watched query, in pages."""

    kept: Path
    version: int
    page_rows: int
    format: str

    @property
    def key(self) -> str:
        """Equal for the same query."""
        return str(self.kept)

    @property
    def noun(self) -> str:
        """What errors call it."""
        return "The answer of the watched query"

    @property
    def place(self) -> str:
        """Where an error is that names no place itself."""
        return "sql"

    def result(self, first_page_bytes_max: int) -> QueryResult:
        """Return the answer, its pages small enough that the first one fits."""
        try:
            rows = pa.ipc.open_stream(self.kept.read_bytes()).read_all()
        except (OSError, pa.ArrowException) as e:
            raise CorruptError(f"A kept answer cannot be read: {e}", where=str(self.kept)) from e
        row_bytes = rows.nbytes / max(rows.num_rows, 1) * (JSON_FACTOR if self.format == "json" else 1)
        fitting = int(first_page_bytes_max / row_bytes) if row_bytes else self.page_rows
        return QueryResult(rows, max(1, min(self.page_rows, fitting)), self.format)


def used_processor_ms() -> float:
    """Return the processor time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return (used.ru_utime + used.ru_stime) * 1000


def _stream(rows: pa.Table) -> bytes:
    """Return an answer as its file holds it: the same bytes for the same rows, at least mostly."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue().to_pybytes())


def _key_of(rows: pa.Table, primary_key: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of an answer that identify its rows, () if there are none."""
    found = {fold(name): name for name in rows.column_names}
    key = tuple(found[fold(name)] for name in primary_key if fold(name) in found)
    return key if len(key) == len(primary_key) and is_key(rows, key) else ()


def _has_key(rows: pa.Table, key: Sequence[str]) -> bool:
    return not key or is_key(rows, key)


def _json(diff: AnswerDiff) -> bytes:
    members: dict[str, Any] = {"columns": column_types(QueryResult(diff.added, 1, "json"))}
    for name, part in (("added", diff.added), ("changed", diff.changed), ("removed", diff.removed)):
        members[name] = rows_to_json(part, as_written=True)
    return dump_json(members)


def _arrow(diff: AnswerDiff) -> bytes:
    rows = pa.concat_tables([diff.added, diff.changed, diff.removed]).combine_chunks()
    return arrow_stream(rows, compressed=rows.nbytes > PLAIN_BYTES_MAX)
