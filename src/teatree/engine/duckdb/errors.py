"""Translation of DuckDB's errors into Teatree's, each with a code and one sentence.

DuckDB writes a class, a sentence, and often an excerpt of the statement, suggestions for its own settings, or more. The
sentence becomes the message; the class decides the code. Errors while rows stream out of DuckDB arrive as Arrow's
exceptions with the same text, so the class is read from the text.
"""

from __future__ import annotations

import errno
import os
import re

from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError, TeatreeError
from teatree.engine.errors import DamagedFileError, InvalidatedError, not_enough_memory
from teatree.functions.inserts import duplicate_key
from teatree.storage.disk import AWAY, FULL

_MESSAGE_CHARS_MAX = 500
_CLASS = re.compile(r"([A-Z][A-Za-z ]*?) ?(?:Error|error): ")
_CLASS_OF_TYPE = re.compile(r"Invalid Type \[(?P<type>.*)\]: Invalid type for index key")
_TAIL = re.compile(
    r"\n+LINE \d+: |\n*Possible solutions:|\n+(?:Did you mean|Candidate)|\s+Candidate functions:|\n+\* "
    r"|\.?\s+Use \"SET |\s*\(SET |\nSee https?:|\n+Database is launched|\n+Unused blocks"
)
_NOT_NULL = re.compile(r"NOT NULL constraint failed: (?P<table>.*)\.(?P<column>[^.]*)$", re.DOTALL)
_DUPLICATE = re.compile(r"[Dd]uplicate key \"(?P<key>.*)\"", re.DOTALL)
_SUGGESTION = re.compile(r"\n+(?:Did you mean|Candidate bindings): (?P<names>[^\n]*)")
_CAST = re.compile(r"Type \w+ with value (?P<value>.*) can't be cast .* destination type (?P<type>\w+)", re.DOTALL)
_INTERNAL_TYPES = {"INT8": "TINYINT", "INT16": "SMALLINT", "INT32": "INTEGER", "INT64": "BIGINT", "INT128": "HUGEINT"}
_INTERNAL_TYPE = re.compile(r"\bINT(?:8|16|32|64|128)\b")
_OUT_OF_RANGE = re.compile(r"out of (?:the )?range|[Oo]verflow|Failed to cast decimal value", re.ASCII)

_REQUEST_CODES: dict[str, Code] = {
    "Conversion": Code.TYPE_MISMATCH,
    "Out of Range": Code.OUT_OF_RANGE,
    "Mismatch Type": Code.TYPE_MISMATCH,
    "Invalid type": Code.TYPE_MISMATCH,
    "Parser": Code.BAD_SQL,
    "Syntax": Code.BAD_SQL,
    "Binder": Code.BAD_SQL,
    "Catalog": Code.BAD_SQL,
    "Parameter Not Resolved": Code.BAD_SQL,
    "Parameter Not Allowed": Code.BAD_SQL,
    "Dependency": Code.CONSTRAINT,
    "Constraint": Code.CONSTRAINT,
    "Invalid Input": Code.BAD_ARGUMENT,
    "Not implemented": Code.BAD_SQL,
    "Expression": Code.BAD_SQL,
    "Permission": Code.SQL_NOT_ALLOWED,
    "Sequence": Code.BAD_SQL,
    "Divide by Zero": Code.OUT_OF_RANGE,
}
_REQUEST_CODES_BY_WORD = {name.lower(): code for name, code in _REQUEST_CODES.items()}


_DAMAGE = re.compile(
    r"Corrupt database file|Corrupt WAL file|Could not read enough bytes from file"
    r"|Could not read from file \"[^\"]*\": Input/output error"
)
"""The last is a sector that the disk cannot read: a retry would fail too."""
_DELETED = re.compile(r'Cannot open file "[^"]*\.wal": ' + re.escape(os.strerror(errno.ENOENT)))
"""The folder of the write-ahead log is not there any more: the file that is still open was deleted, too."""
_DISK_FULL = re.compile("|".join(re.escape(os.strerror(number)) for number in sorted(FULL)))
_DISK_AWAY = re.compile("|".join(re.escape(os.strerror(number)) for number in sorted(AWAY)))
_FILE_FAULT = re.compile(r"(?:Failed to commit: )?(?:Could not|Cannot|Failed to) (?:[a-z]+ )+(?:file|directory)\b")
"""A COMMIT that could not be written is of another class than the error beneath it."""
_NOT_ALLOCATED = re.compile(
    r"Failed to commit: (?:failed to (?:pin|allocate)|could not allocate|Out of Memory)", re.IGNORECASE
)
"""A commit that failed because memory ran out; it was rolled back."""
_INVALIDATED = re.compile(r"database (?:\"[^\"]*\" )?has been invalidated", re.IGNORECASE)
_OUT_OF_MEMORY = re.compile(
    r"out of memory|failed to (?:allocate|pin)|could not allocate|bad.?alloc|allocation fail|requested allocation size",
    re.IGNORECASE,
)


