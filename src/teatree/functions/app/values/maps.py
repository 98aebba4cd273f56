"""Maps: objects where each key has a text, else lists of pairs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, NoReturn

from teatree.contracts.errors import Code
from teatree.contracts.shown import shown
from teatree.datasets.bad_value import BadValueError
from teatree.functions.app.values.scalars import SCALARS, refuse
from teatree.functions.app.values.shapes import (
    ChoiceShape,
    ClassShape,
    ListShape,
    MapShape,
    ScalarShape,
    TupleShape,
    UnionShape,
    UnsupportedHintError,
    hint_text,
    shape_of,
)

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,399}")
_WITHOUT_TEXT = (bool, float)


def keys_are_texts(hint: Any) -> bool:
    """Return whether a map with such keys is an object in JSON."""
    match shape_of(hint):
        case ScalarShape(kind):
            return kind not in _WITHOUT_TEXT
        case ChoiceShape(choices):
            return len({type(value) for value, _ in choices}) == 1 and type(choices[0][0]) in (str, int)
        case _:
            return False


def check_key(hint: Any) -> None:
    """Refuse a hint whose values cannot be keys, or not be known by their texts; raises `UnsupportedHintError`."""
    check_hashable(hint, "a key")
    match shape_of(hint):
        case UnionShape(members):
            is_mixed = str in members and any(member not in (str, NoneType) for member in members)
        case ChoiceShape(choices):
            is_mixed = {str, int} <= {type(value) for value, _ in choices}
        case _:
            is_mixed = False
    if is_mixed:
        message = f"{hint_text(hint)} cannot be a key: a key of an object is a text, which could be any of them"
        raise UnsupportedHintError(message)


def check_hashable(hint: Any, use: str) -> None:
    """Refuse a hint whose values cannot be keys or in a set; raises `UnsupportedHintError`."""
    match shape_of(hint):
        case ListShape(of, build) if build in (tuple, frozenset):
            check_hashable(of, use)
        case TupleShape(members) | UnionShape(members):
            for member in members:
                check_hashable(member, use)
        case ClassShape(kind) if kind.__hash__ is None:
            message = f"{kind.__name__} cannot be {use}, since it has no hash: make it frozen"
            raise UnsupportedHintError(message)
        case ListShape() | MapShape():
            raise UnsupportedHintError(f"{hint_text(hint)} cannot be {use}")
        case _:
            pass


def map_reader(
    read_key: Callable[[Any], Any], read_value: Callable[[Any], Any], *, has_text_keys: bool
) -> Callable[[Any], Any]:
    """Return what reads a map."""
    noun = "an object" if has_text_keys else "a list of pairs of a key and a value"
    read_text_key = _text_key_reader(read_key)

    def read(value: Any) -> dict[Any, Any]:
        if isinstance(value, Mapping):
            pairs: Any = [(f".{key}", f".{key}", key, each) for key, each in value.items()]
        elif not has_text_keys and isinstance(value, list):
            pairs = _pairs(value)
        else:
            refuse(value, noun)
        found: dict[Any, Any] = {}
        step = ""
        try:
            for key_step, value_step, raw_key, each in pairs:
                step = key_step
                key = read_text_key(raw_key) if type(raw_key) is str else read_key(raw_key)
                if key in found:
                    _refuse_repeated(raw_key)
                step = value_step
                found[key] = read_value(each)
        except BadValueError as e:
            e.path = step + e.path
            raise
        return found

    return read


def _refuse_repeated(key: Any) -> NoReturn:
    raise BadValueError(Code.DUPLICATE_KEY, f"The key {shown(key)} occurs twice.")


def _text_key_reader(read_key: Callable[[Any], Any]) -> Callable[[str], Any]:
    """Return what reads a key of an object: a whole number is written with its digits."""
    if read_key is SCALARS[str].read:
        return read_key

    def read(text: str) -> Any:
        try:
            return read_key(text)
        except BadValueError:
            if not _WHOLE.fullmatch(text):
                raise
        return read_key(int(text))

    return read


def _pairs(value: list[Any]) -> list[tuple[str, str, Any, Any]]:
    for place, pair in enumerate(value):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise BadValueError(Code.TYPE_MISMATCH, f"{shown(pair)} is not a pair of a key and a value.", f"[{place}]")
    return [(f"[{place}][0]", f"[{place}][1]", *pair) for place, pair in enumerate(value)]
