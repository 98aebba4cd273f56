"""What DuckDB raises is told in the group of what its hearer does next."""

from __future__ import annotations

import duckdb
import pytest

from teatree.contracts.errors import Code, RequestError, RetryError
from teatree.engine.duckdb_errors import DamagedFileError, translate

COMMIT = 'TransactionContext Error: Failed to commit: Could not write file "/d/model.duckdb.wal": '


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f"{COMMIT}No space left on device", Code.DISK_FULL),
        (f"{COMMIT}File too large", Code.DISK_FULL),
        (f"{COMMIT}Input/output error", Code.UNAVAILABLE),
        ('IO Error: Could not write file "/d/model.duckdb": No space left on device', Code.DISK_FULL),
    ],
)
def test_a_disk_that_refuses_is_tried_again(text: str, code: Code) -> None:
    """Also where the disk refused a COMMIT, which DuckDB tells in another class: no operator is called."""
    error = translate(duckdb.Error(text))
    assert isinstance(error, RetryError)
    assert error.code is code


def test_a_sector_that_cannot_be_read_is_damage() -> None:
    """What the disk cannot read is as good as gone: the file is put aside, and nobody waits for it."""
    text = 'IO Error: Could not read from file "/d/model.duckdb": Input/output error'
    assert isinstance(translate(duckdb.Error(text)), DamagedFileError)


def test_words_of_a_sender_are_no_fault_of_the_disk() -> None:
    """A key that reads like a disk's complaint is refused as any other key."""
    text = 'Constraint Error: Duplicate key "id: Could not write: No space left" violates primary key constraint.'
    assert isinstance(translate(duckdb.Error(text)), RequestError)
