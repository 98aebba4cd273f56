"""Goals from a file of sales lines, in this process or behind the queue: `python -m sales_goals.run --help`.

It loads the lines, calls `set_goals`, and writes all leaves with their basis and goal as CSV, sorted; NULL is an empty
field. Both modes run the same functions. It prints one line of JSON: `sites`, `leaves`, `basis`, `goal`, `seconds` (of
`set_goals`), `load_seconds`, `without_goal`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from attrs import frozen

import teatree
from sales_goals import GoalsSet, app
from sales_goals.dimensions import DIMENSIONS
from sales_goals.goals import GOALS
from sales_goals.lines import LINES
from teatree import Code, RequestError, TeatreeError

if TYPE_CHECKING:
    from teatree import Settings, SyncModel, SyncSession

MODEL = "sales_goals"
LONG_MS = 600_000.0
_NO_BAR = "SET enable_progress_bar = false"
"""DuckDB prints a bar for statements of more than two seconds, where the line of JSON belongs."""


@frozen
class Job:
    """What to compute."""

    lines: Path
    arguments: dict[str, Any]
    """Those of `set_goals`."""
    out: Path
    data: Path | None
    """The folder of the model's file, or of the stack; a temporary one if left out."""


def run_library(job: Job) -> dict[str, Any]:
    """Compute in this process: no service is started, and the model is a file."""
    with _folder(job.data) as folder, teatree.open(folder / f"{MODEL}.duckdb", app=app) as file:
        file.connection.execute(_NO_BAR)
        started_s = time.perf_counter()
        file.connection.execute(f"CREATE OR REPLACE TABLE {LINES} AS FROM read_parquet(?)", [str(job.lines)])
        loaded_s = time.perf_counter()
        found = file.bind(app).set_goals(**job.arguments)
        done_s = time.perf_counter()
        write_goals(file.connection, GOALS, found.goal_period, job.out)
    return _report(found, loaded_s - started_s, done_s - loaded_s)


def run_queue(job: Job) -> dict[str, Any]:
    """Compute behind the queue: on the stack that runs in the folder, or else on one that is started for it."""
    with _folder(job.data) as folder, _stack(folder, job.lines) as (settings, is_ours):
        with teatree.connect_sync(settings=settings) as session:
            started_s = time.perf_counter()
            model = _model(session)
            _load(model, job.lines, by_reference=is_ours)
            loaded_s = time.perf_counter()
            result = model.call("set_goals", job.arguments, timeout_ms=LONG_MS)
            done_s = time.perf_counter()
        found = app.functions["set_goals"].read_result(result)
        with duckdb.connect() as con, teatree.attach(con, MODEL, settings=settings, alias="version"):
            con.execute(_NO_BAR)
            write_goals(con, f"version.{GOALS}", found.goal_period, job.out)
    return _report(found, loaded_s - started_s, done_s - loaded_s)


def write_goals(con: duckdb.DuckDBPyConnection, table: str, goal_period: str, out: Path) -> None:
    """Write all leaves of a period as CSV: the dimensions, basis and goal, sorted by the dimensions, NULL last."""
    columns = [name for name, *_ in con.execute(f"DESCRIBE {table}").fetchall()]
    names = [name for name in columns if name in DIMENSIONS]
    order = ", ".join(f"{name} ASC NULLS LAST" for name in names)
    con.execute(
        f"COPY (SELECT {', '.join(names)}, basis, goal FROM {table} WHERE goal_period = $goal_period ORDER BY {order})"
        f" TO '{_quoted(out)}' (FORMAT csv, HEADER)",
        {"goal_period": goal_period},
    )


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _report(found: GoalsSet, load_s: float, set_goals_s: float) -> dict[str, Any]:
    return {
        "sites": found.sites,
        "leaves": found.leaves,
        "basis": f"{found.basis:.2f}",
        "goal": f"{found.goal:.2f}",
        "seconds": round(set_goals_s, 3),
        "load_seconds": round(load_s, 3),
        "without_goal": found.without_goal,
    }


@contextmanager
def _folder(data: Path | None) -> Iterator[Path]:
    if data is None:
        with tempfile.TemporaryDirectory(prefix="sales-goals-") as folder:
            yield Path(folder)
    else:
        data.mkdir(parents=True, exist_ok=True)
        yield data


@contextmanager
def _stack(folder: Path, lines: Path) -> Iterator[tuple[Settings, bool]]:
    """Yield the settings of the stack in a folder, and whether it was started for this run."""
    from teatree.contracts.environment import process_environ, read_settings  # noqa: PLC0415
    from teatree.embedded.stack import Stack, StackOptions  # noqa: PLC0415 - the servers' packages, only here

    if (folder / "teatree.env").exists():
        yield read_settings(process_environ(), folder), False
        return
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TEATREE_")}
    with Stack(StackOptions(data=folder, environ={**environ, "TEATREE_LOAD_ROOTS": str(lines.parent)})) as stack:
        yield stack.settings, True


def _model(session: SyncSession) -> SyncModel:
    """Return the model, made if it does not exist."""
    try:
        return session.create_model(MODEL, app=app.name)
    except RequestError as e:
        if e.code != Code.MODEL_EXISTS:
            raise
        return session.model(MODEL)


def _load(model: SyncModel, lines: Path, *, by_reference: bool) -> None:
    """Put a file's lines in place of those that the model has."""
    try:
        model.drop_table(LINES)
    except RequestError as e:
        if e.code != Code.UNKNOWN_TABLE:
            raise
    if by_reference:
        model.load(LINES, str(lines), mode="create", timeout_ms=LONG_MS)
    else:
        model.load_file(LINES, lines, mode="create", timeout_ms=LONG_MS)


def _percentage(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _site_percentage(text: str) -> tuple[str, Decimal]:
    site, equals, pct = text.rpartition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not written as SITE=PERCENT")
    return site, _percentage(pct)


def main() -> int:
    """Read the command, compute, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=Path, required=True, metavar="FILE.parquet", help="the sales lines")
    parser.add_argument("--basis", required=True, metavar="FROM/TO", help="the basis period: 2010-12-01/2011-03-01")
    parser.add_argument("--goal-period", required=True, help="2011-12, or written as the basis period")
    parser.add_argument("--pct", type=_percentage, required=True, help="how many percent more than the basis")
    parser.add_argument("--pct-site", type=_site_percentage, action="append", default=[], metavar="SITE=PCT")
    parser.add_argument("--mode", choices=("library", "queue"), default="library")
    parser.add_argument("--data", type=Path, help="the folder of the model or of the stack, kept afterwards")
    parser.add_argument("--out", type=Path, required=True, metavar="GOALS.csv")
    options = parser.parse_args()
    arguments = {
        "goal_period": options.goal_period,
        "basis_period": options.basis,
        "pct": options.pct,
        "pct_by_site": dict(options.pct_site),
    }
    job = Job(options.lines.absolute(), arguments, options.out.absolute(), options.data)
    run = run_library if options.mode == "library" else run_queue
    try:
        print(json.dumps(run(job), ensure_ascii=False))
    except (TeatreeError, duckdb.Error) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
