"""Failpoints: a listener with which tests make a process crash, stop, wait or fail at points of the probe.

`TEATREE_FAILPOINTS` names a JSON file: `{"manager.ship.manifest.begin": {"action": "crash", "hit": 1, "times": 1}}`.
A place is the name of an instant, or that of a step and `.begin` or `.end`; a step that fails does not reach its end.
`action` is `crash` (SIGKILL to itself), `stop` (SIGSTOP to itself), `delay` (with `delay_ms`) or `error`; `hit` is the
first arrival that fires (from 1, per process) and `times` how often it fires over all processes that share the file.
"""

from __future__ import annotations

import os
import signal
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from teatree.contracts.errors import Code, OperatorError, RetryError
from teatree.contracts.formats.codec import parse_json
from teatree.contracts.probe import Listener, Point, Probe, probe_for


def failing_probe(path: str | None, listeners: Sequence[Listener] = ()) -> Probe:
    """Return a probe with these listeners and the failpoints that the file at `path` describes, if there is one."""
    return probe_for([Failpoints(Path(path)), *listeners] if path else listeners)


class PlaceListener(Listener):
    """Receives places by their names: instants, and the begins and ends of steps that succeed."""

    @abstractmethod
    def arrive(self, place: str) -> None:
        """Take an arrival."""

    @override
    def reached(self, point: Point) -> None:
        self.arrive(point.name)

    @override
    def begun(self, point: Point) -> None:
        self.arrive(f"{point.name}.begin")

    @override
    def ended(self, point: Point, error: BaseException | None) -> None:
        if error is None:
            self.arrive(f"{point.name}.end")


class Failpoints(PlaceListener):
    """Does at each place what a file asks for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._plan: dict[str, dict[str, Any]] = parse_json(path.read_bytes(), str(path))
        self._arrivals: Counter[str] = Counter()

    @override
    def arrive(self, place: str) -> None:
        rule = self._plan.get(place)
        if rule is None:
            return
        self._arrivals[place] += 1
        if self._arrivals[place] < rule.get("hit", 1) or not self._take_turn(place, rule.get("times", 1)):
            return
        match rule["action"]:
            case "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "delay":
                time.sleep(rule["delay_ms"] / 1000)
            case "error":
                raise RetryError(Code.UNAVAILABLE, f"The failpoint {place} failed, as its file asks.", where=place)
            case unknown:
                message = f"There is no failpoint action {unknown!r}."
                raise OperatorError(Code.WRONG_CONFIGURATION, message, where=str(self._path))

    def _take_turn(self, place: str, times: int) -> bool:
        """Claim one firing by creating a marker beside the plan: atomic over processes, kept over crashes."""
        for turn in range(times):
            try:
                marker = f"{self._path}.{place}.{turn}"
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            except FileExistsError:
                continue
            return True
        return False
