"""The catalog's status of one model: why it waits or stopped, and its version. No manager waits for PostgreSQL."""

from __future__ import annotations

import asyncio
import uuid

import structlog

from teatree.contracts.errors import OperatorError, TeatreeError
from teatree.storage.catalog import Catalog


class CatalogStatus:
    """The catalog's row of one model, read and written by a manager that begins or ends; does nothing without one."""

    def __init__(self, catalog: Catalog | None, goal_model_id: str, model: str) -> None:
        self._catalog = catalog
        self._goal_model_id = goal_model_id
        self._model = model
        self._log = structlog.get_logger().bind(model=model)

    async def record_waits(self, why: str) -> None:
        """Write why a manager cannot begin yet; once it runs, its `ConditionFollower` records that."""
        if self._catalog is None:
            return
        try:
            await asyncio.to_thread(self._catalog.record_waits, uuid.UUID(self._goal_model_id), self._model, why)
        except TeatreeError as e:
            self._log.warning("the reason why the model waits was not recorded in the catalog", error=str(e))

    async def record_error(self, error: OperatorError) -> None:
        """Write why the model stopped."""
        if self._catalog is None:
            return
        model_id = uuid.UUID(self._goal_model_id)
        try:
            await asyncio.to_thread(self._catalog.record_error, model_id, self._model, error.to_dict())
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
        return found.version if found and str(found.goal_model_id) == self._goal_model_id else 0
