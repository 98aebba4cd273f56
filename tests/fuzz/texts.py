"""Texts near the edges of each type's grammar, and DuckDB's form of those that only Teatree accepts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from fuzz.kinds import INTEGERS, UNITS, SqlType
from fuzz.values import draw_value, integer

MOMENTS = (*UNITS, "DATE", "TIME", "TIMETZ")
_SIGNED_YEAR = re.compile(r"\s*([+-])([0-9]{4,7})(-[0-9].*)", re.DOTALL)
_MINUTES = re.compile(r"(?<![0-9:+-])([0-9]{2}:[0-9]{2})(?![0-9:.,])")
_COMMA = re.compile(r"(?<=:[0-9]{2}),(?=[0-9])")
_ZONE = re.compile(r"([+-][0-9]{2})([0-9]{2})([0-9]{2})?$")
_WORDS = (
    "infinity", "-infinity", "epoch", "Infinity", "inf", "nan", "NaN", "-nan", "now", "today", "null", "", " ", "0",
    "24:00:00", "23:59:60", "00:00:60", "2016-12-31 23:59:60", "2024-01-01 24:00:00", "2024-02-30", "2023-02-29", "-0",
    "10000-01-01", "+10000-01-01", "0000-01-01", "-0001-01-01", "0001-01-01 (BC)", "44-03-15 (BC)", "2024-01-01 (BC)",
    "1_000", "0x1F", "0b11", "1e3", "1E+3", "1.", ".5", "+5", "1,5", "1.5e", "١٢", "1 000", "'5'", "1e400", "-1e-400",
)  # fmt: skip
_SEPARATORS = ("T", " ", "  ", "t", "", "_", "T ")


def edge_texts(kind: SqlType, rng: Random, count: int) -> list[str]:
    """Return texts that are almost valid for a type, or valid in an unusual form."""
    return [_edge(kind, rng) for _ in range(count)]


def _edge(kind: SqlType, rng: Random) -> str:
    match rng.randrange(10):
        case 0:
            return rng.choice(_WORDS)
        case 1 | 2 if kind.base in MOMENTS or rng.random() < 0.2:
            return damaged(_moment(kind, rng), rng)
        case 3 | 4 | 5 if kind.base in MOMENTS:
            return _moment(kind, rng)
        case 6 | 7 if kind.base in INTEGERS or kind.base in ("DECIMAL", "FLOAT", "DOUBLE"):
            return _number(rng)
        case _:
            text = draw_value(kind, rng, nullable=False).json.strip('"')
            return text if rng.random() < 0.4 else damaged(text, rng)


def _moment(kind: SqlType, rng: Random) -> str:
    year = rng.choice(("2024", "1999", "0001", "9999", "0000", "+12345", "-0044", "12345", "24", "292277", "290308"))
    month, day = f"{rng.randint(0, 13):02}", f"{rng.randint(0, 32):02}"
    dash = rng.choice(("-", "-", "-", "-", "/", "", "."))
    date = f"{year}{dash}{month}{dash}{day}"
    if rng.random() < 0.1:
        date = rng.choice((f"{year}-W{rng.randint(1, 53):02}-{rng.randint(1, 7)}", f"{year}-{rng.randint(1, 366):03}"))
    clock = _clock(rng)
    zone = rng.choice(
        ("", "", "Z", "z", "+01:00", "-0330", "+05", "+15:59:59", " UTC", "+1", "Europe/Berlin", "-00:00")
    )
    if kind.base == "DATE":
        return rng.choice((date, date, date + " 00:00:00"))
    if kind.base in ("TIME", "TIMETZ"):
        return clock + (zone if rng.random() < (0.8 if kind.base == "TIMETZ" else 0.1) else "")
    zoned = zone if rng.random() < (0.8 if kind.base == "TIMESTAMPTZ" else 0.1) else ""
    return date + rng.choice(_SEPARATORS[: 2 if rng.random() < 0.7 else 7]) + clock + zoned


def _clock(rng: Random) -> str:
    hour, minute, second = f"{rng.randint(0, 24):02}", f"{rng.randint(0, 60):02}", f"{rng.randint(0, 60):02}"
    mark = rng.choice((".", ".", ".", ","))
    digits = "".join(rng.choice("0000123456789") for _ in range(rng.choice((1, 2, 3, 6, 7, 9, 12))))
    fraction = mark + digits
    colons, plain = f"{hour}:{minute}:{second}", f"{hour}{minute}{second}"
    return rng.choice((
        colons, f"{colons}{fraction}", plain, f"{plain}{fraction}", f"{plain}78", f"{hour}:{minute}",
        f"{hour}:{minute}{fraction}", f"{hour}:{minute}{mark}{second}", hour, f"{hour}{fraction}",
        f"{int(hour)}:{int(minute)}:{int(second)}", f"{colons}:{digits}", f"{hour}{minute}",
    ))  # fmt: skip


def _number(rng: Random) -> str:
    whole = str(abs(integer(rng, -(2**130), 2**130)))
    if rng.random() < 0.3:
        whole = rng.choice(("0", "00", "", "007")) + whole[: rng.randint(0, 6)]
    sign = rng.choice(("", "", "-", "+", "--", " -"))
    fraction = rng.choice(("", "", ".", ".0", ".5", ".10", ".49999999999999999999", f".{rng.randrange(10**9)}", ",5"))
    exponent = rng.choice(("", "", "", "e0", "E5", "e-3", "e+2", "e40", "e-40", "e310", "e"))
    mark = rng.choice(("", "", "", "", "_", " ", "'"))
    return sign + (whole[:3] + mark + whole[3:] if len(whole) > 3 else whole) + fraction + exponent


def damaged(text: str, rng: Random) -> str:
    """Return a text with a character or two changed."""
    characters = list(text)
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randint(0, len(characters))
        match rng.randrange(4):
            case 0:
                characters.insert(place, rng.choice(" 0159.,:-+TtZzeE_'\\\t\n\0()/ä٣"))
            case 1 if place < len(characters):
                del characters[place]
            case 2 if place < len(characters):
                characters[place] = rng.choice(" 0159.,:-+TZeE_\\/٣")
            case _:
                del characters[rng.randint(0, len(characters)) :]
    return "".join(characters)


def as_duckdb(kind: SqlType, texts: Sequence[str]) -> list[str]:
    """Return DuckDB's form of texts that ISO 8601 writes differently: signed years, commas, offsets without colons."""
    return [_as_duckdb(text) if kind.base in MOMENTS else text for text in texts]


def _as_duckdb(text: str) -> str:
    text = _MINUTES.sub(r"\1:00", _COMMA.sub(".", text), count=1)
    if ":" in text:
        text = _ZONE.sub(lambda found: ":".join(part for part in found.groups() if part), text)
        text = text[:-1] + "+00" if text.endswith(("z", "Z")) else text
    found = _SIGNED_YEAR.fullmatch(text)
    if found is None:
        return text
    sign, year, rest = found.groups()
    if sign == "+":
        return f"{int(year):04}{rest}"
    return f"-{int(year):04}{rest}"
