"""The shape of a hint: which kind of type it is, and of what; every hint that a parameter can have has one."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
from collections.abc import Callable
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs
from attrs import frozen
from typing_extensions import Doc, TypeAliasType

from teatree.contracts.types.schema import Schema
from teatree.datasets.dataset import Dataset
from teatree.functions.app.values.scalars import SCALARS

_LISTS: dict[Any, Callable[[list[Any]], Any]] = {
    list: list,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Collection: list,
    collections.abc.Iterable: list,
}
_SETS: dict[Any, Callable[[Any], Any]] = {
    set: set,
    frozenset: frozenset,
    collections.abc.Set: frozenset,
    collections.abc.MutableSet: set,
}
_MAPS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


class UnsupportedHintError(Exception):
    """A hint that no parameter can have; `path` is its place below the parameter."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.path = path


@frozen
class ScalarShape:
    """A scalar of `SCALARS`."""

    kind: type


@frozen
class NoneShape:
    """None alone."""


@frozen
class AnyShape:
    """Any JSON value, as it is."""


@frozen
class ChoiceShape:
    """An enum by its members' values, or literals."""

    choices: tuple[tuple[str | int | bool | None, Any], ...]
    """Pairs of the JSON value and the Python value."""
    kind: type | None
    """The enum's class."""


@frozen
class ListShape:
    """Any number of elements of one hint."""

    of: Any
    build: Callable[[Any], Any]
    is_set: bool = False


@frozen
class TupleShape:
    """A fixed number of elements, each of its hint."""

    items: tuple[Any, ...]


@frozen
class MapShape:
    """Keys and values."""

    key: Any
    value: Any


@frozen
class ClassMember:
    """One member of a class: a parameter of its constructor."""

    name: str
    attribute: str
    hint: Any
    is_required: bool


@frozen
class ClassShape:
    """An attrs class or a dataclass."""

    kind: type
    members: tuple[ClassMember, ...]


@frozen
class UnionShape:
    """One of several hints."""

    members: tuple[Any, ...]


@frozen
class DatasetShape:
    """Rows; of a schema, if `Annotated` gives one."""

    schema: Schema | None


Shape = (
    ScalarShape
    | NoneShape
    | AnyShape
    | ChoiceShape
    | ListShape
    | TupleShape
    | MapShape
    | ClassShape
    | UnionShape
    | DatasetShape
)


