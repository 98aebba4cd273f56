"""`teatree restore`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from teatree.cli.exits import usage
from teatree.cli.options import SENDER_DEFAULT, ModelName, SenderCommon
from teatree.cli.output import Output
from teatree.cli.running import with_session
from teatree.cli.versions.model_at import split_version
from teatree.contracts.errors import Code, RequestError

if TYPE_CHECKING:
    from teatree.client.sending.receipt import Receipt
    from teatree.client.session import Session


# More than fifty lines: its options and their help.
def restore(
    model_at_version: ModelName,
    /,
    *,
    at: str | None = None,
    id: str | None = None,
    timeout: int = 600,
    common: SenderCommon = SENDER_DEFAULT,
) -> None:
    """Make a model's tables equal those of an earlier version.

    It is a request like any other: it makes a new version and removes none from the history, and restoring the version
    before undoes it. A dropped model has to be created again first.

    Example: teatree restore sales@12

    Parameters
    ----------
    model_at_version
        The model and the version, as sales@12.
    at
        The newest version at a moment instead: 2026-01-31T14:00 in local time, or 2026-01-31T14:00:00Z.
    id
        Request id: the same id again has no second effect.
    timeout
        Seconds to wait for it.
    """
    output = Output(json=common.json)
    model, version = split_version(model_at_version)
    if (version is None) == (at is None):
        raise usage(f"Name one version of {model} to restore.", f"Write {model}@12, or give a moment with --at.")

    async def work(session: Session) -> tuple[int, Receipt]:
        wanted = session.model(model)
        number = version if version is not None else await wanted.find_version(at=at)
        try:
            return number, await wanted.restore(number, request_id=id, timeout_ms=timeout * 1000)
        except RequestError as e:
            if e.code is Code.UNKNOWN_MODEL and await wanted.versions(1):
                raise _dropped(model, number) from None
            raise

    number, receipt = with_session(common, work)
    if output.json:
        output.line(receipt)
        return
    result = receipt.result or {}
    tables = ", ".join(result.get("tables", ())) or "nothing changed"
    dropped = f"; dropped: {', '.join(result['dropped'])}" if result.get("dropped") else ""
    output.message(
        f"Version {receipt.version} of {model} has the tables of version {number} ({tables}{dropped}).", "green"
    )


def _dropped(model: str, version: int) -> RequestError:
    return RequestError(
        Code.UNKNOWN_MODEL,
        f"{model} is dropped; its versions still exist.",
        where="model",
        hint=f"Create it again with `teatree create {model}`, then restore {model}@{version}.",
    )
