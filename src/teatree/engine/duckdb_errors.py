"""DuckDB's exceptions as Teatree's: who has to do something about them."""

from __future__ import annotations

import duckdb

from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError, TeatreeError

_MESSAGE_CHARS_MAX = 500

_REQUEST_CODES: tuple[tuple[type[duckdb.Error], Code], ...] = (
    (duckdb.ConversionException, Code.TYPE_MISMATCH),
    (duckdb.OutOfRangeException, Code.OUT_OF_RANGE),
    (duckdb.TypeMismatchException, Code.TYPE_MISMATCH),
    (duckdb.ParserException, Code.BAD_SQL),
    (duckdb.SyntaxException, Code.BAD_SQL),
    (duckdb.BinderException, Code.BAD_SQL),
    (duckdb.CatalogException, Code.BAD_SQL),
    (duckdb.DependencyException, Code.CONSTRAINT),
    (duckdb.InvalidInputException, Code.BAD_ARGUMENT),
    (duckdb.InvalidTypeException, Code.TYPE_MISMATCH),
    (duckdb.NotImplementedException, Code.BAD_SQL),
    (duckdb.PermissionException, Code.SQL_NOT_ALLOWED),
    (duckdb.SequenceException, Code.BAD_SQL),
)


def translate(error: duckdb.Error) -> TeatreeError:
    """Return the Teatree error for what DuckDB raised, in its group."""
    text = " ".join(str(error).split())[:_MESSAGE_CHARS_MAX]
    match error:
        case duckdb.ConstraintException():
            code = Code.NOT_NULL if "NOT NULL" in text else Code.CONSTRAINT
            return RequestError(code, text)
        case duckdb.OutOfMemoryException():
            return RetryError(
                Code.OVER_LIMIT,
                f"The request needs more memory or temporary disk than the model may use: {text}",
                hint="Ask for less at once, or have the model's limits raised.",
            )
        case duckdb.InterruptException():
            return RetryError(Code.TIMED_OUT, "The statement was interrupted.")
        case duckdb.FatalException() | duckdb.InternalException():
            return OperatorError(Code.INTERNAL, f"DuckDB failed: {text}")
        case duckdb.IOException():
            code = Code.DISK_FULL if "No space left" in text else Code.UNAVAILABLE
            return RetryError(code, f"The database file could not be read or written: {text}")
    for kind, code in _REQUEST_CODES:
        if isinstance(error, kind):
            return RequestError(code, text)
    return OperatorError(Code.INTERNAL, f"DuckDB failed: {text}")
