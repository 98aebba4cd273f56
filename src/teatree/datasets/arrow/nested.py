"""The content of nested Arrow arrays: slices and nulls are resolved, so that parts can be converted and reassembled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from attrs import frozen

from teatree.contracts.types.dtypes import Array, Dtype, List, Map, Struct


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

    def spread(self, elements: pa.Array, length: int) -> pa.Array:
        """Return the elements of rows of one length with gaps for the null rows: what a fixed-size list holds."""
        is_null = self.is_null.to_numpy(zero_copy_only=False)
        places = np.cumsum(~is_null)[:, None] * length - length + np.arange(length)
        gaps = np.broadcast_to(is_null[:, None], places.shape)
        return elements.take(pa.array(places.ravel(), pa.int64(), mask=gaps.ravel()))


def list_parts(array: pa.Array) -> ListParts:
    """Split a list, large list, fixed-size list or map; a map's elements are structs of key and value."""
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


def rebuild(array: pa.Array, dtype: Dtype, convert: Callable[[pa.Array, Dtype], pa.Array]) -> pa.Array:
    """Return an array in which `convert` has changed the values that are not nested, however deep; nulls stay."""
    match dtype:
        case List(of=of):
            parts = list_parts(array)
            elements = rebuild(parts.elements, of, convert)
            return pa.ListArray.from_arrays(parts.offsets(), elements, mask=parts.mask())
        case Array(of=of, length=length):
            parts = list_parts(array)
            elements = parts.spread(rebuild(parts.elements, of, convert), length)
            return pa.FixedSizeListArray.from_arrays(elements, length, mask=parts.mask())
        case Struct(fields=fields):
            members = [
                rebuild(part, member.dtype, convert) for part, member in zip(struct_parts(array), fields, strict=True)
            ]
            mask = array.is_null() if array.null_count else None
            return pa.StructArray.from_arrays(members, [member.name for member in fields], mask=mask)
        case Map(key=key, value=value):
            parts = list_parts(array)
            keys, items = struct_parts(parts.elements)
            return pa.MapArray.from_arrays(
                parts.offsets(), rebuild(keys, key, convert), rebuild(items, value, convert), mask=parts.mask()
            )
        case _:
            return convert(array, dtype)


def nested_values(
    array: pa.Array,
    dtype: Dtype,
    leaf: Callable[[pa.Array, Dtype], list[Any]],
    of_map: Callable[[Map, list[tuple[Any, Any]]], Any],
) -> list[Any]:
    """Return an array's values: structs as objects, maps as `of_map` has them; `leaf` reads what is not nested."""
    match dtype:
        case List(of=of) | Array(of=of):
            parts = list_parts(array)
            return _rows(parts, nested_values(parts.elements, of, leaf, of_map))
        case Struct(fields=fields):
            names = [member.name for member in fields]
            members = [
                nested_values(part, member.dtype, leaf, of_map)
                for part, member in zip(struct_parts(array), fields, strict=True)
            ]
            return [
                None if null else dict(zip(names, row, strict=True))
                for null, *row in zip(array.is_null().to_pylist(), *members, strict=True)
            ]
        case Map(key=key, value=value):
            parts = list_parts(array)
            keys, items = struct_parts(parts.elements)
            pairs = zip(nested_values(keys, key, leaf, of_map), nested_values(items, value, leaf, of_map), strict=True)
            return [None if row is None else of_map(dtype, row) for row in _rows(parts, list(pairs))]
        case _:
            return leaf(array, dtype)


def _rows(parts: ListParts, elements: list[Any]) -> list[list[Any] | None]:
    """Return the elements by row."""
    left = iter(elements)
    return [
        None if null else [next(left) for _ in range(length)]
        for length, null in zip(parts.lengths.tolist(), parts.is_null.to_pylist(), strict=True)
    ]
