"""A short form of the fuzzer (`make fuzz`): each converter of values against DuckDB's text of them."""

from __future__ import annotations

import secrets

import pytest

from fuzz.run import Fuzzer

ROUNDS = 10


@pytest.mark.parametrize("seed", [11, None], ids=["fixed", "drawn"])
def test_every_value_is_the_one_that_duckdb_writes(seed: int | None) -> None:
    """Each converter reads and writes values as DuckDB does, and accepts every value of a type."""
    drawn = secrets.randbelow(10**9) if seed is None else seed
    with Fuzzer(drawn) as fuzzer:
        for number in range(ROUNDS):
            fuzzer.round(number)
    assert not fuzzer.report.differences, "\n".join(map(str, fuzzer.report.differences))
