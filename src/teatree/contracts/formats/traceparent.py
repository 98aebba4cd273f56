"""`traceparent`: the trace to which a request belongs, as W3C Trace Context writes it (version 00)."""

from __future__ import annotations

import re

_FIELDS = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01


def read_traceparent(text: str | None) -> str | None:
    """Return a header's value as version 00; None for one that is not valid, which W3C lets a receiver ignore.

    Of a later version the four members that are known are kept, and the only flag that is known, `sampled`.
    """
    found = _FIELDS.fullmatch(text.strip()) if text else None
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == "ff" or not trace_id.strip("0") or not parent_id.strip("0") or (version == "00" and more):
        return None
    if version == "00":
        return found[0]
    return f"00-{trace_id}-{parent_id}-{int(flags, 16) & _SAMPLED:02x}"


def is_sampled(traceparent: str) -> bool:
    """Return whether the caller records the trace; takes what `read_traceparent` returns."""
    return bool(int(traceparent[-2:], 16) & _SAMPLED)
