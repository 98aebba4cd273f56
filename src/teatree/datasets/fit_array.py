"""The conversion of one Arrow array of any type to a column's type: without loss, or `BadValueError`."""

from __future__ import annotations

import decimal
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.codec import parse_json
from teatree.contracts.names import fold
from teatree.contracts.shown import shown
from teatree.contracts.types.dtypes import (
    DECIMAL_PRECISION_MAX,
    Array,
    Bit,
    Blob,
    Boolean,
    Date,
    Decimal,
    Dtype,
    Enum,
    Float,
    Integer,
    Interval,
    Json,
    List,
    Map,
    Struct,
    Time,
    Timestamp,
    TimeTz,
    Uuid,
    Varchar,
)
from teatree.datasets import iso
from teatree.datasets.arrow.arrays import as_elements, build_array, enum_array
from teatree.datasets.arrow.nested import list_parts, storage, struct_parts
from teatree.datasets.arrow.types import to_arrow_type
from teatree.datasets.bad_value import BadValueError
from teatree.datasets.results.json_values import json_column
from teatree.datasets.values import converter

_WIDE_TYPES = tuple(to_arrow_type(Integer(128, signed)) for signed in (True, False))
_OPAQUE_TYPES = (*_WIDE_TYPES, to_arrow_type(Bit()), to_arrow_type(TimeTz()))
_LOSS = ("lose data", "data loss", "truncated")


def fit_array(array: pa.Array, dtype: Dtype) -> pa.Array:
    """Return the values as exactly `to_arrow_type(dtype)`; raises `BadValueError` if a value does not survive."""
    array = _decoded(array)
    if array.null_count == len(array):
        return build_array(dtype, [None] * len(array))
    match dtype:
        case Boolean():
            return _cast(array, dtype) if pa.types.is_boolean(array.type) else _refuse(array, dtype)
        case Integer(bits=128):
            return _wide_integers(array, dtype)
        case Integer() | Float() | Decimal():
            return _numbers(array, dtype)
        case Varchar():
            return _cast(array, dtype) if _is_text(array) else _refuse(array, dtype)
        case Blob():
            return _cast(array, dtype) if _is_bytes(array) else _refuse(array, dtype)
        case Enum():
            return _members(array, dtype)
        case Json():
            return _json(array)
        case Date() | Time() | Timestamp():
            return _moments(array, dtype)
        case Interval():
            return _intervals(array)
        case Uuid() | Bit() | TimeTz():
            return _packed(array, dtype)
        case List() | Array():
            return _lists(array, dtype)
        case Struct():
            return _structs(array, dtype)
        case Map():
            return _maps(array, dtype)
        case _:
            raise TypeError(f"{dtype} has no Arrow form")


def first_bad(array: pa.Array, dtype: Dtype) -> tuple[int, BadValueError]:
    """Find the first value that does not fit, by halving, and what is wrong with it alone."""
    low, high = 0, len(array)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            fit_array(array.slice(low, middle - low), dtype)
        except BadValueError:
            high = middle
        else:
            low = middle
    try:
        fit_array(array.slice(low, 1), dtype)
    except BadValueError as e:
        return low, e
    return low, BadValueError(Code.TYPE_MISMATCH, f"The values do not fit into {str(dtype)[:60]}.")


def _decoded(array: pa.Array) -> pa.Array:
    """Undo what only changes the way of writing: dictionaries, views, 8-bit booleans, unknown extensions."""
    arrow = array.type
    if isinstance(arrow, pa.Bool8Type):
        return array.storage.cast(pa.bool_())
    if isinstance(arrow, pa.BaseExtensionType):
        known = isinstance(arrow, pa.UuidType | pa.JsonType) or arrow in _OPAQUE_TYPES
        return array if known else _decoded(array.storage)
    if pa.types.is_dictionary(arrow):
        return _decoded(_decoded(array.dictionary).take(array.indices))  # Arrow cannot take out of views
    if pa.types.is_string_view(arrow) or pa.types.is_large_string(arrow):
        return array.cast(pa.string())
    if pa.types.is_binary_view(arrow) or pa.types.is_large_binary(arrow) or pa.types.is_fixed_size_binary(arrow):
        return array.cast(pa.binary())
    return array.cast(pa.float32()) if pa.types.is_float16(arrow) else array


