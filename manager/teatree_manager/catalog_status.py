"""The catalog's status of one model: why it waits or stopped, and its version. No manager waits for PostgreSQL."""

from __future__ import annotations

import asyncio

from teatree.contracts.errors import OperatorError, TeatreeError
from teatree_manager.context import ManagerContext


class CatalogStatus:
    """The catalog's row of one model, read and written by a manager that begins or ends; does nothing without one."""

    def __init__(self, context: ManagerContext) -> None:
        self._catalog = context.catalog
        self._goal_model_id = context.goal_model_id
        self._model = context.model
        self._log = context.log

    async def record_waits(self, why: str) -> None:
        """Write why a manager cannot begin yet; once it runs, its `ConditionTask` records that."""
        if self._catalog is None:
            return
        try:
            await asyncio.to_thread(self._catalog.record_waits, self._goal_model_id, self._model, why)
        except TeatreeError as e:
            self._log.warning("the reason why the model waits was not recorded in the catalog", error=str(e))

    async def record_error(self, error: OperatorError) -> None:
        """Write why the model stopped."""
        if self._catalog is None:
            return
        try:
            await asyncio.to_thread(self._catalog.record_error, self._goal_model_id, self._model, error.to_dict())
        except TeatreeError as e:
            self._log.warning("the reason why the model stopped was not recorded in the catalog", error=str(e))

    async def version(self) -> int:
        """Return the newest version that the catalog holds, 0 if it holds none or does not answer."""
        if self._catalog is None:
            return 0
        try:
            found = await asyncio.to_thread(self._catalog.model, self._model)
        except TeatreeError as e:
            self._log.warning("the model's version was not read from the catalog", error=str(e))
            return 0
        return found.version if found and found.goal_model_id == self._goal_model_id else 0