def translate(error: Exception) -> TeatreeError:
    """Return the Teatree error, in its group, for an exception of DuckDB, or of Arrow while rows stream."""
    if isinstance(error, MemoryError):  # an allocation of Python or Arrow, not of DuckDB
        return not_enough_memory()
    text = str(error)
    found = _CLASS.match(text)
    kind = found[1].strip().lower() if found else ""
    body = text[found.end() :] if found else text
    ours = kind not in _REQUEST_CODES_BY_WORD  # a request controls the text of its errors
    if ours and _DELETED.search(text):
        return DamagedFileError(f"The database file was deleted: {_sentence(body)}")
    if ours and (kind == "fatal" or _INVALIDATED.search(text)):
        return _invalidated(body)
    if ours and _DAMAGE.search(text):
        return DamagedFileError(f"The database file is damaged: {_sentence(body)}")
    if kind == "io" or (ours and _FILE_FAULT.match(body)):
        return RetryError(_disk_code(body), f"The database file could not be read or written: {_sentence(body)}")
    if kind == "internal" and _OUT_OF_MEMORY.search(body):  # the next statement would find the database invalidated
        return _invalidated(body)
    if kind != "out of memory" and ours and _NOT_ALLOCATED.match(body):
        kind = "out of memory"
    match kind:
        case "out of memory":
            return RetryError(
                Code.OVER_LIMIT,
                f"The request needs more memory or temporary disk than the model may use: {_sentence(body)}",
                hint="Ask for less at once, or have the model's limits raised.",
            )
        case "interrupt":
            return RetryError(Code.TIMED_OUT, "The statement was interrupted.")
    found_code = _REQUEST_CODES_BY_WORD.get(kind)
    if found_code is None:
        return OperatorError(Code.INTERNAL, f"DuckDB failed: {_sentence(text)}")
    return _request_error(found_code, body)


def is_disk_fault(text: str) -> bool:
    """Return whether DuckDB's text names a transient state of the disk: full, read-only, not there."""
    return bool(_DISK_FULL.search(text) or _DISK_AWAY.search(text))


def _disk_code(text: str) -> Code:
    return Code.DISK_FULL if _DISK_FULL.search(text) else Code.UNAVAILABLE


def _invalidated(body: str) -> TeatreeError:
    """Return the error of a database that DuckDB invalidated: only errors of the disk or of memory are retried."""
    if _DAMAGE.search(body):
        return DamagedFileError(f"The database file is damaged: {_sentence(body)}")
    if is_disk_fault(body) or _FILE_FAULT.search(body):
        return InvalidatedError(_disk_code(body), f"The database file could not be written: {_sentence(body)}")
    if _OUT_OF_MEMORY.search(body):
        return InvalidatedError(
            Code.OVER_LIMIT,
            f"The database needs more memory than the model may use: {_sentence(body)}",
            hint="Raise TEATREE_LIMITS_MEMORY_BYTES_MAX.",
        )
    return OperatorError(Code.INTERNAL, f"DuckDB invalidated its database: {_sentence(body)}")


def _request_error(code: Code, body: str) -> RequestError:
    if found := _NOT_NULL.search(body):
        return RequestError(Code.NOT_NULL, f"The column {found['column']!r} of {found['table']!r} does not take null.")
    if found := _DUPLICATE.search(body):
        return duplicate_key(found["key"])
    if found := _CLASS_OF_TYPE.search(body):
        return RequestError(Code.TYPE_MISMATCH, f"A primary key cannot be of type {found['type']}.")
    if "expression depth limit" in body:
        return RequestError(Code.BAD_SQL, "The SQL is nested too deeply.")
    if "maximum total string size" in body:
        return RequestError(Code.RESULT_TOO_LARGE, "The result's texts take more than 2 GB.", hint="Ask for less.")
    if "following parameters" in body or "Parameter argument/count" in body:
        message = _sentence(body).replace("Parameter argument/count mismatch, identifiers of the excess", "Too many")
        return RequestError(Code.BAD_ARGUMENT, message, where="parameters")
    if found := _CAST.search(body):
        kind = _INTERNAL_TYPES.get(found["type"], found["type"])
        return RequestError(Code.OUT_OF_RANGE, f"{found['value'][:60]} is out of range for {kind}.")
    if code is Code.TYPE_MISMATCH and _OUT_OF_RANGE.search(body):
        code = Code.OUT_OF_RANGE
    names = _SUGGESTION.search(body)
    return RequestError(code, _sentence(body), hint=f"There is {names['names']}." if names else None)


def _sentence(body: str) -> str:
    cut = _TAIL.search(body)
    text = " ".join((body[: cut.start()] if cut else body).split())
    text = _INTERNAL_TYPE.sub(lambda found: _INTERNAL_TYPES[found[0]], text)
    text = text if len(text) <= _MESSAGE_CHARS_MAX else f"{text[:_MESSAGE_CHARS_MAX]}…"
    text = text[:1].upper() + text[1:].rstrip("!: ")
    return text if text.endswith((".", "…", "?")) else f"{text}."