def _is_text(array: pa.Array) -> bool:
    return bool(pa.types.is_string(array.type))


def _is_bytes(array: pa.Array) -> bool:
    return bool(pa.types.is_binary(array.type))


def _is_wide(array: pa.Array) -> bool:
    return array.type in _WIDE_TYPES


def _refuse(array: pa.Array, dtype: Dtype) -> NoReturn:
    message = (
        f"{_first_shown(array)} of the Arrow type {str(array.type)[:60]} is not a value of type {str(dtype)[:60]}."
    )
    raise BadValueError(Code.TYPE_MISMATCH, message)


def _lossy(array: pa.Array, dtype: Dtype) -> NoReturn:
    raise BadValueError(Code.LOSSY_NUMBER, f"{_first_shown(array)} would lose digits as {dtype}.")


def _out_of_range(array: pa.Array, dtype: Dtype) -> NoReturn:
    raise BadValueError(Code.OUT_OF_RANGE, f"{_first_shown(array)} is out of range for {dtype}.")


def _first_shown(array: pa.Array) -> str:
    """Show the first value: an error is reported for an array of the one bad row."""
    try:
        return shown(array[0].as_py()) if len(array) else "A value"
    except (ValueError, OverflowError, TypeError, ImportError, UnicodeDecodeError):
        return "A value"  # beyond what Python's own types hold


def _cast(array: pa.Array, dtype: Dtype) -> pa.Array:
    try:
        return array.cast(to_arrow_type(dtype))
    except pa.ArrowNotImplementedError:
        _refuse(array, dtype)
    except pa.ArrowInvalid as e:
        if any(word in str(e) for word in _LOSS):
            _lossy(array, dtype)
        _out_of_range(array, dtype)


def _numbers(array: pa.Array, dtype: Integer | Float | Decimal) -> pa.Array:
    arrow = array.type
    if _is_wide(array):
        return _by_value([_wide(v, array) for v in array.storage.to_pylist()], dtype)
    if not (pa.types.is_integer(arrow) or pa.types.is_floating(arrow) or pa.types.is_decimal(arrow)):
        _refuse(array, dtype)
    if pa.types.is_floating(arrow) and not isinstance(dtype, Integer):
        return _narrow(array, dtype) if isinstance(dtype, Float) else _by_value(_shortest(array), dtype)
    if isinstance(dtype, Float) and pa.types.is_decimal(arrow) and arrow.scale == 0:
        return _by_value([None if value is None else int(value) for value in array.to_pylist()], dtype)
    if isinstance(dtype, Float) and pa.types.is_decimal(arrow):
        array = array.cast(pa.string())  # read back as the nearest double, which Arrow's own cast often misses
    if isinstance(dtype, Decimal) and pa.types.is_decimal(arrow) and _may_wrap(arrow, dtype):
        return _by_value(array.to_pylist(), dtype)
    if isinstance(dtype, Decimal) and pa.types.is_integer(arrow):
        if dtype.scale > 18:
            return _by_value(array.to_pylist(), dtype)
        array = array.cast(pa.decimal128(38, 0)).cast(pa.decimal128(38, dtype.scale))  # Arrow allows for all int64
    try:
        return array.cast(to_arrow_type(dtype))
    except pa.ArrowInvalid:  # exact, with precise errors: Arrow refuses some whole numbers that a double holds
        return _by_value(array.to_pylist(), dtype)


def _may_wrap(arrow: pa.DataType, dtype: Decimal) -> bool:
    """Whether Arrow's own cast could wrap around: it multiplies in 128 bits before it looks at the result."""
    return bool(arrow.precision + max(0, dtype.scale - arrow.scale) > DECIMAL_PRECISION_MAX)


def _shortest(array: pa.Array) -> list[Any]:
    """Return floats, those of 32 bits as the shortest decimals that are the same float."""
    if not pa.types.is_float32(array.type):
        return list(array.to_pylist())
    return [None if value is None else decimal.Decimal(str(np.float32(value))) for value in array.to_pylist()]


def _narrow(array: pa.Array, dtype: Float) -> pa.Array:
    fitted = _cast(array, dtype)
    back = fitted.cast(array.type)
    if not pc.all(pc.or_(pc.equal(array, back), pc.is_nan(array)), min_count=0).as_py():
        _lossy(array, dtype)
    return fitted


