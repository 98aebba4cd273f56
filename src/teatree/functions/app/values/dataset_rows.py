"""A `Dataset` from a request: from rows of JSON values, or from what another Arrow library holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal as Number
from typing import Any

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.shown import shown
from teatree.contracts.types.dtypes import Boolean, Dtype, Float, Integer, Json, Varchar
from teatree.contracts.types.schema import Field, Schema
from teatree.datasets.bad_value import BadValueError
from teatree.datasets.dataset import Dataset
from teatree.functions.app.values.scalars import refuse

_NOUN = "a list of rows"
_ROWS = "rows"
_DTYPES: dict[str, Dtype] = {
    "true and false": Boolean(),
    "whole numbers": Integer(64),
    "numbers": Float(),
    "texts": Varchar(),
    "lists and objects": Json(),
}
"""The type of a column by what its values are called."""
_INT64 = range(-(2**63), 2**63)


def dataset_reader(schema: Schema | None) -> Callable[[Any], Dataset]:
    """Return what reads a Dataset; without a schema, each column's type follows from its values."""

    def read(value: Any) -> Dataset:
        if isinstance(value, list):
            return _from_rows(value, schema)
        if not isinstance(value, Dataset):
            if not hasattr(value, "__arrow_c_stream__"):
                refuse(value, _NOUN)
            value = _placed(lambda: Dataset.from_arrow(value))
        return value if schema is None else _fitted(value, schema)

    return read


def _from_rows(rows: list[Any], schema: Schema | None) -> Dataset:
    for place, row in enumerate(rows):
        if not isinstance(row, dict):
            raise BadValueError(Code.TYPE_MISMATCH, f"{shown(row)} is not an object.", f"[{place}]")
    found = schema or _schema_of(rows)
    return _placed(lambda: Dataset.from_rows(rows, found))


def _fitted(value: Dataset, schema: Schema) -> Dataset:
    from teatree.datasets.fit import fit_table  # noqa: PLC0415  most take the types as they come

    return _placed(lambda: Dataset(schema, fit_table(value.to_arrow(), schema, _ROWS)))


def _placed(make: Callable[[], Dataset]) -> Dataset:
    """Return what is made; its errors name their place as `rows[3].id`, which becomes the path below the parameter."""
    try:
        return make()
    except RequestError as e:
        path = (e.where or "").removeprefix(_ROWS)
        raise BadValueError(e.code, e.message, path if path.startswith(("[", ".")) else "") from None


def _schema_of(rows: Sequence[dict[str, Any]]) -> Schema:
    kinds: dict[str, str | None] = {}
    wide: set[str] = set()
    for place, row in enumerate(rows):
        for name, value in row.items():
            kind = _kind_of(value, f"[{place}].{name}")
            before = kinds.get(name)
            if kind == "whole numbers" and value not in _INT64:
                wide.add(name)
            kinds[name] = _joined(before, kind, f"[{place}].{name}")
    try:
        return Schema(tuple(Field(name, _dtype(kind, is_wide=name in wide)) for name, kind in kinds.items()))
    except RequestError as e:
        raise BadValueError(e.code, e.message) from None


def _dtype(kind: str | None, *, is_wide: bool) -> Dtype:
    if is_wide and kind == "whole numbers":
        return Integer(128)
    return _DTYPES[kind or "texts"]


def _kind_of(value: Any, path: str) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "true and false"
        case int():
            return "whole numbers"
        case float():
            return "numbers"
        case Number():
            if Number(repr(float(value))) != value:
                message = f"{shown(value)} would lose digits as a DOUBLE: send it in Arrow, or as a text."
                raise BadValueError(Code.LOSSY_NUMBER, message, path)
            return "numbers"
        case str():
            return "texts"
        case list() | dict():
            return "lists and objects"
        case _:
            raise BadValueError(Code.TYPE_MISMATCH, f"{shown(value)} is no JSON value.", path)


def _joined(before: str | None, kind: str | None, path: str) -> str | None:
    """Return what a column's values are called together."""
    if before is None or kind is None or before == kind:
        return kind if before is None else before
    if {before, kind} == {"whole numbers", "numbers"}:
        return "numbers"
    raise BadValueError(Code.TYPE_MISMATCH, f"It is one of {kind}; this column's values before it are {before}.", path)
