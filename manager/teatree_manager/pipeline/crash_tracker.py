"""The crash tracker: finds the request that crashes its manager, from what was being applied at each crash.

Before a batch is applied its sequence numbers are written to a file, which is deleted after it. A file that is found at
a start means that the manager crashed in between; the batch is then tried again in ever smaller parts until one request
is tried alone, and that one is set aside after a few more crashes.

A manager that ends itself because a request does not end writes down which: that one is not tried again, but answered
when those before it are applied. Requests that were run together are tried in smaller parts, as after any crash.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson
from attrs import frozen

from teatree.contracts.formats.requests import Request
from teatree_manager.pipeline.kill_timer import Hung

SHRINK_FACTOR = 8
"""How much smaller the parts get with each crash: 4,000 requests are down to one after four."""
FILE_BYTES = 512
"""Size of the file, padded with spaces: overwriting it later needs no space on the disk."""


@frozen
class Stuck:
    """A request that did not end."""

    seq: int
    request_id: str
    """Compared too, since another log can give the same number to another request."""
    place: str | None = None
    """Where it was, in the code of the app whose function it called."""


@frozen
class Attempt:
    """A batch that was being applied."""

    first: int
    last: int
    count: int
    crashes: int
    """Crashes in a row with exactly this beginning and size."""


class CrashTracker:
    """The file of one model that records what is being applied, and what it shows of the last crash."""

    def __init__(self, path: Path, tries_max: int, hung: Hung | None = None) -> None:
        """`hung` is the request for which the last manager was ended by its timer."""
        self._path = path
        self._tries_max = tries_max
        self.suspect: Attempt | None = None
        """The batch that the last manager was applying when it crashed."""
        self._stuck: Stuck | None = None
        """The request that did not end, until it is answered."""
        self._read()
        if hung is not None:
            self._stuck, self.suspect = Stuck(hung.seq, hung.request_id, hung.place), None

    def _read(self) -> None:
        try:
            found = orjson.loads(self._path.read_bytes())
            self._stuck = Stuck(**found["stuck"]) if found["stuck"] else None
            self.suspect = _next_try(found["batch"])
        except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError):
            return  # the crash tore the file: then nothing had begun

    def limit(self, requests: Sequence[Request]) -> int:
        """Return how many of these requests to apply together."""
        count = len(requests)
        before_stuck = count
        if self._stuck is not None:  # rare, and this runs for each batch
            before_stuck = next((place for place, request in enumerate(requests) if self.is_stuck(request)), count)
        suspect = self.suspect
        if suspect is not None and requests[0].seq <= suspect.last:
            count = min(count, suspect.count // SHRINK_FACTOR)
        return max(1, min(count, before_stuck))

    def is_stuck(self, request: Request) -> bool:
        """Return whether a request did not end when it was tried."""
        stuck = self._stuck
        return stuck is not None and (stuck.seq, stuck.request_id) == (request.seq, request.request_id)

    @property
    def place(self) -> str | None:
        """Where the request was that did not end, if that is known."""
        return None if self._stuck is None else self._stuck.place

    def crashes_of(self, request: Request) -> int:
        """Return how often a request alone crashed its manager, if that is too often; else 0."""
        suspect = self.suspect
        alone = suspect is not None and suspect.count == 1 and suspect.first == request.seq
        return suspect.crashes if alone and suspect and suspect.crashes >= self._tries_max else 0

    def begin(self, requests: Sequence[Request]) -> None:
        """Note that these requests are being applied."""
        first, count = requests[0].seq, len(requests)
        before = self.suspect
        same = before is not None and (before.first, before.count) == (first, count)
        attempt = Attempt(first, requests[-1].seq, count, before.crashes if same and before else 0)
        self._path.write_bytes(_body(attempt, self._stuck))

    def note_stuck(self, requests: Sequence[Request], place: str | None = None) -> None:
        """Note that the requests that run together, among those being applied, do not end; raises OSError.

        `place` is where a function of an app is.

        May be called by another thread, right before the process ends. It writes over what `begin` wrote.
        """
        first, last = requests[0], requests[-1]
        if len(requests) == 1:
            body = _body(None, Stuck(first.seq, first.request_id, place))
        else:
            body = _body(Attempt(first.seq, last.seq, len(requests), 0), self._stuck)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, body, 0)
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Note that nothing is being applied."""
        if self._stuck is None:
            self._path.unlink(missing_ok=True)
        else:
            self._path.write_bytes(_body(None, self._stuck))

    def end(self, last: int) -> None:
        """Note that the requests up to sequence `last` are applied."""
        if self._stuck is not None and last >= self._stuck.seq:
            self._stuck = None
        self.clear()
        if self.suspect is not None and last >= self.suspect.last:
            self.suspect = None


def _body(batch: Attempt | None, stuck: Stuck | None) -> bytes:
    found = {"batch": attrs.asdict(batch) if batch else None, "stuck": attrs.asdict(stuck) if stuck else None}
    return orjson.dumps(found).ljust(FILE_BYTES)  # a longer one takes room on the disk, as any other file does


def _next_try(found: dict[str, Any] | None) -> Attempt | None:
    return Attempt(**{**found, "crashes": found["crashes"] + 1}) if found else None
