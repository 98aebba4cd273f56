"""`teatree pins`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from teatree.cli.options import STORE_DEFAULT, ModelName, StoreCommon
from teatree.cli.output import Output
from teatree.cli.running import with_store

if TYPE_CHECKING:
    from teatree.client.session import Session
    from teatree.storage.retention.pins import Pin


def pins(model: ModelName, /, *, common: StoreCommon = STORE_DEFAULT) -> None:
    """List the pinned versions of a model.

    With their reasons: pins, and forks that need them.

    Example: teatree pins sales

    Parameters
    ----------
    model
        The model's name.
    """
    output = Output(json=common.json)

    async def work(session: Session) -> list[Pin]:
        from teatree.client.versions.pull import check_model  # noqa: PLC0415
        from teatree.storage.retention.pins import list_pins  # noqa: PLC0415

        chain = session.model(model).chain()
        found = list_pins(chain)
        if not found:
            check_model(chain)
        return found

    found = sorted(with_store(common, work), key=lambda pin: pin.version)
    if output.json:
        for pin in found:
            output.line(pin)
        return
    if not found:
        output.remark(f"No version of {model} is pinned: `teatree pin {model}@N` pins one.")
        return
    rows = ((pin.version, pin.name, pin.at, pin.until or "unpinned", pin.note) for pin in found)
    output.table(("version", "pin", "since", "until", "note"), rows, right=("version",))
