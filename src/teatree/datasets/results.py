"""Results as DuckDB hands them out: their columns' types, and Arrow data that every reader knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from teatree.contracts.dtypes import Dtype
from teatree.contracts.errors import Code, RequestError
from teatree.contracts.schema import Field, Schema, parse_read_dtype

if TYPE_CHECKING:
    import duckdb


def plain_booleans(table: pa.Table) -> pa.Table:
    """Return a result of DuckDB with bits for its booleans, which it hands out as bytes that few readers know."""
    for place, field in enumerate(table.schema):
        plain = _plain_type(field.type)
        if plain != field.type:
            chunks = [_plain_array(chunk) for chunk in table.column(place).chunks]
            table = table.set_column(place, field.with_type(plain), pa.chunked_array(chunks, plain))
    return table


def _plain_type(arrow: pa.DataType) -> pa.DataType:
    if arrow == pa.bool8():
        return pa.bool_()
    if pa.types.is_list(arrow):
        return pa.list_(arrow.value_field.with_type(_plain_type(arrow.value_type)))
    if pa.types.is_fixed_size_list(arrow):
        return pa.list_(arrow.value_field.with_type(_plain_type(arrow.value_type)), arrow.list_size)
    if pa.types.is_struct(arrow):
        return pa.struct([field.with_type(_plain_type(field.type)) for field in arrow])
    if pa.types.is_map(arrow):
        return pa.map_(_plain_type(arrow.key_type), _plain_type(arrow.item_type))
    return arrow


def _plain_array(array: pa.Array) -> pa.Array:
    """Exchange the storage of booleans, however deep; offsets and nulls stay the buffers that they are."""
    arrow, plain = array.type, _plain_type(array.type)
    if arrow == plain:
        return array
    if arrow == pa.bool8():
        return array.storage.cast(pa.bool_())
    if pa.types.is_map(arrow):
        children = [pa.StructArray.from_arrays([array.keys, array.items], ["key", "value"])]
        children = [pa.StructArray.from_arrays(list(map(_plain_array, children[0].flatten())), fields=_entries(plain))]
    elif pa.types.is_struct(arrow):
        children = [_plain_array(array.field(i)) for i in range(arrow.num_fields)]
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(children, fields=list(plain), mask=mask)
    else:
        children = [_plain_array(array.values)]
    buffers = array.buffers()[: 1 if pa.types.is_fixed_size_list(arrow) else 2]
    return pa.Array.from_buffers(plain, len(array), buffers, offset=array.offset, children=children)


def _entries(arrow: pa.DataType) -> list[pa.Field]:
    return [pa.field("key", arrow.key_type, nullable=False), pa.field("value", arrow.item_type)]


def result_schema(relation: duckdb.DuckDBPyRelation) -> Schema:
    """Return the columns of a DuckDB result, whose own types say more than Arrow's; raises `type_mismatch`."""
    return Schema(
        tuple(
            Field(name, parse_result_type(str(kind), f"columns[{i}]"))
            for i, (name, kind) in enumerate(zip(relation.columns, relation.types, strict=True))
        )
    )


def parse_result_type(text: str, where: str) -> Dtype:
    """Return the type of a result's column from DuckDB's text of it; NULL without a type is an INTEGER."""
    try:
        return parse_read_dtype(text.replace('"NULL"', "INTEGER"), where)
    except RequestError as e:
        message = f"The result has a column of type {text[:80]}, which no page holds."
        raise RequestError(Code.TYPE_MISMATCH, message, where=where, hint="Cast it, for example to VARCHAR.") from e
