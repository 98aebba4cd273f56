"""The converter of arguments: JSON values, or Python values of the hinted types, into what a hint names; strictly.

Nothing is coerced that would change: 1.9 is no whole number, "false" is not false, a text is not a list of its letters.
An error is a `BadValueError` whose path leads to the value. Classes are constructed by cattrs; elements are read here,
so that a long list ends at its first bad element.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from enum import Enum
from typing import Any

from cattrs import ClassValidationError, Converter, ForbiddenExtraKeysError
from cattrs.errors import AttributeValidationNote
from cattrs.gen import make_dict_structure_fn, override

from teatree.contracts.errors import Code, RequestError, TeatreeError
from teatree.contracts.shown import shown
from teatree.datasets.bad_value import BadValueError
from teatree.functions.app.values.dataset_rows import dataset_reader
from teatree.functions.app.values.maps import check_hashable, check_key, keys_are_texts, map_reader
from teatree.functions.app.values.scalars import SCALARS, refuse
from teatree.functions.app.values.shapes import (
    AnyShape,
    ChoiceShape,
    ClassShape,
    DatasetShape,
    ListShape,
    MapShape,
    NoneShape,
    ScalarShape,
    TupleShape,
    UnionShape,
    UnsupportedHintError,
    is_dataset,
    shape_of,
)
from teatree.functions.app.values.unions import UnionMember, union_reader

Reader = Callable[[Any], Any]
_MISSING: Any = object()


class StrictConverter:
    """Makes the readers of hints; each is made once."""

    def __init__(self) -> None:
        self._cattrs = Converter(detailed_validation=True, forbid_extra_keys=True, use_alias=True)
        self._readers: dict[Hashable, Reader | None] = {}

    def reader(self, hint: Any) -> Reader:
        """Return what reads a value of a hint; raises `UnsupportedHintError`, its path naming the place in the hint.

        The reader raises `BadValueError`, and what a class's constructor raises other than ValueError and TypeError.
        """
        if not _is_hashable(hint):  # an annotation is a list or a dict, for example
            return self._make(hint)
        found = self._readers.get(hint, _MISSING)
        if found is None:  # a class within itself: its reader is looked up when it is needed
            return self._late(hint)
        if found is not _MISSING:
            return found  # type: ignore[no-any-return]
        self._readers[hint] = None
        try:
            made = self._make(hint)
        except BaseException:
            del self._readers[hint]
            raise
        self._readers[hint] = made
        return made

    def _late(self, hint: Any) -> Reader:
        return lambda value: self._readers[hint](value)  # type: ignore[misc]  # noqa: PLW0108  it is made by then

    def _make(self, hint: Any) -> Reader:
        shape = shape_of(hint)
        match shape:
            case ScalarShape(kind):
                return SCALARS[kind].read
            case NoneShape():
                return lambda value: None if value is None else refuse(value, "null")
            case AnyShape():
                return lambda value: value
            case ChoiceShape():
                return _choice_reader(shape)
            case ListShape():
                if shape.is_set:
                    check_hashable(shape.of, "in a set")
                return _list_reader(self._below(shape.of, "[]"), shape)
            case TupleShape(items):
                return _tuple_reader([self._below(item, f"[{place}]") for place, item in enumerate(items)])
            case MapShape(key, value):
                check_key(key)
                return map_reader(self._below(key, "{}"), self._below(value, "{}"), has_text_keys=keys_are_texts(key))
            case ClassShape():
                return self._class_reader(shape)
            case UnionShape(members):
                return union_reader([UnionMember(each, shape_of(each), self.reader(each)) for each in members])
            case DatasetShape(schema):
                return dataset_reader(schema)

    def _below(self, hint: Any, step: str) -> Reader:
        try:
            found = self.reader(hint)
        except UnsupportedHintError as e:
            e.path = step + e.path
            raise
        if is_dataset(hint):
            raise UnsupportedHintError("A Dataset is a parameter, and stands in no other type", step)
        return found

    def _class_reader(self, shape: ClassShape) -> Reader:
        kind = shape.kind
        hooks = {
            member.attribute: override(struct_hook=_hook(self._below(member.hint, f".{member.name}")))
            for member in shape.members
        }
        # Its parameters are named by the class's attributes, which mypy cannot know.
        construct: Callable[[Any, Any], Any] = make_dict_structure_fn(kind, self._cattrs, **hooks)  # type: ignore[arg-type]
        names = {member.attribute: member.name for member in shape.members}
        noun = f"an object with the members of {kind.__name__}"

        def read(value: Any) -> Any:
            if type(value) is not dict:
                return value if isinstance(value, kind) else refuse(value, noun)
            try:
                return construct(value, kind)
            except ClassValidationError as e:
                raise _first_error(e, names, kind) from None

        return read


def _is_hashable(hint: Any) -> bool:
    try:
        hash(hint)
    except TypeError:
        return False
    return True


def _hook(read: Reader) -> Callable[[Any, Any], Any]:
    return lambda value, _: read(value)


def _first_error(found: ClassValidationError, names: Mapping[str, str], kind: type) -> Exception:
    """Return the first thing that was wrong with a class's members, or with their combination."""
    error = found.exceptions[0]
    attribute = next((n.name for n in getattr(error, "__notes__", ()) if isinstance(n, AttributeValidationNote)), None)
    if attribute is not None:
        name = names[attribute]
        if isinstance(error, BadValueError):
            error.path = f".{name}{error.path}"
            error.__notes__ = []
            return error
        if isinstance(error, KeyError) and error.args == (name,):
            return BadValueError(Code.MISSING_ARGUMENT, f"{kind.__name__} needs the member {name!r}.", f".{name}")
        return error
    if isinstance(error, ForbiddenExtraKeysError):
        name = min(map(str, error.extra_fields))
        return BadValueError(Code.UNKNOWN_ARGUMENT, f"{kind.__name__} has no member {shown(name)}.", f".{name}")
    return constructor_error(error, kind)


