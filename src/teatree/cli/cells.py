"""The cells of printed rows: each value as an exact text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from teatree.contracts.formats.codec import dump_json
from teatree.contracts.types.dtypes import Decimal, Dtype, Float, Json

if TYPE_CHECKING:
    import pyarrow as pa

    from teatree.datasets.dataset import Dataset

_QUOTED = re.compile(r'[",\r\n]|^[ \t]|[ \t]$|^$')
"""What is quoted: what a reader could take for the end of a field, strip, or take for NULL."""


def table_cells(column: pa.ChunkedArray, dtype: Dtype) -> list[str | None]:
    """Return a column's values as texts, None for NULL: decimals with all their digits, nested values as JSON."""
    from teatree.datasets.arrow.nested import one_chunk, storage  # noqa: PLC0415
    from teatree.datasets.results.json_values import json_column  # noqa: PLC0415

    if not len(column):
        return []
    array = one_chunk(column)
    match dtype:
        case Decimal():
            return [None if value is None else format(value, "f") for value in array.to_pylist()]
        case Json():
            return list(storage(array).to_pylist())
        case _:
            return [
                None if value is None else _text(value, dtype) for value in json_column(array, dtype, as_written=True)
            ]


def _text(value: Any, dtype: Dtype) -> str:
    if isinstance(value, str):
        return value
    if isinstance(dtype, Float):
        return repr(value)
    return dump_json(value).decode()


def csv_columns(rows: Dataset) -> Iterator[list[str]]:
    """Yield the fields of each column."""
    for place, column in enumerate(rows.schema):
        cells = table_cells(rows.to_arrow().column(place), column.dtype)
        yield ["" if cell is None else csv_field(cell) for cell in cells]


def csv_field(text: str) -> str:
    """Return a text as a field of CSV; the empty text is quoted, since an empty field is NULL."""
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text
