"""A request as its sender writes it, and as it is published: subject, headers, body."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson
from attrs import field, frozen

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.requests import (
    ARGS_HEADER_BYTES_MAX,
    CONTENT_ARROW,
    HEADER_ARGS,
    HEADER_CONTENT_TYPE,
    HEADER_GROUP,
    HEADER_REQUEST_ID,
)
from teatree.contracts.names import check_group_id, check_request_id, new_id

if TYPE_CHECKING:
    from teatree.messaging.subjects import Subjects

_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_NULL = b"null"
"""What orjson makes of NaN: only a body that contains it needs a search for NaN."""
HEADERS_ROOM_BYTES = 1_024
"""Bytes of a message's headers other than `Teatree-Args`: ids, content type, those of a batch."""
_TOO_LARGE_HINT = "Store the rows as a file and send `load` with its address, or split them over several requests."


@frozen
class Message:
    """One request to a model's function; it can be sent repeatedly under its id, and takes effect once."""

    function: str
    args: Mapping[str, Any] | None = None
    rows: Sequence[Mapping[str, Any]] | None = field(default=None, repr=False)
    """Rows as objects, sent as JSON."""
    arrow: Any = field(default=None, repr=False)
    """Rows as anything with `__arrow_c_stream__` (pyarrow, Polars, a `Dataset`), sent as an Arrow stream."""
    request_id: str = field(factory=new_id)


@frozen
class Encoded:
    """A request ready to be published."""

    request_id: str
    subject: str
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def size_bytes(self) -> int:
        """Its approximate size on the wire."""
        return len(self.body) + len(self.headers.get(HEADER_ARGS, "")) + HEADERS_ROOM_BYTES


def encode(
    message: Message,
    subjects: Subjects,
    model: str,
    sender: str,
    *,
    size_bytes_max: int,
    group: str | None = None,
    expected_version: int | None = None,
) -> Encoded:
    """Return the request as it is published; raises `bad_name`, `bad_argument` or `body_too_large`."""
    args = dict(message.args or {})
    if expected_version is not None:
        args["expected_version"] = expected_version
    headers = {HEADER_REQUEST_ID: check_request_id(message.request_id, "request_id")}
    if group is not None:
        headers[HEADER_GROUP] = check_group_id(group)
    if message.arrow is not None:
        if message.rows is not None:
            raise RequestError(Code.BAD_ARGUMENT, "Rows are given twice, as `rows` and as `arrow`.", where="rows")
        headers[HEADER_CONTENT_TYPE] = CONTENT_ARROW
        headers[HEADER_ARGS] = args_header(args)
        body = arrow_stream(message.arrow)
    else:
        if message.rows is not None:
            args["rows"] = message.rows if isinstance(message.rows, list) else list(message.rows)
        body = json_body(args)
    encoded = Encoded(message.request_id, subjects.request(model, message.function, sender), headers, body)
    check_size(encoded, size_bytes_max)
    return encoded


def check_size(encoded: Encoded, size_bytes_max: int) -> None:
    """Check that the server will accept the request; raises `body_too_large`."""
    if encoded.size_bytes > size_bytes_max:
        raise RequestError(
            Code.BODY_TOO_LARGE,
            f"The request has {len(encoded.body):,} bytes; NATS takes {size_bytes_max:,} with headers.",
            where="body",
            hint=_TOO_LARGE_HINT,
        )


def json_body(args: Mapping[str, Any]) -> bytes:
    """Return the arguments as JSON; raises `bad_argument` for what JSON would change or cannot represent."""
    try:
        try:
            body = orjson.dumps(args, default=_plain, option=orjson.OPT_UTC_Z)
        except TypeError:  # rare: an integer beyond 64 bits, or a value without a JSON form
            body = orjson.dumps(_long_integers_as_written(args), default=_plain, option=orjson.OPT_UTC_Z)
    except (TypeError, ValueError) as e:
        raise RequestError(
            Code.BAD_ARGUMENT, f"The arguments have no JSON form: {e}.", where="args", hint="Send such rows as Arrow."
        ) from None
    if _NULL in body:
        _refuse_not_finite(args, "")
    return body


def _plain(value: Any) -> Any:
    """Return a form that the columns' types read back without loss: a number with all its digits, bytes in base64."""
    if isinstance(value, Decimal):
        return orjson.Fragment(str(value)) if value.is_finite() else str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _long_integers_as_written(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -(2**63) <= value < 2**64 else orjson.Fragment(str(value))
    if isinstance(value, Mapping):
        return {key: _long_integers_as_written(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_long_integers_as_written(part) for part in value]
    return value


def _refuse_not_finite(value: Any, where: str) -> None:
    """Find NaN and infinities, which JSON would silently turn into null."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RequestError(
                Code.BAD_ARGUMENT,
                f"JSON cannot represent {value}.",
                where=where,
                hint=f"Send None, the text {_word(value)!r}, or Arrow.",
            )
    elif isinstance(value, dict):
        for key, part in value.items():
            if isinstance(part, (float, dict, list, tuple)):
                _refuse_not_finite(part, f"{where}.{key}" if where else str(key))
    elif isinstance(value, (list, tuple)):
        for place, part in enumerate(value):
            if isinstance(part, (float, dict, list, tuple)):
                _refuse_not_finite(part, f"{where}[{place}]")


def _word(value: float) -> str:
    """Return the text that a floating point column reads as this value."""
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def args_header(args: Mapping[str, Any]) -> str:
    """Return the arguments beside an Arrow body: one line of ASCII JSON."""
    text = _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], json_body(args).decode())
    if len(text) > ARGS_HEADER_BYTES_MAX:
        raise RequestError(
            Code.BODY_TOO_LARGE,
            f"The arguments beside Arrow rows have {len(text)} bytes; at most {ARGS_HEADER_BYTES_MAX} are allowed.",
            where=HEADER_ARGS,
        )
    return text


def arrow_stream(rows: Any) -> bytes:
    """Return rows as an Arrow IPC stream; raises `bad_arrow` for anything else."""
    import pyarrow as pa  # noqa: PLC0415 - 0.2 s that senders of JSON need not pay

    try:
        reader = pa.RecordBatchReader.from_stream(rows)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, reader.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            for batch in reader:
                writer.write_batch(batch)
    except (TypeError, pa.ArrowException) as e:
        raise RequestError(
            Code.BAD_ARROW,
            f"{type(rows).__name__} is not Arrow data: {e}",
            where="arrow",
            hint="Give a pyarrow table, a Polars frame, or anything with __arrow_c_stream__.",
        ) from None
    body: bytes = sink.getvalue().to_pybytes()
    return body
