"""One number of the demo, as it was sent and as it was found."""

from __future__ import annotations

from attrs import frozen


@frozen
class Check:
    """One number that was sent, and what was found."""

    what: str
    sent: str
    found: str
    where: str

    @property
    def agrees(self) -> bool:
        """Whether the two are equal: nothing is missing or counted twice."""
        return self.sent == self.found
