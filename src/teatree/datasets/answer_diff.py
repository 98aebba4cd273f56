"""The difference of two answers of one query: rows by key where there is one, else as multisets.

Exact: duplicates count, NULL equals NULL, and values are the same if their bits are: -0.0 and 0.0 differ. The order of
rows does not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

from teatree.contracts.formats.codec import dump_json
from teatree.datasets.arrow.nested import one_chunk, storage
from teatree.datasets.arrow.types import from_arrow_schema
from teatree.datasets.results.json_values import json_column

_BITS = {pa.float16(): pa.int16(), pa.float32(): pa.int32(), pa.float64(): pa.int64()}
_SIDE, _PLACE = "side", "place"


@frozen(eq=False)
class AnswerDiff:
    """What to do with one answer to obtain another one."""

    added: pa.Table
    """Rows to add; with a key, those whose key the first answer does not have."""
    changed: pa.Table
    """With a key: rows to put in the place of those with their keys; otherwise none."""
    removed: pa.Table
    """Rows to remove; with a key, those whose key the second answer does not have."""

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return int(self.added.num_rows + self.changed.num_rows + self.removed.num_rows)


def diff_answers(before: pa.Table, after: pa.Table, key: Sequence[str] = ()) -> AnswerDiff:
    """Return what turns one answer into another one of the same schema; `key` names columns that identify rows."""
    # A HUGEINT is a decimal of as many bits as the values of an answer need.
    both = pa.concat_tables([before, after], promote_options="permissive")
    compared = _comparable(both, range(both.num_columns))
    sides = np.repeat(np.array([-1, 1]), [before.num_rows, after.num_rows])
    grouped = _grouped(compared, sides, np.arange(both.num_rows))
    surplus, places = _numbers(grouped, f"{_SIDE}_sum"), _numbers(grouped, f"{_PLACE}_max")
    added = np.sort(np.repeat(places[surplus > 0], surplus[surplus > 0]))
    removed = np.sort(np.repeat(places[surplus < 0], -surplus[surplus < 0]))
    changed = added[:0]
    if key:
        removed, changed, added = _by_key(both, key, removed, added)
    return AnswerDiff(both.take(added), both.take(changed), both.take(removed))


def is_key(rows: pa.Table, key: Sequence[str]) -> bool:
    """Return whether columns identify the rows of an answer: they are there, unique and not NULL."""
    names = rows.column_names
    if not key or any(names.count(name) != 1 for name in key):
        return False
    columns = [names.index(name) for name in key]
    if any(rows.column(place).null_count for place in columns):
        return False
    compared = _comparable(rows, columns)
    return bool(compared.group_by(compared.column_names, use_threads=False).aggregate([]).num_rows == rows.num_rows)


def _by_key(
    both: pa.Table, key: Sequence[str], removed: np.ndarray, added: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the places of removed, changed and added rows: a key that is among both stands for a changed row."""
    places = np.concatenate([removed, added])
    compared = _comparable(both.take(places), [both.column_names.index(name) for name in key])
    sides = np.repeat(np.array([-1, 1]), [len(removed), len(added)])
    grouped = _grouped(compared, sides, np.arange(len(places)))
    side, last = _numbers(grouped, f"{_SIDE}_sum"), _numbers(grouped, f"{_PLACE}_max")
    order = np.argsort(last)
    side, found = side[order], places[last[order]]
    return found[side < 0], found[side == 0], found[side > 0]


def _grouped(compared: pa.Table, sides: np.ndarray, places: np.ndarray) -> pa.Table:
    names = compared.column_names
    numbered = compared.append_column(_SIDE, pa.array(sides)).append_column(_PLACE, pa.array(places))
    return numbered.group_by(names, use_threads=False).aggregate([(_SIDE, "sum"), (_PLACE, "max")])


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    return np.asarray(table.column(name).to_numpy())


def _comparable(rows: pa.Table, columns: Sequence[int]) -> pa.Table:
    """Return columns in forms that are equal exactly if the values are the same, and that Arrow can group by."""
    arrays = [_comparable_array(one_chunk(rows.column(place)), rows.schema.field(place)) for place in columns]
    return pa.table(arrays, names=[f"c{number}" for number in range(len(arrays))])


def _comparable_array(array: pa.Array, field: pa.Field) -> pa.Array:
    array = storage(array)
    if array.type in _BITS:
        return array.view(_BITS[array.type])
    if pa.types.is_dictionary(array.type):
        return pc.cast(array, array.type.value_type)
    if pa.types.is_nested(array.type) or pa.types.is_interval(array.type) or pa.types.is_null(array.type):
        ((dtype),) = (column.dtype for column in from_arrow_schema(pa.schema([field])))
        values = json_column(array, dtype, as_written=True)
        return pa.array([None if value is None else dump_json(value) for value in values], pa.binary())
    return array
