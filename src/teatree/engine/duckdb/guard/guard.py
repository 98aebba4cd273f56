"""The guard for users' SQL: allows one statement of an allowed kind that uses nothing but the user's tables.

There are two layers. `lock_down` denies a connection files, extensions and settings. That is not enough
(`WITH x AS (COPY … TO …) SELECT` is a SELECT to DuckDB, and it may write the database's own file), so `check_query` and
`check_statement` work by an allow list: DuckDB parses the statement, returns its kind and its syntax tree as JSON, in
which `guard_tree` allows each kind of node by name. DuckDB returns the tree of a SELECT only; an INSERT, UPDATE or
DELETE is parsed as the body of a WITH, a MERGE in pieces (`guard_merge`).
"""

from __future__ import annotations

from enum import StrEnum

import duckdb
from attrs import frozen

from teatree.contracts.errors import Code, RequestError
from teatree.contracts.names import OWN_SCHEMA, fold
from teatree.datasets.arrow.types import lossless
from teatree.engine.duckdb.errors import translate
from teatree.engine.duckdb.guard.merge import merge_pieces
from teatree.engine.duckdb.guard.tree import TreeGuard, UserTables, not_allowed, parse_tree

SQL_BYTES_MAX = 262_144
"""Bytes of one statement: rows belong into parameters, `append` or `load`, and parsing time grows with the length."""
BRACKETS_DEPTH_MAX = 200
"""Brackets within brackets: DuckDB's parser needs 20 seconds to find that 5,000 of them are not closed."""
WITH_DEPTH_MAX = 3
"""WITH within WITH: each level makes DuckDB 2.0 six times as slow to find a mistake within; 10 of them take minutes."""


class StatementKind(StrEnum):
    """The kinds of statement that `sql` accepts."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    MERGE = "merge"


@frozen
class Statement:
    """A statement that the guard accepted."""

    kind: StatementKind
    table: str
    """The table it changes, as the table is spelt in the database."""


_KINDS = {
    duckdb.StatementType.INSERT: StatementKind.INSERT,
    duckdb.StatementType.UPDATE: StatementKind.UPDATE,
    duckdb.StatementType.DELETE: StatementKind.DELETE,
    duckdb.StatementType.MERGE_INTO: StatementKind.MERGE,
}


def lock_down(con: duckdb.DuckDBPyConnection) -> None:
    """Deny a database's connections files, extensions, secrets and settings, permanently."""
    lossless(con)
    for setting, value in (
        ("python_enable_replacements", "false"),
        ("autoload_known_extensions", "false"),
        ("autoinstall_known_extensions", "false"),
        ("allow_community_extensions", "false"),
        ("allow_persistent_secrets", "false"),
        ("enable_external_access", "false"),
        ("lock_configuration", "true"),
    ):
        con.execute(f"SET {setting} = {value}").fetchall()


def check_query(
    sql: str, con: duckdb.DuckDBPyConnection, where: str = "sql", *, tables: UserTables | None = None
) -> None:
    """Check that the SQL is one allowed SELECT; raises `bad_sql`, `sql_not_allowed` or `unknown_table`.

    `tables` are the database's tables where they are known: those of a version do not change.
    """
    kind = _only_statement(sql, con, where)
    if kind != duckdb.StatementType.SELECT:
        raise not_allowed(f"{_display_name(kind)} is not a query.", where, "Send one SELECT.")
    TreeGuard(tables or UserTables.of(con), where).check_query(parse_tree(con, sql, where))


