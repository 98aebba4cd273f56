"""The traceback of an error of an app: the frames of the user's code alone, bounded."""

from __future__ import annotations

import importlib
import sysconfig
import threading
import traceback
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from types import FrameType

from attrs import frozen

from teatree.contracts.errors import AppError, Code

FRAMES_MAX = 20
"""Frames of one error, the innermost ones."""
CAUSES_MAX = 3
"""Errors of a chain of causes, the last ones."""
MESSAGE_CHARS_MAX = 500
_OURS = (f"{Path(__file__).parents[2]}/", f"{Path(importlib.__path__[0])}/", threading.__file__)
_DEPENDENCIES = ("/fast_depends/", "/asyncio/", "/concurrent/futures/", "/contextlib.py", "/teatree_manager/")
_STDLIB = f"{sysconfig.get_path('stdlib')}/"
_HEAD = "Traceback (most recent call last):\n"


@frozen
class CodePlace:
    """A line of code, and the function that it is in."""

    file: str
    line: int
    function: str


def app_error(error: BaseException, what: str, code: Code = Code.APP_ERROR, hint: str | None = None) -> AppError:
    """Return the error of a request for what a function, or an app's import, raised; `what` begins the message."""
    message = f"{what} raised {described(error)}"
    return AppError(code, message, where="function", hint=hint, traceback=user_traceback(error))


def described(error: BaseException) -> str:
    """Return an error's type and text, bounded."""
    text = "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, SyntaxError):  # the line of code is in the traceback
        text = f"{type(error).__name__}: {error}"
    text = text or type(error).__name__
    return text if len(text) <= MESSAGE_CHARS_MAX else f"{text[: MESSAGE_CHARS_MAX - 1]}…"


def user_traceback(error: BaseException) -> str:
    """Return an error with the frames of the user's code, and before it the errors that caused it."""
    texts: list[str] = []
    for cause in reversed(list(islice(_chain(error), CAUSES_MAX))):
        frames = traceback.StackSummary.extract(traceback.walk_tb(cause.__traceback__), lookup_lines=False)
        only = "".join(traceback.format_exception_only(cause))
        texts.append(f"{_HEAD}{_user_frames(frames)}{only[: 4 * MESSAGE_CHARS_MAX]}")
    return "\n".join(texts).rstrip("\n")


def user_stack(frame: FrameType) -> str:
    """Return where running code is: the frames of the user's code."""
    frames = traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False)
    return f"{_HEAD}{_user_frames(list(reversed(frames)))}".rstrip("\n")


def user_place(frame: FrameType) -> str:
    """Return the line that the user's code is at, not what it has called of ours or Python's; "" if there is none."""
    walked = traceback.walk_stack(frame)
    return place_of([CodePlace(each.f_code.co_filename, line, each.f_code.co_name) for each, line in walked])


def place_of(places: Sequence[CodePlace]) -> str:
    """Return the same for the places of a stack, the innermost one first."""
    found = ""
    for place in reversed(places):
        if found and place.file.startswith(_OURS[0]):
            break
        if not (_is_ours(place.file) or _is_pythons(place.file)):
            found = f"{place.file}:{place.line}, in {place.function}"
    return found


def _chain(error: BaseException) -> Iterable[BaseException]:
    """Yield an error and those that caused it, the last one first."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        yield found
        seen.add(id(found))
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def _user_frames(frames: Iterable[traceback.FrameSummary]) -> str:
    kept = [frame for frame in frames if not _is_ours(frame.filename)]
    left_out = len(kept) - FRAMES_MAX
    head = f"  [{left_out} frames]\n" if left_out > 0 else ""
    return head + "".join(traceback.format_list(kept[-FRAMES_MAX:]))


def _is_pythons(filename: str) -> bool:
    """Return whether a file is of Python's library, in whose folder lie the packages that are installed, too."""
    return filename.startswith(_STDLIB) and "-packages/" not in filename


def _is_ours(filename: str) -> bool:
    is_frozen = filename.startswith("<frozen ")
    return is_frozen or filename.startswith(_OURS) or any(part in filename for part in _DEPENDENCIES)
