"""The strict conversion of arguments: exact, or refused at the path of the bad value."""

from __future__ import annotations

import dataclasses
import enum
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType

import attrs
import polars as pl
import pytest
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st

from teatree import Code, Dataset, Field, OperatorError, Schema
from teatree.contracts.formats.codec import dump_json, parse_json
from teatree.contracts.types.schema import parse_dtype
from teatree.datasets.bad_value import BadValueError
from teatree.functions.app.values.converter import StrictConverter
from teatree.functions.app.values.results import result_json
from teatree.functions.app.values.shapes import UnsupportedHintError, hint_text


class Paint(enum.Enum):
    """An enum of texts."""

    RED = "red"
    BLUE = "blue"


class Rank(enum.IntEnum):
    """An enum of numbers."""

    LOW = 1
    HIGH = 2


class Grade(enum.StrEnum):
    """An enum whose members are texts."""

    GOOD = "good"
    BAD = "bad"


@frozen
class Position:
    """An attrs class."""

    price: Decimal
    colours: list[Paint] = field(factory=list)
    _note: str | None = None


@dataclasses.dataclass(frozen=True)
class Parcel:
    """A dataclass."""

    items: tuple[Position, ...]
    sent: datetime
    by_day: dict[date, Position] = dataclasses.field(default_factory=dict)


@frozen
class Branch:
    """A class within itself."""

    name: str
    below: list[Branch] = field(factory=list)


@frozen
class Circle:
    """Distinguished by its kind."""

    radius: float
    kind: Literal["circle"] = "circle"


@frozen
class Square:
    """Distinguished by its kind."""

    radius: float
    kind: Literal["square"] = "square"


@frozen
class Pair:
    """Distinguished from others by its members."""

    left: int
    right: int


Euro = NewType("Euro", Decimal)


CONVERTER = StrictConverter()


def read(hint: Any, value: Any) -> Any:
    """Read a value of a hint."""
    return CONVERTER.reader(hint)(value)


def refusal(hint: Any, value: Any) -> tuple[Code, str]:
    """Return the code and the path with which a value is refused."""
    with pytest.raises(BadValueError) as e:
        read(hint, value)
    return e.value.code, e.value.path


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
MOMENTS = st.datetimes() | st.datetimes(
    timezones=st.builds(lambda m: timezone(timedelta(minutes=m)), st.integers(-1439, 1439))
)
NUMBERS = st.decimals(-(10**30), 10**30, allow_nan=False, allow_infinity=False) | st.decimals(0, 1, places=40)
POSITIONS = st.builds(Position, NUMBERS, st.lists(st.sampled_from(Paint)), st.none() | TEXTS)
LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers() | st.integers(2**62, 2**70)),
    (str, TEXTS),
    (Decimal, NUMBERS),
    (Euro, NUMBERS),
    (date, st.dates()),
    (datetime, MOMENTS),
    (time, st.times()),
    (timedelta, st.timedeltas()),
    (uuid.UUID, st.uuids()),
    (bytes, st.binary()),
    (Paint, st.sampled_from(Paint)),
    (Rank, st.sampled_from(Rank)),
    (Grade, st.sampled_from(Grade)),
    (Literal["a", "b", 1], st.sampled_from(["a", "b", 1])),
    (Annotated[bool, "a doc"], st.booleans()),
    (float, st.floats(allow_nan=False)),
    (tuple[int, str], st.tuples(st.integers(), TEXTS)),
    (int | None, st.none() | st.integers()),
    (date | Literal["today"], st.dates() | st.just("today")),
    (int | Decimal | bool, st.booleans() | NUMBERS),
    (frozenset[Paint], st.frozensets(st.sampled_from(Paint))),
]
"""Hints whose values are hashable, with their values."""
Hinted = tuple[Any, st.SearchStrategy[Any]]


def generic(kind: Any, *args: Any) -> Any:
    """Return a type with its arguments."""
    return kind[args if len(args) > 1 else args[0]]


