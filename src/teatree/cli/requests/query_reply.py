"""Printing the rows of a query: as a table for people, or in a format for programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

from teatree.cli.exits import usage
from teatree.cli.output import Output, counted
from teatree.contracts.shown import visible

if TYPE_CHECKING:
    import pyarrow as pa

    from teatree.datasets.dataset import Dataset

ROWS_SHOWN_MAX = 200
Form = Literal["table", "json", "jsonl", "csv", "arrow"]
"""A table for people (its first rows), one JSON document, JSON lines, CSV, or an Arrow stream."""


def check_form(form: Form) -> None:
    """Raise `usage` for a form that is not written to a terminal."""
    if form == "arrow" and sys.stdout.isatty():
        raise usage("Binary Arrow data is not written to a terminal.", "Redirect it, or choose another --format.")


def print_reply(output: Output, rows: Dataset, version: int | None, form: Form) -> None:
    """Print rows that were read from a version."""
    match form:
        case "csv":
            _print_csv(rows)
        case "arrow":
            _print_arrow(rows.to_arrow())
        case "jsonl":
            for row in rows.to_json_rows(as_written=True):
                output.line(row)
        case _ if output.json:
            from teatree.datasets.results.json_values import columns_to_json  # noqa: PLC0415

            columns = columns_to_json(rows.schema)
            output.line({"version": version, "columns": columns, "rows": rows.to_json_rows(as_written=True)})
        case _:
            _print_table(output, rows, version)


def _print_table(output: Output, rows: Dataset, version: int | None) -> None:
    from teatree.cli.cells import table_cells  # noqa: PLC0415
    from teatree.contracts.types.dtypes import Decimal, Float, Integer  # noqa: PLC0415
    from teatree.datasets.dataset import Dataset  # noqa: PLC0415

    first = Dataset(rows.schema, rows.to_arrow().slice(0, ROWS_SHOWN_MAX))
    right = [column.name for column in rows.schema if isinstance(column.dtype, (Integer, Float, Decimal))]
    columns = [table_cells(first.to_arrow().column(place), column.dtype) for place, column in enumerate(first.schema)]
    output.table(rows.schema.names, zip(*columns, strict=True), right=right)
    more = f", the first {ROWS_SHOWN_MAX} shown (--format csv gives all)" if len(rows) > ROWS_SHOWN_MAX else ""
    output.remark(f"{counted(len(rows), 'row')}, version {version}{more}")


def _print_csv(rows: Dataset) -> None:
    """Print CSV by RFC 4180: NULL is an empty field, the empty text is ""; nested values are JSON."""
    from teatree.cli.cells import csv_columns, csv_field  # noqa: PLC0415

    on_terminal = sys.stdout.isatty()

    def write(line: str) -> None:
        sys.stdout.write(visible(line, keep="\n") if on_terminal else line)

    write(",".join(csv_field(name) for name in rows.schema.names) + "\n")
    for row in zip(*csv_columns(rows), strict=True):
        write(",".join(row) + "\n")
    sys.stdout.flush()


def _print_arrow(table: pa.Table) -> None:
    import pyarrow as pa  # noqa: PLC0415

    with pa.ipc.new_stream(sys.stdout.buffer, table.schema) as writer:
        writer.write_table(table)
    sys.stdout.buffer.flush()
