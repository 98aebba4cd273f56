"""Functions written in SQL: a folder of files, each with a header (`sql_header`) and its statements.

A query is one SELECT. A mutation is any number of INSERT, UPDATE, DELETE and MERGE, and can end with a SELECT whose
rows are its result. Parameters are bound, never pasted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import duckdb
from attrs import frozen

from teatree.contracts.errors import Code, OperatorError
from teatree.datasets.bad_value import BadValueError
from teatree.functions.app.app_function import FunctionKind, FunctionOptions
from teatree.functions.app.calls.signature import (
    REQUIRED,
    RESERVED_NAMES,
    ParameterRole,
    Signature,
    SignatureParameter,
)
from teatree.functions.app.handles import Read, Write
from teatree.functions.app.sql.sql_header import HeaderParameter, SqlHeader, read_header
from teatree.functions.app.values.converter import StrictConverter
from teatree.functions.app.values.shapes import UnsupportedHintError, hint_text

_HANDLE = "_handle"
_CHANGES = (
    duckdb.StatementType.INSERT,
    duckdb.StatementType.UPDATE,
    duckdb.StatementType.DELETE,
    duckdb.StatementType.MERGE_INTO,
)


@frozen
class SqlStatement:
    """One statement, and the parameters that it uses."""

    sql: str
    is_query: bool
    names: tuple[str, ...]

    def parameters(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the values that it uses, of all."""
        return {name: given[name] for name in self.names}


@frozen
class SqlQuery:
    """Runs the SELECT of a query."""

    statement: SqlStatement

    def __call__(self, **given: Any) -> Any:
        """Return its rows."""
        handle: Read = given[_HANDLE]
        return handle.sql(self.statement.sql, self.statement.parameters(given))


@frozen
class SqlMutation:
    """Runs the statements of a mutation."""

    statements: tuple[SqlStatement, ...]

    def __call__(self, **given: Any) -> Any:
        """Return the rows of the SELECT at the end, else how many rows were changed."""
        handle: Write = given[_HANDLE]
        changed = 0
        for statement in self.statements:
            parameters = statement.parameters(given)
            if statement.is_query:
                return handle.sql(statement.sql, parameters)
            changed += handle.execute(statement.sql, parameters)
        return {"rows": changed}


@frozen
class SqlFunction:
    """A function of a file, ready to be registered."""

    kind: FunctionKind
    signature: Signature
    options: FunctionOptions
    doc: str


def read_folder(folder: Path, converter: StrictConverter) -> Iterator[SqlFunction]:
    """Yield the functions of a folder's `.sql` files; raises `bad_app`."""
    files = sorted(folder.glob("*.sql")) if folder.is_dir() else []
    if not files:
        message = f"There are no .sql files in {folder}." if folder.is_dir() else f"{folder} is no folder."
        raise OperatorError(Code.BAD_APP, message, where=str(folder), hint="A relative path is beside the module.")
    with duckdb.connect(":memory:") as parser:
        for file in files:
            yield _read_file(file, converter, parser)


def _read_file(file: Path, converter: StrictConverter, parser: duckdb.DuckDBPyConnection) -> SqlFunction:
    place = f"{file}:1"
    try:
        sql = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise OperatorError(Code.BAD_APP, f"{file.name} cannot be read: {e}.", where=place) from e
    header = read_header(sql, file.stem, place)
    statements = _statements(sql, header, place, parser)
    kind = FunctionKind(header.kind)
    parameters = [_parameter(parameter, header.name, place, converter) for parameter in header.parameters]
    role, handle = (ParameterRole.READ, Read) if kind is FunctionKind.QUERY else (ParameterRole.WRITE, Write)
    signature = Signature(
        call=SqlQuery(statements[0]) if kind is FunctionKind.QUERY else SqlMutation(statements),
        name=header.name,
        place=place,
        parameters=(SignatureParameter(_HANDLE, role, handle, REQUIRED, ""), *parameters),
        returns=Any,
        is_async=False,
        is_generator=False,
    )
    return SqlFunction(kind, signature, FunctionOptions(**{"labels": {}, **header.options}), header.doc)


def _parameter(found: HeaderParameter, function: str, place: str, converter: StrictConverter) -> SignatureParameter:
    def refuse(why: str) -> NoReturn:
        raise OperatorError(Code.BAD_APP, f"{function}: the parameter {found.name} {why}.", where=place)

    if found.name in RESERVED_NAMES or found.name.startswith("_"):
        refuse("has a reserved name")
    try:
        default = converter.reader(found.hint)(found.default) if found.has_default else REQUIRED
    except UnsupportedHintError as e:
        refuse(f"cannot be a {hint_text(found.hint)}: {e.message}")
    except BadValueError as e:
        refuse(f"has a default that is no {hint_text(found.hint)}: {e.message.rstrip('.')}")
    return SignatureParameter(found.name, ParameterRole.REQUEST, found.hint, default, "")


def _statements(sql: str, header: SqlHeader, place: str, parser: duckdb.DuckDBPyConnection) -> tuple[SqlStatement, ...]:
    def refuse(why: str, hint: str | None = None) -> NoReturn:
        raise OperatorError(Code.BAD_APP, f"{header.name} {why}.", where=place, hint=hint)

    try:
        found = parser.extract_statements(sql)
    except duckdb.Error as e:
        refuse(f"cannot be parsed: {(str(e).splitlines() or [''])[0].rstrip('.')}")
    is_query = [statement.type == duckdb.StatementType.SELECT for statement in found]
    if header.kind == FunctionKind.QUERY:
        if is_query != [True]:
            refuse("has other statements than a query has", "It has one SELECT.")
    elif not found or any(is_query[:-1]) or not all(s.type in _CHANGES for s in found[: len(found) - is_query[-1]]):
        refuse("has other statements than a mutation has", _MUTATION_HINT)
    known = {parameter.name for parameter in header.parameters}
    used = {name for statement in found for name in statement.named_parameters}
    if unknown := sorted(used - known):
        refuse(f"uses ${unknown[0]}, which its header does not declare", "Parameters are written $name.")
    if unused := sorted(known - used):
        refuse(f"declares the parameter {unused[0]}, which no statement uses")
    return tuple(
        SqlStatement(statement.query, query, tuple(sorted(statement.named_parameters)))
        for statement, query in zip(found, is_query, strict=True)
    )


_MUTATION_HINT = "It has INSERT, UPDATE, DELETE and MERGE, and can end with one SELECT; create tables in Python."
