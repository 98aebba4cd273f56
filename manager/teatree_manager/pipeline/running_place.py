"""Where a function of an app is, while it runs on another thread."""

from __future__ import annotations

import sys
import traceback
from types import FrameType

from teatree.functions.app import engine_function
from teatree.functions.app.user_traceback import user_place


def running_place() -> str | None:
    """Return the line that the code of the function is at; None if none runs."""
    frames = sys._current_frames().values()  # noqa: SLF001  the documented way to the stacks of threads
    return next((user_place(frame) or None for frame in frames if _runs_function(frame)), None)


def _runs_function(frame: FrameType) -> bool:
    return any(each.f_code.co_filename == engine_function.__file__ for each, _ in traceback.walk_stack(frame))
