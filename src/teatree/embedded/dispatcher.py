"""The dispatcher as a child process of the stack."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from teatree.embedded.managers import is_ours
from teatree.embedded.server import Server

if TYPE_CHECKING:
    import psutil

DISPATCHER_MODULE = "teatree_dispatcher"
_READY = b"the dispatcher runs"
"""The event that it logs once it reads the log of requests; it has no port that could be probed."""


class DispatcherProcess(Server):
    """`python -m teatree_dispatcher`; its connections and secrets reach it through its environment."""

    name = "dispatcher"

    def __init__(self, folder: Path, data: Path, environ: Mapping[str, str], *, stop_ms_max: int = 10_000) -> None:
        super().__init__(folder, stop_ms_max=stop_ms_max)
        self._data = data
        self._environ = environ

    @override
    def _command(self) -> list[str]:
        return [sys.executable, "-m", DISPATCHER_MODULE]

    @override
    def _environment(self) -> Mapping[str, str]:
        return self._environ

    @override
    def _spawn_options(self) -> dict[str, Any]:
        return {"umask": 0o077}  # other users cannot read the models' files, whatever the mode of the data folder

    @override
    def _recognise(self, process: psutil.Process) -> bool:
        return is_ours(process, DISPATCHER_MODULE, self._data)

    @override
    def _is_ready(self) -> bool:
        return _READY in self._output()
