"""Exit codes, and the one line of an error."""

from __future__ import annotations

from enum import IntEnum

from teatree.contracts.errors import AppError, Code, OperatorError, RequestError, RetryError, TeatreeError


class Exit(IntEnum):
    """The exit codes that a script can rely on."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    REJECTED = 3
    UNAVAILABLE = 4
    OPERATOR = 5
    INTERRUPTED = 130


EXIT_HELP = (
    "Exit codes: 0 ok; 1 an error of teatree itself; 2 wrong usage; 3 rejected: fix the request; "
    "4 failed or not reachable: try again; 5 an operator has to act; 130 Ctrl-C."
)


def exit_code(error: TeatreeError) -> Exit:
    """Return the exit code of an error, by what to do about it."""
    match error:
        case TeatreeError(code=Code.USAGE):
            return Exit.USAGE
        case TeatreeError(code=Code.INTERNAL):
            return Exit.INTERNAL
        case RequestError():
            return Exit.REJECTED
        case RetryError():
            return Exit.UNAVAILABLE
        case OperatorError():
            return Exit.OPERATOR
        case _:
            return Exit.INTERNAL


def error_line(error: TeatreeError) -> str:
    """Return an error as one line: code, what is wrong and where, what to do."""
    place = f" (at {error.where})" if error.where and error.where not in error.message else ""
    advice = f" {error.hint}" if error.hint else ""
    return " ".join(f"error[{error.code}]: {error.message}{place}{advice}".split())


def traceback_lines(error: TeatreeError) -> str:
    """Return the traceback of an app's error, to follow its line; "" for others."""
    return f"\n{error.traceback}" if isinstance(error, AppError) and error.traceback else ""


def usage(message: str, hint: str | None = None) -> RequestError:
    """Return the error for a wrong command line."""
    return RequestError(Code.USAGE, message, hint=hint)
