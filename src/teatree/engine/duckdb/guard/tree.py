"""The guard's check of a syntax tree: each kind of node, each table and each function is allowed by name."""

from __future__ import annotations

from typing import Any

import duckdb
import orjson
from attrs import frozen

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.names import fold
from teatree.engine.duckdb.guard.with_names import NO_NAMES, WithNames

_CHANGES = frozenset({"INSERT_QUERY_NODE", "UPDATE_QUERY_NODE", "DELETE_QUERY_NODE"})
_NODES = frozenset(
    "SELECT_NODE SET_OPERATION_NODE RECURSIVE_CTE_NODE CTE_NODE "
    "BASE_TABLE SUBQUERY JOIN TABLE_FUNCTION EXPRESSION_LIST EMPTY PIVOT SHOW_REF "
    "DISTINCT_MODIFIER LIMIT_MODIFIER LIMIT_PERCENT_MODIFIER ORDER_MODIFIER "
    "ORDER_DEFAULT ASCENDING DESCENDING".split()
)
_EXPRESSIONS = frozenset(
    "BETWEEN CASE CAST COLLATE COLUMN_REF COMPARISON CONJUNCTION CONSTANT DEFAULT FUNCTION LAMBDA LAMBDA_REF OPERATOR "
    "PARAMETER POSITIONAL_REFERENCE STAR SUBQUERY TYPE WINDOW".split()
)
_TABLE_FUNCTIONS = frozenset("generate_series json_each json_tree range repeat repeat_row unnest".split())
# Scalar functions that read settings or the environment, run or plan SQL given as text, write logs, wait, or keep state
# between statements. Functions that read files are table functions, of which only the above are allowed.
_REFUSED_FUNCTIONS = frozenset(
    "current_setting get_block_size getenv getvariable set_config set_variable json_serialize_sql json_deserialize_sql "
    "json_serialize_plan json_execute_serialized_sql query query_table parse_duckdb_log_message write_log sleep_ms "
    "pg_sleep format_type nextval currval setval setseed in_search_path which_secret glob sniff_csv summary checkpoint "
    "force_checkpoint".split()
)
_REFUSED_PREFIXES = (
    "read_",
    "write_",
    "duckdb_",
    "pragma_",
    "parquet_",
    "pg_",
    "has_",
    "inet_",
    "pandas_",
    "arrow_scan",
)
_ALLOWED_DESPITE_PREFIX = frozenset({"pg_typeof", "pg_size_pretty"})
_PATH_MARKS = frozenset("./\\:*?")
_USER_SCHEMA = "main"
_UNKNOWN_LOCATION = 2**64 - 1


def not_allowed(message: str, where: str, hint: str | None = None) -> RequestError:
    """Return the error for SQL that is valid but not allowed."""
    return RequestError(Code.SQL_NOT_ALLOWED, message, where=where, hint=hint)


@frozen
class UserTables:
    """The tables that SQL may name, by folded name, and the database that holds them."""

    catalog: str
    names: dict[str, str]

    @classmethod
    def of(cls, con: duckdb.DuckDBPyConnection) -> UserTables:
        """Return the user tables of a connection's current database, as its transaction sees them."""
        rows = con.execute(
            "SELECT current_database(), table_name FROM duckdb_tables() WHERE NOT internal "
            f"AND database_name = current_database() AND schema_name = '{_USER_SCHEMA}' "
            "UNION ALL SELECT current_database(), NULL"
        ).fetchall()
        return cls(fold(rows[0][0]), {fold(name): name for _, name in rows if name is not None})


def parse_tree(con: duckdb.DuckDBPyConnection, sql: str, where: str) -> dict[str, Any]:
    """Return the root node of one SELECT's syntax tree; raises `bad_sql`.

    It is parsed outside the connection's transaction, which an error would abort.
    """
    try:
        with con.cursor() as beside:
            ((text,),) = beside.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
        tree = orjson.loads(text)
    except (duckdb.Error, orjson.JSONDecodeError) as e:
        message = f"The SQL cannot be checked: it is nested too deeply, or {str(e).splitlines()[0][:200]}."
        raise RequestError(Code.BAD_SQL, message, where=where) from None
    if tree["error"]:
        raise RequestError(Code.BAD_SQL, tree["error_message"].splitlines()[0][:300], where=where)
    if len(tree["statements"]) != 1:
        raise not_allowed(f"There are {len(tree['statements'])} statements; one is allowed.", where)
    root: dict[str, Any] = tree["statements"][0]["node"]
    return root


