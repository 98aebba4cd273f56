"""Random changes of a DuckDB file: every kind of statement that moves blocks, in transactions that fail at times."""

from __future__ import annotations

import random

from teatree.contracts.errors import TeatreeError
from teatree.engine.duckdb.database import Database

TABLES_MAX = 6
ROWS = (1, 10, 1_000, 1_000, 5_000, 40_000)
"""Rows of one insert: one, some, a part of a row group, several blocks."""
ROWS_BIG = 140_000
"""More than a row group: written into free blocks before the transaction commits."""
BIG_SHARE = 0.02


class Mutations:
    """Changes one file at random; the same seed makes the same changes."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._names = 0

    def batch(self, database: Database) -> None:
        """Run one to three transactions, some rolled back, some failed."""
        for _ in range(self._random.choice((1, 1, 2, 3))):
            try:
                with database.transaction():
                    for _ in range(self._random.choice((1, 1, 2, 4))):
                        self._change(database)
                    if self._random.random() < 0.12:
                        database.rows("SELECT error('rolled back')")
            except TeatreeError:
                continue

    def _tables(self, database: Database) -> list[str]:
        return [n for (n,) in database.rows("SELECT table_name FROM duckdb_tables() WHERE NOT internal ORDER BY 1")]

    def _name(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    def _change(self, database: Database) -> None:
        tables = self._tables(database)
        kind = self._random.randrange(20)
        if not tables or (kind == 0 and len(tables) < TABLES_MAX):
            key = self._random.choice(("", " PRIMARY KEY"))
            database.rows(f"CREATE TABLE {self._name('t')}(id BIGINT{key}, text VARCHAR, number DOUBLE, list INT[])")
            return
        table = self._random.choice(tables)
        if len(tables) >= TABLES_MAX and kind <= 1:
            database.rows(f"DROP TABLE {table}")
            return
        for statement in self._statements(database, table, kind):
            database.rows(statement)

    def _statements(self, database: Database, table: str, kind: int) -> list[str]:
        draw = self._random.randrange(1 << 40)
        part = self._random.choice((2, 3, 100, 5_000))
        match kind:
            case 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7:
                count = ROWS_BIG if self._random.random() < BIG_SHARE else self._random.choice(ROWS)
                columns = (
                    f"i + {draw}, CASE WHEN i % 7 = 0 THEN NULL ELSE repeat('x', i % 5) || hash(i + {draw}) END,"
                    " hash(i) / 7, [i, i % 3]"
                )
                return [f"INSERT INTO {table}(id, text, number, list) SELECT {columns} FROM range({count}) r(i)"]
            case 8:
                return [f"DELETE FROM {table} WHERE hash(id + {draw}) % {part} = 0"]
            case 9 | 10:
                return [f"UPDATE {table} SET text = text || 'y', number = 1 WHERE hash(id + {draw}) % {part} = 0"]
            case 11:
                return [f"UPDATE {table} SET number = number + 1 WHERE id = (SELECT min(id) FROM {table})"]
            case 12:
                return [f"DELETE FROM {table} WHERE id < (SELECT quantile_disc(id, 0.4) FROM {table})"]
            case 13:
                return [f"CREATE INDEX {self._name('i')} ON {table}(text)"]
            case 14:
                return [
                    f"DROP INDEX {name}" for (name,) in database.rows("SELECT index_name FROM duckdb_indexes()")[:1]
                ]
            case 15:
                return [f"ALTER TABLE {table} ADD COLUMN {self._name('c')} INT DEFAULT {draw % 100}"]
            case 16:
                return [f"DELETE FROM {table}"]
            case 17:
                return [f"CREATE OR REPLACE TABLE {table} AS SELECT * FROM {table}"]
            case 18:
                return [f"INSERT OR REPLACE INTO {table}(id, text) SELECT id, 'new' FROM {table} USING SAMPLE 1%"]
            case _:
                return ["CHECKPOINT"]  # refused within a transaction: a batch that fails
