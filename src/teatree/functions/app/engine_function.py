"""Functions of apps as the engine runs them: on its handle, within its limits, with errors as it treats them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NoReturn

from teatree.contracts.errors import AppError, Code, RequestError, TeatreeError
from teatree.contracts.formats.codec import dump_json
from teatree.contracts.formats.provenance import AppCode
from teatree.datasets.dataset import Dataset
from teatree.functions.app.app_function import AppFunction, FunctionKind, HandleKind
from teatree.functions.app.context import Context
from teatree.functions.app.handles import Read, Write, is_failure, read_handle, reads_of, write_handle
from teatree.functions.app.user_traceback import app_error, user_traceback
from teatree.functions.app.values.results import result_json
from teatree.functions.arguments import Call
from teatree.functions.handles import ReadAccess, SqlAccess, SqlReadAccess
from teatree.functions.others import Others
from teatree.functions.query import QueryResult, read_paging
from teatree.functions.traits import Function, Nature, Traits

PROGRESS_CHARS_MAX = 1_000
_PLACE = "function"


def engine_function(code: AppCode, function: AppFunction) -> Function:
    """Return a function of an app as the engine runs it."""
    is_mutation = function.kind is FunctionKind.MUTATION
    traits = Traits(
        Nature.WRITES if is_mutation else Nature.READS,
        alone=function.alone,
        copies=True,
        makes_rows=function.handle is HandleKind.WRITE,
        moves_keys=_moves_keys if function.handle is HandleKind.WRITE else None,
        error_place=_PLACE,
        time_ms_max=function.time_ms_max,
        app=code,
    )
    run = partial(_mutate if is_mutation else _query, function)
    return Function(function.name, run, traits, describe=partial(_describe, function))


def _describe(function: AppFunction) -> dict[str, Any]:
    return {**function.describe(), "schema": function.json_schema()}


def _moves_keys(_: bytes) -> bool:
    """Return that it can change keys in place: what it does is not known."""
    return True


def _mutate(function: AppFunction, access: ReadAccess, call: Call) -> Any:
    return _run(function, access, call, partial(_json, call))


def _query(function: AppFunction, access: ReadAccess, call: Call) -> Any:
    page_rows, form = read_paging(call, call.context.limits, function.page_size)

    def paged(result: Any) -> Any:
        return QueryResult(result.to_arrow(), page_rows, form) if isinstance(result, Dataset) else _json(call, result)

    return _run(function, access, call, paged)


def _run(function: AppFunction, access: ReadAccess, call: Call, convert: Callable[[Any], Any]) -> Any:
    """Run a function; `convert` makes of its result what is sent.

    Raises what the engine handles: errors of requests, those that end its transaction, and AppError for all else.
    """
    request = call.request
    members, rows = call.all_arguments()
    context = Context(request.request_id, request.at, request.model, request.function, partial(_report, call))
    given: Read | Write | None = None
    try:
        arguments = function.read_arguments(members, rows)  # which runs the app's code: the constructors of its classes
        with _handle(function, access, call.context.others) as given:
            result = convert(function.run(arguments, given, context))
    except BaseException as e:  # noqa: BLE001  SystemExit, too: a function must not end its manager
        _reraise(e, given, request.function)
    if given is not None:
        call.reads = reads_of(given)
    return result


def _handle(
    function: AppFunction, access: ReadAccess, others: Others | None
) -> AbstractContextManager[Read | Write | None]:
    """Return what gives a function its handle for the time of a block."""
    if function.handle is HandleKind.NONE:
        return nullcontext()
    if function.handle is HandleKind.WRITE and isinstance(access, SqlAccess):
        return write_handle(access, others)
    if function.handle is HandleKind.READ and isinstance(access, SqlReadAccess):
        return read_handle(access, others)
    raise AppError(Code.BAD_APP, "The model's engine runs no SQL, which functions of apps need.", where=_PLACE)


def _reraise(error: BaseException, given: Read | None, function: str) -> NoReturn:
    """Raise an error of a function as the engine takes it."""
    is_passed = isinstance(error, RequestError | AppError | MemoryError)
    if is_passed or (given is not None and is_failure(given, error)):
        raise error
    if isinstance(error, TeatreeError):  # one that it made or passed on: it must not stop the manager
        raise AppError(
            error.code,
            error.message,
            where=error.where or _PLACE,
            hint=error.hint,
            traceback=user_traceback(error),
        ) from error
    raise app_error(error, function) from error


def _report(call: Call, fraction: float, text: str) -> None:
    call.progress(fraction, text[:PROGRESS_CHARS_MAX])


def _json(call: Call, result: Any) -> Any:
    """Return a result as plain JSON; raises `bad_result`, or `result_too_large`."""
    found = result_json(result)
    size_bytes, bytes_max = len(dump_json(found)), call.context.limits.result_bytes_max
    if size_bytes > bytes_max:
        raise RequestError(
            Code.RESULT_TOO_LARGE,
            f"{call.request.function} returned {size_bytes:,} bytes of JSON; {bytes_max:,} is the most.",
            where=_PLACE,
            hint="Return a Dataset from a query: its rows are sent in pages.",
        )
    return found
