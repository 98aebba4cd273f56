"""INT96, Parquet's former timestamps: read in a unit that keeps each of them, or refused.

Arrow reads them in one unit of 64 bits: moments that it cannot hold wrap, and digits finer than the unit are cut off.
Read in three units, a moment shows which of them is right: nanoseconds within the years 1678 to 2261, microseconds
where a thousand times as many, wrapped in the same way, are the nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from teatree.contracts.errors import Code, RequestError
from teatree.datasets.arrow.nested import list_parts, struct_parts

_NS_SECONDS_MAX = (2**63 - 1) // 10**9 - 1


def int96_columns(file: pq.ParquetFile) -> list[str]:
    """Return the columns that may hold INT96, at any depth."""
    if not any(file.schema.column(i).physical_type == "INT96" for i in range(len(file.schema))):
        return []
    names = [field.name for field in file.schema_arrow if _has_moments(field.type)]
    if len(set(names)) != len(names):
        raise RequestError(Code.DUPLICATE_KEY, "The file names a column twice.", where="uri")
    return names


def exact_moments(path: Path, columns: list[str], batch_rows: int, row_group: int) -> Iterator[dict[str, pa.Array]]:
    """Yield these columns' arrays for each batch of a group's rows; raises `out_of_range` for what no unit holds."""
    with (
        pq.ParquetFile(path, coerce_int96_timestamp_unit="us") as micros,
        pq.ParquetFile(path, coerce_int96_timestamp_unit="ns") as nanos,
        pq.ParquetFile(path, coerce_int96_timestamp_unit="s") as seconds,
    ):
        batches = [
            file.iter_batches(batch_rows, row_groups=[row_group], columns=columns) for file in (micros, nanos, seconds)
        ]
        for of_unit in zip(*batches, strict=True):
            yield {name: _exact(name, *(batch.column(name) for batch in of_unit)) for name in columns}


def _exact(name: str, micros: pa.Array, nanos: pa.Array, seconds: pa.Array) -> pa.Array:
    if micros.type == nanos.type:  # no INT96 in it
        return micros
    leaves = list(zip(_moments(micros), _moments(nanos), _moments(seconds), strict=True))
    if all(_in_micros(*leaf) for leaf in leaves):
        return micros
    if all((np.abs(s) <= _NS_SECONDS_MAX).all() for _, _, s in leaves):
        return nanos
    raise RequestError(
        Code.OUT_OF_RANGE,
        f"The column {name!r} holds INT96 moments that neither microseconds nor nanoseconds keep.",
        where="uri",
        hint="Write the file with timestamps of microseconds.",
    )


def _in_micros(micros: np.ndarray, nanos: np.ndarray, seconds: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return bool((micros * 1000 == nanos).all() and (micros // 1_000_000 == seconds).all())


def _moments(array: pa.Array) -> Iterator[np.ndarray]:
    """Yield the counts of all moments in an array, of each part of its type."""
    if pa.types.is_timestamp(array.type):
        yield array.drop_null().view(pa.int64()).to_numpy()
    elif pa.types.is_struct(array.type):
        for part in struct_parts(array):
            yield from _moments(part)
    elif pa.types.is_nested(array.type):
        yield from _moments(list_parts(array).elements)


def _has_moments(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(arrow)) or any(_has_moments(arrow.field(i).type) for i in range(arrow.num_fields))
