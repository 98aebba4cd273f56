"""Goals of TPC-H behind the queue: `python tests/bench/goals.py [--scale 1] [--lines FILE]`.

The lines are those that `tpchgen-cli` writes (`pip install tpchgen-cli`), else generated ones of the same shape; at
scale 1 they are 6 million, nearly each a leaf. By hand, one process runs the statements of `set_goals` in a DuckDB file
as they are, with DuckDB's own limits, once before and once after. Prints one JSON line a figure.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
from attrs import field, frozen
from figures import report

import teatree
from sales_goals import set_goals
from sales_goals.lines import LINES, find_lines
from sales_goals.tpch import write_lines
from teatree import Context, Write
from teatree.contracts.process import read_process
from teatree.embedded.stack import Stack, StackOptions
from teatree.storage.model_folder import model_folder

MODEL = "goals"
ARGUMENTS: dict[str, Any] = {
    "goal_period": "1999",
    "basis_period": "1992-01-01/1999-01-01",
    "pct": Decimal("7.5"),
    "pct_by_site": {"GERMANY": Decimal(25)},
}
LINES_OF_SCALE_1 = 6_001_215
LONG_MS = 1_200_000.0
_GENERATED = """
    SELECT CASE customer % 25 WHEN 0 THEN 'GERMANY' ELSE 'NATION ' || (customer % 25) END AS site, product, customer,
        'Clerk#' || lpad(clerk::VARCHAR, 9, '0') AS salesperson, quantity, unit_price, DATE '1992-01-01' + day AS date
    FROM (
        SELECT 1 + (random() * 200_000 * {scale})::INTEGER AS product,
            1 + (random() * 150_000 * {scale})::INTEGER AS customer, (random() * 1_000 * {scale})::INTEGER AS clerk,
            1 + (random() * 49)::DECIMAL(15, 2) AS quantity, 900 + (random() * 1_200)::DECIMAL(15, 2) AS unit_price,
            (random() * 2_400)::INTEGER AS day
        FROM range({count})
    )
"""
_BY_HAND = """
import json, sys, time
import duckdb
path, lines, statements = sys.argv[1:]
with duckdb.connect(path) as con:
    con.execute("SET enable_progress_bar = false")
    con.execute(f"CREATE TABLE lines AS FROM '{lines}'")
    con.execute("CHECKPOINT")
    begin = time.perf_counter()
    con.execute("BEGIN")
    for sql, parameters in json.load(open(statements)):
        con.execute(sql, parameters).fetchall()
    con.execute("COMMIT")
    con.execute("CHECKPOINT")
    took = time.perf_counter() - begin
    goal = con.execute("SELECT sum(goal)::VARCHAR FROM goals").fetchall()[0][0]
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"seconds": took, "peak_bytes": peak * 1024, "goal": goal}))
"""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--lines", type=Path, help="a Parquet file of lines as `sales_goals.tpch` writes them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="teatree-bench-") as name:
        folder = Path(name)
        lines = options.lines.absolute() if options.lines else make_lines(folder, options.scale)
        statements = folder / "statements.json"
        statements.write_text(json.dumps(statements_of(folder, lines)))
        before = by_hand(folder, lines, statements)
        queue = behind_queue(folder, lines)
        after = by_hand(folder, lines, statements)
        if not before["goal"] == queue["goal"] == after["goal"]:
            raise SystemExit(f"the goals differ: {before['goal']} by hand, {queue['goal']} behind the queue")
        seconds = (before["seconds"] + after["seconds"]) / 2
        report("goals_behind_the_queue", queue["seconds"], "s", baseline=seconds, what="the same SQL by hand in DuckDB")
        peak = max(before["peak_bytes"], after["peak_bytes"]) + queue["idle_bytes"]
        report(
            "goals_manager_memory_peak",
            queue["peak_bytes"] / 1e6,
            "MB",
            baseline=peak / 1e6,
            what="by hand, plus an idle manager",
        )


def make_lines(folder: Path, scale: float) -> Path:
    """Return a file of TPC-H's lines; generated ones of the same shape where `tpchgen-cli` is not installed."""
    out = folder / "lines.parquet"
    program = shutil.which("tpchgen-cli", path=str(Path(sys.executable).parent)) or shutil.which("tpchgen-cli")
    if program is not None:
        tables = folder / "tpch"
        subprocess.run([program, "parquet", "-s", f"{scale:g}", f"--output-dir={tables}"], check=True)
        write_lines(tables, out)
        shutil.rmtree(tables)
        return out
    with duckdb.connect() as con:
        con.execute(f"COPY ({_GENERATED.format(scale=scale, count=int(LINES_OF_SCALE_1 * scale))}) TO '{out}'")
    return out


