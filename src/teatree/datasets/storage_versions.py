"""Storage versions: which DuckDB must read a model's files, and which types it does not know.

DuckDB itself lets a file for older releases hold a newer type, and those then cannot open the file at all.
"""

from __future__ import annotations

import re

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.types.dtypes import Array, Dtype, List, Map, Struct, Time, Timestamp
from teatree.contracts.types.schema import Schema

Release = tuple[int, int]
OLDEST: Release = (1, 2)
NEWEST: Release = (2, 0)
"""The release that knows every type."""


def read_release(storage_version: str) -> Release | None:
    """Return the release in a name as `v1.4.0` or `v1.4.0+`; None if it names none."""
    found = re.match(r"v(\d+)\.(\d+)", storage_version)
    return (int(found[1]), int(found[2])) if found else None


def known_since(dtype: Dtype) -> Release:
    """Return the first DuckDB that reads a type."""
    match dtype:
        case Timestamp(unit="ns", tz=True):
            return (2, 0)
        case Time(unit="ns"):
            return (1, 4)
        case List(of=of) | Array(of=of):
            return known_since(of)
        case Struct(fields=fields):
            return max((known_since(member.dtype) for member in fields), default=OLDEST)
        case Map(key=key, value=value):
            return max(known_since(key), known_since(value))
        case _:
            return OLDEST


def check_readable(schema: Schema, release: Release, where: str) -> None:
    """Check that files for `release` may hold a table's columns; raises `type_mismatch`."""
    for field in schema:
        needed = known_since(field.dtype)
        if needed > release:
            raise RequestError(
                Code.TYPE_MISMATCH,
                f"DuckDB {release[0]}.{release[1]}, which must be able to open this model's files, has no {field.dtype}"
                f" (column {field.name!r}).",
                where=where,
                hint=f"The model's storage_version would have to be v{needed[0]}.{needed[1]}.0 or newer.",
            )
