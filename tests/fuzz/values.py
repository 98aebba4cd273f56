"""Values of a type, drawn at random: each as SQL for DuckDB, as JSON for Teatree, and as Arrow's value."""

from __future__ import annotations

import base64
import json
import math
import struct
import uuid
from datetime import date
from random import Random
from typing import Any

from attrs import frozen

from fuzz.kinds import INTEGERS, UNITS, SqlType, quoted

DAY = 86_400_000_000
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
TIMESTAMP_MIN, TIMESTAMP_MAX = -9_223_372_022_400_000_000, 2**63 - 2
INFINITE = {"infinity", "-infinity"}
NANOSECONDS_MAX = (2**63 - 1) // 1000
"""Microseconds of an interval that Arrow holds."""


@frozen
class Value:
    """One value of a kind."""

    sql: str
    json: str
    raw: Any
    """Count, number, text, bytes; a list of parts; `None` is NULL."""
    beyond: bool = False
    """Whether Arrow has no such value: an interval of more than 292 years of hours, the time 24:00:00."""


NULL = Value("NULL", "null", None)


def draw_value(kind: SqlType, rng: Random, *, nullable: bool = True, wide: bool = False) -> Value:
    """Return a value; one in eight is NULL. With `wide` intervals go beyond what Arrow holds."""
    if nullable and rng.random() < 0.125:
        return NULL
    match kind.base:
        case base if base in INTEGERS:
            number = integer(rng, *INTEGERS[base])
            return Value(f"'{number}'::{base}", _number(number, rng), number)
        case base if base in UNITS:
            return _timestamp(kind, rng)
        case "LIST" | "ARRAY":
            count = kind.numbers[0] if kind.numbers else rng.choice((0, 1, 1, 2, 5))
            parts = [draw_value(kind.parts[0], rng, wide=wide) for _ in range(count)]
            return _joined(kind, parts, "[", "]", [part.json for part in parts])
        case "STRUCT":
            parts = [draw_value(part, rng, wide=wide) for part in kind.parts]
            members = [f"{json.dumps(name)}: {part.json}" for name, part in zip(kind.names, parts, strict=True)]
            text = ", ".join(f"{_member(name)}: {part.sql}" for name, part in zip(kind.names, parts, strict=True))
            return Value(
                f"{{{text}}}::{kind.sql}", "{" + ", ".join(members) + "}", parts, any(part.beyond for part in parts)
            )
        case "MAP":
            return _map(kind, rng, wide=wide)
        case _:
            return _SCALARS[kind.base](kind, rng) if kind.base != "INTERVAL" else _interval(rng, wide=wide)


def integer(rng: Random, low: int, high: int) -> int:
    """Return a whole number, often one at an edge of some type."""
    edges = [2**bits + step for bits in (7, 8, 15, 16, 24, 31, 32, 53, 63, 64, 126, 127, 128) for step in (-1, 0, 1)]
    edges += [10**38 + step for step in (-1, 0, 1)]
    choices = [low, high, 0, 1, rng.choice(edges), -rng.choice(edges), rng.randint(low, high), rng.randint(-99, 99)]
    return rng.choice([number for number in choices if low <= number <= high])


def _number(number: int, rng: Random) -> str:
    if abs(number) > 2**53 or rng.random() < 0.05:
        return rng.choice((str(number), f'"{number}"')) if abs(number) > 2**53 else str(number)
    return str(number)


