"""Calls of the apps' functions, as clients send them."""

from __future__ import annotations

import random
from typing import Any

from teatree.client.model import Model

APPS = ("torture_one", "torture_two")
COUNTERS = 3
MOVED = {"a": "BIGINT", "v": "BIGINT", "by": "VARCHAR"}
"""The columns of the table that only calls write, with the app and version that did."""
REFUSED: list[tuple[str, str, Any]] = [
    ("refused", "fail", {"how": "refuse", "v": 1}),
    ("constraint", "fail", {"how": "key", "v": 1}),
    ("sql_not_allowed", "fail", {"how": "commit", "v": 1}),
    ("unknown_table", "fail", {"how": "no_table", "v": 1}),
    ("type_mismatch", "both", {"a": "x", "v": 1}),
    ("missing_argument", "both", {"a": 1}),
    ("unknown_argument", "deduct", {"counter": 1, "n": 1, "colour": "red"}),
    ("unknown_model", "peek", {"model": "no_such_model"}),
]
"""Each with the code with which it must be rejected."""
FAILED: list[tuple[str, str, Any]] = [
    ("app_error", "fail", {"how": "raise", "v": 1}),
    ("app_error", "fail", {"how": "exit", "v": 1}),
    ("bad_result", "fail", {"how": "object", "v": 1}),
]
"""Each with the code with which it must fail."""
DIRECT = "directly"
"""What records name a direct call: it is not in the log."""
OVER_TIME = ("timed_out", "slow", {"ms": 3_600_000, "v": 1})


def change(rng: random.Random) -> tuple[str, dict[str, Any]]:
    """Return a call that writes."""
    if rng.random() < 0.6:
        return "both", {"a": rng.randrange(10), "v": rng.randrange(1000)}
    return "deduct", {"counter": rng.randrange(COUNTERS), "n": rng.randrange(12)}


def slow(rng: random.Random) -> tuple[str, dict[str, Any]]:
    """Return a call that takes some time."""
    return "slow", {"ms": rng.randrange(50, 300), "v": rng.randrange(1000)}


def query(rng: random.Random, model: Model, other: str) -> tuple[str, dict[str, Any]]:
    """Return a call that reads this model, or another one: its newest version or one of a moment ago."""
    function = rng.choice(("counters", "state", "peek", "peek"))
    if function != "peek":
        return function, {}
    seen = model.connection.seen_version(other) or 0
    back = {"version": seen - rng.randrange(6)} if seen > 10 and rng.random() < 0.5 else {}
    return "peek", {"model": other, **back}


async def ask_directly(model: Model) -> tuple[int | None, dict[str, Any]]:
    """Return the version and the answer of a direct call."""
    reply = await model.call_for_reply("state", {}, direct=True, timeout_ms=3_000)
    return reply.version, reply.result
