"""Arrow arrays of drawn values, in any Arrow type that a sender may choose."""

from __future__ import annotations

import struct
from decimal import Context, Decimal
from random import Random
from typing import Any

import pyarrow as pa

from fuzz.kinds import INTEGERS, UNITS, SqlType
from fuzz.values import PER_SECOND, Value, decimal_text

_INTS = {
    "TINYINT": pa.int8(), "SMALLINT": pa.int16(), "INTEGER": pa.int32(), "BIGINT": pa.int64(), "UTINYINT": pa.uint8(),
    "USMALLINT": pa.uint16(), "UINTEGER": pa.uint32(), "UBIGINT": pa.uint64(),
}  # fmt: skip
_EXACT = Context(prec=80)


def arrow_array(kind: SqlType, values: list[Value], rng: Random) -> pa.Array:
    """Return values as an array; half of them begin in the middle of their buffers."""
    if rng.random() < 0.5:
        return _array(kind, values, rng)
    padded = [values[0], *values, values[-1]] if values else values
    return _array(kind, padded, rng).slice(1, len(values)) if values else _array(kind, values, rng)


def _array(kind: SqlType, values: list[Value], rng: Random) -> pa.Array:
    nulls = [value.raw is None for value in values]
    mask = pa.array(nulls, pa.bool_()) if any(nulls) else None
    match kind.base:
        case "LIST" | "MAP":
            raws: list[list[Any]] = [value.raw or [] for value in values]
            offsets = [0]
            for raw in raws:
                offsets.append(offsets[-1] + len(raw))
            flat = [part for raw in raws for part in raw]
            starts = pa.array(offsets, pa.int32())
            if kind.base == "LIST":
                large = rng.random() < 0.2
                make = pa.LargeListArray if large else pa.ListArray
                starts = starts.cast(pa.int64()) if large else starts
                return make.from_arrays(starts, _array(kind.parts[0], flat, rng), mask=mask)
            keys = _plain_keys(_array(kind.parts[0], [key for key, _ in flat], rng))
            return pa.MapArray.from_arrays(
                starts, keys, _array(kind.parts[1], [item for _, item in flat], rng), mask=mask
            )
        case "ARRAY":
            gap = [Value("", "", None)] * kind.numbers[0]
            flat = [part for value in values for part in (gap if value.raw is None else value.raw)]
            elements = _array(kind.parts[0], flat, rng)
            return pa.FixedSizeListArray.from_arrays(elements, kind.numbers[0], mask=mask)
        case "STRUCT":
            parts = [
                _array(part, [Value("", "", None) if value.raw is None else value.raw[at] for value in values], rng)
                for at, part in enumerate(kind.parts)
            ]
            return pa.StructArray.from_arrays(parts, list(kind.names), mask=mask)
        case _:
            return _scalars(kind, [value.raw for value in values], rng)


def _plain_keys(keys: pa.Array) -> pa.Array:
    return keys.dictionary_decode() if pa.types.is_dictionary(keys.type) else keys


def _scalars(kind: SqlType, raws: list[Any], rng: Random) -> pa.Array:
    present = [raw for raw in raws if raw is not None]
    base = kind.base
    if base in INTEGERS:
        return _integers(base, raws, present, rng)
    if base in UNITS:
        return _timestamps(base, raws, present, rng)
    match base:
        case "BOOLEAN":
            plain = pa.array(raws, pa.bool_())
            return pa.ExtensionArray.from_storage(pa.bool8(), plain.cast(pa.int8())) if rng.random() < 0.3 else plain
        case "FLOAT":
            return pa.array(raws, rng.choice((pa.float32(), pa.float64())))
        case "DOUBLE":
            single = all(raw != raw or abs(raw) in (0, float("inf")) or _is_single(raw) for raw in present)  # noqa: PLR0124
            return pa.array(raws, pa.float32() if single and rng.random() < 0.5 else pa.float64())
        case "DECIMAL":
            return _decimals(kind, raws, rng)
        case "VARCHAR" | "ENUM":
            choices = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int16(), pa.string())]
            arrow = rng.choice(choices)
            return (
                pa.array(raws, pa.string()).dictionary_encode().cast(arrow)
                if pa.types.is_dictionary(arrow)
                else pa.array(raws, arrow)
            )
        case "BLOB":
            return pa.array(raws, rng.choice((pa.binary(), pa.large_binary(), pa.binary_view())))
        case "BIT":
            return pa.array(raws, pa.string())
        case "DATE":
            if rng.random() < 0.3 and all(abs(raw) < 10**8 for raw in present):
                return _view([None if raw is None else raw * 86_400_000 for raw in raws], pa.date64())
            return pa.array(raws, pa.int32()).view(pa.date32())
        case "TIME":
            return _times(raws, present, rng)
        case "TIMETZ":
            return pa.array([None if raw is None else raw[2] for raw in raws], pa.string())
        case "INTERVAL":
            return _intervals(raws, present, rng)
        case "UUID":
            whole = pa.array([None if raw is None else raw.bytes for raw in raws], pa.binary(16))
            texts = pa.array([None if raw is None else str(raw) for raw in raws], pa.string())
            return rng.choice((whole, texts, pa.ExtensionArray.from_storage(pa.uuid(), whole)))
        case "JSON":
            texts = pa.array(raws, pa.string())
            return rng.choice((texts, pa.ExtensionArray.from_storage(pa.json_(), texts)))
        case _:
            raise TypeError(base)


