"""The types of columns: values whose text is the type's SQL as DuckDB writes it (`dtype_parser` reads it back)."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

from attrs import Attribute, field, frozen
from typing_extensions import override

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.names import fold
from teatree.contracts.shown import shown

DECIMAL_PRECISION_MAX = 38
ARRAY_LENGTH_MAX = 100_000
"""Elements of a fixed-length array, DuckDB's own limit; with those of arrays in it, since DuckDB reserves all of them
for 2,048 rows at once, and a size beyond 64 bits wraps."""
ENUM_VALUES_MAX = 65_536
STRUCT_FIELDS_MAX = 4_096

# Words that DuckDB does not take as a bare member name of a STRUCT (tried with 2.0 for all 508 of duckdb_keywords()).
_RESERVED = frozenset(
    "all analyse analyze and anti any array as asc asof asymmetric at authorization binary both by case cast check "
    "collate collation column concurrently constraint create cross default deferrable desc describe distinct else end "
    "except false fetch for foreign freeze from full generated glob group having ilike in initially inner intersect "
    "into is isnull join lambda lateral leading left like limit natural not notnull null offset on only or order "
    "outer overlaps pivot pivot_longer pivot_wider placing positional primary qualify references returning right "
    "select semi show similar some summarize symmetric table tablesample then to trailing true try_cast union unique "
    "unpack unpivot using variadic verbose when where window with struct map list".split()
)
_BARE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _check(ok: Callable[[Any], bool], message: str) -> Any:
    def validate(_: Any, attribute: Attribute[Any], value: Any) -> None:
        if not ok(value):
            raise RequestError(Code.BAD_ARGUMENT, f"{message}, not {shown(value)}.", where=attribute.name)

    return validate


def _int_between(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


class Dtype(ABC):
    """The type of a column or of a value nested in one; equal by value, immutable."""

    @abstractmethod
    def __str__(self) -> str:
        """Return the type's SQL as DuckDB writes it."""


@frozen
class Boolean(Dtype):
    """True or false."""

    @override
    def __str__(self) -> str:
        return "BOOLEAN"


_INTEGER_NAMES = {8: "TINYINT", 16: "SMALLINT", 32: "INTEGER", 64: "BIGINT", 128: "HUGEINT"}


