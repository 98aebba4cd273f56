"""Progress of a request: in the bar of `load` and `send`, and in the lines of `watch`."""

from __future__ import annotations

from typing import Any

import orjson

from teatree.cli.requests.request_progress import STEPS, progress_shower
from teatree.cli.requests.watch import _what
from teatree.client.notice import Notice, read_notice


def notice(kind: str, **members: Any) -> Notice:
    """Return a notice of one request as it is received."""
    return read_notice(f"t.notify.sales.id1.{kind}", {}, orjson.dumps({"function": "load", **members}))


def test_a_bar_follows_progress() -> None:
    """Other notices do not move it; control characters of the text are escaped."""
    moved: list[tuple[int, int, str]] = []
    show = progress_shower(lambda done, total, description: moved.append((done, total, description)))
    for one in (notice("started"), notice("progress", fraction=0.25, text="250\x1b rows"), notice("done", version=3)):
        show(one)
    assert [(done, total) for done, total, _ in moved] == [(STEPS // 4, STEPS)]
    assert "\x1b" not in moved[0][2]


def test_watch_prints_progress() -> None:
    """A line has the request, the share that is done, and the text."""
    assert _what(notice("progress", fraction=0.25, text="250 rows")) == "load id1: 25%, 250 rows"
