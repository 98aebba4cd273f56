"""Parquet archives: casting a column to its type restores the values of the table."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from teatree.contracts.types.schema import Field, Schema, parse_dtype
from teatree.datasets.ddl import create_table_sql
from teatree.datasets.parquet import parquet_columns

VALUES = {
    "BOOLEAN": ["true"],
    "UBIGINT": ["18446744073709551615"],
    "HUGEINT": ["170141183460469231731687303715884105727", "'-170141183460469231731687303715884105728'"],
    "UHUGEINT": ["340282366920938463463374607431768211455"],
    "FLOAT": ["0.1", "'nan'"],
    "DOUBLE": ["0.1", "'-infinity'"],
    "DECIMAL(38,10)": ["'1234567890123456789012345678.0123456789'"],
    "VARCHAR": ["'ä'", "''"],
    "BLOB": ["'\\xAA\\x00'"],
    "BIT": ["'0101'"],
    "DATE": ["'2020-01-01'", "'infinity'", "'44-03-15 (BC)'"],
    "TIME": ["'23:59:59.999999'"],
    "TIME_NS": ["'23:59:59.999999999'"],
    "TIMETZ": ["'10:00:00.5+05:30'"],
    "TIMESTAMP_S": ["'2020-01-01 00:00:01'", "'infinity'"],
    "TIMESTAMP_MS": ["'2020-01-01 00:00:01.123'", "'-infinity'"],
    "TIMESTAMP": ["'2020-01-01 00:00:01.123456'", "'infinity'"],
    "TIMESTAMP_NS": ["'2020-01-01 00:00:01.123456789'"],
    "TIMESTAMPTZ": ["'2020-01-01 00:00:01.123456+01'"],
    "TIMESTAMPTZ_NS": ["'2020-01-01 00:00:01.123456789+01'"],
    "INTERVAL": ["'1 month -2 days 3.000001 seconds'"],
    "UUID": ["'00112233-4455-6677-8899-aabbccddeeff'"],
    "JSON": ["'{\"a\": 1.10}'"],
    "ENUM('b', 'it''s')": ["'it''s'"],
    "HUGEINT[]": ["[1, NULL]", "[]"],
    "INTEGER[2]": ["[1, 2]"],
    "STRUCT(i INTERVAL, t TIMESTAMP_S[])": ["{'i': INTERVAL 5 MICROSECONDS, 't': ['2020-01-01'::TIMESTAMP_S]}"],
    "MAP(UHUGEINT, TIMETZ)": ["MAP {1: '10:00:00+01'::TIMETZ}"],
}


@pytest.mark.parametrize("kind", VALUES)
def test_archives_keep_every_value(tmp_path: Path, kind: str) -> None:
    """Values that Parquet would round or truncate are written in an exact form."""
    schema = Schema((Field('a "b', parse_dtype(kind)),))
    file = tmp_path / "t.parquet"
    with duckdb.connect() as con:
        con.execute(create_table_sql("t", schema)).fetchall()
        for value in (*VALUES[kind], "NULL"):
            con.execute(f"INSERT INTO t VALUES (CAST({value} AS {kind}))").fetchall()
        con.execute(f"COPY (SELECT {parquet_columns(schema)} FROM t) TO '{file}' (FORMAT parquet, COMPRESSION zstd)")
        con.execute("CREATE TABLE back AS FROM t LIMIT 0").fetchall()
        con.execute(f"INSERT INTO back SELECT CAST(COLUMNS(*) AS {kind}) FROM '{file}'").fetchall()
        expected = con.execute("SELECT typeof(x), x::VARCHAR FROM t r(x)").fetchall()
        assert con.execute("SELECT typeof(x), x::VARCHAR FROM back r(x)").fetchall() == expected