def _member(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _joined(kind: SqlType, parts: list[Value], begin: str, end: str, texts: list[str]) -> Value:
    sql = f"[{', '.join(part.sql for part in parts)}]::{kind.sql}"
    return Value(sql, begin + ", ".join(texts) + end, parts, any(part.beyond for part in parts))


def _map(kind: SqlType, rng: Random, *, wide: bool) -> Value:
    key, value = kind.parts
    keys: dict[str, Value] = {}
    for _ in range(rng.choice((0, 1, 2, 4))):
        drawn = draw_value(key, rng, nullable=False)
        if key.base == "BOOLEAN" or drawn.raw == drawn.raw:
            keys.setdefault(_identity(key, drawn), drawn)
    values = [draw_value(value, rng, wide=wide) for _ in keys]
    pairs = list(zip(keys.values(), values, strict=True))
    listed = ", ".join(k.sql for k, _ in pairs), ", ".join(v.sql for _, v in pairs)
    sql = f"map([{listed[0]}]::{key.sql}[], [{listed[1]}]::{value.sql}[])"
    if key.base in ("VARCHAR", "ENUM") and rng.random() < 0.5:
        text = "{" + ", ".join(f"{k.json}: {v.json}" for k, v in pairs) + "}"
    else:
        text = "[" + ", ".join(f"[{k.json}, {v.json}]" for k, v in pairs) + "]"
    return Value(f"{sql}::{kind.sql}", text, pairs, any(part.beyond for pair in pairs for part in pair))


def _identity(kind: SqlType, value: Value) -> str:
    """Return a key's identity as DuckDB compares keys: 0.0 is -0.0, and intervals are equal by their length."""
    if kind.base in ("FLOAT", "DOUBLE"):
        return str(value.raw + 0.0)
    if kind.base == "INTERVAL":
        months, days, micros = value.raw
        return str(micros + DAY * (days + 30 * months))
    if kind.base == "TIMETZ":
        return str(value.raw[0] - value.raw[1] * 1_000_000)
    return value.sql


def _boolean(_: SqlType, rng: Random) -> Value:
    flag = rng.random() < 0.5
    return Value(str(flag).lower(), str(flag).lower(), flag)


def _float(kind: SqlType, rng: Random) -> Value:
    single = kind.base == "FLOAT"
    form, size = ("<f", 4) if single else ("<d", 8)
    plain = (
        0.0,
        -0.0,
        1.0,
        0.1,
        1e15,
        1e16,
        1e17,
        -1e-5,
        123456789.123,
        math.inf,
        -math.inf,
        math.nan,
        5e-324,
        2.0**53,
    )
    drawn = struct.unpack(form, rng.randbytes(size))[0] if rng.random() < 0.5 else rng.choice(plain)
    number = struct.unpack(form, struct.pack(form, drawn))[0]
    if math.isnan(number):
        return Value(f"'NaN'::{kind.base}", '"NaN"', math.nan)
    if math.isinf(number):
        word = "Infinity" if number > 0 else "-Infinity"
        return Value(f"'{word}'::{kind.base}", f'"{word}"', number)
    text = _shortest(number, form) if single else repr(number)
    return Value(f"'{text}'::{kind.base}", text, number)


def _shortest(number: float, form: str) -> str:
    for digits in range(1, 18):
        text = f"{number:.{digits}g}"
        if struct.pack(form, float(text)) == struct.pack(form, number):
            return text
    return repr(number)


def _decimal(kind: SqlType, rng: Random) -> Value:
    precision, scale = kind.numbers
    limit = 10**precision - 1
    scaled = rng.choice((integer(rng, -limit, limit), rng.randint(-limit, limit), limit, -limit, 0))
    text = decimal_text(scaled, scale)
    return Value(f"'{text}'::{kind.sql}", rng.choice((text, f'"{text}"')), scaled)


def decimal_text(scaled: int, scale: int) -> str:
    """Return the digits of a number that was multiplied by a power of ten."""
    digits = str(abs(scaled)).rjust(scale + 1, "0")
    whole = digits[: len(digits) - scale] + ("." + digits[len(digits) - scale :] if scale else "")
    return ("-" if scaled < 0 else "") + whole


def text(rng: Random) -> str:
    """Return a text with unusual characters."""
    odd = "\0\t\n\r\x1b\x7f\x85\u2028\u200b'\"\\,;={}[]()% aNULLü€𝄞"
    many = rng.choice((0, 1, 2, 3, 8, 13, 40))
    return "".join(rng.choice(odd) if rng.random() < 0.6 else chr(rng.randint(32, 0x2FF)) for _ in range(many))


def _varchar(_: SqlType, rng: Random) -> Value:
    drawn = rng.choice((text(rng), text(rng), "NULL", "null", "", "true", "007", "1e5", "{}"))
    return Value(quoted(drawn), json.dumps(drawn, ensure_ascii=rng.random() < 0.5), drawn)


def _blob(_: SqlType, rng: Random) -> Value:
    drawn = rng.randbytes(rng.choice((0, 1, 2, 3, 4, 16, 40)))
    return Value(f"unhex('{drawn.hex()}')", json.dumps(base64.b64encode(drawn).decode()), drawn)


def _bit(_: SqlType, rng: Random) -> Value:
    drawn = "".join(rng.choice("01") for _ in range(rng.choice((1, 2, 7, 8, 9, 63, 64, 65))))
    return Value(f"'{drawn}'::BIT", f'"{drawn}"', drawn)


def iso_date(days: int) -> str:
    """Return a day as ISO 8601 writes it, with a sign where the year needs one."""
    cycle, rest = divmod(days + date(1970, 1, 1).toordinal() - 1, 146_097)
    day = date.fromordinal(rest + 1)
    year = day.year + 400 * cycle
    sign = "-" if year < 0 else "+" if year > 9999 else ""
    return f"{sign}{abs(year):04}-{day.month:02}-{day.day:02}"


def _days(rng: Random) -> int:
    return rng.choice((rng.randint(-800_000, 3_000_000), rng.randint(0, 30_000), rng.randint(-(2**31) + 2, 2**31 - 2)))


def _date(_: SqlType, rng: Random) -> Value:
    if rng.random() < 0.05:
        word = rng.choice(sorted(INFINITE))
        return Value(f"'{word}'::DATE", f'"{word}"', (2**31 - 1) * (-1 if word[0] == "-" else 1))
    edges = (-719_162, -719_163, -719_528, -719_529, 2_932_896, 2_932_897, 2**31 - 2, -(2**31) + 2, 0)
    days = rng.choice((_days(rng), _days(rng), rng.choice(edges)))
    return Value(f"('1970-01-01'::DATE + ({days}))", f'"{iso_date(days)}"', days)


def clock(micros: int, unit: str = "us") -> str:
    """Return a time of day, with its fraction."""
    seconds, fraction = divmod(micros, PER_SECOND[unit])
    digits = len(str(PER_SECOND[unit])) - 1
    tail = f".{fraction:0{digits}}" if fraction else ""
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{tail}"


def _micros(rng: Random) -> int:
    edges = (0, DAY, DAY - 1, rng.randrange(86_400) * 1_000_000, rng.randrange(86_400_000) * 1_000)
    return rng.choice((rng.randrange(DAY), rng.randrange(DAY), *edges))


def _time(_: SqlType, rng: Random) -> Value:
    micros = _micros(rng)
    return Value(f"'{clock(micros)}'::TIME", f'"{clock(micros)}"', micros, micros == DAY)


def _timetz(_: SqlType, rng: Random) -> Value:
    micros = _micros(rng)
    offset = rng.choice((0, rng.randint(-57_599, 57_599), rng.randint(-15, 15) * 3600, rng.randint(-63, 63) * 900))
    at, size = clock(micros), abs(offset)
    zone = f"{'-' if offset < 0 else '+'}{size // 3600:02}:{size // 60 % 60:02}"
    zone += f":{size % 60:02}" if size % 60 else ""
    return Value(f"'{at}{zone}'::TIMETZ", f'"{at}{zone}"', (micros, offset, f"{at}{zone}"))


def _timestamp(kind: SqlType, rng: Random) -> Value:
    unit = UNITS[kind.base]
    tail = "Z" if kind.base == "TIMESTAMPTZ" else ""
    if rng.random() < 0.05:
        word = rng.choice(sorted(INFINITE))
        return Value(f"'{word}'::{kind.base}", f'"{word}"', (2**63 - 1) * (-1 if word[0] == "-" else 1))
    count = _count(unit, rng)
    days, rest = divmod(count, 86_400 * PER_SECOND[unit])
    if unit == "ns":
        sql = f"'{iso_date(days)} {clock(rest, unit)}'::TIMESTAMP_NS"
    else:
        sql = f"make_timestamp({count * 1_000_000 // PER_SECOND[unit]})::{kind.base}"
    return Value(sql, f'"{iso_date(days)}{rng.choice("T ")}{clock(rest, unit)}{tail}"', count)


def _count(unit: str, rng: Random) -> int:
    if unit == "ns":
        return rng.choice((rng.randint(-(2**62), 2**62), rng.randint(0, 2 * 10**18), rng.randint(0, 2 * 10**9) * 10**9))
    low = -(-TIMESTAMP_MIN * PER_SECOND[unit] // 1_000_000)
    high = TIMESTAMP_MAX * PER_SECOND[unit] // 1_000_000
    usual = rng.randint(-(10**10) * PER_SECOND[unit], 10**11 * PER_SECOND[unit])
    return rng.choice((usual, usual, rng.randint(low, high), high, low, 0, usual // 60 * 60))


def iso_interval(months: int, days: int, micros: int) -> str:
    """Return an interval as ISO 8601 writes it."""
    seconds, fraction = divmod(abs(micros), 1_000_000)
    return f"P{months}M{days}DT{'-' if micros < 0 else ''}{seconds}.{fraction:06}S"


def _interval(rng: Random, *, wide: bool) -> Value:
    months = rng.choice((0, 0, rng.randint(-50, 50), rng.randint(-(2**31) + 1, 2**31 - 1)))
    days = rng.choice((0, 0, rng.randint(-50, 50), rng.randint(-(2**31) + 1, 2**31 - 1)))
    limit = 2**63 - 1 if wide else NANOSECONDS_MAX
    micros = rng.choice(
        (0, rng.randint(-(10**7), 10**7), rng.randint(-(10**12), 10**12), rng.randint(-limit, limit), limit)
    )
    sql = f"(to_months({months}) + to_days({days}) + to_microseconds({micros}))"
    if rng.random() < 0.5:
        notation = json.dumps({"months": months, "days": days, "micros": micros})
    else:
        notation = f'"{iso_interval(months, days, micros)}"'
    return Value(sql, notation, (months, days, micros), abs(micros) > NANOSECONDS_MAX)


def _uuid(_: SqlType, rng: Random) -> Value:
    drawn = uuid.UUID(bytes=rng.choice((rng.randbytes(16), b"\0" * 16, b"\xff" * 16)))
    return Value(f"'{drawn}'::UUID", f'"{drawn}"', drawn)


def _enum(kind: SqlType, rng: Random) -> Value:
    word = rng.choice(kind.names)
    return Value(f"{quoted(word)}::{kind.sql}", json.dumps(word), word)


def json_document(rng: Random, depth: int = 2) -> str:
    """Return compact JSON text, the same from every writer."""
    match rng.randrange(9 if depth else 7):
        case 0:
            return rng.choice(("true", "false", "null"))
        case 1 | 2:
            return str(integer(rng, -(2**200), 2**200))
        case 3:
            return rng.choice(
                ("0.1", "1.50", "-0.0", "1E+400", "1E-7", "123456789012345678.901", "0.30000000000000004")
            )
        case 4 | 5 | 6:
            return json.dumps(
                "".join(rng.choice("aä€𝄞 \\\"'/,{}:") for _ in range(rng.randrange(6))), ensure_ascii=False
            )
        case 7:
            return "[" + ",".join(json_document(rng, depth - 1) for _ in range(rng.randrange(4))) + "]"
        case _:
            names = rng.sample(("a", "b", "ü", "a b", ""), rng.randrange(4))
            members = (f"{json.dumps(name, ensure_ascii=False)}:{json_document(rng, depth - 1)}" for name in names)
            return "{" + ",".join(members) + "}"


def _json(_: SqlType, rng: Random) -> Value:
    document = json_document(rng)
    while document == "null":  # it would be SQL's NULL
        document = json_document(rng)
    return Value(f"{quoted(document)}::JSON", document, document)


_SCALARS = {
    "BOOLEAN": _boolean, "FLOAT": _float, "DOUBLE": _float, "DECIMAL": _decimal, "VARCHAR": _varchar, "BLOB": _blob,
    "BIT": _bit, "DATE": _date, "TIME": _time, "TIMETZ": _timetz, "UUID": _uuid, "ENUM": _enum, "JSON": _json,
}  # fmt: skip
