"""A client's file becomes requests of bounded size, the same ones each time."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teatree.client import file_load
from teatree.client.file_load import FileRows
from teatree.contracts.errors import Code, RequestError
from teatree.contracts.types.schema import Field, Schema, parse_dtype

SCHEMA = Schema((Field("id", parse_dtype("BIGINT")), Field("kind", parse_dtype("ENUM('a','b')"))))


def requests(rows: FileRows) -> list[Any]:
    """Return all requests of a file for SCHEMA."""
    return list(rows.requests(SCHEMA, itertools.repeat("append"), {"table": "t"}))


@pytest.mark.parametrize("ending", ["csv", "parquet", "arrow"])
def test_rows_are_cut_into_requests_of_bounded_size(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows, in order, under ids that are the same each time."""
    monkeypatch.setattr(file_load, "REQUEST_BYTES", 10_000)
    table = pa.table({"KIND": ["a", None] * 5_000, "id": range(10_000)})
    path = tmp_path / f"rows.{ending}"
    match ending:
        case "csv":
            path.write_text("KIND,id\n" + "".join(f"{'a' if i % 2 == 0 else ''},{i}\n" for i in range(10_000)))
        case "parquet":
            pq.write_table(table, path, row_group_size=3_000)
        case _:
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=3_000)
    rows = FileRows(path, id_prefix="x")
    assert rows.check(SCHEMA, lambda _: None) == 10_000
    sent = requests(rows)
    assert [request.request_id for request in sent] == [f"x-{i + 1}" for i in range(len(sent))]
    assert len(sent) > 10
    assert max(request.arrow.nbytes for request in sent) <= 10_000
    whole = pa.concat_tables([request.arrow for request in sent])
    assert whole.column("id").to_pylist() == list(range(10_000))
    assert whole.column("kind").to_pylist() == ["a", None] * 5_000
    assert requests(rows) == sent


def test_a_wrong_row_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    """The check names the row of a Parquet file, the line of a CSV file."""
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table({"id": [1, 2, 3], "kind": ["a", "b", "c"]}), path)
    with pytest.raises(RequestError) as caught:
        FileRows(path).check(SCHEMA, lambda _: None)
    assert (caught.value.code, caught.value.where) == (Code.TYPE_MISMATCH, "rows[2].kind")
    path = tmp_path / "bad.csv"
    path.write_text("id,kind\n1,a\n2,c\n")
    with pytest.raises(RequestError) as caught:
        FileRows(path).check(SCHEMA, lambda _: None)
    assert caught.value.where == "line 3, column kind"


def test_a_file_that_is_invalid_is_refused(tmp_path: Path) -> None:
    """A damaged, missing or unknown file is refused with its cause."""
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    (tmp_path / "name.txt").write_bytes(b"id\n1\n")
    for name in ("junk.parquet", "name.txt", "nothing.csv"):
        with pytest.raises(RequestError) as caught:
            FileRows(tmp_path / name).check(SCHEMA, lambda _: None)
        assert caught.value.code is Code.BAD_SOURCE


def test_a_file_without_rows_is_one_request(tmp_path: Path) -> None:
    """With it `replace` deletes all rows."""
    path = tmp_path / "head.csv"
    path.write_text("id\n")
    (only,) = requests(FileRows(path))
    assert (only.arrow.num_rows, only.arrow.column_names) == (0, ["id"])
