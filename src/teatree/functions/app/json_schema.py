"""The JSON Schema (2020-12) of a function's request, for other languages."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from teatree.functions.app.app_parameter import AppParameter
from teatree.functions.app.values.maps import keys_are_texts
from teatree.functions.app.values.results import result_json
from teatree.functions.app.values.scalars import SCALARS
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
    bare,
    doc_of,
    shape_of,
)


def request_schema(name: str, doc: str, parameters: Iterable[AppParameter]) -> dict[str, Any]:
    """Return the schema of the arguments of a request: an object."""
    classes: dict[str, Any] = {}
    properties = {}
    required = []
    for parameter in parameters:
        schema = _described(_schema(parameter.hint, classes), parameter.doc)
        if parameter.is_required:
            required.append(parameter.name)
        else:
            schema = {**schema, "default": result_json(parameter.default, parameter.name)}
        properties[parameter.name] = schema
    found: dict[str, Any] = {"title": name, **({"description": doc} if doc else {})}
    found |= _object(properties, required)
    return found | ({"$defs": classes} if classes else {})


def _object(properties: Mapping[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _described(schema: Mapping[str, Any], doc: str) -> dict[str, Any]:
    return {**schema, "description": doc} if doc else dict(schema)


def _schema(hint: Any, classes: dict[str, Any]) -> dict[str, Any]:
    shape = shape_of(hint)
    match shape:
        case ScalarShape(kind):
            return dict(SCALARS[kind].schema)
        case NoneShape():
            return {"type": "null"}
        case AnyShape():
            return {}
        case ChoiceShape(choices):
            return {"enum": [value for value, _ in choices]}
        case ListShape(of, is_set=is_set):
            return {"type": "array", "items": _schema(of, classes), **({"uniqueItems": True} if is_set else {})}
        case TupleShape(items):
            return _tuple(items, classes)
        case MapShape(key, value):
            return _map(key, value, classes)
        case ClassShape():
            return _class(shape, classes)
        case UnionShape(members):
            return {"anyOf": [_schema(member, classes) for member in members]}
        case DatasetShape():
            return {"type": "array", "items": {"type": "object"}}


def _tuple(items: tuple[Any, ...], classes: dict[str, Any]) -> dict[str, Any]:
    schemas = [_schema(item, classes) for item in items]
    return {"type": "array", "prefixItems": schemas, "minItems": len(items), "maxItems": len(items)}


def _map(key: Any, value: Any, classes: dict[str, Any]) -> dict[str, Any]:
    if keys_are_texts(key):
        return {"type": "object", "additionalProperties": _schema(value, classes)}
    return {"type": "array", "items": _tuple((key, value), classes)}


def _class(shape: ClassShape, classes: dict[str, Any]) -> dict[str, Any]:
    """Return a reference to a class, whose schema is written once; two classes of one name have a number."""
    kind = shape.kind
    name, count = kind.__name__, 1
    while name in classes and classes[name] is not kind and classes[name].get("$comment") != _label(kind):
        count += 1
        name = f"{kind.__name__}_{count}"
    if name not in classes:
        classes[name] = {"$comment": _label(kind)}
        members = {m.name: _described(_schema(m.hint, classes), doc_of(bare(m.hint)[1])) for m in shape.members}
        doc = inspect.getdoc(kind) if "__doc__" in vars(kind) else None
        classes[name] |= _described(
            _object(members, [m.name for m in shape.members if m.is_required]), _first_line(kind, doc)
        )
    return {"$ref": f"#/$defs/{name}"}


def _label(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _first_line(kind: type, doc: str | None) -> str:
    """Return what a class's author wrote about it; dataclasses have their signature there if nothing else."""
    line = (doc or "").partition("\n")[0]
    return "" if line.startswith(f"{kind.__name__}(") else line
