"""Taking nested Arrow arrays apart: slices and nulls are resolved, so that parts can be converted and put together."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen


@frozen
class ListParts:
    """A list array's content: row i owns the next `lengths[i]` elements; null rows own none."""

    lengths: np.ndarray[tuple[int], np.dtype[np.int64]]
    is_null: pa.Array
    elements: pa.Array

    def offsets(self) -> pa.Array:
        """Return the offsets of a new list array over the elements."""
        return pa.array(np.concatenate(([0], np.cumsum(self.lengths))), pa.int32())

    def mask(self) -> pa.Array | None:
        """Return the null rows, or None if there are none: the form in which Arrow's constructors take it."""
        return self.is_null if self.is_null.true_count else None


def list_parts(array: pa.Array) -> ListParts:
    """Take a list, large list, fixed-size list or map apart; a map's elements are structs of key and value."""
    if pa.types.is_map(array.type):
        array = _map_as_list(array)
    lengths = pc.list_value_length(array).fill_null(0).cast(pa.int64()).to_numpy(zero_copy_only=False)
    # Arrow cannot make an empty array of every extension type; a slice of the one that is there always works.
    elements = array.flatten() if lengths.any() else array.values.slice(0, 0)
    return ListParts(lengths=lengths, is_null=array.is_null(), elements=elements)


def struct_parts(array: pa.Array) -> list[pa.Array]:
    """Return a struct's member arrays, null where the struct is null."""
    return list(array.flatten())


def storage(array: pa.Array) -> pa.Array:
    """Return an extension array's storage; another array as it is."""
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array."""
    if column.num_chunks == 1:
        return column.chunk(0)
    whole = column.combine_chunks()
    return whole if isinstance(whole, pa.Array) else whole.chunk(0)


def _map_as_list(array: pa.Array) -> pa.Array:
    entries = pa.StructArray.from_arrays([array.keys, array.items], ["key", "value"])
    return pa.ListArray.from_buffers(
        pa.list_(entries.type), len(array), array.buffers()[:2], offset=array.offset, children=[entries]
    )
