"""The reader of received Arrow streams: bounded before they are decoded, validated before they are used."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from teatree.contracts.errors import Code, RequestError
from teatree.datasets.arrow.nested import list_parts, storage

_HEADER_DICTIONARY = 2
_HEADER_BATCH = 3
_VALUE_BYTES = 8
"""Bytes that one value counts for, though it may take none of the stream: a column of nulls, for example."""
_MESSAGES_MAX = 100_000
_UNSUPPORTED = (
    pa.types.is_run_end_encoded,
    pa.types.is_union,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)


def read_arrow_stream(body: bytes, rows_bytes_max: int, where: str = "body") -> pa.Table:
    """Return the rows of an Arrow IPC stream, fully validated.

    Raises `bad_arrow` for what is damaged or cut off, `body_too_large` if it would take more than `rows_bytes_max`
    bytes once decoded; that is seen from the stream's metadata, before anything is decompressed.
    """
    try:
        _check_size(body, rows_bytes_max, where)
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            _check_types(reader.schema, where)
            table = reader.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, struct.error, IndexError, OverflowError, KeyError) as e:
        message = f"This is not a whole Arrow stream: {str(e).splitlines()[0][:200] if str(e) else type(e).__name__}."
        raise RequestError(
            Code.BAD_ARROW, message, where=where, hint="Write it with an Arrow IPC stream writer, and close that."
        ) from None
    expanded = expanded_bytes(table)
    if expanded > rows_bytes_max:
        raise _too_large(expanded, rows_bytes_max, where)
    return table


def _check_size(body: bytes, rows_bytes_max: int, where: str) -> None:
    decoded = 0
    reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(body))
    for count, message in enumerate(_messages(reader)):
        decoded += _decoded_bytes(message)
        if decoded > rows_bytes_max or count > _MESSAGES_MAX:
            raise _too_large(decoded, rows_bytes_max, where)


def check_batches(stream: pa.Buffer, batch_bytes_max: int, where: str) -> None:
    """Check that no batch of an Arrow stream would take more than `batch_bytes_max` once decoded.

    Raises `body_too_large`, or what Arrow raises for a damaged stream.
    """
    try:
        for message in _messages(pa.ipc.MessageReader.open_stream(stream)):
            if (decoded := _decoded_bytes(message)) > batch_bytes_max:
                raise _too_large(decoded, batch_bytes_max, where, "Write smaller batches.")
    except (ValueError, struct.error, IndexError, OverflowError) as e:
        raise pa.ArrowInvalid(str(e) or type(e).__name__) from e


def _messages(reader: pa.ipc.MessageReader) -> Iterator[pa.ipc.Message]:
    while True:
        try:
            yield reader.read_next_message()
        except StopIteration:
            return


def _decoded_bytes(message: pa.ipc.Message) -> int:
    """Return what a message's buffers declare to take once decompressed, and its values at least."""
    root = _FlatTable.root(memoryview(message.metadata))
    header_type, header = root.scalar(1, "<B"), root.table(2)
    if header is None or header_type not in (_HEADER_DICTIONARY, _HEADER_BATCH):
        return 0
    batch = header.table(1) if header_type == _HEADER_DICTIONARY else header
    if batch is None:
        return 0
    nodes = batch.structs(1, "<qq")
    buffers = batch.structs(2, "<qq")
    values = sum(length for length, _ in nodes) + batch.scalar(0, "<q")
    if min((length for length, _ in nodes), default=0) < 0 or min((n for pair in buffers for n in pair), default=0) < 0:
        raise ValueError("a length is negative")
    if batch.table(3) is None:
        return values * _VALUE_BYTES + sum(length for _, length in buffers)
    view = memoryview(message.body) if message.body is not None else memoryview(b"")
    return values * _VALUE_BYTES + sum(_uncompressed(view, offset, length) for offset, length in buffers)


def _uncompressed(body: memoryview, offset: int, length: int) -> int:
    if length == 0:
        return 0
    (declared,) = struct.unpack_from("<q", body, offset)
    if declared < -1:
        raise ValueError("a length is negative")
    return length if declared == -1 else int(declared)


