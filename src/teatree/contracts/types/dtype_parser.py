"""The parser of a type's text: DuckDB's SQL, with its aliases, in any case."""

from __future__ import annotations

import re
from typing import NoReturn

from attrs import frozen

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.types.dtypes import (
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
    StructField,
    Time,
    Timestamp,
    TimestampUnit,
    TimeTz,
    Uuid,
    Varchar,
    children,
)

TYPE_TEXT_CHARS_MAX = 1_000_000
"""Characters of one type's text that a sender may write: it holds an ENUM's values."""
READ_CHARS_MAX = 8 * TYPE_TEXT_CHARS_MAX
"""Characters of a type's text that we or DuckDB wrote: it is longer than what was sent (spaces, quotes, `DECIMAL(18,3)`
for `DEC`), at most four times, and what was accepted once must be readable for ever."""
TYPE_DEPTH_MAX = 32
"""Levels of nesting: Arrow, Parquet and our own recursion are all safe at this depth."""

_PLAIN: dict[str, Dtype] = {
    name: dtype
    for names, dtype in (
        ("BOOLEAN BOOL LOGICAL", Boolean()),
        ("TINYINT INT1", Integer(8)),
        ("SMALLINT INT2 INT16 SHORT", Integer(16)),
        ("INTEGER INT INT4 INT32 INTEGRAL SIGNED", Integer(32)),
        ("BIGINT INT8 INT64 LONG OID", Integer(64)),
        ("HUGEINT INT128", Integer(128)),
        ("UTINYINT UINT8", Integer(8, signed=False)),
        ("USMALLINT UINT16", Integer(16, signed=False)),
        ("UINTEGER UINT32", Integer(32, signed=False)),
        ("UBIGINT UINT64", Integer(64, signed=False)),
        ("UHUGEINT UINT128", Integer(128, signed=False)),
        ("FLOAT FLOAT4 REAL", Float(32)),
        ("DOUBLE FLOAT8", Float(64)),
        ("DECIMAL DEC NUMERIC", Decimal()),
        ("VARCHAR TEXT STRING CHAR BPCHAR NVARCHAR CHARACTER", Varchar()),
        ("BLOB BYTEA BINARY VARBINARY", Blob()),
        ("BIT BITSTRING", Bit()),
        ("DATE", Date()),
        ("TIME", Time()),
        ("TIME_NS", Time("ns")),
        ("TIMETZ", TimeTz()),
        ("TIMESTAMP DATETIME TIMESTAMP_US", Timestamp()),
        ("TIMESTAMP_S", Timestamp("s")),
        ("TIMESTAMP_MS", Timestamp("ms")),
        ("TIMESTAMP_NS", Timestamp("ns")),
        ("TIMESTAMPTZ", Timestamp(tz=True)),
        ("TIMESTAMPTZ_NS", Timestamp("ns", tz=True)),
        ("INTERVAL", Interval()),
        ("UUID GUID", Uuid()),
        ("JSON", Json()),
    )
    for name in names.split()
}
_WITH_TIME_ZONE: dict[Dtype, Dtype] = {Timestamp(): Timestamp(tz=True), Time(): TimeTz()}
_TIMESTAMP_UNITS: dict[int, TimestampUnit] = {0: "s", 3: "ms", 6: "us", 9: "ns"}
_FLOAT_DIGITS_MAX = 53

_TOKEN = re.compile(
    r"""\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)|"(?P<quoted>(?:[^"]|"")+)"|'(?P<text>(?:[^']|'')*)'"""
    r"""|(?P<number>[0-9]{1,9})|(?P<mark>[][(),]))"""
)
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
"""What SQL text cannot hold: NUL and lone surrogates."""


@frozen
class _Token:
    kind: str
    value: str
    at: int


def parse_dtype(text: object, where: str = "type") -> Dtype:
    """Return the type that `text` names; raises `bad_argument`, naming the character where reading stopped."""
    return _parse(text, where, TYPE_TEXT_CHARS_MAX)


def parse_read_dtype(text: object, where: str = "type") -> Dtype:
    """Return the type that a text of DuckDB's or our own names; raises as `parse_dtype`, but takes longer texts."""
    return _parse(text, where, READ_CHARS_MAX)


def _parse(text: object, where: str, chars_max: int) -> Dtype:
    if not isinstance(text, str) or len(text) > chars_max or _UNWRITABLE.search(text):
        message = f"{str(text)[:80]!r} is not a type: a Unicode text of at most {chars_max:,} characters is."
        raise RequestError(Code.BAD_ARGUMENT, message, where=where)
    parser = _Parser(text, where)
    try:
        dtype = parser.dtype(0)
    except RequestError as e:
        if e.where == where:
            raise
        raise RequestError(e.code, e.message, where=where) from None  # a limit of the type itself
    parser.end(dtype)
    return dtype


def _depth(dtype: Dtype) -> int:
    return 1 + max(map(_depth, children(dtype)), default=-1)