def _by_value(values: Sequence[Any], dtype: Dtype) -> pa.Array:
    convert = converter(dtype)
    return build_array(dtype, [convert(value) for value in values])


def _wide(value: bytes | None, array: pa.Array) -> int | None:
    return None if value is None else int.from_bytes(value, "little", signed=array.type.type_name == "hugeint")


def _wide_integers(array: pa.Array, dtype: Integer) -> pa.Array:
    if array.type == to_arrow_type(dtype):
        return array
    if pa.types.is_integer(array.type):
        if not dtype.signed and array.null_count < len(array) and pc.min(array).as_py() < 0:
            _out_of_range(array, dtype)
        unsigned = pa.types.is_unsigned_integer(array.type)
        low = array.cast(pa.uint64() if unsigned else pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        words = np.empty((len(low), 2), dtype=np.int64)
        words[:, 0] = low.view(np.int64)
        words[:, 1] = 0 if unsigned else low >> 63
        plain = pa.Array.from_buffers(pa.binary(16), len(low), [None, pa.py_buffer(words)])
        masked = pc.if_else(array.is_valid(), plain, pa.scalar(None, pa.binary(16)))
        return pa.ExtensionArray.from_storage(to_arrow_type(dtype), masked)
    if _is_wide(array):
        return _by_value([_wide(v, array) for v in array.storage.to_pylist()], dtype)
    if pa.types.is_decimal(array.type) or pa.types.is_floating(array.type) or _is_text(array):
        return _by_value(array.to_pylist(), dtype)
    return _refuse(array, dtype)


def _members(array: pa.Array, dtype: Enum) -> pa.Array:
    if not _is_text(array):
        _refuse(array, dtype)
    places = pc.index_in(array, pa.array(dtype.values, pa.string()))
    if places.null_count != array.null_count:
        _refuse(array, dtype)
    return enum_array(places.cast(to_arrow_type(dtype).index_type), dtype.values)


def _json(array: pa.Array) -> pa.Array:
    texts = storage(array)
    if not pa.types.is_string(texts.type):
        texts = texts.cast(pa.string()) if isinstance(array.type, pa.JsonType) else _refuse(array, Json())
    for text in texts.to_pylist():
        if text is not None:
            _check_json(text)
    return pa.ExtensionArray.from_storage(pa.json_(), texts)


def _check_json(text: str) -> None:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as e:
        try:
            parse_json(text.encode())  # the slow way, which takes numbers beyond a double's range
        except RequestError:
            raise BadValueError(Code.TYPE_MISMATCH, f"{shown(text)} is not JSON: {e}.") from None


def _moments(array: pa.Array, dtype: Date | Time | Timestamp) -> pa.Array:
    kind = {Date: pa.types.is_date, Time: pa.types.is_time, Timestamp: pa.types.is_timestamp}[type(dtype)]
    if not kind(array.type) or (isinstance(dtype, Timestamp) and (array.type.tz is not None) != dtype.tz):
        _refuse(array, dtype)
    fitted = _cast(array, dtype)
    if isinstance(dtype, Time):
        return fitted
    counts = fitted.view(pa.int32() if isinstance(dtype, Date) else pa.int64()).fill_null(0).to_numpy()
    if isinstance(dtype, Date):
        low, high, infinity = iso.DATE_MIN, iso.DATE_MAX, iso.DATE_INFINITY
    else:
        low, high = iso.timestamp_range(dtype.unit)
        infinity = iso.TIMESTAMP_INFINITY
    if not (((counts >= low) & (counts <= high)) | (counts == infinity) | (counts == -infinity)).all():
        _out_of_range(array, dtype)
    return fitted


def _intervals(array: pa.Array) -> pa.Array:
    if pa.types.is_duration(array.type):
        micros = _cast_to(array, pa.duration("us"), Interval()).cast(pa.int64()).to_pylist()
        return _by_value([None if v is None else {"micros": v} for v in micros], Interval())
    if pa.types.is_struct(array.type):  # of months, days and micros, as Polars has them
        return _by_value(array.to_pylist(), Interval())
    if array.type != pa.month_day_nano_interval():
        _refuse(array, Interval())
    for value in array.to_pylist():
        if value is not None and value.nanoseconds % 1000:
            _lossy(array, Interval())
    return array


def _cast_to(array: pa.Array, arrow: pa.DataType, dtype: Dtype) -> pa.Array:
    try:
        return array.cast(arrow)
    except pa.ArrowInvalid as e:
        if any(word in str(e) for word in _LOSS):
            _lossy(array, dtype)
        _out_of_range(array, dtype)


def _packed(array: pa.Array, dtype: Dtype) -> pa.Array:
    """Convert types that Arrow has as bytes with a meaning: texts are parsed, bytes are checked."""
    arrow = to_arrow_type(dtype)
    if _is_text(array):
        return _by_value(array.to_pylist(), dtype)
    if isinstance(dtype, Uuid) and _is_bytes(array):
        if not all(value is None or len(value) == 16 for value in array.to_pylist()):
            _refuse(array, dtype)
        return pa.ExtensionArray.from_storage(arrow, array.cast(pa.binary(16)))
    if array.type != arrow:
        _refuse(array, dtype)
    check = {TimeTz: _is_time_tz, Bit: _is_bit}.get(type(dtype))
    if check and not all(value is None or check(value) for value in array.storage.to_pylist()):
        _out_of_range(array.storage, dtype)
    return array


def _is_time_tz(value: bytes) -> bool:
    packed = int.from_bytes(value, "little")
    return packed >> 24 <= iso.DAY_SECONDS * 1_000_000 and packed & 0xFFFFFF <= 2 * iso.OFFSET_SECONDS_MAX


def _is_bit(value: bytes) -> bool:
    return len(value) >= 2 and value[0] <= 7 and value[1] >> (8 - value[0]) == (1 << value[0]) - 1


def _lists(array: pa.Array, dtype: List | Array) -> pa.Array:
    arrow = array.type
    if not (pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow)):
        _refuse(array, dtype)
    parts = list_parts(array)
    try:
        elements = as_elements(fit_array(parts.elements, dtype.of))
    except BadValueError:
        place, error = first_bad(parts.elements, dtype.of)
        error.path = f"[{place}]{error.path}"  # of the first row: an error is reported for one row alone
        raise error from None
    if isinstance(dtype, List):
        return pa.ListArray.from_arrays(parts.offsets(), elements, to_arrow_type(dtype), mask=parts.mask())
    if not pc.all(pc.or_(parts.is_null, pa.array(parts.lengths == dtype.length)), min_count=0).as_py():
        _refuse(array, dtype)
    spread = parts.spread(elements, dtype.length)
    return pa.FixedSizeListArray.from_arrays(spread, type=to_arrow_type(dtype), mask=parts.mask())


