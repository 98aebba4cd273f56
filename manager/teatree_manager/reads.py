"""Answering direct reads: `query` on the newest local version, `health` on the manager itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from teatree.contracts.codec import dump_json, utc_text
from teatree.contracts.errors import Code, RequestError, RetryError
from teatree.contracts.names import new_id
from teatree.contracts.requests import CONTENT_ARROW, CONTENT_JSON, HEADER_CONTENT_TYPE, Request, read_request
from teatree.engine.duckdb_errors import DamagedVersionError
from teatree.engine.local_reads import LocalReads
from teatree.functions.arguments import Call, Context
from teatree.functions.pages import Page, cut_pages
from teatree.functions.sql import Answer, Question, read_question
from teatree.storage.chain import Chain
from teatree_manager.local_lane import LocalLane

WAIT_MS_DEFAULT = 5_000
"""Milliseconds that a read waits for its `min_version`."""
WAIT_MS_MAX = 60_000
PAGES_MAX = 300
"""Pages of an answer: the reply's header names them all."""
HEALTH_FUNCTION = "health"


class DirectReads:
    """The handler behind a model's query subjects."""

    def __init__(
        self,
        chain: Chain,
        context: Context,
        reads: LocalReads,
        local: LocalLane,
        health: Callable[[], dict[str, Any]],
        page_bytes_max: int,
    ) -> None:
        """`page_bytes_max` is what fits into one reply."""
        self._chain = chain
        self._context = context
        self._reads = reads
        self._local = local
        self._health = health
        self._page_bytes_max = page_bytes_max
        self.last_at = datetime.now(UTC)
        """When the last read came: a model that is read is not idle."""

    async def answer(self, function: str, body: bytes, headers: Mapping[str, str]) -> tuple[bytes, Mapping[str, str]]:
        """Answer one read."""
        if function == HEALTH_FUNCTION:
            return dump_json(self._health()), {HEADER_CONTENT_TYPE: CONTENT_JSON}
        self.last_at = datetime.now(UTC)
        if function != "query":
            raise RequestError(
                Code.UNKNOWN_FUNCTION, f"{function!r} cannot be read directly.", where="function", hint="Use query."
            )
        request = read_request(self._chain.model, function, 0, datetime.now(UTC), dict(headers), body)
        call, question, min_version, wait_ms = self._read_call(request)
        call.finish()
        if self._local.is_gone:
            raise RequestError(Code.UNKNOWN_MODEL, f"There is no model {self._chain.model!r}.", where="model")
        if not await self._local.wait_for(max(min_version, 1), wait_ms):
            raise RetryError(
                Code.TIMED_OUT,
                f"Version {min_version} did not come within {wait_ms} ms; {self._local.served} is the newest here.",
                where="min_version",
                hint=f"It waits: {self._local.error}" if self._local.error else "Try again.",
            )
        served = self._local.served
        try:
            version, rows = await asyncio.to_thread(self._reads.answer, question)
        except DamagedVersionError as e:
            self._local.report(e)
            raise RetryError(
                Code.UNAVAILABLE,
                f"The local file of {self._chain.model} is damaged; it is being made again.",
                where=e.where,
                hint="Try again in a moment.",
            ) from e
        pages = await asyncio.to_thread(cut_pages, Answer(rows, question.page_rows, question.format), PAGES_MAX)
        return await asyncio.to_thread(self._reply, max(version, served), rows.num_rows, pages)

    def _read_call(self, request: Request) -> tuple[Call, Question, int, int]:
        if request.invalid is not None:
            raise request.invalid
        call = Call(request, self._context)
        wait_ms = call.integer("wait_ms", WAIT_MS_DEFAULT)
        if wait_ms > WAIT_MS_MAX:
            raise RequestError(Code.OUT_OF_RANGE, f"'wait_ms' is 0 to {WAIT_MS_MAX}, not {wait_ms}.", where="wait_ms")
        return call, read_question(call, self._context.limits), call.integer("min_version", 0), wait_ms

    def _reply(self, version: int, rows: int, pages: list[Page]) -> tuple[bytes, dict[str, str]]:
        first = pages[0]
        if len(first.body) > self._page_bytes_max:
            raise RequestError(
                Code.RESULT_TOO_LARGE,
                f"The first page has {len(first.body)} bytes; {self._page_bytes_max} fit into a reply.",
                where="page_size",
                hint="Ask for fewer rows a page.",
            )
        read_id = new_id()
        refs = []
        for page in pages[1:]:
            key = self._chain.key(f"pages/direct/{read_id}/{page.number:06d}")
            self._chain.store.put(key, page.body)
            refs.append({"page": page.number, "ref": key, "rows": page.rows})
        headers = {
            HEADER_CONTENT_TYPE: CONTENT_ARROW if first.format == "arrow" else CONTENT_JSON,
            "Teatree-Version": str(version),
            "Teatree-Pages": str(len(pages)),
            "Teatree-Rows": str(rows),
        }
        if refs:
            headers["Teatree-Refs"] = dump_json(refs).decode()
        return (first.body if first.format == "arrow" else self._json(version, rows, first.body)), headers

    def _json(self, version: int, rows: int, page: bytes) -> bytes:
        facts = dump_json({"version": version, "row_count": rows, "at": utc_text(datetime.now(UTC))})
        return facts[:-1] + b"," + page[1:]
