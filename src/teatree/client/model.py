"""The client's model: requests, files to load, queries, notices, versions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from teatree.client import query as queries
from teatree.client.calls.model_calls import ModelCalls
from teatree.client.model_functions import ModelFunctions
from teatree.client.model_requests import BULK_SILENCE_MS, TIMEOUT_MS
from teatree.client.model_versions import ModelVersions
from teatree.client.notice import whole_notice
from teatree.client.notice_log import follow_filter
from teatree.contracts.names import new_id

if TYPE_CHECKING:
    from teatree.client.file_load import FileProgress, LoadedFile
    from teatree.client.live.watching import AnswerChange
    from teatree.client.notice import Notice
    from teatree.datasets.dataset import Dataset
    from teatree.storage.dead_letters import DeadLetter


class Model(ModelCalls, ModelFunctions, ModelVersions):
    """One model of an installation; it need not exist yet."""

    def __repr__(self) -> str:
        return f"Model({self.name!r})"

    # --- files of this machine ---

    async def load_file(
        self,
        table: str,
        path: str | Path,
        *,
        mode: Literal["append", "replace", "create"] = "append",
        csv: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        timeout_ms: float = BULK_SILENCE_MS,
        progress: FileProgress | None = None,
    ) -> LoadedFile:
        """Load a file of this machine: it is read and checked here as a whole, then sent in as many requests as needed.

        `csv` as for `load`. The requests' ids are `request_id` and a number each. Several of them do not take effect
        at once: readers may see a part of the rows, also of a table that is replaced or created. Raises a RequestError
        with the line of a wrong value before anything is sent, and what `send` raises if a request was refused.
        """
        from teatree.client.file_load import FileRows, load_file  # noqa: PLC0415 - Arrow, only for this
        from teatree.datasets.csv.options import read_csv_options  # noqa: PLC0415

        options = read_csv_options(csv) if csv else None
        rows = FileRows(Path(path), options, request_id or new_id())
        return await load_file(self, table, rows, mode, timeout_ms, progress)

    # --- reads ---

    async def query(
        self,
        sql: str,
        parameters: queries.Parameters = None,
        *,
        format: Literal["arrow", "json"] = "arrow",
        page_size: int | None = None,
        min_version: int | None = None,
        version: int | None = None,
        through_log: bool = False,
        timeout_ms: float = TIMEOUT_MS,
    ) -> Dataset:
        """Run one SELECT on the newest version, without waiting behind writes.

        The version holds the effect of every request whose outcome this session has received, and is waited for if
        need be; `min_version` waits for what another session wrote. `through_log` publishes the query to the log
        instead, where it sees all requests before it; only there can an earlier `version` be read. `format` is how rows
        are sent. Raises `timed_out` without a reply in time; the manager of an idle model is started first.
        """
        query_request = queries.QueryRequest(sql, parameters, format, page_size, min_version, version)
        return (await self.ask(query_request, through_log=through_log, timeout_ms=timeout_ms)).dataset

    async def ask(
        self, query_request: queries.QueryRequest, *, through_log: bool = False, timeout_ms: float = TIMEOUT_MS
    ) -> queries.QueryReply:
        """Run a query as `query` does; return also the version that the rows were read from."""
        how = queries.ask_through_log if through_log or query_request.version is not None else queries.ask_directly
        return await how(self.connection, self.name, query_request, timeout_ms)

    async def watch(
        self,
        sql: str,
        parameters: queries.Parameters = None,
        *,
        min_version: int | None = None,
        timeout_ms: float = TIMEOUT_MS,
    ) -> AsyncGenerator[AnswerChange, None]:
        """Yield the answer of one SELECT, and then what changes in it from version to version, without end.

        The first is the whole answer, and so is a later one where this watcher missed something: it was slow, or not
        connected. Versions that follow each other quickly are one change. The query must follow from the version alone:
        `random()`, `now()` and LIMIT without ORDER BY are refused (`sql_not_allowed`), and it has limits that `query`
        has not (`over_limit`). The first answer holds the effect of every request whose outcome this session has
        received, and is waited for for `timeout_ms`; after it, the model may be without a manager for a time. Ends by
        raising what the query raises, after its table was dropped for example.
        """
        from teatree.client.live.watching import watch  # noqa: PLC0415 - only for this

        query_request = queries.QueryRequest(sql, parameters, "arrow", min_version=min_version)
        async with aclosing(watch(self.connection, self.name, query_request, timeout_ms)) as changes:
            async for change in changes:
                yield change

    async def follow(self, *, after: int | None = None, request_id: str | None = None) -> AsyncGenerator[Notice, None]:
        """Yield the model's notices as they come, without end: outcomes, versions, progress.

        From now on, or with `after` from that position in the stream of notices (0: all that it still holds).
        No notice is missed while the connection is lost. With `request_id`, only that request's.
        """
        subjects = self.connection.bus.subjects
        subject = (
            subjects.notify_model(self.name) if request_id is None else subjects.notify_request(self.name, request_id)
        )
        async with aclosing(follow_filter(self.connection.bus, subject, after)) as notices:
            async for notice in notices:
                yield await whole_notice(notice, self.connection.read_object)

    # --- requests that were set aside ---

    async def dead_letters(self) -> list[DeadLetter]:
        """Return the requests that were set aside because they crashed their manager, in the order of the log."""
        from teatree.storage.dead_letters import list_dead_letters  # noqa: PLC0415

        return await asyncio.to_thread(list_dead_letters, self.chain())

    async def dead_letter(self, request_id: str) -> tuple[DeadLetter, bytes]:
        """Return one of them, with its body; raises `unknown_request`."""
        from teatree.storage.dead_letters import find_dead_letter, read_dead_body  # noqa: PLC0415

        chain = self.chain()
        letter = await asyncio.to_thread(find_dead_letter, chain, request_id)
        return letter, await asyncio.to_thread(read_dead_body, chain, letter)
