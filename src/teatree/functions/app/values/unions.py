"""Unions: the value's kind, and for objects the names of its members, decide which member of a union reads it.

Two members that would read one value as two different ones are refused when the function is registered.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import combinations
from typing import Any

from attrs import frozen

from teatree.contracts.errors import Code
from teatree.contracts.shown import shown
from teatree.datasets.bad_value import BadValueError
from teatree.functions.app.values.maps import keys_are_texts
from teatree.functions.app.values.scalars import SCALARS, JsonKind, TextForm, refuse
from teatree.functions.app.values.shapes import (
    AnyShape,
    ChoiceShape,
    ClassShape,
    DatasetShape,
    ListShape,
    MapShape,
    NoneShape,
    ScalarShape,
    Shape,
    TupleShape,
    UnionShape,
    UnsupportedHintError,
    hint_text,
    shape_of,
)

_KINDS: Mapping[type, JsonKind] = {
    type(None): JsonKind.NULL,
    bool: JsonKind.BOOLEAN,
    int: JsonKind.INTEGER,
    Decimal: JsonKind.FRACTION,
    float: JsonKind.FRACTION,
    str: JsonKind.TEXT,
    list: JsonKind.LIST,
    dict: JsonKind.OBJECT,
}


@frozen
class UnionMember:
    """One member of a union."""

    hint: Any
    shape: Shape
    read: Callable[[Any], Any]

    @property
    def kinds(self) -> frozenset[JsonKind]:
        """The kinds of JSON values that it takes."""
        match self.shape:
            case ScalarShape(kind):
                return SCALARS[kind].kinds
            case NoneShape():
                return frozenset({JsonKind.NULL})
            case ChoiceShape(choices):
                return frozenset(_KINDS[type(value)] for value, _ in choices)
            case ListShape() | TupleShape() | DatasetShape():
                return frozenset({JsonKind.LIST})
            case MapShape(key):
                return frozenset({JsonKind.OBJECT} if keys_are_texts(key) else {JsonKind.OBJECT, JsonKind.LIST})
            case ClassShape():
                return frozenset({JsonKind.OBJECT})
            case AnyShape() | UnionShape():
                return frozenset(JsonKind)

    @property
    def form(self) -> TextForm | None:
        """The texts that it takes, if it is a scalar with a form."""
        return SCALARS[self.shape.kind].form if isinstance(self.shape, ScalarShape) else None

    def is_scalar(self, *kinds: type) -> bool:
        """Return whether it is one of some scalars."""
        return isinstance(self.shape, ScalarShape) and self.shape.kind in kinds


def union_reader(members: Sequence[UnionMember]) -> Callable[[Any], Any]:
    """Return what reads a union; raises `UnsupportedHintError` for two members that could both read a value."""
    _check_members(members)
    for one, other in combinations(members, 2):
        if why := _why_ambiguous(one, other):
            message = f"{hint_text(one.hint)} | {hint_text(other.hint)} is ambiguous: {why}"
            raise UnsupportedHintError(message)
    by_kind = {kind: _readers(kind, [m for m in members if kind in m.kinds]) for kind in JsonKind}
    by_kind[JsonKind.TEXT] = by_kind[JsonKind.TEXT] or [m.read for m in members if m.is_scalar(int, float)]
    readers = [member.read for member in members]
    noun = f"one of {', '.join(hint_text(member.hint) for member in members)}"

    def read(value: Any) -> Any:
        kind = _KINDS.get(type(value))
        found = readers if kind is None else by_kind[kind]
        if len(found) == 1:
            return found[0](value)  # its error is more precise than that of the union
        for each in found:
            try:
                return each(value)
            except BadValueError:
                continue
        return refuse(value, noun)

    return read


def _check_members(members: Sequence[UnionMember]) -> None:
    for member in members:
        if isinstance(member.shape, AnyShape):
            raise UnsupportedHintError("A union with Any is Any")
        if isinstance(member.shape, DatasetShape) and any(
            not isinstance(other.shape, DatasetShape | NoneShape) for other in members
        ):
            raise UnsupportedHintError("A Dataset is in no union but with None")


def _readers(kind: JsonKind, members: list[UnionMember]) -> list[Callable[[Any], Any]]:
    """Return the readers for one kind of value, of which at most one takes a value."""
    if kind is JsonKind.INTEGER and any(member.is_scalar(int) for member in members):
        members = [member for member in members if not member.is_scalar(float, Decimal)]
    classes = [member for member in members if isinstance(member.shape, ClassShape)]
    if kind is JsonKind.OBJECT and len(classes) > 1:
        return [_class_union_reader(classes)]
    return [member.read for member in members]


def _why_ambiguous(one: UnionMember, other: UnionMember) -> str | None:
    for kind in one.kinds & other.kinds:
        match kind:
            case JsonKind.INTEGER if int in (_scalar(one), _scalar(other)) and not _has_choice(one, other):
                continue
            case JsonKind.TEXT:
                found = _why_texts_ambiguous(one, other)
            case JsonKind.OBJECT if isinstance(one.shape, ClassShape) and isinstance(other.shape, ClassShape):
                found = _why_classes_ambiguous(one.shape, other.shape)
            case _ if _has_choice(one, other):
                found = _why_choice_ambiguous(one, other)
            case _:
                found = f"both take {_NOUNS[kind]}"
        if found:
            return found
    return None


_NOUNS = {
    JsonKind.NULL: "null",
    JsonKind.BOOLEAN: "true and false",
    JsonKind.INTEGER: "whole numbers",
    JsonKind.FRACTION: "numbers",
    JsonKind.TEXT: "texts",
    JsonKind.LIST: "lists",
    JsonKind.OBJECT: "objects",
}


def _scalar(member: UnionMember) -> type | None:
    return member.shape.kind if isinstance(member.shape, ScalarShape) else None


def _has_choice(*members: UnionMember) -> bool:
    return any(isinstance(member.shape, ChoiceShape) for member in members)


def _why_texts_ambiguous(one: UnionMember, other: UnionMember) -> str | None:
    if _has_choice(one, other):
        return _why_choice_ambiguous(one, other)
    forms = {one.form, other.form}
    if len(forms) == 1 or forms & {TextForm.ANY, TextForm.BASE64}:
        return "both take the same texts"
    return None


def _why_choice_ambiguous(one: UnionMember, other: UnionMember) -> str | None:
    """Return which choice the other member reads as another value."""
    for member, beside in ((one, other), (other, one)):
        for value, found in member.shape.choices if isinstance(member.shape, ChoiceShape) else ():
            try:
                also = beside.read(value)
            except BadValueError:
                continue
            if type(also) is not type(found) or also != found:
                return f"{shown(value)} is both"
    return None


def _why_classes_ambiguous(one: ClassShape, other: ClassShape) -> str | None:
    if _tags(one, other) is not None:
        return None
    names, required = _names(one), _names(one, required=True)
    other_names, other_required = _names(other), _names(other, required=True)
    if required <= other_names and other_required <= names:
        return "no required member, and no member with a literal, distinguishes them"
    return None


def _names(shape: ClassShape, *, required: bool = False) -> frozenset[str]:
    return frozenset(member.name for member in shape.members if member.is_required or not required)


def _tags(one: ClassShape, other: ClassShape) -> str | None:
    """Return the member whose literals differ between two classes."""
    choices = _literals(one)
    for name, values in _literals(other).items():
        if name in choices and not choices[name] & values:
            return name
    return None


def _literals(shape: ClassShape) -> dict[str, frozenset[Any]]:
    found = {}
    for member in shape.members:
        of = shape_of(member.hint)
        if isinstance(of, ChoiceShape):
            found[member.name] = frozenset((type(value), value) for value, _ in of.choices)
    return found


@frozen
class _Candidate:
    member: UnionMember
    names: frozenset[str]
    required: frozenset[str]
    tags: Mapping[str, frozenset[Any]]
    """Members with literals that distinguish it from another class: they must be there."""

    def fits(self, value: Mapping[str, Any]) -> bool:
        return self.required <= value.keys() <= self.names and self.has_tags(value)

    def has_tags(self, value: Mapping[str, Any]) -> bool:
        found = {tag: value.get(tag) for tag in self.tags}
        return all(
            tag in value and isinstance(found[tag], Hashable) and (type(found[tag]), found[tag]) in values
            for tag, values in self.tags.items()
        )


def _class_union_reader(members: Sequence[UnionMember]) -> Callable[[Any], Any]:
    candidates = [_candidate(member, [m for m in members if m is not member]) for member in members]
    noun = f"one of {', '.join(hint_text(member.hint) for member in members)}"

    def read(value: dict[str, Any]) -> Any:
        fitting = [each for each in candidates if each.fits(value)]
        if len(fitting) != 1:
            fitting = [_nearest([each for each in candidates if each.has_tags(value)] or candidates, value, noun)]
        return fitting[0].member.read(value)

    return read


def _candidate(member: UnionMember, others: Iterable[UnionMember]) -> _Candidate:
    shape = member.shape
    assert isinstance(shape, ClassShape)  # noqa: S101  what its caller selected
    tags = {_tags(shape, other.shape) for other in others if isinstance(other.shape, ClassShape)}
    literals = _literals(shape)
    return _Candidate(
        member, _names(shape), _names(shape, required=True), {tag: literals[tag] for tag in tags if tag is not None}
    )


def _nearest(candidates: Sequence[_Candidate], value: Mapping[str, Any], noun: str) -> _Candidate:
    """Return the class that an object which fits none was meant for, so that its error names the wrong member."""
    known = [len(each.names & value.keys()) for each in candidates]
    best = max(known)
    nearest = [each for each, count in zip(candidates, known, strict=True) if count == best]
    if best and len(nearest) == 1:
        return nearest[0]
    for tag in sorted(frozenset.intersection(*(frozenset(each.tags) for each in nearest)) & value.keys()):
        texts = sorted(shown(literal) for each in nearest for _, literal in each.tags[tag])
        raise BadValueError(Code.TYPE_MISMATCH, f"{shown(value[tag])} is not one of {', '.join(texts)}.", f".{tag}")
    raise BadValueError(Code.TYPE_MISMATCH, f"{shown(value)} is not {noun}.")
