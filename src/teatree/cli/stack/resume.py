"""`teatree resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from teatree.cli.options import DEFAULT, Common, ModelName
from teatree.cli.output import Output
from teatree.cli.running import with_session

if TYPE_CHECKING:
    from teatree.client.session import Session


def resume(
    model: ModelName,
    /,
    *,
    restore: Annotated[bool, Parameter(negative="")] = False,
    timeout: float = 30.0,
    common: Common = DEFAULT,
) -> None:
    """Start the manager of a stopped model now.

    For use after the cause is repaired.

    `teatree models` shows why a model is stopped. A manager that crashes repeatedly is started in growing intervals;
    this does not wait for the next one.

    Example: teatree resume sales --restore

    Parameters
    ----------
    model
        The model.
    restore
        Put this host's file of the model aside: the next manager restores the newest version from the object store and
        applies the requests after it. No accepted request is lost.
    timeout
        Seconds to wait for the manager.
    """
    output = Output(json=common.json)

    async def work(session: Session) -> dict[str, Any]:
        from teatree.client.resume import resume as resume_model  # noqa: PLC0415

        return await resume_model(session, model, restore=restore, timeout_ms=round(timeout * 1000))

    health = with_session(common, work)
    if output.json:
        output.line(health)
        return
    waits = f"; it waits: {health['waiting_for']}" if health.get("waiting_for") else ""
    output.message(f"The manager of {model} runs: {health['state']}, version {health['version']}{waits}.", "green")