@frozen
class StatementRecorder:
    """A handle that keeps the statements that a function runs."""

    db: Write
    statements: list[tuple[str, Any]] = field(factory=list)

    def execute(self, sql: str, parameters: Any = ()) -> int:
        """Run a change."""
        self.statements.append((sql, parameters))
        return self.db.execute(sql, parameters)

    def sql(self, sql: str, parameters: Any = ()) -> teatree.Dataset:
        """Run a query."""
        self.statements.append((sql, parameters))
        return self.db.sql(sql, parameters)

    def create_table(self, table: str, columns: dict[str, str]) -> bool:
        """Create a table."""
        self.statements.append((f"CREATE TABLE {table} ({', '.join(map(' '.join, columns.items()))})", ()))
        return self.db.create_table(table, columns)

    def tables(self) -> tuple[str, ...]:
        """Return the names of the tables."""
        return self.db.tables()

    def schema(self, name: str) -> teatree.Schema:
        """Return a table's columns."""
        return self.db.schema(name)


def statements_of(folder: Path, lines: Path) -> list[tuple[str, Any]]:
    """Return the statements of `set_goals`, as it runs them on a few of the lines."""
    from sales_goals import app  # noqa: PLC0415

    with teatree.open(folder / "sample.duckdb", app=app) as file:
        file.connection.execute(f"CREATE TABLE {LINES} AS FROM '{lines}' WHERE site = 'GERMANY' LIMIT 1000")
        with file.transaction() as db:
            recorder: Any = StatementRecorder(db)
            set_goals(recorder, Context("r", datetime.now(UTC), MODEL, "set_goals"), find_lines(recorder), **ARGUMENTS)
    found: list[tuple[str, Any]] = recorder.statements
    return found


def by_hand(folder: Path, lines: Path, statements: Path) -> dict[str, Any]:
    """Return the time and peak of memory of a process that runs the statements."""
    path = folder / "by_hand.duckdb"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-c", _BY_HAND, str(path), str(lines), str(statements)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    path.unlink()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def behind_queue(folder: Path, lines: Path) -> dict[str, Any]:
    """Return the time from the request to its outcome, and the manager's peak of memory."""
    environ = {"TEATREE_LOAD_ROOTS": str(lines.parent), "TEATREE_LIMITS_LOAD_TIME_MS_MAX": "1200000"}
    with (
        Stack(StackOptions(data=folder / "data", environ=environ)) as stack,
        teatree.connect_sync(settings=stack.settings) as session,
    ):
        model = session.create_model(MODEL, app="sales_goals")
        idle = memory(stack, "VmRSS")
        model.load(LINES, str(lines), mode="create", timeout_ms=LONG_MS)
        model.archive(timeout_ms=LONG_MS)  # nothing of the load runs any more
        begin = time.perf_counter()
        found = model.call("set_goals", ARGUMENTS, timeout_ms=LONG_MS)
        took = time.perf_counter() - begin
        return {"seconds": took, "goal": found["goal"], "idle_bytes": idle, "peak_bytes": memory(stack, "VmHWM")}


def memory(stack: Stack, name: str) -> int:
    """Return a figure of the manager's memory in bytes."""
    process = read_process(model_folder(stack.settings.data, MODEL).process)
    if process is None:
        raise SystemExit("the model has no manager")
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