class _FlatTable:
    """A table of a flatbuffer; only as much of the format as Arrow's batch metadata needs."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data = data
        self._at = at
        self._fields = at - struct.unpack_from("<i", data, at)[0]
        self._fields_bytes = struct.unpack_from("<H", data, self._fields)[0]

    @classmethod
    def root(cls, data: memoryview) -> _FlatTable:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def scalar(self, field: int, form: str) -> int:
        at = self._place(field)
        return 0 if at is None else int(struct.unpack_from(form, self._data, at)[0])

    def table(self, field: int) -> _FlatTable | None:
        at = self._place(field)
        return None if at is None else _FlatTable(self._data, at + struct.unpack_from("<I", self._data, at)[0])

    def structs(self, field: int, form: str) -> list[tuple[int, ...]]:
        at = self._place(field)
        if at is None:
            return []
        at += struct.unpack_from("<I", self._data, at)[0]
        (count,) = struct.unpack_from("<I", self._data, at)
        size = struct.calcsize(form)
        whole = self._data[at + 4 : at + 4 + count * size]
        if len(whole) != count * size:
            raise ValueError("its metadata is cut off")
        return list(struct.iter_unpack(form, whole))

    def _place(self, field: int) -> int | None:
        slot = 4 + 2 * field
        if slot + 2 > self._fields_bytes:
            return None
        offset = struct.unpack_from("<H", self._data, self._fields + slot)[0]
        return self._at + offset if offset else None


def _check_types(schema: pa.Schema, where: str) -> None:
    for field in schema:
        for name, arrow in _all_fields(field):
            name.encode()  # a name that is not UTF-8 fails here, where that is expected
            if any(test(arrow) for test in _UNSUPPORTED):
                message = f"The column {field.name!r} has the Arrow type {str(arrow)[:100]}, which no column holds."
                raise RequestError(Code.TYPE_MISMATCH, message, where=where, hint="Cast it to another type.")


def _all_fields(field: pa.Field) -> Iterator[tuple[str, pa.DataType]]:
    arrow = field.type
    yield field.name, arrow
    if isinstance(arrow, pa.BaseExtensionType):
        yield from _all_fields(field.with_type(arrow.storage_type))
    elif pa.types.is_dictionary(arrow):
        yield from _all_fields(field.with_type(arrow.value_type))
    else:
        for i in range(arrow.num_fields):
            yield from _all_fields(arrow.field(i))


def expanded_bytes(table: pa.Table) -> int:
    """Return the bytes of texts that a table holds once and its rows share, as if each row had its own copy."""
    return sum(_expanded_bytes(chunk) for column in table.columns for chunk in column.chunks)


def _expanded_bytes(array: pa.Array) -> int:
    """Return the bytes of texts that the stream holds once and its rows share: dictionaries and views."""
    array = storage(array)
    arrow = array.type
    if pa.types.is_dictionary(arrow):
        return _dictionary_bytes(array)
    if pa.types.is_string_view(arrow) or pa.types.is_binary_view(arrow):
        views = np.frombuffer(array.buffers()[1], dtype="<i4")[:: 16 // 4]
        return int(views[array.offset : array.offset + len(array)].clip(0).sum(dtype=np.int64))
    if pa.types.is_struct(arrow):
        return sum(_expanded_bytes(member) for member in array.flatten())
    if pa.types.is_nested(arrow):
        return _expanded_bytes(list_parts(array).elements)
    return 0


def _dictionary_bytes(array: pa.Array) -> int:
    values = storage(array.dictionary)
    if pa.types.is_string_view(values.type) or pa.types.is_binary_view(values.type):
        values = values.cast(pa.large_binary())
    if pa.types.is_nested(values.type):
        return len(array) * int(values.nbytes)  # the worst case: every row names the largest value
    if not (pa.types.is_string(values.type) or pa.types.is_binary(values.type) or _is_large(values.type)):
        return len(array) * _VALUE_BYTES
    lengths = pc.binary_length(values).cast(pa.int64()).take(array.indices)
    total: int = pc.sum(lengths, min_count=0).as_py()
    return total


def _is_large(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(arrow) or pa.types.is_large_binary(arrow))


def _too_large(
    found: int, limit: int, where: str, hint: str = "Send them in several requests, or use `load`."
) -> RequestError:
    return RequestError(
        Code.BODY_TOO_LARGE,
        f"The rows take at least {found:,} bytes once decoded; the limit is {limit:,}.",
        where=where,
        hint=hint,
    )
