"""Runs functions of apps in a read worker, which loads each app once."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from teatree.contracts.errors import Code, RequestError, RetryError
from teatree.contracts.formats.provenance import AppCode
from teatree.contracts.settings import LimitSettings, StoreSettings
from teatree.engine.duckdb.open_version import OpenVersion
from teatree.functions.app.engine_function import engine_function
from teatree.functions.app.loading import Apps, LoadedApp
from teatree.functions.arguments import Call, CallContext
from teatree.functions.others import Others, OtherVersion
from teatree.functions.sources import Sources
from teatree_manager.read_workers.app_call import AppCall, OtherCodeError
from teatree_manager.structured_log import configure_log


class NoOthers(Others):
    """Versions of other models in a process without access to the store: there are none."""

    @override
    def open(self, model: str, version: int | None) -> OtherVersion:
        raise RequestError(
            Code.USAGE,
            f"A direct call cannot read the other model {model!r}.",
            where="function",
            hint="Call the function through the log: the manager reads the other model's version.",
        )


class AppRunner:
    """The apps of this process."""

    def __init__(self) -> None:
        configure_log()
        self._apps: dict[str, LoadedApp] = {}

    def load(self, code: AppCode, import_ms_max: int) -> None:
        """Import an app unless that was done; raises `OtherCodeError`, or what is wrong with it."""
        if code.name not in self._apps:
            self._apps[code.name] = Apps((code.name,), import_ms_max).load(code.name)
        loaded = self._apps[code.name]
        if loaded.code is not None and loaded.code.code_hash != code.code_hash:
            raise OtherCodeError(code.name, loaded.code.version)
        if loaded.error is not None:
            raise loaded.error

    def run(self, work: AppCall, opened: OpenVersion, limits: LimitSettings, served: int) -> Any:
        """Return the result of a function of a loaded app: plain JSON, or a `QueryResult`."""
        app = self._apps[work.app.name].app
        if app is None:
            raise AssertionError
        call = Call(work.request, CallContext(limits, Sources((), StoreSettings()), others=NoOthers()))
        call.integer("wait_ms", 0)
        if call.integer("min_version", 0) > served:
            raise RetryError(Code.TIMED_OUT, "The version is not served yet.", where="min_version")
        function = engine_function(work.app, app.functions[work.request.function])
        return function.run(opened.access(limits), call)
