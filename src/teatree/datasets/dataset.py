"""A `Dataset`: rows with their schema, immutable, held as an Arrow table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from attrs import field, frozen

from teatree.contracts.types.schema import Schema
from teatree.datasets.arrow.types import from_arrow_schema, to_arrow_schema

if TYPE_CHECKING:
    import pandas as pd
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
        """Return rows of JSON values (as `codec.parse_json` gives them) or Python's in a schema's types, exactly.

        A column that a row leaves out is NULL. Raises what `RowDecoder.decode` raises, naming `rows[i].column`.
        """
        from teatree.datasets.python_forms import python_converter  # noqa: PLC0415 - readers of Arrow need no decoder
        from teatree.datasets.rows import RowDecoder  # noqa: PLC0415

        decoder = RowDecoder(schema, convert_by=python_converter)
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
        """Return the rows as a Polars frame: HUGEINT as Int128, an INTERVAL as a struct of months, days and micros.

        Raises `out_of_range` for what Polars has no value for, as `infinity` or the time 24:00:00.
        """
        from teatree.datasets.results.polars_frame import to_frame  # noqa: PLC0415 - 0.2 s, only for those who want it

        return to_frame(self._table, self.schema)

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a pandas frame of Arrow's types (`pandas.ArrowDtype`); HUGEINT as decimals, UUID as texts.

        Raises `wrong_configuration` if pandas is not installed.
        """
        from teatree.datasets.results.pandas_frame import to_frame  # noqa: PLC0415 - only for those who want it

        return to_frame(self._table, self.schema)

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows as objects of Python values.

        What Python has no value for is the text that JSON has for it: `infinity`, a year beyond 9999, 24:00:00, a
        moment with nanoseconds, BIT and TIMETZ. JSON is its text; `to_json_rows` reads it.
        """
        from teatree.datasets.arrow.nested import one_chunk  # noqa: PLC0415
        from teatree.datasets.results.python_values import python_column  # noqa: PLC0415

        names = self.schema.names
        columns = [
            python_column(one_chunk(self._table.column(place)), column.dtype) if len(self) else []
            for place, column in enumerate(self.schema)
        ]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    to_rows = rows
    """The same, under the name that goes with `to_arrow` and `to_polars`, for programs that call it."""

    def to_json_rows(self, *, as_written: bool = False) -> list[dict[str, Any]]:
        """Return the rows as objects of JSON values that keep every digit, as `query` answers them.

        The values of a JSON column are Python's (`int` of any size, `Decimal` where a float would lose digits), or with
        `as_written` texts that `dump_json` writes into its document as they are.
        """
        from teatree.datasets.results.json_values import rows_to_json  # noqa: PLC0415

        return rows_to_json(self._table, self.schema, as_written=as_written)
