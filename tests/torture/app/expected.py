"""What calls of the apps' functions must do, on the tables of the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torture.expected_table import ExpectedTable, RefusedError, Row

APP_QUERIES = frozenset({"counters", "state", "peek"})
APP_FUNCTIONS = APP_QUERIES | {"both", "deduct", "slow", "fail"}

Tables = Mapping[str, ExpectedTable]


def pairs_of(tables: Tables) -> dict[str, Any]:
    """Return what the functions `state` and `peek` return of a version with these tables."""
    rows = tables["pairs"].rows.values()
    return {"pairs": len(rows), "sum": sum(row["v"] for row in rows), "sum_a": sum(row["a"] for row in rows)}


def call(function: str, args: Row, tables: Tables, mark: str) -> dict[str, Any]:
    """Change the tables as a call does and return facts of its verdict; `mark` names the code that it meets."""
    moved = tables["moved"]
    match function:
        case "both":
            tables["pairs"].insert([{"a": args["a"], "v": args["v"]}, {"a": 0, "v": -args["v"]}])
            moved.insert([{"a": args["a"], "v": args["v"], "by": mark}])
            return {"result": {"rows": 3}}
        case "deduct":
            row = tables["counter"].rows.get((args["counter"],))
            if row is None or row["n"] < args["n"]:
                raise RefusedError("refused")
            row["n"] -= args["n"]
            moved.insert([{"a": args["counter"], "v": args["n"], "by": mark}])
            return {"result": {"rows": 2}}
        case "slow":
            moved.insert([{"a": a, "v": args["v"], "by": mark} for a in (-1, -2)])
            return {"result": {"rows": 2}}
        case "counters":
            rows = sorted(({"id": r["id"], "n": r["n"]} for r in tables["counter"].rows.values()), key=_id)
            return {"count": len(rows), "answer": rows}
        case "state":
            return {"result": {**pairs_of(tables), "by": mark}}
        case "peek":
            return {}  # it depends on the version that it read: `OtherReads`
        case _:
            raise AssertionError(f"{function} never succeeds")


def _id(row: Row) -> int:
    return int(row["id"])