def bare(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a hint without `Annotated`, `NewType` and names of types, and all of its annotations."""
    notes: tuple[Any, ...] = ()
    while True:
        if get_origin(hint) is Annotated:
            hint, *more = get_args(hint)
            notes += tuple(more)
        elif isinstance(hint, NewType):
            hint = hint.__supertype__
        elif isinstance(hint, TypeAliasType):
            hint = hint.__value__
        else:
            return (NoneType if hint is None else hint), notes


def doc_of(notes: tuple[Any, ...]) -> str:
    """Return the text among annotations: a string, or a `Doc`."""
    texts = [note.documentation if isinstance(note, Doc) else note for note in notes]
    return " ".join(text for text in texts if isinstance(text, str))


def shape_of(hint: Any) -> Shape:
    """Return the shape of a hint; raises `UnsupportedHintError`."""
    kind, notes = bare(hint)
    origin, args = get_origin(kind), get_args(kind)
    if kind in (Any, object):
        return AnyShape()
    if kind is NoneType:
        return NoneShape()
    if kind is Dataset:
        return DatasetShape(next((note for note in notes if isinstance(note, Schema)), None))
    if isinstance(kind, type) and kind in SCALARS:
        return ScalarShape(kind)
    if origin in (Union, UnionType):
        return UnionShape(_union_members(args))
    if origin is Literal:
        return _literal(args)
    if isinstance(kind, type) and origin is None:
        if issubclass(kind, Enum):
            return _enum(kind)
        if attrs.has(kind) or dataclasses.is_dataclass(kind):
            return _class(kind)
    found = _container(origin or kind, args)
    if found is None:
        raise UnsupportedHintError(f"{hint_text(hint)} is no type that a parameter can have")
    return found


def _union_members(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the members of a union, those of named unions among them."""
    found: list[Any] = []
    for arg in args:
        kind, _ = bare(arg)
        inner = _union_members(get_args(kind)) if get_origin(kind) in (Union, UnionType) else (arg,)
        found += [each for each in inner if each not in found]
    return tuple(found)


def _container(kind: Any, args: tuple[Any, ...]) -> Shape | None:
    if kind is tuple:
        if args and args[-1] is not Ellipsis:
            return TupleShape(args)
        return ListShape(args[0] if args else Any, tuple)
    if kind in _LISTS:
        return ListShape(args[0] if args else Any, _LISTS[kind])
    if kind in _SETS:
        return ListShape(args[0] if args else Any, _SETS[kind], is_set=True)
    if kind in _MAPS:
        key, value = args or (str, Any)
        return MapShape(key, value)
    return None


def _literal(args: tuple[Any, ...]) -> ChoiceShape:
    choices = [(arg.value if isinstance(arg, Enum) else arg, arg) for arg in args]
    for value, _ in choices:
        if value is not None and type(value) not in (str, int, bool):
            raise UnsupportedHintError(f"The literal {value!r} has no JSON form")
    return ChoiceShape(tuple(choices), None)


def _enum(kind: type[Enum]) -> ChoiceShape:
    choices: list[tuple[Any, Any]] = []
    for member in kind:
        value = member.value
        if isinstance(value, bool) or not isinstance(value, str | int):
            message = f"{kind.__name__}.{member.name} has the value {value!r}: enums have texts or whole numbers"
            raise UnsupportedHintError(message)
        choices.append((value, member))
    if not choices:
        raise UnsupportedHintError(f"The enum {kind.__name__} has no members")
    return ChoiceShape(tuple(choices), kind)


def _class(kind: type) -> ClassShape:
    if getattr(kind, "__parameters__", ()):
        raise UnsupportedHintError(f"{kind.__name__} is generic")
    try:
        hints = get_type_hints(kind, include_extras=True)
    except Exception as e:
        raise UnsupportedHintError(f"The hints of {kind.__name__} cannot be resolved: {e}") from e
    members = tuple(_attrs_members(kind, hints) if attrs.has(kind) else _dataclass_members(kind, hints))
    if sorted(inspect.signature(kind).parameters) != sorted(member.name for member in members):
        raise UnsupportedHintError(f"The constructor of {kind.__name__} takes others than its fields")
    return ClassShape(kind, members)


def _attrs_members(kind: Any, hints: dict[str, Any]) -> list[ClassMember]:
    fields = [field for field in attrs.fields(kind) if field.init]
    for field in fields:
        _require_hint(kind, field.name, hints)
    return [
        ClassMember(field.alias or field.name, field.name, hints[field.name], field.default is attrs.NOTHING)
        for field in fields
    ]


def _dataclass_members(kind: Any, hints: dict[str, Any]) -> list[ClassMember]:
    missing = dataclasses.MISSING
    return [
        ClassMember(
            field.name, field.name, hints[field.name], field.default is missing and field.default_factory is missing
        )
        for field in dataclasses.fields(kind)
        if field.init
    ]


def _require_hint(kind: type, name: str, hints: dict[str, Any]) -> None:
    if name not in hints:
        raise UnsupportedHintError(f"The field {name} of {kind.__name__} has no hint")


def is_dataset(hint: Any) -> bool:
    """Return whether a hint is a Dataset, or one that may be None."""
    shape = shape_of(hint)
    if isinstance(shape, UnionShape):
        return any(bare(member)[0] is Dataset for member in shape.members)
    return isinstance(shape, DatasetShape)


def hint_text(hint: Any) -> str:
    """Return a hint as Python code writes it, without modules and annotations."""
    kind, _ = bare(hint)
    origin, args = get_origin(kind), get_args(kind)
    if kind is NoneType:
        return "None"
    if kind is Ellipsis:
        return "..."
    if isinstance(kind, str | TypeVar):
        return str(kind)
    if origin in (Union, UnionType):
        return " | ".join(hint_text(arg) for arg in args)
    if origin is Literal:
        return f"Literal[{', '.join(str(arg) if isinstance(arg, Enum) else repr(arg) for arg in args)}]"
    name = getattr(origin or kind, "__name__", None) or repr(kind).removeprefix("typing.")
    if not args:
        return str(name)
    return f"{name}[{', '.join(hint_text(arg) for arg in args)}]"