def _is_single(number: float) -> bool:
    try:
        return bool(struct.unpack("<f", struct.pack("<f", number))[0] == number)
    except OverflowError:
        return False


def _view(counts: list[int | None], arrow: pa.DataType) -> pa.Array:
    narrow = pa.int32() if arrow.bit_width == 32 else pa.int64()
    return pa.array(counts, narrow).view(arrow)


def _integers(base: str, raws: list[Any], present: list[int], rng: Random) -> pa.Array:
    choices: list[pa.DataType] = [_INTS[base]] if base in _INTS else [pa.string()]
    if all(-(2**63) <= raw < 2**63 for raw in present):
        choices.append(pa.int64())
    if all(0 <= raw < 2**64 for raw in present):
        choices.append(pa.uint64())
    if all(abs(raw) <= 2**53 for raw in present):
        choices.append(pa.float64())
    choices.append(pa.decimal128(38, 0) if all(abs(raw) < 10**38 for raw in present) else pa.decimal256(40, 0))
    arrow = rng.choice(choices)
    if arrow == pa.string():
        return pa.array([None if raw is None else str(raw) for raw in raws], arrow)
    if pa.types.is_decimal(arrow):
        return pa.array([None if raw is None else Decimal(raw) for raw in raws], arrow)
    return pa.array(raws, arrow)


def _decimals(kind: SqlType, raws: list[Any], rng: Random) -> pa.Array:
    precision, scale = kind.numbers
    more = rng.randint(0, 38 - precision)
    numbers = [None if raw is None else _EXACT.create_decimal(decimal_text(raw, scale)) for raw in raws]
    if rng.random() < 0.3:
        return pa.array(numbers, pa.decimal256(precision + 5, scale + 2))
    return pa.array(numbers, pa.decimal128(precision + more, scale + more if rng.random() < 0.5 else scale))


def _timestamps(base: str, raws: list[Any], present: list[int], rng: Random) -> pa.Array:
    own = UNITS[base]
    zone = rng.choice(("UTC", "Europe/Berlin")) if base == "TIMESTAMPTZ" else None
    choices = [own]
    if all(abs(raw) < 2**63 - 1 for raw in present):
        for unit, per_second in PER_SECOND.items():
            moved = [raw * per_second for raw in present]
            if all(m % PER_SECOND[own] == 0 and abs(m // PER_SECOND[own]) < 2**63 - 1 for m in moved):
                choices.append(unit)
    unit = rng.choice(choices)
    same = unit == own
    counts = [raw if raw is None or same else raw * PER_SECOND[unit] // PER_SECOND[own] for raw in raws]
    return _view(counts, pa.timestamp(unit, zone))


def _times(raws: list[Any], present: list[int], rng: Random) -> pa.Array:
    choices: list[tuple[pa.DataType, int, int]] = [(pa.time64("us"), 1, 1), (pa.time64("ns"), 1_000, 1)]
    if all(raw % 1_000 == 0 for raw in present):
        choices.append((pa.time32("ms"), 1, 1_000))
    if all(raw % 1_000_000 == 0 for raw in present):
        choices.append((pa.time32("s"), 1, 1_000_000))
    arrow, times, by = rng.choice(choices)
    return _view([None if raw is None else raw * times // by for raw in raws], arrow)


def _intervals(raws: list[Any], present: list[tuple[int, int, int]], rng: Random) -> pa.Array:
    if rng.random() < 0.5 and all(raw[:2] == (0, 0) for raw in present):
        return _view([None if raw is None else raw[2] for raw in raws], pa.duration("us"))
    return pa.array(
        [None if raw is None else (raw[0], raw[1], raw[2] * 1_000) for raw in raws], pa.month_day_nano_interval()
    )