def containers(of: st.SearchStrategy[Hinted]) -> st.SearchStrategy[Hinted]:
    """Return hints of containers of other hints."""
    keys = st.sampled_from([each for each in LEAVES if each[0] != Literal["a", "b", 1]])
    return st.one_of(
        of.map(lambda each: (generic(list, each[0]), st.lists(each[1], max_size=4))),
        of.map(lambda each: (generic(tuple, each[0], ...), st.lists(each[1], max_size=4).map(tuple))),
        keys.map(lambda each: (generic(set, each[0]), st.sets(each[1], max_size=4))),
        st.tuples(of, of).map(lambda two: (generic(tuple, two[0][0], two[1][0]), st.tuples(two[0][1], two[1][1]))),
        of.map(lambda each: (each[0] | None, st.none() | each[1])),
        st.tuples(keys, of).map(
            lambda two: (generic(dict, two[0][0], two[1][0]), st.dictionaries(two[0][1], two[1][1], max_size=4))
        ),
    )


CLASSES: list[Hinted] = [
    (Position, POSITIONS),
    (
        Parcel,
        st.builds(
            Parcel,
            st.lists(POSITIONS, max_size=3).map(tuple),
            MOMENTS,
            st.dictionaries(st.dates(), POSITIONS, max_size=2),
        ),
    ),
    (
        Branch,
        st.recursive(
            st.builds(Branch, TEXTS), lambda below: st.builds(Branch, TEXTS, st.lists(below, max_size=3)), max_leaves=5
        ),
    ),
    (
        Circle | Square | Pair,
        st.builds(Circle, st.floats(allow_nan=False))
        | st.builds(Square, st.floats(0, 1))
        | st.builds(Pair, st.integers(), st.integers()),
    ),
]
HINTS = st.recursive(st.sampled_from(LEAVES + CLASSES), containers, max_leaves=4)


@given(data=st.data(), hinted=HINTS)
def test_what_json_of_a_value_gives_back_is_the_value(data: st.DataObject, hinted: Hinted) -> None:
    """A value, written as a result and read by its hint, is the same value of the same types."""
    hint, values = hinted
    value = data.draw(values)
    back = read(hint, parse_json(dump_json(result_json(value))))
    assert back == value
    assert repr_types(back) == repr_types(value)


@given(data=st.data(), hinted=HINTS)
def test_a_value_of_the_hinted_type_is_taken_as_it_is(data: st.DataObject, hinted: Hinted) -> None:
    """Python values need no JSON: library mode takes what the function's hints name."""
    hint, values = hinted
    value = data.draw(values)
    assert read(hint, value) == value


def repr_types(value: Any) -> Any:
    """Return the types in a value."""
    if isinstance(value, Mapping):
        return type(value), sorted(str((repr_types(k), repr_types(v))) for k, v in value.items())
    if isinstance(value, list | tuple):
        return type(value), [repr_types(each) for each in value]
    if isinstance(value, set | frozenset):
        return type(value), sorted(str(repr_types(each)) for each in value)
    return type(value)


def places(value: Any) -> list[tuple[str, list[str | int]]]:
    """Return the places in a JSON value that can be replaced: their paths, as an error writes them and as steps."""
    found: list[tuple[str, list[str | int]]] = [("", [])]
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, each in pairs:
        text = f"[{step}]" if isinstance(step, int) else f".{step}"
        found += [(text + path, [step, *steps]) for path, steps in places(each)]
    return found


def replaced(value: Any, steps: Sequence[Any], by: Any) -> Any:
    """Return a JSON value with another one at a place."""
    if not steps:
        return by
    made = value.copy()
    made[steps[0]] = replaced(value[steps[0]], steps[1:], by)
    return made


WRONG: Any = {"no such member": [{}]}


