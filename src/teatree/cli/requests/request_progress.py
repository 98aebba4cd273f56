"""The progress bar of a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from teatree.contracts.formats.notices import Kind
from teatree.contracts.shown import visible

if TYPE_CHECKING:
    from teatree.cli.output import Advance
    from teatree.client.notice import Notice

STEPS = 1_000


def progress_shower(advance: Advance) -> Callable[[Notice], None]:
    """Return a callback that moves a bar by the `progress` notices of a request."""

    def on_notice(notice: Notice) -> None:
        if notice.kind is Kind.PROGRESS:
            done = round(STEPS * float(notice.members.get("fraction", 0)))
            advance(done, STEPS, description=visible(str(notice.members.get("text", ""))))

    return on_notice
