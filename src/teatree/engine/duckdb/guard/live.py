"""The guard's check of a query that is watched: its answer follows from the model's version alone.

Refused are functions that DuckDB calls volatile or constant within one query only, macros of these, some that it calls
neither though they read the clock or draw, and whatever picks rows without an order.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import duckdb
from attrs import frozen
from typing_extensions import override

from teatree.contracts.names import fold
from teatree.engine.duckdb.guard.tree import TreeGuard, UserTables, node_place, not_allowed, parse_tree
from teatree.engine.duckdb.guard.with_names import WithNames

_CLOCKS = frozenset("current_date current_time current_timestamp localtime localtimestamp current_catalog".split())
"""Names that are read without parentheses, though no column has them: the clock, and the name of the version's file."""
_UNMARKED = frozenset("current_localtime current_localtimestamp reservoir_quantile".split())
"""What DuckDB calls consistent though it is not."""
_FAILS = "error"
"""DuckDB calls it volatile so that it fails only where it is reached."""
_AGE = "age"
"""With one argument it counts from today."""
_LIMITS = frozenset({"LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"})
_ORDERED_WINDOWS = frozenset("row_number ntile lag lead first_value last_value nth_value first last fill".split())
_WHOLE_FRAMES = frozenset(
    {
        ("UNBOUNDED_PRECEDING", "CURRENT_ROW_RANGE"),
        ("UNBOUNDED_PRECEDING", "CURRENT_ROW_GROUPS"),
        ("UNBOUNDED_PRECEDING", "UNBOUNDED_FOLLOWING"),
    }
)
"""Frames that without an order hold the whole partition."""
_ORDER_HINT = "Give it an ORDER BY that leaves no ties."


@frozen
class TablesRead:
    """The tables that a query reads."""

    names: frozenset[str]
    """Folded."""
    references: int
    """How often the query names one of them."""


def check_live(sql: str, con: duckdb.DuckDBPyConnection, tables: UserTables, where: str = "sql") -> TablesRead:
    """Check a query that `check_query` accepted, and return what it reads; raises `sql_not_allowed`."""
    guard = _LiveGuard(tables, where)
    guard.check_query(parse_tree(con, sql, where))
    return TablesRead(frozenset(guard.read), len(guard.read))


class _LiveGuard(TreeGuard):
    """Checks one query, and collects the tables that it names."""

    def __init__(self, tables: UserTables, where: str) -> None:
        super().__init__(tables, where)
        self.read: list[str] = []

    @override
    def _table(self, path: list[str], node: dict[str, Any], scope: WithNames) -> str:
        found = super()._table(path, node, scope)
        if len(path) > 1 or fold(path[-1]) not in scope:
            self.read.append(fold(found))
        return found

    @override
    def _node(self, node: dict[str, Any], scope: WithNames) -> None:
        super()._node(node, scope)
        if node.get("sample") is not None:
            message = "A sample is drawn anew by each run, so it cannot be watched."
            raise not_allowed(message, self._where, "Choose rows by a condition.")
        modifiers = {part["type"]: part for part in node.get("modifiers") or ()}
        if modifiers.get("ORDER_MODIFIER", {}).get("orders"):
            return
        if _LIMITS & modifiers.keys():
            raise self._without_order("LIMIT", node)
        if modifiers.get("DISTINCT_MODIFIER", {}).get("distinct_on_targets"):
            raise self._without_order("DISTINCT ON", node)

    @override
    def _expression(self, node: dict[str, Any]) -> None:
        super()._expression(node)
        if node["class"] == "COLUMN_REF" and len(node["column_names"]) == 1:
            self._check_stable(fold(node["column_names"][0]), node, _CLOCKS)
        elif node["class"] in ("FUNCTION", "WINDOW"):
            name = fold(node.get("function_name") or "")
            self._check_stable(name, node, unstable_functions())
            if name == _AGE and len(node["arguments"]) == 1:
                raise self._unstable("age with one argument", node)
            if node["class"] == "WINDOW" and not node["orders"] and not _is_unordered(name, node):
                raise self._without_order(f"The window of {name}", node)

    def _check_stable(self, name: str, node: dict[str, Any], unstable: frozenset[str]) -> None:
        if name in unstable:
            raise self._unstable(repr(name), node)

    def _unstable(self, what: str, node: dict[str, Any]) -> Exception:
        return not_allowed(
            f"{what} differs between runs{node_place(node)}, so it cannot be watched.",
            self._where,
            "Pass a value as a parameter, and watch anew when it changes.",
        )

    def _without_order(self, what: str, node: dict[str, Any]) -> Exception:
        message = f"{what} without ORDER BY picks any rows{node_place(node)}, so it cannot be watched."
        return not_allowed(message, self._where, _ORDER_HINT)


def _is_unordered(name: str, node: dict[str, Any]) -> bool:
    """Return whether a window's values depend on no order of its rows."""
    return name not in _ORDERED_WINDOWS and (node["start"], node["end"]) in _WHOLE_FRAMES


@cache
def unstable_functions() -> frozenset[str]:
    """Return the functions whose value does not follow from their arguments and the tables: the same in each process.

    What is not marked `CONSISTENT`, and macros whose definition names such a function.
    """
    with duckdb.connect(":memory:") as con:
        marked = con.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'"
        ).fetchall()
        macros = con.execute(
            "SELECT function_name, macro_definition FROM duckdb_functions() WHERE macro_definition IS NOT NULL"
        ).fetchall()
    unstable = {fold(name) for (name,) in marked} - {_FAILS} | _UNMARKED
    used = {fold(name): _names_used(fold(text)) for name, text in macros}
    while True:
        found = {name for name, names in used.items() if names & unstable}
        if found <= unstable:
            return frozenset(unstable)
        unstable |= found


def _names_used(definition: str) -> set[str]:
    """Return the functions that a macro calls; the clock, which is read without parentheses, counts as `now`."""
    names = set(re.findall(r'(\w+)"?\s*\(', definition))
    return names | ({"now"} if _CLOCKS.intersection(re.findall(r"\w+", definition)) else set())
