"""`teatree load`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from teatree.cli.options import DEFAULT, Common
from teatree.cli.output import Output
from teatree.cli.receipts import print_receipt
from teatree.cli.running import with_session

if TYPE_CHECKING:
    from teatree.client.receipt import Receipt
    from teatree.client.session import Session

TIMEOUT_MS = 600_000


def load(
    model: str,
    table: str,
    uri: str,
    /,
    *,
    mode: Literal["append", "replace", "create"] = "append",
    id: str | None = None,
    timeout_ms: int = TIMEOUT_MS,
    common: Common = DEFAULT,
) -> None:
    """Load a file by reference: Parquet, CSV or Arrow.

    The manager reads it, so it lies in a place that the operator of the stack allowed (TEATREE_LOAD_ROOTS).

    Example: teatree load sales sales s3://bucket/2026/sales.parquet --mode append

    Parameters
    ----------
    model
        The model's name.
    table
        The table that takes the rows.
    uri
        A path or s3:// address that the manager can read, or teatree://model/table.
    mode
        Add the rows, replace all rows, or create the table with the file's columns.
    id
        Request id: the same id again has no second effect.
    timeout_ms
        How long to wait for the outcome; it is applied all the same.
    """
    output = Output(json=common.json)

    async def work(session: Session) -> Receipt:
        with output.progress(f"loading into {table}"):
            return await session.model(model).load(table, uri, mode=mode, request_id=id, timeout_ms=timeout_ms)

    print_receipt(output, with_session(common, work))
