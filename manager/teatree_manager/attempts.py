"""Which request takes its manager down: found by what was being applied when it died.

Before a batch is applied its sequence numbers are written to a file, after it the file goes. Found at a start, it
says that the manager died in between; the batch is then tried again in ever smaller parts until one request stands
alone, and that one is set aside after a few deaths more.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson
from attrs import frozen

from teatree.contracts.requests import Request

SHRINK_FACTOR = 8
"""How much smaller the parts get with each death: 4,000 requests are down to one after four."""


@frozen
class Attempt:
    """A batch that was being applied."""

    first: int
    last: int
    count: int
    deaths: int
    """Deaths in a row with exactly this beginning and size."""


class Attempts:
    """The file of one model, and what its last death says."""

    def __init__(self, path: Path, tries_max: int) -> None:
        self._path = path
        self._tries_max = tries_max
        self.suspect = self._read()

    def _read(self) -> Attempt | None:
        try:
            found = orjson.loads(self._path.read_bytes())
            return Attempt(found["first"], found["last"], found["count"], found["deaths"] + 1)
        except (FileNotFoundError, orjson.JSONDecodeError, KeyError):
            return None  # cut short by the death itself: then nothing had begun

    def limit(self, requests: Sequence[Request]) -> int:
        """Return how many of these requests to apply together."""
        suspect = self.suspect
        if suspect is None or requests[0].seq > suspect.last:
            return len(requests)
        return max(1, min(len(requests), suspect.count // SHRINK_FACTOR))

    def deaths_of(self, request: Request) -> int:
        """Return how often a request alone took its manager down, if that is too often; else 0."""
        suspect = self.suspect
        alone = suspect is not None and suspect.count == 1 and suspect.first == request.seq
        return suspect.deaths if alone and suspect and suspect.deaths >= self._tries_max else 0

    def begin(self, requests: Sequence[Request]) -> None:
        """Note that these requests are being applied."""
        first, count = requests[0].seq, len(requests)
        before = self.suspect
        same = before is not None and (before.first, before.count) == (first, count)
        deaths = before.deaths if same and before else 0
        self._path.write_bytes(
            orjson.dumps({"first": first, "last": requests[-1].seq, "count": count, "deaths": deaths})
        )

    def clear(self) -> None:
        """Note that nothing is being applied."""
        self._path.unlink(missing_ok=True)

    def end(self, last: int) -> None:
        """Note that they were, up to sequence `last`."""
        self.clear()
        if self.suspect is not None and last >= self.suspect.last:
            self.suspect = None
