"""`teatree drop`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from teatree.cli.options import DEFAULT, Common
from teatree.cli.output import Output
from teatree.cli.running import with_session

if TYPE_CHECKING:
    from teatree.client.receipt import Receipt
    from teatree.client.session import Session


def drop(model: str, /, *, id: str | None = None, common: Common = DEFAULT) -> None:
    """Drop a model; its versions stay readable.

    The name can be created again; its versions go on counting.

    Example: teatree drop sales

    Parameters
    ----------
    model
        The model's name.
    id
        Request id: the same id again has no second effect.
    """
    output = Output(json=common.json)

    async def work(session: Session) -> Receipt:
        return await session.drop_model(model, request_id=id)

    receipt = with_session(common, work)
    if output.json:
        output.line(receipt)
    else:
        output.say(f"{model} is dropped, with version {receipt.version}.", "green")