def check_statement(
    sql: str, con: duckdb.DuckDBPyConnection, where: str = "statement", tables: UserTables | None = None
) -> Statement:
    """Check one INSERT, UPDATE, DELETE or MERGE; raises `bad_sql`, `sql_not_allowed` or `unknown_table`.

    With `tables`, the catalog is not scanned.
    """
    found = _only_statement(sql, con, where)
    kind = _KINDS.get(found)
    if kind is None:
        raise not_allowed(f"{_display_name(found)} is not allowed.", where, "Send one INSERT, UPDATE, DELETE or MERGE.")
    guard = TreeGuard(tables or UserTables.of(con), where)
    if kind is not StatementKind.MERGE:
        return Statement(kind, guard.check_change(parse_tree(con, as_common_table(sql), where)))
    pieces = merge_pieces(sql, where)
    for query in pieces.queries:
        guard.check_query(parse_tree(con, query, where))
    targets = {guard.check_change(parse_tree(con, as_common_table(change), where)) for change in pieces.changes}
    (target,) = targets
    return Statement(kind, target)


def as_common_table(sql: str) -> str:
    """Return a changing statement as the body of a WITH: the form whose syntax tree DuckDB returns.

    The statement was parsed alone before, so it cannot close the parenthesis; the line break ends a last comment.
    """
    starts = [start for start, kind in duckdb.tokenize(sql) if kind != duckdb.token_type.comment]
    raw = sql.encode()
    end = len(raw)
    while starts and raw[starts[-1] : starts[-1] + 1] == b";":
        end = starts.pop()
    return f"WITH teatree_change AS (\n{raw[:end].decode()}\n) SELECT 1"


def _only_statement(sql: str, con: duckdb.DuckDBPyConnection, where: str) -> duckdb.StatementType:
    if not isinstance(sql, str) or not sql.strip():
        raise RequestError(Code.BAD_SQL, "There is no SQL.", where=where)
    try:
        size = len(sql.encode())
    except UnicodeEncodeError:
        raise RequestError(Code.BAD_SQL, "The SQL holds half a surrogate pair.", where=where) from None
    if size > SQL_BYTES_MAX:
        message = f"The SQL has {size:,} bytes; the limit is {SQL_BYTES_MAX:,}."
        raise RequestError(Code.BAD_SQL, message, where=where, hint="Pass values as parameters, or append rows.")
    if "\0" in sql:
        raise RequestError(Code.BAD_SQL, f"The SQL holds a NUL at character {sql.index(chr(0)) + 1}.", where=where)
    if OWN_SCHEMA in fold(sql):
        raise not_allowed(f"{OWN_SCHEMA!r} belongs to Teatree.", where)
    _check_shape(sql, where)
    try:
        statements = con.extract_statements(sql)
    except duckdb.Error as e:
        refused = translate(e)
        raise RequestError(Code.BAD_SQL, refused.message, where=where, hint=refused.hint) from None
    if len(statements) != 1:
        raise not_allowed(f"There are {len(statements)} statements; one is allowed.", where)
    return statements[0].type


def _check_shape(sql: str, where: str) -> None:
    """Refuse SQL that would keep DuckDB's parser busy for too long: it cannot be interrupted."""
    raw = sql.encode()
    holds_with = [False]
    for start, _ in duckdb.tokenize(sql):
        if raw[start : start + 1] in (b"(", b"[", b"{"):
            holds_with.append(False)
        elif raw[start : start + 1] in (b")", b"]", b"}") and len(holds_with) > 1:
            holds_with.pop()
        elif raw[start : start + 4].lower() == b"with":
            holds_with[-1] = True
        if len(holds_with) > BRACKETS_DEPTH_MAX:
            message = f"The SQL has brackets within brackets, more than {BRACKETS_DEPTH_MAX} deep."
            raise RequestError(Code.BAD_SQL, message, where=where)
        if holds_with[-1] and sum(holds_with) > WITH_DEPTH_MAX:
            message = f"The SQL has WITH within WITH, more than {WITH_DEPTH_MAX} deep."
            raise RequestError(Code.BAD_SQL, message, where=where, hint="Put one WITH in front of the statement.")


def _display_name(kind: duckdb.StatementType) -> str:
    name = str(kind).removeprefix("StatementType.").replace("_", " ")
    return "A statement that DuckDB turns into several (PIVOT without IN, for example)" if name == "MULTI" else name
