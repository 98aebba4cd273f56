"""`teatree create`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from teatree.cli.options import SENDER_DEFAULT, SenderCommon
from teatree.cli.output import Output
from teatree.cli.requests.table_text import read_table
from teatree.cli.running import with_session

if TYPE_CHECKING:
    from teatree.client.session import Session


def create(
    model: str,
    /,
    *,
    table: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    app: str | None = None,
    storage_version: str | None = None,
    id: str | None = None,
    common: SenderCommon = SENDER_DEFAULT,
) -> None:
    """Create a model, with its tables.

    Example: teatree create sales --table 'sales(id BIGINT, site VARCHAR, amount DECIMAL(18,2), PRIMARY KEY (id))'

    Parameters
    ----------
    model
        Its name: a lower-case letter, then lower-case letters, digits and underscores.
    table
        A table, as in SQL's CREATE TABLE; may be given several times.
    app
        The name of the app whose functions it has: an entry point in teatree.apps of an installed package.
    storage_version
        Keep the files readable by this DuckDB, as v1.4.0; otherwise only the newest reads them.
    id
        Request id: the same id again has no second effect.
    """
    output = Output(json=common.json)
    tables = [read_table(text) for text in table]

    async def work(session: Session) -> None:
        await session.create_model(model, tables=tables, app=app, storage_version=storage_version, request_id=id)

    with_session(common, work)
    if output.json:
        output.line({"model": model, "tables": [t["table"] for t in tables]})
    else:
        output.message(f"{model} is created, with {len(tables)} table{'s' * (len(tables) != 1)}.", "green")
