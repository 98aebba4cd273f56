"""The last request of each model, at a cost that does not grow with the number of senders (docs/decisions/0031).

A model has as many subjects in the log as it has functions and senders, and a server that is asked for the last
message of each of them looks at all of them. So all subjects are only read where they are few; else the models'
names are found by reading what is new, and the last request of one model by its filter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import TypeVar

from attrs import frozen

from teatree.messaging.bus import Bus
from teatree.messaging.direct import last_message, last_messages
from teatree.messaging.streams import LogState
from teatree.messaging.subject_reader import SubjectAt, subjects_after
from teatree.messaging.subjects import NO_MODELS, Subjects, is_token

READ_TIMEOUT_MS = 5_000
SUBJECTS_MAX = 1_000
"""Subjects whose last messages are asked for at once: the server answers for 1,024 at most."""
SUBJECTS_A_PAGE = 100_000
"""Subjects that the server lists at once; for each such page it sorts all of them."""
LIST_TIMEOUT_MS = 60_000
ASKED_AT_ONCE = 16
"""Models asked for at once: the server answers with the whole message."""

K = TypeVar("K")


@frozen
class LastRequests:
    """The sequence of the last request of models, and of the last one for one of some functions."""

    requests: dict[str, int]
    of_functions: dict[str, int]


async def last_requests(bus: Bus, state: LogState, functions: Sequence[str], *, after: int = 0) -> LastRequests:
    """Return them for every model with a request beyond `after`, as far as the log reached in `state`."""
    if state.last_seq <= after:
        return LastRequests({}, {})
    if state.subjects <= SUBJECTS_MAX:
        messages = await last_messages(
            bus, state.name, [bus.subjects.requests_all], after=after, timeout_ms=READ_TIMEOUT_MS
        )
        if messages is not None:  # else there are more subjects by now
            return _latest(bus.subjects, [(message.subject, message.seq) for message in messages], functions)
    pages = -(-state.subjects // SUBJECTS_A_PAGE)
    if pages * state.subjects < min(state.messages, state.last_seq - after):
        return await _by_list(bus, state.name, functions)
    found = LastRequests({}, {})
    async for portion in subjects_after(bus, state.name, after, state.last_seq):
        latest = _latest(bus.subjects, portion, functions)
        found.requests.update(latest.requests)
        found.of_functions.update(latest.of_functions)
    return found


def _latest(subjects: Subjects, messages: Iterable[SubjectAt], functions: Sequence[str]) -> LastRequests:
    """Return the latest of messages, which are in their order."""
    found = LastRequests({}, {})
    for subject, seq in messages:
        model, function, _ = subjects.parse_request(subject)
        if not _can_be_read(model):
            continue
        found.requests[model] = seq
        if function in functions:
            found.of_functions[model] = seq
    return found


def _can_be_read(model: str) -> bool:
    """Return whether requests under a name can be read and answered: a name that no filter can hold is passed over."""
    return model not in NO_MODELS and is_token(model)


async def _by_list(bus: Bus, stream: str, functions: Sequence[str]) -> LastRequests:
    """Read the names of the models from a list of all subjects, then ask for each model's last requests."""
    parsed = [bus.subjects.parse_request(subject) for subject in await _stream_subjects(bus, stream)]
    names = {model for model, _, _ in parsed if _can_be_read(model)}
    calls = {(model, function) for model, function, _ in parsed if model in names and function in functions}
    return LastRequests(await last_sequences(bus, names), await _last_calls(bus, calls))


async def last_requests_of(bus: Bus, models: Collection[str], functions: Sequence[str]) -> LastRequests:
    """Return the last requests of these models; those without one are left out."""
    calls = [(model, function) for model in models for function in functions]
    return LastRequests(await last_sequences(bus, models), await _last_calls(bus, calls))


async def _last_calls(bus: Bus, calls: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Return the sequence of the last of the given calls of each model; a call is a model and a function."""
    latest = await _each(calls, lambda call: _last_sequence(bus, bus.subjects.function_filter(*call)))
    found: dict[str, int] = {}
    for (model, _), seq in latest.items():
        found[model] = max(seq, found.get(model, 0))
    return found


async def last_sequences(bus: Bus, models: Iterable[str]) -> dict[str, int]:
    """Return the sequence of the last request of each of these models; those without one are left out."""
    return await _each(models, lambda model: _last_sequence(bus, bus.subjects.request_filter(model)))


async def _last_sequence(bus: Bus, subject_filter: str) -> int | None:
    found = await last_message(bus, bus.subjects.requests_stream, subject_filter, timeout_ms=READ_TIMEOUT_MS)
    return found.position.seq if found else None


async def _each(keys: Iterable[K], ask: Callable[[K], Awaitable[int | None]]) -> dict[K, int]:
    room = asyncio.Semaphore(ASKED_AT_ONCE)
    found: dict[K, int] = {}

    async def one(key: K) -> None:
        async with room:
            seq = await ask(key)
        if seq is not None:
            found[key] = seq

    await asyncio.gather(*(one(key) for key in keys))
    return found


async def _stream_subjects(bus: Bus, stream: str) -> list[str]:
    """Return every subject of the log, over as many pages as its server makes of them."""
    subjects: list[str] = []
    while True:
        ask = {"subjects_filter": bus.subjects.requests_all, "offset": len(subjects)}
        info = await bus.js(f"STREAM.INFO.{stream}", ask, LIST_TIMEOUT_MS)
        page = info["state"].get("subjects") or {}
        subjects += page
        if not page or len(subjects) >= int(info.get("total", 0)):
            return subjects
