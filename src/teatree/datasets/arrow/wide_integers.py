"""128-bit integers in Arrow: as decimals without a fraction, which every reader knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

_NARROW = pa.decimal128(38, 0)
_WIDE = pa.decimal256(39, 0)
_LIMIT = 10**38
_UPPER_LIMIT = _LIMIT >> 64
"""The upper 64 bits of the first number that has 39 digits."""


def to_decimals(words: pa.Array, *, signed: bool) -> pa.Array:
    """Return DuckDB's 16 bytes a number as DECIMAL(38,0), or as DECIMAL(39,0) if one of them has 39 digits."""
    present = pa.compute.fill_null(words, b"\0" * 16) if words.null_count else words
    parts = np.frombuffer(present.buffers()[1] or b"", np.int64, 2 * len(present), present.offset * 16).reshape(-1, 2)
    upper = parts[:, 1] if signed else parts[:, 1].view(np.uint64)
    validity = pa.array(words.is_valid()).buffers()[1] if words.null_count else None
    if _fit(present, upper, signed=signed):
        return pa.Array.from_buffers(_NARROW, len(words), [validity, pa.py_buffer(np.ascontiguousarray(parts))])
    spread = np.empty((len(parts), 4), np.int64)
    spread[:, :2] = parts
    spread[:, 2:] = (parts[:, 1] >> 63 if signed else np.zeros(len(parts), np.int64))[:, None]
    return pa.Array.from_buffers(_WIDE, len(words), [validity, pa.py_buffer(spread)])


def _fit(present: pa.Array, upper: np.ndarray[Any, Any], *, signed: bool) -> bool:
    if not len(upper) or (int(upper.max()) < _UPPER_LIMIT and int(upper.min()) >= -_UPPER_LIMIT):
        return True
    values = [int.from_bytes(word, "little", signed=signed) for word in present.to_pylist()]
    return max(values) < _LIMIT and min(values) > -_LIMIT
