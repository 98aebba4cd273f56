"""The suite of formats, which read the rows of a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import pyarrow as pa
import pytest

from teatree.contracts.errors import Code, RequestError
from teatree.datasets.source_rows import read_chunks, readable

ROW_BYTES_MAX = 10_000_000


class FileForm(ABC):
    """How files of the format are made, for its tests."""

    ending: str
    """With its dot."""

    @abstractmethod
    def write(self, path: Path, rows: pa.Table) -> None:
        """Write a file with these rows: a column of whole numbers `id` and one of texts `name`."""


class FormatSuite:
    """What every format does that is installed under its ending. Override the fixture `form`."""

    @pytest.fixture
    def form(self) -> FileForm:
        """Return how a file is made."""
        raise NotImplementedError

    @pytest.mark.parametrize("rows", [1, 300_000])
    def test_all_rows_in_their_order(self, form: FileForm, tmp_path: Path, rows: int) -> None:
        """Every row arrives once, in the order of the file, and the part that was read grows to the whole."""
        wanted = pa.table({"id": range(rows), "name": [f"n {i}" for i in range(rows)]})
        parts: list[float] = []
        path = tmp_path / f"rows{form.ending}"
        form.write(path, wanted)
        with readable(path):
            found = pa.concat_tables(list(read_chunks(path, None, None, ROW_BYTES_MAX, parts.append)))
        assert found.column("id").cast(pa.int64()).to_pylist() == list(range(rows))
        assert found.column("name").to_pylist() == wanted.column("name").to_pylist()
        assert parts == sorted(parts)
        assert all(0 <= part <= 1 for part in parts)

    def test_an_ending_in_capitals(self, form: FileForm, tmp_path: Path) -> None:
        """The case of a file's ending does not matter."""
        path = tmp_path / f"ROWS{form.ending.upper()}"
        form.write(path, pa.table({"id": [1], "name": ["a"]}))
        with readable(path):
            assert sum(chunk.num_rows for chunk in read_chunks(path, None, None, ROW_BYTES_MAX)) == 1

    def test_a_row_that_is_too_long(self, form: FileForm, tmp_path: Path) -> None:
        """A row beyond the limit is refused, and not what memory ends over."""
        path = tmp_path / f"rows{form.ending}"
        form.write(path, pa.table({"id": [1], "name": ["x" * 200_000]}))
        with pytest.raises(RequestError) as refused, readable(path):
            list(read_chunks(path, None, None, 100_000))
        assert refused.value.code in (Code.BODY_TOO_LARGE, Code.BAD_SOURCE)

    def test_what_is_no_such_file(self, form: FileForm, tmp_path: Path) -> None:
        """Bytes that are no text and no file of this format are refused."""
        path = tmp_path / f"rows{form.ending}"
        path.write_bytes(b"\x80\x81\x00\xff\xfe" * 1_000)
        with pytest.raises(RequestError), readable(path):
            list(read_chunks(path, None, None, ROW_BYTES_MAX))
