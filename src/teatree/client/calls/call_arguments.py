"""The arguments of a call as a request carries them: Python values become JSON, rows an Arrow stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from teatree.contracts.errors import Code, OperatorError, RequestError


@frozen
class CallArguments:
    """The arguments of one call."""

    members: dict[str, Any]
    """As JSON has them; the name of the rows has null, by which the function checks it."""
    rows: Any = field(default=None, repr=False)
    """The one argument that is rows (`__arrow_c_stream__`), if there is one."""


def call_arguments(given: Mapping[str, Any]) -> CallArguments:
    """Return Python values as a request's arguments; raises `bad_argument` naming the place of one that has no form.

    A `Dataset`, a Polars frame or an Arrow table is sent as Arrow; a request has room for one.
    """
    rows = {name: value for name, value in given.items() if hasattr(value, "__arrow_c_stream__")}
    if len(rows) > 1:
        raise RequestError(
            Code.BAD_ARGUMENT,
            f"{' and '.join(map(repr, rows))} are rows; a request carries rows once.",
            where=list(rows)[1],
            hint="Send the others in requests before it, or as lists of objects.",
        )
    members = {name: None if name in rows else _json(value, name) for name, value in given.items()}
    return CallArguments(members, next(iter(rows.values()), None))


def _json(value: Any, name: str) -> Any:
    from teatree.functions.app.values.results import result_json  # noqa: PLC0415 - Arrow, only for calls

    try:
        return result_json(value, name)
    except OperatorError as e:
        message = e.message.replace("The result", f"The argument {name!r}", 1)
        raise RequestError(Code.BAD_ARGUMENT, message, where=e.where) from None
