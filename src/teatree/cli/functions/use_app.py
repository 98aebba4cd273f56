"""`teatree use-app`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from teatree.cli.options import SENDER_DEFAULT, ModelName, SenderCommon
from teatree.cli.output import Output
from teatree.cli.requests.receipts import print_receipt
from teatree.cli.running import with_session

if TYPE_CHECKING:
    from teatree.client.sending.receipt import Receipt
    from teatree.client.session import Session


def use_app(model: ModelName, app: str, /, *, id: str | None = None, common: SenderCommon = SENDER_DEFAULT) -> None:
    """Give a model an app, or take its newer code into use.

    Requests after this one can call the functions of the app as it is installed then.

    Example: teatree use-app sales sales_goals

    Parameters
    ----------
    model
        The model's name.
    app
        The app's name: an installed package has it as an entry point in teatree.apps, and the operator allows it.
    id
        Request id: the same id again has no second effect.
    """
    output = Output(json=common.json)

    async def work(session: Session) -> Receipt:
        return await session.model(model).use_app(app, request_id=id)

    print_receipt(output, with_session(common, work))
