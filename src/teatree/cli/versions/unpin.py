"""`teatree unpin`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from teatree.cli.exits import usage
from teatree.cli.options import STORE_DEFAULT, ModelName, StoreCommon
from teatree.cli.output import Output
from teatree.cli.running import with_store
from teatree.cli.versions.model_at import split_version

if TYPE_CHECKING:
    from teatree.client.session import Session


def unpin(model_at_version: ModelName, name: str | None = None, /, *, common: StoreCommon = STORE_DEFAULT) -> None:
    """Remove a pin from a version.

    From the next clean-up on, the retention policy applies to the version again.

    Example: teatree unpin sales@12

    Example: teatree unpin sales year-end

    Parameters
    ----------
    model_at_version
        The model; or model and version, as sales@12, for the pin `version-12`.
    name
        The pin's name, as `teatree pins` lists it.
    """
    model, version = split_version(model_at_version)
    if (name is None) == (version is None):
        raise usage("Name exactly one pin.", f"Write {model}@N or {model} NAME; `teatree pins {model}` lists them.")
    pin_name = name or f"version-{version}"
    output = Output(json=common.json)

    async def work(session: Session) -> None:
        from teatree.storage.retention.pins import unpin as remove_pin  # noqa: PLC0415

        remove_pin(session.model(model).chain(), pin_name)

    with_store(common, work)
    if output.json:
        output.line({"model": model, "name": pin_name})
    else:
        output.message(f"The pin {pin_name} of {model} was removed.", "green")
