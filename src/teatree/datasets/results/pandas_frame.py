"""Rows as a pandas frame: columns that hold Arrow's own values, so that none of them changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from teatree.contracts.extras import extra_for
from teatree.contracts.types.dtypes import Dtype, Json, Uuid
from teatree.contracts.types.schema import Schema
from teatree.datasets.arrow.nested import one_chunk, rebuild, storage
from teatree.datasets.results.python_values import uuid_texts

with extra_for("A pandas frame", "pandas"):
    import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterator


def to_frame(table: pa.Table, schema: Schema) -> pd.DataFrame:
    """Return rows as a frame of `pandas.ArrowDtype` columns: pandas' older types take a NULL for a float."""
    arrays = list(_arrays(table, schema))
    plain = pa.table(arrays, names=list(schema.names)) if arrays else table
    return plain.to_pandas(types_mapper=pd.ArrowDtype)


def _arrays(table: pa.Table, schema: Schema) -> Iterator[pa.Array]:
    for place, column in enumerate(schema):
        array = one_chunk(table.column(place)) if table.num_rows else pa.nulls(0, table.schema.field(place).type)
        yield rebuild(array, column.dtype, _plain)


def _plain(array: pa.Array, dtype: Dtype) -> pa.Array:
    """Return the text of what pandas has no type for."""
    match dtype:
        case Json():
            return storage(array)
        case Uuid():
            return uuid_texts(array)
        case _:
            return array
