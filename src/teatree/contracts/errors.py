"""The one tree of errors: grouped by what the caller does next, each with a stable code.

- `RequestError`: fix the request. An outcome made from it is `rejected`.
- `RetryError`: try again; the same request can succeed later. An outcome made from it is `failed`.
- `OperatorError`: call an operator; trying again does not help.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from typing_extensions import override


class Code(StrEnum):
    """Stable names of everything that can be wrong; a code never changes its meaning or its group."""

    # --- fix the request ---
    BAD_NAME = "bad_name"
    BAD_REQUEST_ID = "bad_request_id"
    BAD_HEADER = "bad_header"
    BAD_CONTENT_TYPE = "bad_content_type"
    BAD_JSON = "bad_json"
    DUPLICATE_KEY = "duplicate_key"
    BAD_ARROW = "bad_arrow"
    BAD_ARGUMENT = "bad_argument"
    MISSING_ARGUMENT = "missing_argument"
    UNKNOWN_ARGUMENT = "unknown_argument"
    UNKNOWN_MODEL = "unknown_model"
    MODEL_EXISTS = "model_exists"
    UNKNOWN_FUNCTION = "unknown_function"
    UNKNOWN_TABLE = "unknown_table"
    TABLE_EXISTS = "table_exists"
    TABLE_NOT_DESCRIBED = "table_not_described"
    UNKNOWN_COLUMN = "unknown_column"
    COLUMN_EXISTS = "column_exists"
    MISSING_COLUMN = "missing_column"
    TYPE_MISMATCH = "type_mismatch"
    LOSSY_NUMBER = "lossy_number"
    OUT_OF_RANGE = "out_of_range"
    NOT_NULL = "not_null"
    CONSTRAINT = "constraint"
    BODY_TOO_LARGE = "body_too_large"
    REQUEST_ID_REUSED = "request_id_reused"
    STALE_VERSION = "stale_version"
    UNKNOWN_VERSION = "unknown_version"
    UNKNOWN_REQUEST = "unknown_request"
    BAD_SQL = "bad_sql"
    SQL_NOT_ALLOWED = "sql_not_allowed"
    SOURCE_NOT_ALLOWED = "source_not_allowed"
    BAD_SOURCE = "bad_source"
    RESULT_TOO_LARGE = "result_too_large"
    REFUSED = "refused"
    USAGE = "usage"

    # --- try again ---
    UNAVAILABLE = "unavailable"
    TIMED_OUT = "timed_out"
    OVER_LIMIT = "over_limit"
    LOG_FULL = "log_full"
    SET_ASIDE = "set_aside"
    SOURCE_UNAVAILABLE = "source_unavailable"
    DISK_FULL = "disk_full"
    BUSY = "busy"
    HELD_OFF = "held_off"

    # --- call an operator ---
    FENCED = "fenced"
    CORRUPT = "corrupt"
    NOT_FOUND = "not_found"
    LOG_REPLACED = "log_replaced"
    LOG_PURGED = "log_purged"
    LOG_BEHIND = "log_behind"
    WRONG_CONFIGURATION = "wrong_configuration"
    NOT_AUTHORIZED = "not_authorized"
    BAD_APP = "bad_app"
    APP_ERROR = "app_error"
    BAD_RESULT = "bad_result"
    INTERNAL = "internal"


MESSAGE_CHARS_MAX = 1_000
"""Characters of an error's message, and of its hint, that a notice carries."""
WHERE_CHARS_MAX = 300
TRACEBACK_CHARS_MAX = 4_000
"""Characters of a traceback that a notice carries: its end, where the error is."""