@given(data=st.data(), hinted=HINTS)
def test_a_wrong_type_deep_inside_is_named_by_its_path(data: st.DataObject, hinted: Hinted) -> None:
    """Wherever a value is replaced by what is of no type there, the error's path is that place.

    An object where one of other members belongs is refused at its first member.
    """
    hint, values = hinted
    plain = parse_json(dump_json(result_json(data.draw(values))))
    path, steps = data.draw(st.sampled_from(places(plain)))
    with pytest.raises(BadValueError) as e:
        read(hint, replaced(plain, steps, WRONG))
    assert e.value.path.startswith(path)
    assert e.value.path.removeprefix(path).count(".") <= 1


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers(2**52, 2**80)
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        ["red", "low", "a", "today", "square", "NaN", "1", "-5", "2026-01-01", "2026-01-01T00:00Z", "P1D", ""]
    )
    | TEXTS,
    lambda of: (
        st.lists(of, max_size=3)
        | st.dictionaries(
            st.sampled_from(["price", "note", "name", "below", "radius", "kind", "left", "right", "1"]) | TEXTS, of
        )
    ),
    max_leaves=8,
)


@given(value=JSON, hinted=HINTS)
def test_any_json_is_read_or_refused(value: Any, hinted: Hinted) -> None:
    """Whatever is sent is a value of the hint, which its result gives back, or is refused; nothing else is raised."""
    hint, _ = hinted
    try:
        found = read(hint, value)
    except BadValueError:
        return
    again = read(hint, parse_json(dump_json(result_json(found))))
    assert repr(again) == repr(found) or again == found