def _structs(array: pa.Array, dtype: Struct) -> pa.Array:
    if not pa.types.is_struct(array.type):
        _refuse(array, dtype)
    sent: dict[str, pa.Array] = {}
    for field, part in zip(array.type, struct_parts(array), strict=True):
        if fold(field.name) in sent:
            raise BadValueError(Code.DUPLICATE_KEY, f"The member {field.name!r} is named twice.")
        sent[fold(field.name)] = part
    names = {fold(member.name) for member in dtype.fields}
    if unknown := sent.keys() - names:
        message = f"There is no member {min(unknown)!r} in {str(dtype)[:60]}."
        raise BadValueError(Code.UNKNOWN_COLUMN, message)
    members = [
        as_elements(fit_array(sent.get(fold(member.name), pa.nulls(len(array))), member.dtype))
        for member in dtype.fields
    ]
    mask = array.is_null() if array.null_count else None
    return pa.StructArray.from_arrays(members, fields=list(to_arrow_type(dtype)), mask=mask)


def _maps(array: pa.Array, dtype: Map) -> pa.Array:
    if not pa.types.is_map(array.type):
        _refuse(array, dtype)
    parts = list_parts(array)
    keys, values = struct_parts(parts.elements)
    fitted = as_elements(fit_array(keys, dtype.key))
    if fitted.null_count:
        raise BadValueError(Code.NOT_NULL, "A key of a MAP is not null.")
    known = iter([repr(key) for key in json_column(fitted, dtype.key)])
    for length in parts.lengths.tolist():
        if len({next(known) for _ in range(length)}) != length:
            raise BadValueError(Code.DUPLICATE_KEY, f"A key occurs twice in the MAP {_first_shown(array)}.")
    return pa.MapArray.from_arrays(
        parts.offsets(), fitted, as_elements(fit_array(values, dtype.value)), to_arrow_type(dtype), mask=parts.mask()
    )
