"""`teatree diff`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from teatree.cli.options import STORE_DEFAULT, ModelName, StoreCommon
from teatree.cli.output import Output
from teatree.cli.running import with_store

if TYPE_CHECKING:
    from teatree.client.session import Session
    from teatree.client.versions.diff import VersionDiff
    from teatree.datasets.table_diff import RowChange, TableDiff


# More than fifty lines: its options and their help.
def diff(
    model: ModelName,
    before: str,
    after: str,
    /,
    *,
    table: str | None = None,
    rows: int = 0,
    common: StoreCommon = STORE_DEFAULT,
) -> None:
    """Show the differences between two versions.

    For each table: rows added, removed and changed, by primary key where both versions have the same one (otherwise
    whole rows are counted, and a changed one is a removed and an added one), and changes of its columns. Reads
    only the object store, and only tables that changed in between.

    Example: teatree diff sales 12 15 --rows 10
    Example: teatree diff sales 2026-01-31T18:00 2026-02-01T18:00

    Parameters
    ----------
    model
        The model's name.
    before
        The earlier version: a number, or the newest at a moment (2026-01-31T14:00 in local time).
    after
        The later version, likewise.
    table
        Only this table.
    rows
        Show up to this many rows of each kind of change.
    """
    output = Output(json=common.json)

    async def work(session: Session) -> VersionDiff:
        wanted = session.model(model)
        versions = [int(v) if v.isdecimal() else await wanted.find_version(at=v) for v in (before, after)]
        return await wanted.diff(*versions, table=table, rows=rows)

    found = with_store(common, work)
    if output.json:
        output.line(found)
        return
    if not found.tables:
        output.message(
            f"Versions {found.before} and {found.after} of {model} do not differ{f' in {table}' if table else ''}.",
            "green",
        )
        return
    output.table(
        ("table", "", "added", "removed", "changed", "matched by", "columns"),
        (_summary(t) for t in found.tables),
        right=("added", "removed", "changed"),
    )
    for changed in found.tables:
        if changed.rows:
            _print_rows(output, changed)


def _summary(found: TableDiff) -> tuple[str, ...]:
    by = ", ".join(found.key) if found.key else "whole rows" if found.presence == "both" else ""
    return (
        found.table,
        "" if found.presence == "both" else found.presence.value,
        f"{found.rows_added:,}",
        f"{found.rows_removed:,}",
        f"{found.rows_changed:,}" if found.key else "",
        by,
        "; ".join(_change_text(c.what, c.column, c.before, c.after) for c in found.schema),
    )


def _change_text(what: str, column: str | None, before: str | None, after: str | None) -> str:
    match what:
        case "column added":
            return f"+ {column} {after}"
        case "column dropped":
            return f"- {column} {before}"
        case _:
            return f"{f'{column} ' if column else ''}{what} {before or 'none'} → {after or 'none'}"


def _print_rows(output: Output, found: TableDiff) -> None:
    names = list(dict.fromkeys(name for row in found.rows for side in (row.before, row.after) for name in side or ()))
    output.message(f"{found.table}:", "bold")
    output.table(("", *names), ((row.change.value, *(_cell(row, name) for name in names)) for row in found.rows))


def _cell(row: RowChange, name: str) -> str | None:
    """Return a value, or both where it changed."""
    sides = [side[name] for side in (row.before, row.after) if side is not None and name in side]
    if len(sides) == 2 and sides[0] != sides[1]:
        return " → ".join("NULL" if text is None else text for text in sides)
    return sides[0] if sides else ""
