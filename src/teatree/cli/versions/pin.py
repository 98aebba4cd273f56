"""`teatree pin`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from teatree.cli.options import STORE_DEFAULT, ModelName, StoreCommon
from teatree.cli.output import Output
from teatree.cli.running import with_store
from teatree.cli.versions.model_at import split_version

if TYPE_CHECKING:
    from teatree.client.session import Session
    from teatree.storage.retention.pins import Pin


def pin(
    model_at_version: ModelName,
    /,
    *,
    name: str | None = None,
    until: str | None = None,
    note: str = "",
    common: StoreCommon = STORE_DEFAULT,
) -> None:
    """Keep a version until it is unpinned.

    The retention policy does not apply to it.

    Reads and writes only the object store.

    Example: teatree pin sales@12 --name year-end --until 2027-01-31T00:00

    Parameters
    ----------
    model_at_version
        The model and the version, as sales@12; the newest version if none is named.
    name
        The pin's name, `version-N` if left out.
    until
        When the pin ends: 2026-01-31T14:00 in local time, or 2026-01-31T14:00:00Z; never if left out.
    note
        The reason, for those who find the pin.
    """
    output = Output(json=common.json)
    model, version = split_version(model_at_version)

    async def work(session: Session) -> Pin:
        from teatree.client.versions.pinning import pin_version  # noqa: PLC0415
        from teatree.client.versions.pull import moment  # noqa: PLC0415

        end = None if until is None else moment(until)
        return pin_version(session.model(model).chain(), version, name, end, note, session.clock)

    made = with_store(common, work)
    if output.json:
        output.line(made)
        return
    ends = "it is unpinned" if made.until is None else f"{made.until:%Y-%m-%d %H:%M:%S} UTC"
    output.message(f"Version {made.version} of {model} is kept until {ends}: pin {made.name}.", "green")
