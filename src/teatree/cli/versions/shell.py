"""`teatree shell`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from teatree.cli.exits import error_line
from teatree.cli.options import STORE_DEFAULT, ModelName, StoreCommon
from teatree.cli.output import Output
from teatree.cli.requests.query_reply import Form, check_form, print_reply
from teatree.cli.running import store_session
from teatree.contracts.shown import visible

if TYPE_CHECKING:
    from teatree.client.versions.opened_version import OpenedVersion

HELP = "Statements end with a semicolon and may use several lines; .tables lists the tables, .quit or Ctrl-D exits."


def shell(
    model: ModelName,
    /,
    *,
    command: Annotated[str | None, Parameter(name=["--command", "-c"], allow_leading_hyphen=True)] = None,
    version: int | None = None,
    at: str | None = None,
    follow: Annotated[bool, Parameter(negative="")] = False,
    format: Form = "table",
    common: StoreCommon = STORE_DEFAULT,
) -> None:
    """Open a version as a DuckDB database, without copying it.

    Blocks are fetched as statements need them, and kept in a cache that all processes of this user share. Statements
    come from the terminal, from standard input, or from --command. Reads only the object store.

    Example: teatree shell sales --at 2026-01-31T14:00

    Parameters
    ----------
    model
        The model's name.
    command
        Statements to run instead of a prompt.
    version
        The version, the newest if left out.
    at
        The newest version at a moment instead: 2026-01-31T14:00 in local time, or 2026-01-31T14:00:00Z.
    follow
        Move to each newer version between statements.
    format
        A table for people (its first rows), one JSON document (as --json), JSON lines, CSV, or an Arrow stream.
    """
    output = Output(json=common.json or format != "table")
    check_form(format)

    from teatree.client.versions.opened_version import OpenedVersion  # noqa: PLC0415 - DuckDB, only for this

    session = store_session(common)
    chain = session.model(model).chain()
    with OpenedVersion(chain, session.settings, version=version, at=at, follow=follow) as opened:
        if command is not None:
            _run(opened, command, output, format)
        elif sys.stdin.isatty():
            _prompt(opened, model, output, format)
        else:
            _run(opened, sys.stdin.read(), output, format)


def _run(opened: OpenedVersion, text: str, output: Output, form: Form) -> None:
    """Run all statements of a text, and print their rows."""
    for statement in opened.statements(text):
        version = opened.version
        rows = opened.run(statement.query)
        if rows is not None:
            print_reply(output, rows, version, form)


def _prompt(opened: OpenedVersion, model: str, output: Output, form: Form) -> None:
    """Prompt for statements until there are no more; an error is printed, and does not end the session."""
    import readline  # noqa: PLC0415 - gives input() its history and editing

    from teatree.contracts.errors import TeatreeError  # noqa: PLC0415

    readline.parse_and_bind("set enable-bracketed-paste on")
    output.remark(HELP)
    text = ""
    while True:
        try:
            line = input("   ...> " if text else f"{model}@{opened.version}> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            text = ""
            continue
        if not text and line.strip() in {".quit", ".exit"}:
            return
        text = "SHOW TABLES;" if not text and line.strip() == ".tables" else f"{text}\n{line}"
        if not text.strip():
            text = ""
        if not text.rstrip().endswith(";"):
            continue
        try:
            _run(opened, text, output, form)
        except TeatreeError as e:
            print(visible(error_line(e)), file=sys.stderr)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
        text = ""
