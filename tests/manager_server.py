"""Starts managers and dispatchers by forking a process that has loaded their libraries: much faster than a new Python.

One JSON line on standard input for each order, one on standard output for each answer: `{"model", "log", "environ"}`
starts a manager, with null as the model a dispatcher, and returns its `pid`; `{"poll": pid}` returns its exit `code`,
null while it runs. `"poison": id` makes every `update` whose `where` is that id kill its manager, as a fault in a
library would. `"speed"` is how many times as fast as real time a manager's clock runs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib import import_module
from typing import Any

import attrs

from manual_clock import QuickClock
from teatree.functions.arguments import Call
from teatree.functions.registry import Registry, built_in_functions
from teatree_dispatcher import __main__ as dispatcher
from teatree_manager import __main__ as manager

for _name in (
    "datasets.arrow.types",
    "datasets.arrow_stream",
    "datasets.fit",
    "datasets.rows",
    "storage.objects.local",
):
    import_module(f"teatree.{_name}")


def main() -> None:
    """Serve until the input ends."""
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(_poll(order["poll"]) if "poll" in order else {"pid": _start(order)}), flush=True)


def _poll(pid: int) -> dict[str, int | None]:
    found, status = os.waitpid(pid, os.WNOHANG)
    return {"code": os.waitstatus_to_exitcode(status) if found else None}


def _start(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        os.environ.clear()
        os.environ.update(order["environ"])
        sys.path[1:1] = [path for path in order["environ"].get("PYTHONPATH", "").split(os.pathsep) if path]
        sys.argv = ["teatree_manager", order["model"]]  # a dispatcher does not read it
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        code = _run(order)
    except BaseException:  # noqa: BLE001  a fork must not run on in its parent's code
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def _run(order: dict[str, Any]) -> int:
    if order["model"] is None:
        return dispatcher.main()
    functions = _poisoned(order["poison"]) if "poison" in order else None
    return manager.main(functions, QuickClock(order["speed"]))


def _poisoned(value: int) -> Registry:
    functions = built_in_functions()
    update = functions.require("update")

    def run(db: Any, call: Call) -> Any:
        if json.loads(call.request.body)["where"] == {"id": value}:
            os.kill(os.getpid(), signal.SIGKILL)
        return update.run(db, call)

    return functions.extended(attrs.evolve(update, run=run))


if __name__ == "__main__":
    main()
