"""Types for the fuzzer, drawn at random and written as DuckDB's SQL; no code is shared with the converters."""

from __future__ import annotations

from random import Random

from attrs import frozen

INTEGERS = {
    "TINYINT": (-(2**7), 2**7 - 1),
    "SMALLINT": (-(2**15), 2**15 - 1),
    "INTEGER": (-(2**31), 2**31 - 1),
    "BIGINT": (-(2**63), 2**63 - 1),
    "HUGEINT": (-(2**127), 2**127 - 1),
    "UTINYINT": (0, 2**8 - 1),
    "USMALLINT": (0, 2**16 - 1),
    "UINTEGER": (0, 2**32 - 1),
    "UBIGINT": (0, 2**64 - 1),
    "UHUGEINT": (0, 2**128 - 1),
}
UNITS = {"TIMESTAMP_S": "s", "TIMESTAMP_MS": "ms", "TIMESTAMP": "us", "TIMESTAMP_NS": "ns", "TIMESTAMPTZ": "us"}
PLAIN = (
    *INTEGERS, *UNITS, "BOOLEAN", "FLOAT", "DOUBLE", "VARCHAR", "BLOB", "BIT", "DATE", "TIME", "TIMETZ", "INTERVAL",
    "UUID", "JSON",
)  # fmt: skip
SCALARS = (*PLAIN, "DECIMAL", "ENUM")
NESTED = ("LIST", "ARRAY", "STRUCT", "MAP")
_MEMBERS = ("a", "b b", "C", "ü", 'q"q', "select", "x1")
_WORDS = ("north", "SOUTH", "", "it's", "ü", "NULL", "a,b", ' "', "\n", "0")


@frozen
class SqlType:
    """One type: its SQL, and its parts."""

    base: str
    sql: str
    parts: tuple[SqlType, ...] = ()
    names: tuple[str, ...] = ()
    """The names of a STRUCT's members, or an ENUM's values."""
    numbers: tuple[int, ...] = ()
    """Precision and scale of a DECIMAL, or the length of an ARRAY."""

    @property
    def bases(self) -> set[str]:
        """The names of all types that occur in it."""
        return {self.base}.union(*(part.bases for part in self.parts))


def quoted(text: str) -> str:
    """Return a text as SQL, whatever characters it has."""
    if text.isascii() and text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    return f"decode(unhex('{text.encode().hex()}'))"


def draw_scalar(rng: Random) -> SqlType:
    """Return a plain type."""
    match base := rng.choice(SCALARS):
        case "DECIMAL":
            precision = rng.choice((1, 4, 5, 9, 10, 15, 16, 18, 19, 28, 37, 38, rng.randint(1, 38)))
            scale = rng.choice((0, precision, rng.randint(0, precision)))
            return SqlType(base, f"DECIMAL({precision},{scale})", numbers=(precision, scale))
        case "ENUM":
            words = tuple(rng.sample(_WORDS, rng.randint(1, len(_WORDS))))
            listed = ", ".join("'" + word.replace("'", "''") + "'" for word in words)
            return SqlType(base, f"ENUM({listed})", names=words)
        case _:
            return SqlType(base, base)


def draw_kind(rng: Random, depth: int = 3) -> SqlType:
    """Return a type; half of them are nested."""
    if depth == 0 or rng.random() < 0.5:
        return draw_scalar(rng)
    match base := rng.choice(NESTED):
        case "LIST":
            of = draw_kind(rng, depth - 1)
            return SqlType(base, f"{of.sql}[]", (of,))
        case "ARRAY":
            of, length = draw_kind(rng, depth - 1), rng.randint(1, 4)
            return SqlType(base, f"{of.sql}[{length}]", (of,), numbers=(length,))
        case "STRUCT":
            names = tuple(rng.sample(_MEMBERS, rng.randint(1, 4)))
            parts = tuple(draw_kind(rng, depth - 1) for _ in names)
            members = ", ".join(
                '"' + name.replace('"', '""') + f'" {part.sql}' for name, part in zip(names, parts, strict=True)
            )
            return SqlType(base, f"STRUCT({members})", parts, names)
        case _:
            key, value = draw_scalar(rng), draw_kind(rng, depth - 1)
            return SqlType("MAP", f"MAP({key.sql}, {value.sql})", (key, value))
