"""Starting the manager of a stopped model again, if wanted with its file restored from the store."""

from __future__ import annotations

from typing import Any

import orjson

from teatree.client.direct_read import ask
from teatree.client.session import Session
from teatree.contracts.errors import Code, OperatorError
from teatree.contracts.names import check_model
from teatree.messaging.subjects import ADVANCED
from teatree.storage.model_folder import model_folder


async def resume(session: Session, model: str, *, restore: bool, timeout_ms: int) -> dict[str, Any]:
    """Have the dispatcher start the model's manager now; return the manager's health.

    With `restore`, the next manager that takes the model over on this host puts the read-write file aside, restores the
    newest version from the store and applies the log after it: no accepted request is lost. A running manager is not
    stopped. Raises `wrong_configuration` if the data folder is not on this host, `timed_out` without a reply.
    """
    bus = session.bus
    if restore:
        _want_restore(session, check_model(model))
    await bus.publish(bus.subjects.wake(ADVANCED), b"")
    reply = await ask(bus, bus.subjects.query(model, "health"), b"", timeout_ms)
    found: dict[str, Any] = orjson.loads(reply.body)
    return found


def _want_restore(session: Session, model: str) -> None:
    folder = model_folder(session.settings.data, model)
    if not folder.root.is_dir():
        raise OperatorError(
            Code.WRONG_CONFIGURATION,
            f"The files of {model} are not in the data folder on this host.",
            where=str(folder.root),
            hint="Run this on the host of its managers, with their --data.",
        )
    folder.restore_wanted.touch(mode=0o600)
