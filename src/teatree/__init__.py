"""Teatree: one writer per DuckDB model behind a durable queue, and immutable versions for every reader.

Each name is loaded on first use, so that `import teatree` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from teatree.client.model import Model
    from teatree.client.notice import Notice
    from teatree.client.sending.message import Message
    from teatree.client.sending.receipt import Receipt, Refusal, Summary
    from teatree.client.session import Session, connect
    from teatree.client.sync import SyncModel, SyncSession, connect_sync
    from teatree.client.versions.attach import Attached, attach
    from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError, TeatreeError
    from teatree.contracts.settings import Settings
    from teatree.contracts.types.schema import Dtype, Field, Schema
    from teatree.datasets.dataset import Dataset
    from teatree.engine.open_file import OpenFile, Published
    from teatree.engine.open_file import open_file as open  # noqa: A004 - it is always written teatree.open

_MODULES = {
    "Attached": "client.versions.attach",
    "Code": "contracts.errors",
    "Dataset": "datasets.dataset",
    "Dtype": "contracts.types.schema",
    "Field": "contracts.types.schema",
    "Message": "client.sending.message",
    "Model": "client.model",
    "Notice": "client.notice",
    "OpenFile": "engine.open_file",
    "OperatorError": "contracts.errors",
    "Published": "engine.open_file",
    "Receipt": "client.sending.receipt",
    "Refusal": "client.sending.receipt",
    "RequestError": "contracts.errors",
    "RetryError": "contracts.errors",
    "Schema": "contracts.types.schema",
    "Session": "client.session",
    "Settings": "contracts.settings",
    "Summary": "client.sending.receipt",
    "SyncModel": "client.sync",
    "SyncSession": "client.sync",
    "TeatreeError": "contracts.errors",
    "attach": "client.versions.attach",
    "connect": "client.session",
    "connect_sync": "client.sync",
    "open": "engine.open_file:open_file",
}
"""The module of each name; after a colon, its name in that module."""

__all__ = [
    "Attached",
    "Code",
    "Dataset",
    "Dtype",
    "Field",
    "Message",
    "Model",
    "Notice",
    "OpenFile",
    "OperatorError",
    "Published",
    "Receipt",
    "Refusal",
    "RequestError",
    "RetryError",
    "Schema",
    "Session",
    "Settings",
    "Summary",
    "SyncModel",
    "SyncSession",
    "TeatreeError",
    "attach",
    "connect",
    "connect_sync",
    "open",
]


def __getattr__(name: str) -> Any:
    path = _MODULES.get(name)
    if path is None:
        raise AttributeError(f"module 'teatree' has no attribute {name!r}")
    module, _, alias = path.partition(":")
    return getattr(import_module(f"teatree.{module}"), alias or name)


def __dir__() -> list[str]:
    return __all__
