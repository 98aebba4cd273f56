"""Requests that are the same in each run: those that create models, and those that must be refused or fail."""

from __future__ import annotations

from typing import Any

from torture.app.requests import APPS, FAILED, MOVED, OVER_TIME, REFUSED

MAIN, SECOND, RECREATED = "main", "second", "recreated"
LASTING = (MAIN, SECOND)
"""Those that exist during the whole run."""
MODELS = (MAIN, SECOND, RECREATED)
"""The third one is dropped and created again."""
IDS_MAX = 300
EXTRA = ("t0", "t1", "t2", "t3")
EXTRA_COLUMNS = ("a", "b", "c", "d")
ITEMS = {"id": "BIGINT", "name": "VARCHAR", "qty": "BIGINT", "price": "DOUBLE", "flag": "BOOLEAN"}


def columns_of(kinds: dict[str, str]) -> list[dict[str, str]]:
    """Return columns as `create_table` takes them."""
    return [{"name": name, "type": kind} for name, kind in kinds.items()]


LIMITS = {"query_time_ms_max": 4_000, "request_time_ms_max": 4_000, "rows_bytes_max": 50_000_000}
"""Low, so that requests beyond a limit end soon."""
NEVER = "SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000)) AS a"
"""DuckDB does not interrupt this, and it takes hours."""
TOO_BIG = "SELECT range AS a, repeat('x', 1000000) AS v FROM range(200)"
HEAVY_REQUESTS: list[tuple[str, str, Any]] = [
    ("timed_out", "query", {"sql": NEVER}),
    ("timed_out", "sql", {"statement": f"INSERT INTO pairs SELECT a, a FROM ({NEVER})"}),
    ("over_limit", "sql", {"statement": f"INSERT INTO items (id, name) SELECT 1000000 + a, v FROM ({TOO_BIG})"}),
    ("over_limit", "sql", {"statement": "INSERT INTO items (id, name) SELECT 1000000, repeat('x', 3000000000)"}),
    ("over_limit", "query", {"sql": "SELECT list_aggregate(range(500000000), 'sum') AS n"}),
    OVER_TIME,
]
"""Each with the code with which it must fail, after a while."""
FAILED_REQUESTS = FAILED
"""Those that fail at once."""
CREATE = {
    "app": APPS[0],
    "limits": LIMITS,
    "tables": [
        {"table": "items", "columns": columns_of(ITEMS), "primary_key": ["id"]},
        {"table": "pairs", "columns": columns_of({"a": "BIGINT", "v": "BIGINT"})},
        {"table": "moved", "columns": columns_of(MOVED)},
        {"table": "counter", "columns": columns_of({"id": "BIGINT", "n": "BIGINT"}), "primary_key": ["id"]},
    ],
}
CREATE_INCARNATION = {"tables": [{"table": "items", "columns": columns_of(ITEMS), "primary_key": ["id"]}]}

BAD_REQUESTS: list[tuple[str, str, Any]] = [
    ("unknown_table", "append", {"table": "nowhere", "rows": [{"id": 1}]}),
    ("unknown_function", "frobnicate", {}),
    ("unknown_argument", "append", {"table": "pairs", "rows": [{"a": 1, "v": 1}], "colour": "red"}),
    ("missing_argument", "append", {"table": "pairs"}),
    ("bad_json", "append", b'{"table": "pairs", "rows": [{"a": 1'),
    ("duplicate_key", "append", b'{"table": "pairs", "table": "pairs", "rows": []}'),
    ("type_mismatch", "append", {"table": "pairs", "rows": [{"a": "x", "v": 1}]}),
    ("lossy_number", "append", {"table": "pairs", "rows": [{"a": 1, "v": 0}, {"a": 1.5, "v": 1}]}),
    ("out_of_range", "append", {"table": "pairs", "rows": [{"a": 2**63, "v": 1}]}),
    ("unknown_column", "upsert", {"table": "items", "rows": [{"id": 1, "colour": 1}]}),
    ("not_null", "append", {"table": "items", "rows": [{"id": None}]}),
    ("missing_column", "append", {"table": "items", "rows": [{"qty": 1}]}),
    ("constraint", "append", {"table": "items", "rows": [{"id": -1}, {"id": -1}]}),
    ("constraint", "upsert", {"table": "items", "rows": [{"id": -1}, {"id": -1}]}),
    ("sql_not_allowed", "sql", {"statement": "COPY items TO '/tmp/x'"}),
    ("sql_not_allowed", "sql", {"statement": "DELETE FROM items; DELETE FROM pairs"}),
    ("sql_not_allowed", "sql", {"statement": "DELETE FROM _teatree.commits"}),
    ("sql_not_allowed", "query", {"sql": "SELECT * FROM read_csv('/etc/passwd')"}),
    ("unknown_version", "delete", {"table": "items", "where": {}, "expected_version": 10**9}),
    ("model_exists", "create_model", CREATE),
    ("unknown_version", "restore", {"version": 10**9}),
    *REFUSED,
    ("source_not_allowed", "load", {"table": "pairs", "uri": "/etc/passwd.csv", "mode": "append"}),
]  # fmt: skip
