"""Teatree: one writer per DuckDB model behind a durable queue, and immutable versions for every reader.

Each name is loaded on first use, so that `import teatree` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from teatree.client.live.watched_answer import WatchedAnswer
    from teatree.client.live.watching import AnswerChange
    from teatree.client.model import Model
    from teatree.client.notice import Notice
    from teatree.client.sending.message import Message
    from teatree.client.sending.receipt import Receipt, Refusal, Summary
    from teatree.client.session import Session, connect
    from teatree.client.sync import SyncModel, SyncSession, connect_sync
    from teatree.client.versions.attach import Attached, attach
    from teatree.contracts.errors import Code, OperatorError, Refused, RequestError, RetryError, TeatreeError
    from teatree.contracts.settings import Settings
    from teatree.contracts.types.schema import Dtype, Field, Schema
    from teatree.datasets.dataset import Dataset
    from teatree.engine.file_publisher import Published
    from teatree.engine.open_file import OpenFile
    from teatree.engine.open_file import open_file as open  # noqa: A004 - it is always written teatree.open
    from teatree.functions.app.app import App
    from teatree.functions.app.calls.signature import Depends
    from teatree.functions.app.context import Context
    from teatree.functions.app.handles import Read, Write

_MODULES = {
    "AnswerChange": "client.live.watching",
    "App": "functions.app.app",
    "Attached": "client.versions.attach",
    "Code": "contracts.errors",
    "Context": "functions.app.context",
    "Dataset": "datasets.dataset",
    "Depends": "functions.app.calls.signature",
    "Dtype": "contracts.types.schema",
    "Field": "contracts.types.schema",
    "Message": "client.sending.message",
    "Model": "client.model",
    "Notice": "client.notice",
    "OpenFile": "engine.open_file",
    "OperatorError": "contracts.errors",
    "Published": "engine.file_publisher",
    "Read": "functions.app.handles",
    "Receipt": "client.sending.receipt",
    "Refusal": "client.sending.receipt",
    "Refused": "contracts.errors",
    "RequestError": "contracts.errors",
    "RetryError": "contracts.errors",
    "Schema": "contracts.types.schema",
    "Session": "client.session",
    "Settings": "contracts.settings",
    "Summary": "client.sending.receipt",
    "SyncModel": "client.sync",
    "SyncSession": "client.sync",
    "TeatreeError": "contracts.errors",
    "WatchedAnswer": "client.live.watched_answer",
    "Write": "functions.app.handles",
    "attach": "client.versions.attach",
    "connect": "client.session",
    "connect_sync": "client.sync",
    "open": "engine.open_file:open_file",
}
"""The module of each name; after a colon, its name in that module."""

__all__ = [
    "AnswerChange",
    "App",
    "Attached",
    "Code",
    "Context",
    "Dataset",
    "Depends",
    "Dtype",
    "Field",
    "Message",
    "Model",
    "Notice",
    "OpenFile",
    "OperatorError",
    "Published",
    "Read",
    "Receipt",
    "Refusal",
    "Refused",
    "RequestError",
    "RetryError",
    "Schema",
    "Session",
    "Settings",
    "Summary",
    "SyncModel",
    "SyncSession",
    "TeatreeError",
    "WatchedAnswer",
    "Write",
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
