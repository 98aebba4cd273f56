"""Prints the figures of a benchmark, one JSON line each."""

from __future__ import annotations

import json


def report(name: str, value: float, unit: str, baseline: float | None = None, what: str | None = None) -> None:
    """Print one figure, with a baseline of the same run, what it is, and their ratio if there is one."""
    line: dict[str, object] = {"name": name, "value": round(value, 3), "unit": unit}
    if baseline is not None:
        line |= {"baseline": round(baseline, 3), "baseline_is": what, "ratio": round(value / max(baseline, 1e-9), 4)}
    print(json.dumps(line), flush=True)
