"""`teatree fork`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from teatree.cli.options import SENDER_DEFAULT, ModelName, SenderCommon
from teatree.cli.output import Output
from teatree.cli.running import with_session
from teatree.cli.versions.model_at import split_version

if TYPE_CHECKING:
    from teatree.client.session import Session


def fork(
    model_at_version: ModelName,
    new: str,
    /,
    *,
    at: str | None = None,
    id: str | None = None,
    timeout: int = 600,
    common: SenderCommon = SENDER_DEFAULT,
) -> None:
    """Create a model as a fork of a version of another one.

    The two share only blocks in the object store: the fork has its own requests, versions and
    numbering. The version is kept for as long as the fork needs it.

    Example: teatree fork sales@12 trial

    Parameters
    ----------
    model_at_version
        The model and the version, as sales@12; the newest version if none is named.
    new
        The new model's name.
    at
        The newest version at a moment: 2026-01-31T14:00 in local time, or 2026-01-31T14:00:00Z.
    id
        Request id: the same id again has no second effect.
    timeout
        Seconds to wait for it.
    """
    output = Output(json=common.json)
    model, version = split_version(model_at_version)

    async def work(session: Session) -> None:
        number = version
        if at is not None:
            number = await session.model(model).find_version(version, at=at)
        await session.fork_model(model, new, version=number, request_id=id, timeout_ms=timeout * 1000)

    with_session(common, work)
    if output.json:
        output.line({"model": new, "from": {"model": model, "version": version}})
    else:
        source = model if version is None else f"version {version} of {model}"
        output.message(f"{new} is created, with the tables of {source}.", "green")