REFUSED: list[tuple[Any, str, Code, str]] = [
    (int, "1.9", Code.LOSSY_NUMBER, ""),
    (int, "true", Code.TYPE_MISMATCH, ""),
    (int, '"5"', Code.TYPE_MISMATCH, ""),
    (int, "1e400", Code.OUT_OF_RANGE, ""),
    (int, "1e999999", Code.OUT_OF_RANGE, ""),
    (int, "null", Code.TYPE_MISMATCH, ""),
    (bool, '"false"', Code.TYPE_MISMATCH, ""),
    (bool, "0", Code.TYPE_MISMATCH, ""),
    (float, "true", Code.TYPE_MISMATCH, ""),
    (float, '"1.5"', Code.TYPE_MISMATCH, ""),
    (float, "9007199254740993", Code.LOSSY_NUMBER, ""),
    (float, "1e400", Code.OUT_OF_RANGE, ""),
    (float, "9" * 400, Code.OUT_OF_RANGE, ""),
    (Decimal, '"NaN"', Code.TYPE_MISMATCH, ""),
    (Decimal, '"1_000"', Code.TYPE_MISMATCH, ""),
    (Decimal, '"1e999999999"', Code.TYPE_MISMATCH, ""),
    (Decimal, "1e9999", Code.OUT_OF_RANGE, ""),
    (Decimal, "0e-9999", Code.OUT_OF_RANGE, ""),
    (Decimal, "false", Code.TYPE_MISMATCH, ""),
    (str, "5", Code.TYPE_MISMATCH, ""),
    (str, r'"\ud800"', Code.TYPE_MISMATCH, ""),
    (bytes, '"a-b="', Code.TYPE_MISMATCH, ""),
    (date, '"20260101"', Code.TYPE_MISMATCH, ""),
    (date, '"2026-02-30"', Code.TYPE_MISMATCH, ""),
    (date, '"2026-01-01T00:00:00"', Code.TYPE_MISMATCH, ""),
    (date, '"٢٠٢٦-01-01"', Code.TYPE_MISMATCH, ""),
    (date, "20260101", Code.TYPE_MISMATCH, ""),
    (datetime, '"2026-01-01"', Code.TYPE_MISMATCH, ""),
    (datetime, '"2026-01-01T00:00:00.1234567"', Code.TYPE_MISMATCH, ""),
    (datetime, '"2026-01-01T24:00:00"', Code.TYPE_MISMATCH, ""),
    (datetime, '"2026-01-01T00:00:00+99:00"', Code.TYPE_MISMATCH, ""),
    (time, '"25:00"', Code.TYPE_MISMATCH, ""),
    (timedelta, '"P1M"', Code.TYPE_MISMATCH, ""),
    (timedelta, '"P9999999999D"', Code.TYPE_MISMATCH, ""),
    (uuid.UUID, '"{01234567-89ab-cdef-0123-456789abcdef}"', Code.TYPE_MISMATCH, ""),
    (Paint, '"RED"', Code.TYPE_MISMATCH, ""),
    (Paint, "[]", Code.TYPE_MISMATCH, ""),
    (Rank, "true", Code.TYPE_MISMATCH, ""),
    (Rank, '"1"', Code.TYPE_MISMATCH, ""),
    (Literal[1, "a"], "true", Code.TYPE_MISMATCH, ""),
    (Literal[True], "1", Code.TYPE_MISMATCH, ""),
    (list[str], '"abc"', Code.TYPE_MISMATCH, ""),
    (list[int], '{"0": 1}', Code.TYPE_MISMATCH, ""),
    (list[int], "[1, 2, 2.5]", Code.LOSSY_NUMBER, "[2]"),
    (set[int], "[1, 2, 1]", Code.DUPLICATE_KEY, "[2]"),
    (set[int], "[1, 1.0]", Code.DUPLICATE_KEY, "[1]"),
    (tuple[int, str], "[1]", Code.TYPE_MISMATCH, ""),
    (tuple[int, str], '[1, "a", 2]', Code.TYPE_MISMATCH, ""),
    (tuple[int, str], "[1, 2]", Code.TYPE_MISMATCH, "[1]"),
    (dict[str, int], "[]", Code.TYPE_MISMATCH, ""),
    (dict[str, int], '{"a": 1, "b": []}', Code.TYPE_MISMATCH, ".b"),
    (dict[int, int], '{"01": 1}', Code.TYPE_MISMATCH, ".01"),
    (dict[Decimal, int], '{"1": 1, "1.0": 2}', Code.DUPLICATE_KEY, ".1.0"),
    (dict[tuple[int, str], int], '[[[1, "a"], 1], [[1, 2], 1]]', Code.TYPE_MISMATCH, "[1][0][1]"),
    (dict[tuple[int, str], int], '[[[1, "a"], 1], [[1, "a"], 2]]', Code.DUPLICATE_KEY, "[1][0]"),
    (Position, "[]", Code.TYPE_MISMATCH, ""),
    (Position, "{}", Code.MISSING_ARGUMENT, ".price"),
    (Position, '{"price": 1, "_note": "x"}', Code.UNKNOWN_ARGUMENT, "._note"),
    (Position, '{"price": 1, "note": 5}', Code.TYPE_MISMATCH, ".note"),
    (
        Parcel,
        '{"items": [{"price": 1}, {"price": true}], "sent": "2026-01-01T00:00Z"}',
        Code.TYPE_MISMATCH,
        ".items[1].price",
    ),
    (
        Parcel,
        '{"items": [], "sent": "2026-01-01T00:00Z", "by_day": {"2026-01-01": {}}}',
        Code.MISSING_ARGUMENT,
        ".by_day.2026-01-01.price",
    ),
    (
        Branch,
        '{"name": "a", "below": [{"name": "b", "below": [{"name": 1}]}]}',
        Code.TYPE_MISMATCH,
        ".below[0].below[0].name",
    ),
    (int | None, '"x"', Code.TYPE_MISMATCH, ""),
    (int | str, "1.5", Code.TYPE_MISMATCH, ""),
    (date | Literal["today"], '"tomorrow"', Code.TYPE_MISMATCH, ""),
    (list[Position] | None, '[{"price": "x"}]', Code.TYPE_MISMATCH, "[0].price"),
    (Circle | Square, '{"radius": 1}', Code.TYPE_MISMATCH, ""),
    (Circle | Square, '{"radius": "x", "kind": "square"}', Code.TYPE_MISMATCH, ".radius"),
    (Circle | Square, '{"radius": 1, "kind": "oval"}', Code.TYPE_MISMATCH, ".kind"),
    (Circle | Square, '{"radius": 1, "kind": ["square"]}', Code.TYPE_MISMATCH, ".kind"),
    (Circle | Pair, '{"left": 1}', Code.MISSING_ARGUMENT, ".right"),
    (Circle | Pair, '{"left": 1, "right": "x"}', Code.TYPE_MISMATCH, ".right"),
    (Circle | Pair, "5", Code.TYPE_MISMATCH, ""),
]


