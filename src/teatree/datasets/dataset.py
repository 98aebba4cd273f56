"""A `Dataset`: rows with their schema, immutable, held as an Arrow table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from attrs import field, frozen

from teatree.contracts.dtypes import Bit, Dtype, Integer, TimeTz, children
from teatree.contracts.schema import Schema
from teatree.datasets.arrow import from_arrow_schema, to_arrow_schema

if TYPE_CHECKING:
    import polars as pl


@frozen(eq=False, repr=False)
class Dataset:
    """Rows in columns whose types are known; every Arrow library takes it as it is (`__arrow_c_stream__`)."""

    schema: Schema
    _table: pa.Table = field(alias="table")

    @classmethod
    def from_arrow(cls, rows: Any) -> Dataset:
        """Return the rows of a pyarrow table, a Polars frame or anything with `__arrow_c_stream__`.

        Raises `type_mismatch` for a type that no column holds.
        """
        table = rows if isinstance(rows, pa.Table) else pa.table(rows)
        return cls(from_arrow_schema(table.schema), table)

    @classmethod
    def from_rows(cls, rows: Sequence[dict[str, Any]], schema: Schema) -> Dataset:
        """Return rows of JSON values (as `codec.parse_json` gives them) in a schema's types, exactly.

        A column that a row leaves out is NULL. Raises what `RowDecoder.decode` raises, naming `rows[i].column`.
        """
        from teatree.datasets.rows import RowDecoder  # noqa: PLC0415 - readers of Arrow need no decoder

        decoder = RowDecoder(schema)
        tables = [decoder.to_table([group]) for group in decoder.decode(list(rows))]
        return cls(schema, pa.concat_tables(tables) if tables else to_arrow_schema(schema).empty_table())

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __repr__(self) -> str:
        columns = ", ".join(f"{column.name} {column.dtype}" for column in self.schema)
        return f"Dataset({len(self)} rows: {columns})"

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Hand the rows to another Arrow library, without a copy."""
        return self._table.__arrow_c_stream__(requested_schema)

    def to_arrow(self) -> pa.Table:
        """Return the rows as a pyarrow table, without a copy."""
        return self._table

    def to_polars(self) -> pl.DataFrame:
        """Return the rows as a Polars frame; HUGEINT, which every sum of integers is, as its Int128."""
        import polars as pl  # noqa: PLC0415 - 0.2 s, only for those who want it

        frame = pl.DataFrame(self._table)
        wide = [column.name for column in self.schema if column.dtype == Integer(128)]
        return frame.with_columns(pl.Series(name, self._column(name), pl.Int128) for name in wide)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return the rows as objects of Python values; types that Python lacks as JSON has them."""
        names = self.schema.names
        columns = [self._column(name) for name in names]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def _column(self, name: str) -> list[Any]:
        from teatree.datasets.json_values import json_column  # noqa: PLC0415
        from teatree.datasets.nested import one_chunk  # noqa: PLC0415

        dtype = self.schema[name].dtype
        values = self._table.column(self.schema.names.index(name))
        match dtype:
            case Integer(bits=128):
                return [None if v is None else int(v) for v in json_column(one_chunk(values), dtype)]
            case _ if _is_opaque(dtype):
                return json_column(one_chunk(values), dtype)
            case _:
                plain: list[Any] = values.to_pylist()
                return plain

    def to_json_rows(self) -> list[dict[str, Any]]:
        """Return the rows as objects of JSON values that keep every digit, as `query` answers them."""
        from teatree.datasets.json_values import rows_to_json  # noqa: PLC0415

        return rows_to_json(self._table, self.schema)


def _is_opaque(dtype: Dtype) -> bool:
    """Whether Arrow's Python values of a type are only bytes."""
    own = isinstance(dtype, (Bit, TimeTz)) or (isinstance(dtype, Integer) and dtype.bits == 128)
    return own or any(_is_opaque(part) for part in children(dtype))
