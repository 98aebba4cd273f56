"""`teatree query`."""

from __future__ import annotations

import decimal
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from teatree.cli.exits import usage
from teatree.cli.json_args import read_args
from teatree.cli.options import DEFAULT, Common
from teatree.cli.output import Output
from teatree.cli.running import with_session

if TYPE_CHECKING:
    import pyarrow as pa

    from teatree.client.query import Answer
    from teatree.client.session import Session
    from teatree.datasets.dataset import Dataset

TIMEOUT_MS = 60_000
ROWS_SHOWN_MAX = 200


def query(
    model: str,
    sql: str,
    /,
    *,
    format: Literal["table", "json", "jsonl", "csv", "arrow"] = "table",
    param: Annotated[tuple[str, ...], Parameter(negative="", show_default=False, allow_leading_hyphen=True)] = (),
    min_version: int | None = None,
    through_log: Annotated[bool, Parameter(negative="")] = False,
    timeout_ms: int = TIMEOUT_MS,
    common: Common = DEFAULT,
) -> None:
    """Answer a SELECT from the newest version.

    Direct reads never wait behind writes; a model at rest is woken first.

    Example: teatree query sales 'SELECT site, sum(amount) FROM sales GROUP BY site' --format csv

    Parameters
    ----------
    model
        The model's name.
    sql
        One SELECT; ? and $name stand for parameters.
    format
        A table for people (its first rows), one JSON document (as --json), JSON lines, CSV, or an Arrow stream.
    param
        A parameter's value as JSON ('"north"', 42) for each ?, or name=value for $name; may be given several times.
    min_version
        Wait for this version first.
    through_log
        Ask in the one order: the answer sees every request sent before it.
    timeout_ms
        How long to wait for the answer.
    """
    output = Output(json=common.json or format != "table")
    if format == "arrow" and sys.stdout.isatty():
        raise usage("An Arrow stream is nothing for a terminal.", "Send it to a file or a program.")
    parameters = _parameters(param)

    async def work(session: Session) -> Answer:
        from teatree.client.query import Question  # noqa: PLC0415

        form: Literal["json", "arrow"] = "json" if _is_json(output, format) else "arrow"
        question = Question(sql, parameters, form, min_version=min_version)
        return await session.model(model).ask(question, through_log=through_log, timeout_ms=timeout_ms)

    _print(output, with_session(common, work), format)


def _is_json(output: Output, form: str) -> bool:
    return form in {"json", "jsonl"} or (form == "table" and output.json)


def _parameters(values: tuple[str, ...]) -> list[Any] | dict[str, Any] | None:
    if not values:
        return None
    named = [value.split("=", 1) for value in values if not value.startswith(('"', "'")) and "=" in value]
    if named and len(named) != len(values):
        raise usage("Parameters are either all named or none is.", "Give --param name=value, or --param value.")
    if named:
        return {name: _value(value) for name, value in named}
    return [_value(value) for value in values]


def _value(text: str) -> Any:
    """Return a parameter: JSON if it is, else the text itself."""
    try:
        return read_args(f'{{"value": {text}}}', "--param")["value"]
    except Exception as e:
        from teatree.contracts.errors import RequestError  # noqa: PLC0415

        if isinstance(e, RequestError):
            return text
        raise


def _print(output: Output, answer: Answer, form: str) -> None:
    rows = answer.dataset
    match form:
        case "csv":
            _print_csv(rows)
        case "arrow":
            _print_arrow(rows.to_arrow())
        case "jsonl":
            for row in rows.to_json_rows():
                output.line(row)
        case _ if output.json:
            from teatree.datasets.json_values import columns_to_json  # noqa: PLC0415

            columns = columns_to_json(rows.schema)
            output.line({"version": answer.version, "columns": columns, "rows": rows.to_json_rows()})
        case _:
            _print_table(output, rows, answer.version)


def _print_table(output: Output, rows: Dataset, version: int | None) -> None:
    from teatree.contracts.dtypes import Decimal, Float, Integer  # noqa: PLC0415
    from teatree.datasets.dataset import Dataset  # noqa: PLC0415

    first = Dataset(rows.schema, rows.to_arrow().slice(0, ROWS_SHOWN_MAX))
    right = [column.name for column in rows.schema if isinstance(column.dtype, (Integer, Float, Decimal))]
    output.table(rows.schema.names, (list(row.values()) for row in first.to_json_rows()), right=right)
    more = f", the first {ROWS_SHOWN_MAX} shown (--format csv gives all)" if len(rows) > ROWS_SHOWN_MAX else ""
    output.remark(f"{len(rows):,} rows of version {version}{more}")


def _print_csv(rows: Dataset) -> None:
    """Print as JSON has the values, but for decimals, which keep their digits."""
    import csv  # noqa: PLC0415

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(rows.schema.names)
    for exact, row in zip(rows.to_rows(), rows.to_json_rows(), strict=True):
        writer.writerow([_csv_cell(exact[name], value) for name, value in row.items()])
    sys.stdout.flush()


def _csv_cell(exact: Any, value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return exact if isinstance(exact, decimal.Decimal) else value


def _print_arrow(table: pa.Table) -> None:
    import pyarrow as pa  # noqa: PLC0415

    with pa.ipc.new_stream(sys.stdout.buffer, table.schema) as writer:
        writer.write_table(table)
    sys.stdout.buffer.flush()