@pytest.mark.parametrize(
    ("hint", "text", "code", "path"), REFUSED, ids=[f"{hint_text(r[0])}-{r[1][:30]}" for r in REFUSED]
)
def test_nothing_is_coerced(hint: Any, text: str, code: Code, path: str) -> None:
    """What is not of the type is refused, at its path."""
    assert refusal(hint, parse_json(text.encode())) == (code, path)


TAKEN: list[tuple[Any, str, Any]] = [
    (int, "2.0", 2),
    (int, '"1180591620717411303424"', 2**70),
    (float, "1", 1.0),
    (float, "0.1", 0.1),
    (float, '"Infinity"', float("inf")),
    (Decimal, "0.10", Decimal("0.10")),
    (Decimal, '"1e2"', Decimal("1e2")),
    (int | float, "1", 1),
    (int | float, "1.0", 1.0),
    (int | str, '"5"', "5"),
    (datetime, '"2026-01-01 10:30"', datetime(2026, 1, 1, 10, 30)),  # noqa: DTZ001
    (datetime, '"2026-01-01T10:30:00.5000000Z"', datetime(2026, 1, 1, 10, 30, 0, 500_000, UTC)),
    (dict[int, str], '{"-5": "a"}', {-5: "a"}),
    (dict[Rank, int], '{"2": 1}', {Rank.HIGH: 1}),
    (Literal["a"] | str, '"b"', "b"),  # noqa: PYI051  what type checkers complete
    (Circle | Pair, '{"radius": 1}', Circle(1.0)),
    (Circle | Square, '{"kind": "square", "radius": 1}', Square(1.0)),
    (Any, '{"a": [1.50, null]}', {"a": [Decimal("1.50"), None]}),
    (dict, '{"a": 1}', {"a": 1}),
    (list, "[1]", [1]),
    (Sequence[int], "[1]", [1]),
    (list[Annotated[int, {"ge": 1}]], "[1]", [1]),
    (frozenset[int], "[2, 1]", frozenset({1, 2})),
    (Mapping[str, int], '{"a": 1}', {"a": 1}),
]


@pytest.mark.parametrize(("hint", "text", "value"), TAKEN, ids=[f"{hint_text(t[0])}-{t[1][:30]}" for t in TAKEN])
def test_what_loses_nothing_is_taken(hint: Any, text: str, value: Any) -> None:
    """Forms of JSON that name the same value are that value."""
    found = read(hint, parse_json(text.encode()))
    assert (found, type(found)) == (value, type(value))


@frozen
class Unhashable:
    """A class whose hash is of a list."""

    __hash__ = None  # type: ignore[assignment]


class Custom:
    """A class without fields."""


class Money(Decimal):
    """A class of its base's values."""


class Shade(enum.Enum):
    """An enum of what JSON has not."""

    DARK = (0, 0, 0)


@frozen
class Odd:
    """A class with a member that has no JSON form."""

    at: list[complex]


@frozen
class Optionals:
    """A class that any object of few members could be."""

    left: int = 0
    radius: float = 1.0


AMBIGUOUS = [
    (float | Decimal, "both take"),
    (str | date, "the same texts"),
    (str | bytes, "the same texts"),
    (Paint | str, "'red' is both"),
    (list[int] | list[str], "both take lists"),
    (list[int] | tuple[int, int], "both take lists"),
    (dict[str, int] | Position, "both take objects"),
    (Optionals | Pair, None),
    (Optionals | Circle, "distinguishes"),
    (Literal[1] | float, "1 is both"),
    (dict[tuple[int, int], int] | list[int], "both take lists"),
    (Dataset | str, "Dataset"),
    (int | Any, "Any"),
]


