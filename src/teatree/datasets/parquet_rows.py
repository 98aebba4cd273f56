"""Rows of a Parquet file, row group by row group, in batches whose memory is bounded.

Texts are read as dictionaries where the file has them so: a small file can hold one long text that millions of rows
name. Arrow gathers such a dictionary over all that one reader reads, so each row group has its own, and one that is too
large to be gathered is read in small batches of texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from attrs import frozen

from teatree.datasets.arrow.int96 import exact_moments, int96_columns

BATCH_ROWS_MAX = 250_000
BATCH_VALUES_MAX = 32_000_000
"""Values of all columns in a batch."""
BATCH_BYTES_MAX = 64_000_000
"""Bytes of a batch, by what a row of its group takes on average."""
DICTIONARY_BYTES_MAX = 128_000_000
"""Bytes of one column of a row group up to which its texts are gathered in a dictionary."""
DICTIONARY_VALUES_MAX = 4_000_000
EXPANDING_ROWS_MAX = 2_000
"""Rows of a batch whose texts come from a dictionary that is not gathered: each may be as long as the longest."""
BUFFER_BYTES = 4_000_000
"""Bytes of a column read at once; without it Arrow reads all that a row group has of the column."""


@frozen
class _GroupPlan:
    """How one row group is read."""

    rows: int
    """Rows of a batch."""
    dictionaries: tuple[str, ...]
    """Columns read as dictionaries."""


def read_batches(path: Path) -> Iterator[tuple[pa.Table, pa.Schema, float]]:
    """Yield a file's rows, what to cast them to in small pieces, and the part of the file that was read by then.

    Texts come as dictionaries where that is smaller. An empty file has one batch without rows.
    """
    with pq.ParquetFile(path, buffer_size=BUFFER_BYTES) as file:
        schema, metadata = file.schema_arrow, file.metadata
        moments = int96_columns(file)
        plans = [_plan(metadata.row_group(group), schema) for group in range(metadata.num_row_groups)]
    if metadata.num_rows == 0:
        yield schema.empty_table(), schema, 1.0
        return
    done = 0
    for group, plan in enumerate(plans):
        for batch in _read_group(path, group, plan, moments):
            texts = {name: schema.field(name) for name in plan.dictionaries}
            done += batch.num_rows
            yield batch, pa.schema([texts.get(field.name, field) for field in batch.schema]), done / metadata.num_rows


def _read_group(path: Path, group: int, plan: _GroupPlan, moments: list[str]) -> Iterator[pa.Table]:
    with pq.ParquetFile(path, read_dictionary=list(plan.dictionaries), buffer_size=BUFFER_BYTES) as file:
        exact = exact_moments(path, moments, plan.rows, group) if moments else repeat({})
        for batch, columns in zip(file.iter_batches(plan.rows, row_groups=[group]), exact, strict=False):
            chunk = pa.Table.from_batches([batch])
            for place, name in enumerate(batch.schema.names):
                if name in columns:
                    chunk = chunk.set_column(place, name, columns[name])
            yield chunk


def _plan(group: pq.RowGroupMetaData, schema: pa.Schema) -> _GroupPlan:
    texts = {f.name for f in schema if _is_text(f.type)}
    rows = min(BATCH_ROWS_MAX, BATCH_VALUES_MAX // max(1, len(schema)))
    rows = min(rows, BATCH_BYTES_MAX * group.num_rows // max(1, group.total_byte_size))
    dictionaries: list[str] = []
    for place in range(group.num_columns):
        column = group.column(place)
        if not any("DICTIONARY" in encoding for encoding in column.encodings):
            continue
        is_small = column.total_uncompressed_size <= DICTIONARY_BYTES_MAX and column.num_values <= DICTIONARY_VALUES_MAX
        if column.path_in_schema in texts and is_small:
            dictionaries.append(column.path_in_schema)
        elif column.physical_type == "BYTE_ARRAY":
            rows = min(rows, EXPANDING_ROWS_MAX)
    return _GroupPlan(max(1, rows), tuple(dictionaries))


def _is_text(arrow: pa.DataType) -> bool:
    return arrow in (pa.string(), pa.binary(), pa.large_string(), pa.large_binary())
