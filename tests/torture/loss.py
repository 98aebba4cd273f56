"""Which requests of a model count after the log lost its end, once or more often: by copies of it and by its chain."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from attrs import frozen

from torture.oracle import Accepted

SAME_S = 1e-5
"""Seconds by which two times of one message may differ: readers round differently."""

MARKS = "_advanced"
"""The token in place of a model in the subjects of marks."""

Key = tuple[int, int]


@frozen
class ModelLog:
    """The requests that a model must have applied, in order, and those that the loss took or moved."""

    requests: list[Accepted]
    lost: frozenset[tuple[str, int]] = frozenset()
    """Ids and sequence numbers."""


def model_log(
    model: str, before: Iterable[list[Accepted]], log: list[Accepted], manifests: list[dict[str, Any]]
) -> ModelLog:
    """Return the log of a model; `before` holds the whole log as it was at each loss.

    What was lost counts if a version holds it. What was stored after a loss and before the model's mark does not, up to
    the sequence that the mark names: it was stored again behind it.
    """
    marks = [json.loads(r.body) for one in (*before, log) for r in one if (r.model, r.function) == (MARKS, model)]
    moved = [(mark["go_on_after"], _tick_of(mark["at"])) for mark in marks]
    logs = [[request for request in one if request.model == model] for one in (*before, log)]
    reached = {
        (manifest["offset"], _tick_of(manifest["log_at"]) + rounded) for manifest in manifests for rounded in (-1, 0, 1)
    }
    found: dict[Key, Accepted] = {}
    out: list[Accepted] = []
    for place, one in enumerate(logs):
        later = {_key(request) for request in logs[place + 1]} if place + 1 < len(logs) else None
        lost = {_key(request) for request in one} - later if later is not None else set()
        holds = max((seq for seq, _ in lost & reached), default=0)
        for request in one:
            if _key(request) in found:
                continue
            is_moved = any(request.seq <= up_to and _tick(request.at_s) > tick + 1 for up_to, tick in moved)
            if is_moved or (_key(request) in lost and request.seq > holds):
                out.append(request)
            else:
                found[_key(request)] = request
    requests = sorted(found.values(), key=lambda request: request.seq)
    return ModelLog(requests, frozenset((request.request_id, request.seq) for request in out))


def _tick_of(text: str) -> int:
    return _tick(datetime.fromisoformat(text).timestamp())


def _tick(at_s: float) -> int:
    return round(at_s / SAME_S)


def _key(request: Accepted) -> Key:
    return request.seq, _tick(request.at_s)