class TreeGuard:
    """Checks the syntax trees of one request's statement."""

    def __init__(self, tables: UserTables, where: str) -> None:
        self._tables = tables
        self._where = where

    def check_query(self, root: dict[str, Any]) -> None:
        """Check the tree of a SELECT."""
        self._walk(root)

    def check_change(self, root: dict[str, Any]) -> str:
        """Check the tree of a change that is the only entry of a WITH; return the table that it changes."""
        ((entry,)) = root["cte_map"]["map"]
        change = entry["value"]["query_node"]
        if change["type"] not in _CHANGES:
            raise not_allowed(f"{_display_name(change['type'])} is not allowed.", self._where)
        if change["type"] == "INSERT_QUERY_NODE":
            target = self._table(change["qualified_name"]["path"], change, NO_NAMES)
        else:
            if change["table"]["type"] != "BASE_TABLE":
                raise not_allowed("Only a table can be changed.", self._where)
            target = self._table(change["table"]["qualified_name"]["path"], change["table"], NO_NAMES)
        self._walk({**change, "type": "SELECT_NODE"})  # its parts are those of a query; they may hold no change
        return target

    def _walk(self, root: dict[str, Any]) -> None:
        """Visit every object of the tree, each with the WITH names in scope there; without recursion."""
        waiting: list[tuple[Any, WithNames]] = [(root, NO_NAMES)]
        while waiting:
            value, scope = waiting.pop()
            if isinstance(value, list):
                waiting.extend((child, scope) for child in value)
            elif isinstance(value, dict):
                entries = (value.get("cte_map") or {}).get("map", ())
                *bodies, scope = scope.entering([self._common_table(entry["key"]) for entry in entries])
                waiting.extend((entry["value"], body) for entry, body in zip(entries, bodies, strict=True))
                self._node(value, scope)
                for key, child in value.items():
                    if key == "right" and value.get("type") == "RECURSIVE_CTE_NODE":
                        waiting.append((child, scope.entering([fold(value["cte_name"])])[-1]))  # the recursive part
                    elif key != "cte_map":
                        waiting.append((child, scope))

    def _node(self, node: dict[str, Any], scope: WithNames) -> None:
        if "class" in node:
            self._expression(node)
            return
        kind = node.get("type")
        if not isinstance(kind, str):
            return
        if kind not in _NODES:
            raise not_allowed(f"{_display_name(kind)} is not allowed{node_place(node)}.", self._where)
        if kind == "BASE_TABLE":
            self._table(node["qualified_name"]["path"], node, scope)
        elif kind == "TABLE_FUNCTION":
            self._table_function(node)
        elif kind == "SHOW_REF" and node["query"] is None:
            raise not_allowed("SHOW is not allowed.", self._where, "DESCRIBE and SUMMARIZE of a table are.")

    def _common_table(self, name: str) -> str:
        if not _PATH_MARKS.isdisjoint(name):
            raise not_allowed(f"The name {name!r} in WITH looks like a path.", self._where)
        return fold(name)

    def _table(self, path: list[str], node: dict[str, Any], scope: WithNames) -> str:
        """Check that a name is that of a user's table; return it as it is spelt in the database."""
        *owner, name = path
        if not owner and fold(name) in scope:
            return name
        allowed: tuple[list[str], ...] = (
            [],
            [_USER_SCHEMA],
            [self._tables.catalog],
            [self._tables.catalog, _USER_SCHEMA],
        )
        if [fold(part) for part in owner] not in allowed:
            raise not_allowed(
                f"{'.'.join(path)!r} is not one of the model's tables{node_place(node)}.",
                self._where,
                "Name a table without its schema.",
            )
        found = self._tables.names.get(fold(name))
        if found is not None:
            return found
        if not _PATH_MARKS.isdisjoint(name):
            raise not_allowed(f"{name!r} is a file, not a table{node_place(node)}.", self._where, "Use `load`.")
        raise RequestError(Code.UNKNOWN_TABLE, f"There is no table {name!r}{node_place(node)}.", where=self._where)

    def _table_function(self, node: dict[str, Any]) -> None:
        function = node["function"]
        name = function["function_name"] if function["class"] == "FUNCTION" else function["class"]
        if fold(name) not in _TABLE_FUNCTIONS:
            raise not_allowed(f"The table function {name!r} is not allowed{node_place(node)}.", self._where)

    def _expression(self, node: dict[str, Any]) -> None:
        kind = node["class"]
        if kind not in _EXPRESSIONS:
            raise not_allowed(f"{_display_name(kind)} is not allowed{node_place(node)}.", self._where)
        if kind not in ("FUNCTION", "WINDOW"):
            return
        name = fold(node.get("function_name") or "")
        refused = name in _REFUSED_FUNCTIONS or name.startswith(_REFUSED_PREFIXES)
        if refused and name not in _ALLOWED_DESPITE_PREFIX:
            raise not_allowed(f"The function {name!r} is not allowed{node_place(node)}.", self._where)


def node_place(node: dict[str, Any]) -> str:
    """Return the text that names a node's place in the statement; empty if it is not known."""
    location = node.get("query_location", _UNKNOWN_LOCATION)
    return "" if location == _UNKNOWN_LOCATION else f", at character {location + 1}"


def _display_name(kind: str) -> str:
    return kind.removesuffix("_NODE").removesuffix("_QUERY").replace("_", " ")
