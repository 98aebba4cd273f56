"""Calls of the functions of a model's app."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
from attrs import frozen

from teatree.client.calls.call_arguments import CallArguments, call_arguments
from teatree.client.calls.function_info import AppInfo, read_app_info
from teatree.client.direct_read import ask
from teatree.client.model_requests import TIMEOUT_MS, ModelRequests
from teatree.client.pages import LogAnswer, missed_pages, rows_of_answer, rows_of_reply, send_for_pages
from teatree.client.query import version_args, version_of
from teatree.client.sending.message import Message, args_header, arrow_stream, json_body
from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.requests import (
    CONTENT_ARROW,
    FUNCTIONS_FUNCTION,
    HEADER_ARGS,
    HEADER_CONTENT_TYPE,
    HEADER_PAGES,
)
from teatree.contracts.names import new_id

if TYPE_CHECKING:
    from teatree.client.sending.waiting import OnNotice
    from teatree.functions.app.app import App
    from teatree.functions.app.app_function import AppFunction
    from teatree.functions.app.stubs import Stubs

_ROWS_MEMBERS = frozenset({"rows", "pages", "columns"})
"""The members of an outcome's `result` whose rows came in pages before it."""


@frozen
class CallReply:
    """What a function returned, and the version that it read, or that holds its effect."""

    result: Any
    version: int | None


class ModelCalls(ModelRequests):
    """The functions of one model's app."""

    async def call(
        self,
        function: str,
        arguments: Mapping[str, Any] | None = None,
        /,
        *,
        request_id: str | None = None,
        expected_version: int | None = None,
        direct: bool = False,
        min_version: int | None = None,
        timeout_ms: float = TIMEOUT_MS,
        on_notice: OnNotice | None = None,
        **more: Any,
    ) -> Any:
        """Call a function of the model's app and return its result; for a query with rows they are a `Dataset`.

        It goes through the log, sees all requests before it, and a mutation has one effect under its `request_id`.
        `direct` runs a query or a pure function on the newest version instead, without waiting behind writes: it has
        the effect of every request whose outcome this session has received, and waits for `min_version`. Arguments are
        Python values (`Decimal`, dates, enums, attrs classes, …), also in the mapping `arguments`, for names that
        `call` takes itself; one of them can be a `Dataset`, a Polars frame or an Arrow table. A query also takes
        `page_size` and `format`: many rows come faster through the log with `format="arrow"`, as direct ones do.
        `on_notice` receives `started` and `progress`.

        Raises the outcome's error: `RequestError` if it was rejected, as `refused` with the function's own reason,
        `app_error` with its traceback if the function raised an error, and what `send` raises.
        """
        reply = await self.call_for_reply(
            function,
            {**(arguments or {}), **more},
            request_id=request_id,
            expected_version=expected_version,
            direct=direct,
            min_version=min_version,
            timeout_ms=timeout_ms,
            on_notice=on_notice,
        )
        return reply.result

    async def call_for_reply(
        self,
        function: str,
        arguments: Mapping[str, Any] | CallArguments,
        *,
        request_id: str | None = None,
        expected_version: int | None = None,
        direct: bool = False,
        min_version: int | None = None,
        timeout_ms: float = TIMEOUT_MS,
        on_notice: OnNotice | None = None,
    ) -> CallReply:
        """Call a function as `call` does; return also the version that it read or that holds its effect."""
        given = arguments if isinstance(arguments, CallArguments) else call_arguments(arguments)
        if direct:
            if expected_version is not None:
                raise _usage("A direct call changes nothing: it takes no expected_version.", "expected_version")
            return await self._call_directly(function, given, request_id or new_id(), min_version, timeout_ms)
        if min_version is not None:
            raise _usage("A call through the log sees all before it: min_version is for direct=True.", "min_version")
        message = Message(function, given.members, arrow=given.rows, request_id=request_id or new_id())
        request = self._encoded(message, expected_version=expected_version)
        with self.connection.probe.step("client.send", model=self.name, function=function, request=request):
            answer = await send_for_pages(self.connection, self.name, request, timeout_ms, on_notice)
        self.connection.saw(self.name, answer.done.version)
        return CallReply(await self._result(request.request_id, answer), answer.done.version)

    def bind(self, app: App, *, direct: bool = False) -> Stubs:
        """Return the functions of an imported app as methods with their signatures: `await bound.set_goals(pct=10)`.

        They call the model's, through the log; with `direct` queries and pure functions are called directly. What they
        return is what the functions' hints name: an attrs instance, a date, a `Dataset`.
        """
        from teatree.functions.app.stubs import Stubs  # noqa: PLC0415 - only those who import an app need it

        return Stubs(app, partial(self.call_function, direct=direct))

    async def call_function(self, function: AppFunction, arguments: Mapping[str, Any], *, direct: bool = False) -> Any:
        """Call a function of an imported app; return what its hint names."""
        is_query = function.kind == "query"
        given = {"format": "arrow", **arguments} if is_query else arguments
        result = await self.call(function.name, given, direct=direct and is_query)
        return function.read_result(result)

    async def functions(self, *, timeout_ms: float = TIMEOUT_MS) -> AppInfo:
        """Return the model's app with its functions: signatures, docs, labels and the JSON Schema of each request."""
        bus = self.connection.bus
        reply = await ask(bus, bus.subjects.query(self.name, FUNCTIONS_FUNCTION), b"{}", timeout_ms)
        return read_app_info(orjson.loads(reply.body), reply.subject)

    async def _result(self, request_id: str, answer: LogAnswer) -> Any:
        result = answer.done.result
        if not (isinstance(result, dict) and result.keys() == _ROWS_MEMBERS):
            return result
        if not answer.pages and not (pages := await missed_pages(self.connection, self.name, request_id)):
            return result  # a function's own object with these members: rows have one page at least
        found = answer if answer.pages else LogAnswer(answer.done, pages)
        return await rows_of_answer(self.connection, self.name, request_id, found)

    async def _call_directly(
        self, function: str, given: CallArguments, request_id: str, min_version: int | None, timeout_ms: float
    ) -> CallReply:
        bus = self.connection.bus
        args = {"format": "arrow", **given.members, **version_args(self.connection, self.name, min_version, timeout_ms)}
        body, more = json_body(args), {}
        if given.rows is not None:
            body = arrow_stream(given.rows)
            more = {HEADER_CONTENT_TYPE: CONTENT_ARROW, HEADER_ARGS: args_header(args)}
        with bus.probe.step("client.query", model=self.name):
            subject = bus.subjects.query(self.name, function)
            reply = await ask(bus, subject, body, timeout_ms, request_id=request_id, more=more)
        has_rows = HEADER_PAGES in reply.headers
        where = f"{function} of {self.name}"
        result = await rows_of_reply(self.connection, reply, where) if has_rows else orjson.loads(reply.body)["result"]
        return CallReply(result, version_of(reply))


def _usage(message: str, where: str) -> RequestError:
    return RequestError(Code.USAGE, message, where=where)
