"""A Parquet file of any size and shape is read in batches of bounded memory, without change of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from one_writer import OneWriter, Sent
from teatree.contracts.formats.notices import Status
from teatree.contracts.settings import LimitSettings
from teatree.datasets import parquet_rows, source_rows
from teatree.datasets.source_rows import read_chunks
from teatree.functions.builtins import load as load_module

ROWS_BYTES_MAX = 50_000_000
WORDS = {"table": "words", "columns": [{"name": "id", "type": "BIGINT"}, {"name": "word", "type": "VARCHAR"}]}


@pytest.fixture
def model(tmp_path: Path) -> Iterator[OneWriter]:
    """Return a model with a table of texts."""
    model = OneWriter(tmp_path / "model", [WORDS], LimitSettings(memory_bytes_max=200_000_000))
    yield model
    model.check_good_rows()
    model.close()


def words(count: int) -> pa.Table:
    """Return rows whose texts repeat, then do not."""
    texts = ["again and again", "", None] * (count // 6) + [f"text {i}" for i in range(count - count // 6 * 3)]
    return pa.table({"id": range(count), "word": texts, "raw": pa.array([b"\xff\x00"] * count)})


@pytest.mark.parametrize("row_group_size", [700, 10_000])
@pytest.mark.parametrize("use_dictionary", [True, False])
@pytest.mark.parametrize("gathered_max", [0, 10**9])
def test_rows_are_those_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row_group_size: int, *, use_dictionary: bool, gathered_max: int
) -> None:
    """Rows are the same for any row groups, whether their dictionaries are merged or not."""
    monkeypatch.setattr(parquet_rows, "DICTIONARY_BYTES_MAX", gathered_max)
    monkeypatch.setattr(parquet_rows, "EXPANDING_ROWS_MAX", 300)
    monkeypatch.setattr(source_rows, "CHUNK_ROWS_MAX", 2_500)
    monkeypatch.setattr(parquet_rows, "BATCH_ROWS_MAX", 2_500)
    path, table = tmp_path / "words.parquet", words(10_000)
    pq.write_table(table, path, row_group_size=row_group_size, use_dictionary=use_dictionary)
    chunks = list(read_chunks(path, None, None, ROWS_BYTES_MAX))
    assert pa.concat_tables(chunks).equals(table)
    assert 4 <= len(chunks) <= 8


def test_dictionaries_of_unique_texts_are_not_merged(tmp_path: Path) -> None:
    """Arrow's memory while it reads does not grow with the file."""
    path = tmp_path / "words.parquet"
    with pq.ParquetWriter(path, pa.schema([("id", pa.int64()), ("word", pa.string())]), use_dictionary=["word"]) as out:
        for group in range(40):
            texts = [f"{group:08d} {i:040d}" for i in range(20_000)]
            out.write_table(pa.table({"id": range(20_000), "word": texts}))
    base = pa.total_allocated_bytes()
    most = [pa.total_allocated_bytes() - base for _ in parquet_rows.read_batches(path)]
    assert max(most[20:]) < 1.5 * max(most[:10])


def test_one_row_group_of_gigabytes_is_read_in_parts(tmp_path: Path) -> None:
    """A row group is not read as a whole: 5 kB that unpack to 1.6 GB take the memory of a few rows."""
    path = tmp_path / "bomb.parquet"
    word = pa.DictionaryArray.from_arrays(pa.array([0] * 1600, pa.int32()), pa.array(["x" * 1_000_000]))
    pq.write_table(pa.table({"id": range(1600), "word": word}), path, compression="zstd")
    base, most, rows = pa.total_allocated_bytes(), 0, 0
    for chunk in read_chunks(path, None, None, ROWS_BYTES_MAX):
        rows += chunk.num_rows
        most = max(most, pa.total_allocated_bytes() - base)
    assert rows == 1600
    assert most < 500_000_000


def test_a_small_file_of_gigabytes_is_over_limit(model: OneWriter) -> None:
    """A file that would not fit into memory at its commit is refused during the load, and its neighbours are done."""
    path = model.sources / "bomb.parquet"
    word = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), pa.array(["x" * 1_000_000]))
    pq.write_table(pa.table({"id": range(400), "word": word}), path, compression="zstd")
    outcome = model.between(Sent("load", {"table": "words", "uri": str(path)}))
    assert (outcome.status, (outcome.error or {}).get("code")) == (Status.FAILED, "over_limit"), outcome
    assert model.rows("SELECT count(*) AS n FROM words") == [{"n": 0}]


@pytest.mark.parametrize("error", [MemoryError, pa.ArrowMemoryError])
def test_memory_is_not_the_files_fault(
    model: OneWriter, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """A lack of memory in the manager is `over_limit`, never `bad_source`."""

    def starved(*_: object) -> None:
        raise error("malloc of size 2147483648 failed")

    monkeypatch.setattr(load_module, "read_chunks", starved)
    pq.write_table(words(10), model.sources / "words.parquet")
    outcome = model.between(Sent("load", {"table": "words", "uri": str(model.sources / "words.parquet")}))
    assert (outcome.status, (outcome.error or {}).get("code")) == (Status.FAILED, "over_limit"), outcome