@pytest.mark.parametrize(("hint", "why"), AMBIGUOUS, ids=[hint_text(a[0]) for a in AMBIGUOUS])
def test_unions_that_could_be_read_in_two_ways_are_refused_at_once(hint: Any, why: str | None) -> None:
    """Which member reads a value never depends on luck."""
    if why is None:
        StrictConverter().reader(hint)
        return
    with pytest.raises(UnsupportedHintError, match=why):
        StrictConverter().reader(hint)


UNSUPPORTED = [
    (Custom, "Custom", ""),
    (Money, "Money", ""),
    (Shade, "DARK", ""),
    (complex, "complex", ""),
    (list[complex], "complex", "[]"),
    (dict[str, Custom], "Custom", "{}"),
    (Odd, "complex", ".at[]"),
    (set[Unhashable], "hash", ""),
    (dict[list[int], int], "cannot be a key", ""),
    (dict[int | str, int], "cannot be a key", ""),
    (list[Dataset], "Dataset", "[]"),
    (list[Dataset | None], "Dataset", "[]"),
    (Literal[b"a"], "literal", ""),
    (type[int], "type", ""),
    (enum.Enum, "no members", ""),
]


@pytest.mark.parametrize(("hint", "why", "path"), UNSUPPORTED, ids=[hint_text(u[0]) for u in UNSUPPORTED])
def test_hints_without_a_json_form_are_refused_at_once(hint: Any, why: str, path: str) -> None:
    """A hint that no argument could have is an error when it is registered, at its place in the hint."""
    with pytest.raises(UnsupportedHintError, match=why) as e:
        StrictConverter().reader(hint)
    assert e.value.path == path


@frozen
class Checked:
    """A class that checks its members."""

    low: int = field(validator=attrs.validators.ge(0))
    high: int

    def __attrs_post_init__(self) -> None:
        if self.high < self.low:
            raise ValueError("high is below low")
        if self.high == 13:
            raise ZeroDivisionError


def test_what_a_class_refuses_is_refused_at_its_path() -> None:
    """A validator's error is the sender's; any other error of a constructor is the app's, and passes."""
    with pytest.raises(BadValueError, match="Checked refuses these members: high is below low") as e:
        read(list[Checked], [{"low": 2, "high": 1}])
    assert (e.value.code, e.value.path) == (Code.BAD_ARGUMENT, "[0]")
    assert refusal(Checked, {"low": -1, "high": 1}) == (Code.BAD_ARGUMENT, "")
    with pytest.raises(ZeroDivisionError):
        read(list[Checked], [{"low": 2, "high": 13}])


def test_a_value_within_itself_is_refused() -> None:
    """Depth is bounded, whatever is sent or returned."""
    deep: Any = {"name": "a"}
    for _ in range(5_000):
        deep = {"name": "a", "below": [deep]}
    with pytest.raises(RecursionError):
        read(Branch, deep)
    around: list[Any] = []
    around.append(around)
    with pytest.raises(OperatorError, match="levels deep"):
        result_json(around)


def test_a_long_list_ends_at_its_first_bad_element() -> None:
    """A million wrong values are one error."""
    assert refusal(list[int], ["x"] * 1_000_000) == (Code.TYPE_MISMATCH, "[0]")


SALES = Schema((Field("site", parse_dtype("VARCHAR")), Field("amount", parse_dtype("DECIMAL(9,2)"))))