class TeatreeError(Exception):
    """What was wrong, where, and what to do about it.

    `where` names the place in the request or the system (`rows[3].id`, a key, a path); `hint` is what to do next.
    """

    def __init__(self, code: Code, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        place = f" (at {self.where})" if self.where else ""
        advice = f" {self.hint}" if self.hint else ""
        return f"{self.code}: {self.message}{place}{advice}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy without the constructor, whose parameters differ between the kinds of errors."""
        return _remade, (type(self), self.args), self._portable_state()

    def _portable_state(self) -> dict[str, Any]:
        """Return the attributes that make sense in another process."""
        return dict(self.__dict__)

    def to_dict(self) -> dict[str, Any]:
        """Return the form in which a notice carries an error: `code`, `message`, `where`.

        Each can hold text of the sender's: it is cut, and made writable as UTF-8.
        """
        message = _bounded(self.message, MESSAGE_CHARS_MAX)
        if self.hint:
            message = f"{message} {_bounded(self.hint, MESSAGE_CHARS_MAX)}"
        where = None if self.where is None else _bounded(self.where, WHERE_CHARS_MAX)
        return {"code": str(self.code), "message": message, "where": where}


def _remade(kind: type[TeatreeError], args: tuple[Any, ...]) -> TeatreeError:
    return kind.__new__(kind, *args)


def _bounded(text: str, chars_max: int) -> str:
    text = text if len(text) <= chars_max else f"{text[: chars_max - 1]}…"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class RequestError(TeatreeError):
    """The request is wrong: fix it and send it under a new id."""


class Refused(RequestError):  # noqa: N818  a function refuses; it has no error
    """A function of an app refuses the request that it was called with; all that it did is rolled back."""

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(Code.REFUSED, message, where=where, hint=hint)


class RetryError(TeatreeError):
    """The request could not be carried out: the same request can succeed later."""


class OperatorError(TeatreeError):
    """An operator has to act: trying again changes nothing."""


class AppError(OperatorError):
    """An app or one of its functions is faulty: the request ends as `failed`, its neighbours and its model continue."""

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        traceback: str | None = None,
    ) -> None:
        """`traceback` has the frames of the user's code."""
        super().__init__(code, message, where=where, hint=hint)
        self.traceback = traceback

    @override
    def to_dict(self) -> dict[str, Any]:
        found = super().to_dict()
        if self.traceback is not None:
            found["traceback"] = _bounded(self.traceback[-TRACEBACK_CHARS_MAX:], TRACEBACK_CHARS_MAX)
        return found


class FencedError(OperatorError):
    """Another writer owns the model now; the fenced one stops."""

    def __init__(self, message: str, *, where: str | None = None) -> None:
        super().__init__(Code.FENCED, message, where=where, hint="This writer stops; the other one keeps running.")


class CorruptError(OperatorError):
    """Stored bytes are not what was written."""

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(Code.CORRUPT, message, where=where, hint=hint)


class DamageWarning(UserWarning):
    """The requested data is intact, but other data of the same model is damaged."""


_RETRY_CODES = frozenset(
    {
        Code.UNAVAILABLE,
        Code.TIMED_OUT,
        Code.OVER_LIMIT,
        Code.LOG_FULL,
        Code.SET_ASIDE,
        Code.SOURCE_UNAVAILABLE,
        Code.DISK_FULL,
        Code.BUSY,
        Code.HELD_OFF,
    }
)
_OPERATOR_CODES = frozenset(
    {
        Code.FENCED,
        Code.CORRUPT,
        Code.NOT_FOUND,
        Code.LOG_REPLACED,
        Code.LOG_PURGED,
        Code.LOG_BEHIND,
        Code.WRONG_CONFIGURATION,
        Code.NOT_AUTHORIZED,
        Code.BAD_APP,
        Code.APP_ERROR,
        Code.BAD_RESULT,
        Code.INTERNAL,
    }
)


APP_CODES = frozenset({Code.APP_ERROR, Code.BAD_APP, Code.BAD_RESULT})
"""Those of an `AppError`; it can have the code of another error, too, that an app's function raised."""


def error_kind(code: Code) -> type[TeatreeError]:
    """Return the group that a code belongs to: a receiver raises a code from the wire as its sender would."""
    if code in _RETRY_CODES:
        return RetryError
    return OperatorError if code in _OPERATOR_CODES else RequestError