@frozen
class Integer(Dtype):
    """A whole number of 8, 16, 32, 64 or 128 bits."""

    bits: int = field(
        default=32, validator=_check(_INTEGER_NAMES.__contains__, "An integer has 8, 16, 32, 64 or 128 bits")
    )
    signed: bool = True

    @property
    def minimum(self) -> int:
        """The smallest value."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def maximum(self) -> int:
        """The largest value."""
        return (1 << (self.bits - self.signed)) - 1

    @override
    def __str__(self) -> str:
        return ("" if self.signed else "U") + _INTEGER_NAMES[self.bits]


@frozen
class Float(Dtype):
    """A binary floating-point number of 32 or 64 bits."""

    bits: int = field(default=64, validator=_check((32, 64).__contains__, "A float has 32 or 64 bits"))

    @override
    def __str__(self) -> str:
        return "FLOAT" if self.bits == 32 else "DOUBLE"


@frozen
class Decimal(Dtype):
    """An exact number of `precision` digits, `scale` of them after the point."""

    precision: int = field(
        default=18,
        validator=_check(_int_between(1, DECIMAL_PRECISION_MAX), f"A DECIMAL has 1 to {DECIMAL_PRECISION_MAX} digits"),
    )
    scale: int = field(
        default=3, validator=_check(_int_between(0, DECIMAL_PRECISION_MAX), "A scale is a small integer")
    )

    def __attrs_post_init__(self) -> None:
        if self.scale > self.precision:
            message = f"DECIMAL({self.precision},{self.scale}) has more digits after the point than in all."
            raise RequestError(Code.BAD_ARGUMENT, message, where="scale")

    @override
    def __str__(self) -> str:
        return f"DECIMAL({self.precision},{self.scale})"


@frozen
class Varchar(Dtype):
    """Text."""

    @override
    def __str__(self) -> str:
        return "VARCHAR"


@frozen
class Blob(Dtype):
    """Bytes."""

    @override
    def __str__(self) -> str:
        return "BLOB"


@frozen
class Bit(Dtype):
    """A string of bits."""

    @override
    def __str__(self) -> str:
        return "BIT"


@frozen
class Date(Dtype):
    """A day."""

    @override
    def __str__(self) -> str:
        return "DATE"


@frozen
class Time(Dtype):
    """A time of day, in microseconds or nanoseconds."""

    unit: Literal["us", "ns"] = field(
        default="us", validator=_check(("us", "ns").__contains__, "A TIME counts us or ns")
    )

    @override
    def __str__(self) -> str:
        return "TIME" if self.unit == "us" else "TIME_NS"


@frozen
class TimeTz(Dtype):
    """A time of day with its offset from UTC."""

    @override
    def __str__(self) -> str:
        return "TIME WITH TIME ZONE"


TimestampUnit = Literal["s", "ms", "us", "ns"]
_TIMESTAMP_NAMES = {
    ("s", False): "TIMESTAMP_S",
    ("ms", False): "TIMESTAMP_MS",
    ("us", False): "TIMESTAMP",
    ("ns", False): "TIMESTAMP_NS",
    ("us", True): "TIMESTAMP WITH TIME ZONE",
    ("ns", True): "TIMESTAMPTZ_NS",
}


@frozen
class Timestamp(Dtype):
    """A moment, counted in `unit`: on the wall clock, or with `tz` in UTC (then in us or ns only)."""

    unit: TimestampUnit = "us"
    tz: bool = False

    def __attrs_post_init__(self) -> None:
        if (self.unit, self.tz) not in _TIMESTAMP_NAMES:
            message = f"There is no timestamp in {self.unit!r}{' with time zone' if self.tz else ''}."
            raise RequestError(Code.BAD_ARGUMENT, message, where="unit")

    @override
    def __str__(self) -> str:
        return _TIMESTAMP_NAMES[self.unit, self.tz]


@frozen
class Interval(Dtype):
    """A span of months, days and microseconds."""

    @override
    def __str__(self) -> str:
        return "INTERVAL"


@frozen
class Uuid(Dtype):
    """A UUID."""

    @override
    def __str__(self) -> str:
        return "UUID"


@frozen
class Json(Dtype):
    """Any JSON value, kept as its text."""

    @override
    def __str__(self) -> str:
        return "JSON"


@frozen
class Enum(Dtype):
    """One of a fixed, ordered set of texts."""

    values: tuple[str, ...]

    def __attrs_post_init__(self) -> None:
        if not 1 <= len(self.values) <= ENUM_VALUES_MAX or not all(type(v) is str for v in self.values):
            message = f"An ENUM has 1 to {ENUM_VALUES_MAX} values, each a text."
            raise RequestError(Code.BAD_ARGUMENT, message, where="values")
        if len(set(self.values)) != len(self.values):
            raise RequestError(Code.BAD_ARGUMENT, "An ENUM names a value twice.", where="values")

    @override
    def __str__(self) -> str:
        return f"ENUM({', '.join(_literal(value) for value in self.values)})"


@frozen
class List(Dtype):
    """Any number of values of one type."""

    of: Dtype

    @override
    def __str__(self) -> str:
        return f"{self.of}[]"


@frozen
class Array(Dtype):
    """Exactly `length` values of one type."""

    of: Dtype
    length: int = field(
        validator=_check(_int_between(1, ARRAY_LENGTH_MAX), f"An array has 1 to {ARRAY_LENGTH_MAX} elements")
    )

    def __attrs_post_init__(self) -> None:
        if (elements := self.length * _elements(self.of)) > ARRAY_LENGTH_MAX:
            message = (
                f"An array has at most {ARRAY_LENGTH_MAX} elements, those of arrays in it included, not {elements}."
            )
            raise RequestError(Code.BAD_ARGUMENT, message, where="length")

    @override
    def __str__(self) -> str:
        return f"{self.of}[{self.length}]"


@frozen
class StructField:
    """A named member of a `Struct`."""

    name: str
    dtype: Dtype


@frozen
class Struct(Dtype):
    """Named values, each with a type; names differ in more than their case."""

    fields: tuple[StructField, ...]

    def __attrs_post_init__(self) -> None:
        names = {fold(member.name) for member in self.fields}
        if not 1 <= len(self.fields) <= STRUCT_FIELDS_MAX or "" in names:
            message = f"A STRUCT has 1 to {STRUCT_FIELDS_MAX} members, each with a name."
            raise RequestError(Code.BAD_ARGUMENT, message, where="fields")
        if len(names) != len(self.fields):
            raise RequestError(Code.BAD_ARGUMENT, "A STRUCT names a member twice.", where="fields")

    @override
    def __str__(self) -> str:
        return f"STRUCT({', '.join(f'{_name(member.name)} {member.dtype}' for member in self.fields)})"


@frozen
class Map(Dtype):
    """Values found by key; a key occurs once."""

    key: Dtype
    value: Dtype

    @override
    def __str__(self) -> str:
        return f"MAP({self.key}, {self.value})"


def children(dtype: Dtype) -> tuple[Dtype, ...]:
    """Return the types that a nested type consists of; a plain type has none."""
    match dtype:
        case List(of=of) | Array(of=of):
            return (of,)
        case Struct(fields=fields):
            return tuple(member.dtype for member in fields)
        case Map(key=key, value=value):
            return (key, value)
        case _:
            return ()


def _elements(dtype: Dtype) -> int:
    """Return how many plain values DuckDB reserves for one value of a type."""
    inner = [_elements(child) for child in children(dtype)]
    return (sum(inner) or 1) * (dtype.length if isinstance(dtype, Array) else 1)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _name(name: str) -> str:
    if _BARE_NAME.fullmatch(name) and fold(name) not in _RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'