def test_a_dataset_is_read_from_rows() -> None:
    """Each column's type follows from its values; with a schema they are converted to its types, exactly."""
    found = read(Dataset, parse_json(b'[{"a": 1, "b": 1.5, "c": "x"}, {"a": null, "b": 2, "d": [1]}]'))
    assert [str(column.dtype) for column in found.schema] == ["BIGINT", "DOUBLE", "VARCHAR", "JSON"]
    assert found.to_json_rows() == [
        {"a": 1, "b": 1.5, "c": "x", "d": None},
        {"a": None, "b": 2.0, "c": None, "d": [1]},
    ]
    sales = read(Annotated[Dataset, SALES], parse_json(b'[{"site": "Graz", "amount": 1.50}]'))
    assert sales.rows() == [{"site": "Graz", "amount": Decimal("1.50")}]
    assert read(Dataset, [2**70 and {"a": 2**70}]).schema.fields[0].dtype == parse_dtype("HUGEINT")


def test_a_dataset_is_read_from_arrow() -> None:
    """Frames of other libraries are taken as they are, or fitted to the schema."""
    frame = pl.DataFrame({"site": ["Graz"], "amount": [1.5]})
    assert read(Dataset, frame).rows() == [{"site": "Graz", "amount": 1.5}]
    assert str(read(Annotated[Dataset, SALES], frame).schema["amount"].dtype) == "DECIMAL(9,2)"
    assert read(Dataset | None, None) is None


BAD_ROWS = [
    (Dataset, '[{"a": 1}, 5]', Code.TYPE_MISMATCH, "[1]"),
    (Dataset, '[{"a": 1}, {"a": "x"}]', Code.TYPE_MISMATCH, "[1].a"),
    (Dataset, '[{"a": 0.12345678901234567890}]', Code.LOSSY_NUMBER, "[0].a"),
    (Dataset, '[{"a": 1, "A": 2}]', Code.COLUMN_EXISTS, ""),
    (Annotated[Dataset, SALES], '[{"site": "x", "amount": 1.005}]', Code.LOSSY_NUMBER, "[0].amount"),
    (Annotated[Dataset, SALES], '[{"town": "x"}]', Code.UNKNOWN_COLUMN, "[0].town"),
    (Dataset, '{"a": 1}', Code.TYPE_MISMATCH, ""),
]


@pytest.mark.parametrize(("hint", "text", "code", "path"), BAD_ROWS)
def test_bad_rows_are_named_by_row_and_column(hint: Any, text: str, code: Code, path: str) -> None:
    """The path of a bad value is its row and its column."""
    assert refusal(hint, parse_json(text.encode())) == (code, path)


def test_results_have_one_form() -> None:
    """Sets are sorted, decimals keep their digits, datasets are rows, classes are their constructors' members."""
    item = Position(Decimal("12.30"), [Paint.RED], note="x")
    assert result_json({Rank.LOW: {3, 1, 2}, Rank.HIGH: [item]}) == {
        "1": [1, 2, 3],
        "2": [{"price": "12.30", "colours": ["red"], "note": "x"}],
    }
    assert result_json(float("nan")) == "NaN"
    assert result_json({("a", 1): Decimal("1E+3")}) == [[["a", 1], "1000"]]
    assert result_json(pl.DataFrame({"n": [1, 2]})) == [{"n": 1}, {"n": 2}]
    assert result_json(pl.Series([1, 2]).to_numpy()) == [1, 2]


class LongText(str):
    """A text of another class."""

    __slots__ = ()


BAD_RESULTS = [
    ({"lines": [1, object()]}, "result.lines[1]"),
    ((n for n in range(3)), "result"),
    ([Paint], "result[0]"),
    ({"a": "\ud800"}, "result.a"),
    ({1: "a", "1": "b"}, "result"),
    ({"a": [lambda: 1]}, "result.a[0]"),
    ([Odd([1j])], "result[0].at[0]"),
    ({"n": 10**401}, "result.n"),
    ([LongText("\ud800")], "result[0]"),
]


@pytest.mark.parametrize(("value", "path"), BAD_RESULTS, ids=[path for _, path in BAD_RESULTS])
def test_what_cannot_be_sent_is_named_by_its_path(value: Any, path: str) -> None:
    """A result that has no JSON form is the app's error, at its place."""
    with pytest.raises(OperatorError) as e:
        result_json(value)
    assert (e.value.code, e.value.where) == (Code.BAD_RESULT, path)
