"""Errors of an engine that the parts above it handle, each in its way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from teatree.contracts.errors import Code, CorruptError, RetryError


class DamagedFileError(CorruptError):
    """The read-write data are damaged: they are put into quarantine, and restored from the store."""


class DamagedVersionError(CorruptError):
    """A local version is damaged: it is made again from the store."""


class InvalidatedError(RetryError):
    """The open data cannot be used any more after an error of the disk or of memory: they are opened again."""


class TooManyRowsError(RetryError):
    """The rows that a request makes take too much, independently of the requests before it in the transaction."""

    def __init__(self, found_bytes: int, bytes_max: int) -> None:
        super().__init__(
            Code.OVER_LIMIT,
            f"The request makes rows of {found_bytes:,} bytes at least; the limit is {bytes_max:,}.",
            hint="Split it, or have the model's limit raised.",
        )


class UnsureRowsError(RetryError):
    """The same, but some of the rows may be those of requests that ran shortly before, in the same transaction."""

    def __init__(self) -> None:
        super().__init__(Code.OVER_LIMIT, "The request, and those shortly before it, make rows of too many bytes.")


@contextmanager
def damage_of_file() -> Iterator[None]:
    """Raise DamagedFileError for `corrupt`: the local data are damaged, not the store."""
    try:
        yield
    except CorruptError as e:
        raise DamagedFileError(e.message, where=e.where) from e


def not_enough_memory() -> RetryError:
    """Return the error of a request for which Python or Arrow, not the engine, could not allocate memory."""
    return RetryError(
        Code.OVER_LIMIT,
        "There is not enough memory for the request.",
        hint="Ask for less at once, or have the manager's limit raised.",
    )
