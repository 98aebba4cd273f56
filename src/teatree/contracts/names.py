"""Names and identifiers, and their checks."""

from __future__ import annotations

import os
import re
import time
import uuid

from teatree.contracts.errors import Code, RequestError

_MODEL = re.compile(r"[a-z][a-z0-9_]{0,62}")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_COLUMN_BYTES_MAX = 255
_TABLE_BYTES_MAX = 200  # its archive is a file of that name
RESERVED_ID_PREFIX = "seq-"
ANONYMOUS = "_"
"""The sender of a request whose subject names none; no user or service can have this name."""
OWN_SCHEMA = "_teatree"
"""The schema inside a model's file that holds Teatree's own tables; no request may read or write it."""


def fold(name: str) -> str:
    """Return a name as DuckDB compares it: A to Z as a to z, and nothing else (docs/decisions/0020).

    `str.lower` and SQL's `lower` fold more, so that they take two tables or columns for one.
    """
    return (
        name.lower()
        if name.isascii()
        else name.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")
    )


_MODEL_NAMESPACE = uuid.UUID("7d0c5a5e-7a0f-5b6e-9d4e-3f1f5e0f7ea7")


def check_model(name: object) -> str:
    """Return a model's name, or raise `bad_name`."""
    return _check_token(name, "model")


def is_model_name(name: str) -> bool:
    """Return whether a model can have this name."""
    return _MODEL.fullmatch(name) is not None


def check_function(name: str) -> str:
    """Return a function's name, or raise `bad_name`."""
    return _check_token(name, "function")


def is_function_name(name: str) -> bool:
    """Return whether a function can have this name."""
    return _MODEL.fullmatch(name) is not None


def check_app(name: object) -> str:
    """Return an app's name, or raise `bad_name`."""
    return _check_token(name, "app")


def check_sender(name: object) -> str:
    """Return a sender's name, which may be `_`, or raise `bad_name`."""
    return ANONYMOUS if name == ANONYMOUS else _check_token(name, "sender")


def sender_name(user: str) -> str:
    """Return the sender's name that is closest to a user's name; `_` if no letter or digit of it can be kept.

    Upper case becomes lower case, any other character an underscore; what does not begin with a letter gets `u_`.
    """
    name = re.sub(r"[^a-z0-9]", "_", user.lower()).strip("_")
    if name and not name[0].isalpha():
        name = f"u_{name}"
    return name[:63] or ANONYMOUS


def _check_token(name: object, kind: str) -> str:
    if isinstance(name, str) and _MODEL.fullmatch(name):
        return name
    raise RequestError(
        Code.BAD_NAME,
        f"{name!r} is not {'an' if kind == 'app' else 'a'} {kind} name.",
        where=kind,
        hint="Use a lower-case letter, then up to 62 lower-case letters, digits or underscores.",
    )


def check_identifier(name: object, where: str) -> str:
    """Return a table's or column's name as DuckDB takes it, or raise `bad_name`.

    Any text up to 255 bytes without control characters; Teatree's own prefix `_teatree` is refused.
    """
    if not isinstance(name, str) or not name or len(name.encode("utf-8", "replace")) > _COLUMN_BYTES_MAX:
        raise RequestError(Code.BAD_NAME, f"{name!r} is not a name.", where=where, hint="Use 1 to 255 bytes of text.")
    if not name.isprintable():
        raise RequestError(Code.BAD_NAME, f"{name!r} has characters that cannot be printed.", where=where)
    if fold(name).startswith(OWN_SCHEMA):
        raise RequestError(Code.BAD_NAME, f"{name!r} is reserved for Teatree's own tables.", where=where)
    return name


def check_table(name: object, where: str = "table") -> str:
    """Return a table's name, or raise `bad_name`.

    As `check_identifier`, and nothing that a path, a subject or an object key would read as more than a name.
    """
    table = check_identifier(name, where)
    odd = any(c in table for c in "/\\*>?\0") or ".." in table or table.strip() != table
    if odd or len(table.encode()) > _TABLE_BYTES_MAX:
        raise RequestError(
            Code.BAD_NAME,
            f"{table!r} is not a table name.",
            where=where,
            hint=f"Leave out / \\ * > ? .. and outer spaces, and stay within {_TABLE_BYTES_MAX} bytes.",
        )
    return table


def check_request_id(request_id: str, where: str = "Teatree-Request-Id") -> str:
    """Return a sender's request id, or raise `bad_request_id`."""
    if not _ID.fullmatch(request_id):
        raise RequestError(
            Code.BAD_REQUEST_ID,
            f"{request_id[:80]!r} is not a request id.",
            where=where,
            hint="Use 1 to 64 of A-Z a-z 0-9 _ and -.",
        )
    if request_id.startswith(RESERVED_ID_PREFIX):
        raise RequestError(
            Code.BAD_REQUEST_ID, f"{request_id!r} begins with the reserved prefix {RESERVED_ID_PREFIX!r}.", where=where
        )
    return request_id


def check_group_id(group_id: str) -> str:
    """Return a bulk sender's group id, or raise `bad_request_id`."""
    if not _ID.fullmatch(group_id):
        raise RequestError(
            Code.BAD_REQUEST_ID,
            f"{group_id[:80]!r} is not a group id.",
            where="Teatree-Group",
            hint="Use 1 to 64 of A-Z a-z 0-9 _ and -.",
        )
    return group_id


def sequence_id(seq: int) -> str:
    """Return the id of a request that came without one: its sequence in the log."""
    return f"{RESERVED_ID_PREFIX}{seq}"


def goal_model_id(prefix: str, model: str) -> uuid.UUID:
    """Return the id under which a model's objects lie: the same for the same installation prefix and name, for ever.

    A derived id needs no registry: the name is enough to find the chain (docs/decisions/0002).
    """
    return uuid.uuid5(_MODEL_NAMESPACE, f"{prefix}/{check_model(model)}")


def new_id() -> str:
    """Return a fresh UUIDv7 in its text form (RFC 9562): 48 bits of Unix milliseconds, then random bits."""
    value = int.from_bytes((time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10), "big")
    value = value & ~(0xF << 76) | (0x7 << 76)
    value = value & ~(0x3 << 62) | (0x2 << 62)
    return str(uuid.UUID(int=value))