class _Parser:
    """Recursive descent over the tokens of one type."""

    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        self._position = 0
        self._next = self._read()

    def dtype(self, depth: int) -> Dtype:
        """Read one type with its `[]` and `[n]` suffixes."""
        dtype = self._base(depth)
        while self._accept("["):
            depth += 1
            self._check_depth(depth)
            dtype = List(dtype) if self._next.value == "]" else Array(dtype, self._number("an array's length"))
            self._expect("]")
        return dtype

    def end(self, dtype: Dtype) -> None:
        """Check that nothing follows, and the depth once more: suffixes and members add up."""
        self._check_depth(_depth(dtype))
        if self._next.kind != "end":
            self._fail(f"{self._next.value!r} follows the type")

    def _base(self, depth: int) -> Dtype:
        self._check_depth(depth)
        token = self._take("name", "a type's name")
        name = token.value.upper()
        match name:
            case "STRUCT" | "ROW":
                return self._struct(depth)
            case "MAP":
                self._expect("(")
                key = self.dtype(depth + 1)
                self._expect(",")
                value = self.dtype(depth + 1)
                self._expect(")")
                return Map(key, value)
            case "ENUM":
                return self._enum()
            case "DOUBLE":
                self._accept_words("PRECISION")
            case "CHARACTER" | "CHAR":
                self._accept_words("VARYING")
            case _ if name not in _PLAIN:
                self._fail(f"unknown type name {token.value!r}", token)
        return self._zoned(self._sized(_PLAIN[name], token))

    def _sized(self, plain: Dtype, token: _Token) -> Dtype:
        if not self._accept("("):
            return plain
        numbers = [self._number("a number")]
        while self._accept(","):
            numbers.append(self._number("a number"))
        self._expect(")")
        match plain, numbers:
            case Decimal(), [precision]:
                return Decimal(precision, 0)
            case Decimal(), [precision, scale]:
                return Decimal(precision, scale)
            case Varchar(), [_]:
                return plain  # DuckDB does not check a text's length either
            case Timestamp(unit="us", tz=False), [digits] if digits in _TIMESTAMP_UNITS:
                return Timestamp(_TIMESTAMP_UNITS[digits])
            case Float(), [digits] if token.value.upper() == "FLOAT" and 1 <= digits <= _FLOAT_DIGITS_MAX:
                return Float(32 if digits <= 24 else 64)
        return self._fail(f"{token.value}({', '.join(map(str, numbers))}) is not a type", token)

    def _zoned(self, plain: Dtype) -> Dtype:
        if self._accept_words("WITHOUT", "TIME", "ZONE"):
            return plain
        if self._next.value.upper() == "WITH" and plain not in _WITH_TIME_ZONE:
            self._fail(f"{plain} has no time zone")
        return _WITH_TIME_ZONE[plain] if self._accept_words("WITH", "TIME", "ZONE") else plain

    def _struct(self, depth: int) -> Dtype:
        members = []
        self._expect("(")
        while True:
            if self._next.kind not in ("name", "quoted"):
                self._fail("a member's name is missing")
            name = self._read_token().value
            members.append(StructField(name, self.dtype(depth + 1)))
            if not self._accept(","):
                break
        self._expect(")")
        return Struct(tuple(members))

    def _enum(self) -> Dtype:
        self._expect("(")
        values = [self._take("text", "a quoted value").value]
        while self._accept(","):
            values.append(self._take("text", "a quoted value").value)
        self._expect(")")
        return Enum(tuple(values))

    def _check_depth(self, depth: int) -> None:
        if depth > TYPE_DEPTH_MAX:
            self._fail(f"a type is nested more than {TYPE_DEPTH_MAX} levels deep")

    def _number(self, what: str) -> int:
        return int(self._take("number", what).value)

    def _take(self, kind: str, what: str) -> _Token:
        if self._next.kind != kind:
            self._fail(f"{what} is missing")
        return self._read_token()

    def _accept(self, mark: str) -> bool:
        if self._next.kind != "mark" or self._next.value != mark:
            return False
        self._read_token()
        return True

    def _accept_words(self, first: str, *others: str) -> bool:
        if self._next.kind != "name" or self._next.value.upper() != first:
            return False
        self._read_token()
        for word in others:
            if self._take("name", word).value.upper() != word:
                self._fail(f"{word} is missing")
        return True

    def _expect(self, mark: str) -> None:
        if not self._accept(mark):
            self._fail(f"{mark!r} is missing")

    def _read_token(self) -> _Token:
        token = self._next
        self._next = self._read()
        return token

    def _read(self) -> _Token:
        match = _TOKEN.match(self._text, self._position)
        if match is None or match.lastgroup is None:
            rest = self._text[self._position :].strip()
            return _Token("other" if rest else "end", rest[:1], len(self._text) - len(rest))
        self._position = match.end()
        value = match[match.lastgroup]
        unescaped = value.replace('""', '"') if match.lastgroup == "quoted" else value.replace("''", "'")
        return _Token(match.lastgroup, unescaped, match.start(match.lastgroup))

    def _fail(self, what: str, token: _Token | None = None) -> NoReturn:
        place = (token or self._next).at + 1
        raise RequestError(
            Code.BAD_ARGUMENT,
            f"{self._text[:80]!r} is not a type: {what}, at character {place}.",
            where=self._where,
            hint="Write it as DuckDB does, for example DECIMAL(18,3) or STRUCT(a INTEGER, b VARCHAR[]).",
        )
