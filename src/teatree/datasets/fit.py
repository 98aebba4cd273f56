"""The conversion of received Arrow rows to a table's types: without loss, or refused.

What is taken: every number type for every other if the values survive; texts for VARCHAR, ENUM, JSON, UUID, HUGEINT,
BIT and TIMETZ; moments in any unit. As in JSON, a decimal number becomes the nearest double,
a whole one (a DECIMAL without digits after the point, too) only the same. A double becomes a DECIMAL
if its shortest decimal form fits.
"""

from __future__ import annotations

import pyarrow as pa

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.types.schema import Field, Schema
from teatree.datasets.arrow.arrays import build_array
from teatree.datasets.arrow.nested import one_chunk
from teatree.datasets.arrow.types import to_arrow_schema
from teatree.datasets.bad_value import BadValueError
from teatree.datasets.fit_array import first_bad, fit_array
from teatree.datasets.rows import missing_column


def fit_table(
    table: pa.Table, schema: Schema, where: str = "rows", first_row: int = 0, *, fill: bool = True
) -> pa.Table:
    """Return a client's rows as exactly the table's types and spelling, in the table's order of columns.

    With `fill` a nullable column without default that is missing is added as nulls, as `RowDecoder` does; columns with
    a default stay out. `first_row` is the number of the table's first row, for a piece of more rows. Raises a
    RequestError that names the place, for example `rows[3].id`.
    """
    try:
        table.validate(full=True)
    except pa.ArrowException as e:
        raise RequestError(Code.BAD_ARROW, f"The Arrow data is damaged: {str(e)[:200]}.", where=where) from None
    sent = _match_columns(table, schema, where)
    columns: dict[str, pa.Array] = {}
    for column in schema:
        place = sent.get(column.name)
        if place is not None:
            name = table.column_names[place]
            columns[column.name] = _fit_column(table.column(place), column, where, first_row, name)
        elif column.default is None and not column.nullable:
            raise missing_column(column, f"{where}.{column.name}")
        elif column.default is None and fill:
            columns[column.name] = build_array(column.dtype, [None] * table.num_rows)
    if not columns:
        raise RequestError(Code.MISSING_COLUMN, "The rows give no column.", where=where)
    return pa.Table.from_arrays(list(columns.values()), schema=to_arrow_schema(schema.select(columns)))


def _match_columns(table: pa.Table, schema: Schema, where: str) -> dict[str, int]:
    sent: dict[str, int] = {}
    for place, key in enumerate(table.column_names):
        name = schema.field(key, f"{where}.{key}").name
        if name in sent:
            raise RequestError(Code.DUPLICATE_KEY, f"The column {name!r} is given twice.", where=f"{where}.{key}")
        sent[name] = place
    return sent


def _fit_column(values: pa.ChunkedArray, column: Field, where: str, first_row: int, name: str) -> pa.Array:
    """Fit a column; one of dictionaries piece by piece, since those of several pieces may not become one."""
    if values.num_chunks <= 1 or not _has_dictionary(values.type):
        return _fit_piece(one_chunk(values), column, where, first_row, name)
    pieces = []
    for piece in values.chunks:
        pieces.append(_fit_piece(piece, column, where, first_row, name))
        first_row += len(piece)
    return pa.concat_arrays(pieces)


def _has_dictionary(arrow: pa.DataType) -> bool:
    if isinstance(arrow, pa.BaseExtensionType):
        return _has_dictionary(arrow.storage_type)
    return bool(pa.types.is_dictionary(arrow)) or any(
        _has_dictionary(arrow.field(i).type) for i in range(arrow.num_fields)
    )


def _fit_piece(array: pa.Array, column: Field, where: str, first_row: int, name: str) -> pa.Array:
    try:
        fitted = fit_array(array, column.dtype)
    except BadValueError:
        row, error = first_bad(array, column.dtype)
        at = f"{where}[{first_row + row}].{name}{error.path}"
        raise RequestError(error.code, error.message, where=at) from None
    if not column.nullable and fitted.null_count:
        at = f"{where}[{first_row + fitted.is_null().index(True).as_py()}].{name}"
        raise RequestError(Code.NOT_NULL, "The column does not take null.", where=at)
    return fitted
