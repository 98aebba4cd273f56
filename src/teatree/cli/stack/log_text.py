"""A line of a log, for people: the JSON lines of our processes, and the texts of the servers and of Python."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal

import orjson
from attrs import frozen

from teatree.cli.stack.log_tail import LogLine
from teatree.contracts.formats.codec import dump_json
from teatree.contracts.shown import visible, visible_json

Level = Literal["debug", "info", "warning", "error", "critical"]
LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error", "critical")
SHOWN_CHARS_MAX = 4_000
"""Characters of a member that are printed for people."""

_NAMED = re.compile(
    rb"\[(DBG|TRC|INF|WRN|ERR|FTL)\]"  # NATS
    rb"|^[-0-9]{10} [0-9:.]+ \w+ \[\d+\] (DEBUG|LOG|INFO|NOTICE|WARNING|ERROR|FATAL|PANIC)"  # PostgreSQL
    rb"|^([IWEF])\d{4} [0-9:.]+ "  # SeaweedFS
)
_LEVEL_OF: dict[bytes, Level] = {
    **dict.fromkeys((b"DBG", b"TRC", b"DEBUG"), "debug"),
    **dict.fromkeys((b"INF", b"LOG", b"INFO", b"NOTICE", b"I"), "info"),
    **dict.fromkeys((b"WRN", b"WARNING", b"W"), "warning"),
    **dict.fromkeys((b"ERR", b"ERROR", b"E"), "error"),
    **dict.fromkeys((b"FTL", b"FATAL", b"PANIC", b"F"), "critical"),
}
_CONTROL = re.compile(rb"[\0-\x1f]")
"""Between the members of valid JSON: no escape could stand there."""
_FIRST = ("timestamp", "level", "event")
_LAST = ("exception", "stack")
"""Members of several lines."""


@frozen
class LogEntry:
    """What a line holds."""

    line: LogLine
    members: dict[str, Any] | None
    """Those of a JSON object; None for a line that is none."""
    level: Level | None

    @property
    def text(self) -> str:
        """The line as text."""
        return self.line.text.decode(errors="replace")


def read_entry_of(line: LogLine) -> LogEntry:
    """Return what a line holds."""
    members = _members(line)
    if members is not None:
        level = members.get("level")
        return LogEntry(line, members, level if isinstance(level, str) and level in LEVELS else None)
    found = _NAMED.search(line.text[:200])
    return LogEntry(line, None, _LEVEL_OF[found[found.lastindex or 0]] if found else None)


def is_at_least(entry: LogEntry, level: Level) -> bool:
    """Whether an entry has this level or a higher one; a line without a level, as in a traceback, counts too."""
    return entry.level is None or LEVELS.index(entry.level) >= LEVELS.index(level)


def _members(line: LogLine) -> dict[str, Any] | None:
    if line.cut_bytes or not line.text.startswith(b"{"):
        return None
    try:
        members = orjson.loads(line.text)
    except orjson.JSONDecodeError:
        return None
    return members if isinstance(members, dict) else None


def entry_json(entry: LogEntry) -> bytes:
    """Return the line itself if it is a JSON object, otherwise one that holds it as `event`."""
    if entry.members is not None:
        text = entry.line.text.rstrip()
        return visible_json(dump_json(entry.members) if _CONTROL.search(text) else text)
    cut = {"cut_bytes": entry.line.cut_bytes} if entry.line.cut_bytes else {}
    return visible_json(dump_json({"event": entry.text, **cut}))


def entry_text(entry: LogEntry) -> str:
    """Return an entry as it is printed: one line, and those of its traceback."""
    if entry.members is None:
        return _short(entry.text, entry.line.cut_bytes)
    first = (_time_text(entry.members.get("timestamp")), f"{_value_text(entry.members.get('level', '')):8}")
    others = (
        f"{_short(name)}={_value_text(value)}" for name, value in entry.members.items() if name not in (*_FIRST, *_LAST)
    )
    line = "  ".join((*first, _value_text(entry.members.get("event", "")), " ".join(others))).rstrip()
    traces = (entry.members[name] for name in _LAST if name in entry.members)
    return "\n    ".join((line, *(part for trace in traces for part in _trace_lines(trace))))


def _trace_lines(trace: Any) -> list[str]:
    return [_short(line) for line in str(trace)[-SHOWN_CHARS_MAX:].splitlines()]


def _time_text(value: Any) -> str:
    try:
        return datetime.fromisoformat(value).astimezone().isoformat(" ", "milliseconds")[:23]
    except (TypeError, ValueError, OverflowError, OSError):
        return _value_text(value)


def _value_text(value: Any) -> str:
    return _short(value if isinstance(value, str) else dump_json(value).decode())


def _short(text: str, cut: int = 0) -> str:
    """Return a text on one line; of a long one the beginning, and how much more there is."""
    more = max(0, len(text) - SHOWN_CHARS_MAX) + cut
    return visible(text[:SHOWN_CHARS_MAX]) + (f"… ({more:,} more)" if more else "")
