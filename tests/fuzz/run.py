"""Rounds of the fuzzer: each draws a type and values from the seed and its number, and checks every converter."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from fuzz.inward import Inward
from fuzz.kinds import draw_kind, draw_scalar
from fuzz.other_clients import check_foreign, draw_pair
from fuzz.outward import Outward
from fuzz.report import DIFFERENCES_MAX, FuzzReport
from fuzz.texts import edge_texts
from fuzz.truth import Truth
from fuzz.values import draw_value

VALUES = 30
"""Values of a round."""


class Fuzzer:
    """The converters under test, and the report so far."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.report = FuzzReport()
        self._folder = tempfile.TemporaryDirectory(prefix="teatree-fuzz-")
        self._truth = Truth()
        self._inward = Inward(Path(self._folder.name), self._truth, self.report)
        self._outward = Outward(Path(self._folder.name), self._truth, self.report)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inward.close()
        self._folder.cleanup()

    def run(self, seconds: float) -> int:
        """Run until the time is over or too many values differ; return the number of rounds."""
        end_s = time.monotonic() + seconds
        number = 0
        while time.monotonic() < end_s and len(self.report.differences) < DIFFERENCES_MAX:
            try:
                self.round(number)
            except Exception as e:
                e.add_note(f"reproduce it: {self.report.again}")
                raise
            number += 1
        return number

    def round(self, number: int) -> None:
        """Run one round."""
        self.report.again = f"python -m fuzz --seed {self.seed} --round {number}"
        rng = Random(f"{self.seed}/{number}")
        way = rng.random()
        if way < 0.15:
            check_foreign(self._inward, *draw_pair(rng), rng, VALUES)
            return
        if way < 0.5:
            kind = draw_scalar(rng)
            self._inward.check_texts(kind, edge_texts(kind, rng, VALUES))
            return
        kind = draw_kind(rng)
        self._inward.check(kind, [draw_value(kind, rng) for _ in range(VALUES)], rng)
        wide = rng.random() < 0.2
        self._outward.check(kind, [draw_value(kind, rng, wide=wide) for _ in range(VALUES)])
