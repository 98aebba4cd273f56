"""`teatree drop`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from teatree.cli.exits import usage
from teatree.cli.options import SENDER_DEFAULT, ModelName, SenderCommon
from teatree.cli.output import Output
from teatree.cli.running import with_session

if TYPE_CHECKING:
    from teatree.client.sending.receipt import Receipt
    from teatree.client.session import Session


def drop(
    model: ModelName,
    /,
    *,
    yes: Annotated[bool, Parameter(negative="")] = False,
    id: str | None = None,
    common: SenderCommon = SENDER_DEFAULT,
) -> None:
    """Drop a model; its versions stay readable.

    Asks for the model's name before it does. The name can be created again; its versions continue the numbering.

    Example: teatree drop sales --yes

    Parameters
    ----------
    model
        The model's name.
    yes
        Do not ask for confirmation; needed without a terminal.
    id
        Request id: the same id again has no second effect.
    """
    output = Output(json=common.json)
    if not yes:
        _ask(model)

    async def work(session: Session) -> Receipt:
        return await session.drop_model(model, request_id=id)

    receipt = with_session(common, work)
    if output.json:
        output.line(receipt)
    else:
        output.message(f"{model} was dropped, with version {receipt.version}.", "green")


def _ask(model: str) -> None:
    """Return if the person at the terminal types the model's name; raises `usage` otherwise."""
    if not sys.stdin.isatty():
        raise usage(f"{model} was not dropped: there is no terminal for a confirmation.", "Give --yes.")
    print(f"Type the model's name to drop {model}: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != model:
        raise usage(f"{model} was not dropped: the name differs.")