def constructor_error(error: Exception, kind: type) -> Exception:
    """Return what a class's own check of its members is to the sender: its refusal, or the error as it is."""
    if isinstance(error, RequestError):
        return BadValueError(error.code, error.message)
    if isinstance(error, ValueError | TypeError) and not isinstance(error, TeatreeError):
        why = (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
        return BadValueError(Code.BAD_ARGUMENT, f"{kind.__name__} refuses these members: {why}.")
    return error


def _choice_reader(shape: ChoiceShape) -> Reader:
    by_value: dict[tuple[type, Any], Any] = {(type(value), value): found for value, found in shape.choices}
    noun = f"one of {', '.join(shown(value) for value, _ in shape.choices[:20])}"
    kind = shape.kind

    def read(value: Any) -> Any:
        if kind is not None and isinstance(value, kind):
            return value
        if isinstance(value, Enum):
            value = value.value
        if isinstance(value, Decimal) and value == value.to_integral_value():
            value = int(value)
        found = by_value.get((type(value), value), _MISSING) if isinstance(value, Hashable) else _MISSING
        return refuse(value, noun) if found is _MISSING else found

    return read


def _list_reader(of: Reader, shape: ListShape) -> Reader:
    build, is_set = shape.build, shape.is_set

    def read(value: Any) -> Any:
        if type(value) is not list and not _is_list(value, is_set=is_set):
            refuse(value, "a list")
        found = _elements(of, value)
        if is_set:
            return build(_distinct(found))
        return found if build is list else build(found)

    return read


def _is_list(value: Any, *, is_set: bool) -> bool:
    return isinstance(value, list | tuple) or (is_set and isinstance(value, AbstractSet))


def _elements(of: Reader, values: Any) -> list[Any]:
    place = -1
    found = []
    try:
        for place, each in enumerate(values):  # noqa: B007  the place of what fails
            found.append(of(each))
    except BadValueError as e:
        e.path = f"[{place}]{e.path}"
        raise
    return found


def _distinct(found: Sequence[Any]) -> set[Any]:
    """Return elements as a set, one by one, so that elements which all have one hash can be interrupted."""
    made: set[Any] = set()
    for place, each in enumerate(found):
        try:
            is_known = each in made
        except TypeError as e:
            raise BadValueError(Code.BAD_ARGUMENT, f"It cannot be in a set: {e}.", f"[{place}]") from None
        if is_known:
            raise BadValueError(Code.DUPLICATE_KEY, f"{shown(each)} occurs twice in a set.", f"[{place}]")
        made.add(each)
    return made


def _tuple_reader(readers: Sequence[Reader]) -> Reader:
    count = len(readers)

    def read(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            refuse(value, f"a list of {count} elements")
        if len(value) != count:
            raise BadValueError(Code.TYPE_MISMATCH, f"The list has {len(value)} elements, not {count}.")
        place = -1
        found = []
        try:
            for place, (of, each) in enumerate(zip(readers, value, strict=True)):  # noqa: B007
                found.append(of(each))
        except BadValueError as e:
            e.path = f"[{place}]{e.path}"
            raise
        return tuple(found)

    return read
