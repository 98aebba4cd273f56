"""`teatree verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from teatree.cli.exits import Exit
from teatree.cli.options import STORE_DEFAULT, ModelName, StoreCommon
from teatree.cli.output import Output, counted
from teatree.cli.running import store_session

if TYPE_CHECKING:
    from teatree.client.versions.verify import VerifyReport


def verify(
    model: ModelName,
    /,
    *,
    version: int | None = None,
    at: str | None = None,
    all: Annotated[bool, Parameter(negative="")] = False,
    scratch: Path | None = None,
    common: StoreCommon = STORE_DEFAULT,
) -> Exit:
    """Check a version: every block, every hash, every row.

    Blocks against their hashes and DuckDB's own checksums, pack and outcomes against theirs, the link to the version
    before; then DuckDB reads every table from these bytes. Reads only the object store. Exit code 5 if anything is
    wrong.

    Example: teatree verify sales --all

    Parameters
    ----------
    model
        The model's name.
    version
        The version, the newest if left out.
    at
        The newest version at a moment instead: 2026-01-31T14:00 in local time, or 2026-01-31T14:00:00Z.
    all
        Check the whole history up to the version.
    scratch
        A folder with room for the version's file; the system's temporary folder if left out.
    """
    output = Output(json=common.json)

    from teatree.client.versions.verify import verify as check  # noqa: PLC0415 - DuckDB, only for this

    chain = store_session(common).model(model).chain()
    with output.progress(f"verifying {model}", unit="bytes") as advance:
        report = check(chain, version=version, at=at, all_versions=all, progress=advance, scratch=scratch)
    _print(output, report)
    return Exit.OK if report.is_right else Exit.OPERATOR


def _print(output: Output, report: VerifyReport) -> None:
    if output.json:
        output.line(report)
        return
    if report.findings:
        rows = ((found.version, found.code, found.where or "", found.message) for found in report.findings)
        output.table(("version", "code", "where", "what is wrong"), rows, right=("version",))
    checked = ", ".join(
        (
            counted(report.versions, "version"),
            counted(report.blocks, "block"),
            counted(report.tables, "table"),
            counted(report.rows, "row"),
        )
    )
    if report.is_right:
        output.message(f"{report.model} is correct: {checked}.", "green")
        return
    first = f", the first {len(report.findings)} shown" if len(report.findings) < report.findings_count else ""
    output.message(
        f"{report.model} is damaged: {counted(report.findings_count, 'finding')}{first}; checked {checked}.", "red"
    )
