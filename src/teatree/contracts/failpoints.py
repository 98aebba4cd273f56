"""Named places where tests make a process crash, stop, wait or fail.

`TEATREE_FAILPOINTS` names a JSON file: `{"manager.ship.before_manifest": {"action": "crash", "hit": 1, "times": 1}}`.
`action` is `crash` (SIGKILL to itself), `stop` (SIGSTOP to itself), `delay` (with `delay_ms`) or `error`; `hit` is the
first arrival that fires (from 1, per process) and `times` how often it fires over all processes that share the file.
Without the variable every arrival is one call of an empty function.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from teatree.contracts.codec import parse_json
from teatree.contracts.errors import Code, OperatorError, RetryError

Failpoint = Callable[[str], None]
"""Called with the name of the place that execution has reached."""


def no_failpoint(name: str) -> None:
    """Do nothing: the failpoint of every process outside tests."""


def failpoints(path: str | None) -> Failpoint:
    """Return the failpoint that the file at `path` describes; without a path, the empty one."""
    if not path:
        return no_failpoint
    return _Armed(Path(path)).reached


class _Armed:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._plan: dict[str, dict[str, Any]] = parse_json(path.read_bytes(), str(path))
        self._arrivals: Counter[str] = Counter()

    def reached(self, name: str) -> None:
        rule = self._plan.get(name)
        if rule is None:
            return
        self._arrivals[name] += 1
        if self._arrivals[name] < rule.get("hit", 1) or not self._take_turn(name, rule.get("times", 1)):
            return
        match rule["action"]:
            case "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "delay":
                time.sleep(rule["delay_ms"] / 1000)
            case "error":
                raise RetryError(Code.UNAVAILABLE, f"The failpoint {name} failed, as its file asks.", where=name)
            case unknown:
                message = f"There is no failpoint action {unknown!r}."
                raise OperatorError(Code.WRONG_CONFIGURATION, message, where=str(self._path))

    def _take_turn(self, name: str, times: int) -> bool:
        """Claim one firing by creating a marker beside the plan: atomic over processes, kept over crashes."""
        for turn in range(times):
            try:
                marker = f"{self._path}.{name}.{turn}"
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            except FileExistsError:
                continue
            return True
        return False
