"""Parquet's INT96 moments: exact in every column, also nested, or refused; never wrapped."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from teatree.contracts.errors import Code, RequestError
from teatree.datasets.arrow import int96
from teatree.datasets.source_rows import read_chunks

MICROS = pa.timestamp("us")
SHAPES: dict[str, tuple[pa.DataType, Callable[[Any], Any]]] = {
    "plain": (MICROS, lambda v: v),
    "list": (pa.list_(MICROS), lambda v: [v, v]),
    "struct": (pa.struct([("a", MICROS), ("b", pa.int64())]), lambda v: {"a": v, "b": 1}),
    "deep": (pa.list_(pa.struct([("a", pa.list_(MICROS))])), lambda v: [{"a": [v]}, None]),
    "map": (pa.map_(pa.string(), MICROS), lambda v: [("k", v)]),
}


def read(path: Path, array: pa.Array) -> pa.Array:
    """Write an array as INT96, read it as `load` does."""
    pq.write_table(pa.table({"id": range(len(array)), "x": array}), path, use_deprecated_int96_timestamps=True)
    assert "int96" in str(pq.ParquetFile(path).schema)
    return pa.concat_tables(read_chunks(path, None, None, 10**8)).column("x").combine_chunks()


@pytest.mark.parametrize("shape", SHAPES)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(moments=st.lists(st.datetimes() | st.none(), min_size=1, max_size=5))
def test_any_moment_is_what_was_written(tmp_path: Path, shape: str, moments: list[datetime | None]) -> None:
    """From year 1 to 9999, in columns, lists, structs and maps."""
    arrow, make = SHAPES[shape]
    array = pa.array([make(moment) for moment in moments], arrow)
    found = read(tmp_path / "x.parquet", array)
    assert found.to_pylist() == array.to_pylist()


def test_nanoseconds_are_kept_or_refused(tmp_path: Path) -> None:
    """Digits beyond microseconds are kept if nanoseconds can represent the whole column, and never cut off."""
    fine = pa.array([1_700_000_000_123_456_789, -1, None], pa.timestamp("ns"))
    found = read(tmp_path / "x.parquet", fine)
    assert found.cast(pa.int64()).to_pylist() == [1_700_000_000_123_456_789, -1, None]
    seconds = 253_370_764_800  # in the year 9999, with 5 nanoseconds, as Arrow reads them in each unit
    wrapped = (seconds * 10**9 + 5 + 2**63) % 2**64 - 2**63
    counts = ((seconds * 10**6, "us"), (wrapped, "ns"), (seconds, "s"))
    with pytest.raises(RequestError) as caught:
        int96._exact("x", *(pa.array([count], pa.timestamp(unit)) for count, unit in counts))
    assert caught.value.code is Code.OUT_OF_RANGE
