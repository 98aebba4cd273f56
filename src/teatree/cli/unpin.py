"""`teatree unpin`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from teatree.cli.options import STORE_DEFAULT, StoreCommon
from teatree.cli.output import Output
from teatree.cli.running import with_store

if TYPE_CHECKING:
    from teatree.client.session import Session


def unpin(model: str, name: str, /, *, common: StoreCommon = STORE_DEFAULT) -> None:
    """Remove a pin from a version.

    From the next clean-up on, the retention policy decides about the version again.

    Example: teatree unpin sales year-end

    Parameters
    ----------
    model
        The model's name.
    name
        The pin's name, as `teatree pins` lists it.
    """
    output = Output(json=common.json)

    async def work(session: Session) -> None:
        from teatree.storage.pins import unpin as take_away  # noqa: PLC0415

        take_away(session.model(model).chain(), name)

    with_store(common, work)
    if output.json:
        output.line({"model": model, "name": name})
    else:
        output.say(f"The pin {name} of {model} is gone.", "green")
