"""The scripts beside the app: the notebook, and lines made of TPC-H."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import duckdb

from sales_goals.tpch import write_lines


def test_the_notebook_runs(tmp_path: Path) -> None:
    """All cells, as a script."""
    script = Path(__file__).parents[1] / "notebook.py"
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "GoalsSet(goal_period='2026', sites=3" in done.stdout
    assert "refused: The locked leaves of site 'Bonn' would exceed its goal" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["plan.duckdb"]


TPCH = {
    "nation": "SELECT * FROM (VALUES (1, 'PERU'), (2, 'CHINA')) t(n_nationkey, n_name)",
    "customer": "SELECT * FROM (VALUES (10, 1), (11, 2)) t(c_custkey, c_nationkey)",
    "orders": "SELECT * FROM (VALUES (5, 10, 'Clerk#1', DATE '1997-02-03'), (6, 11, 'Clerk#2', DATE '1998-02-03'))"
    " t(o_orderkey, o_custkey, o_clerk, o_orderdate)",
    "part": "SELECT * FROM (VALUES (7, 901.50::DECIMAL(15, 2))) t(p_partkey, p_retailprice)",
    "lineitem": "SELECT * FROM (VALUES (5, 7, 3::DECIMAL(15, 2)), (5, 7, 3), (6, 7, 1))"
    " t(l_orderkey, l_partkey, l_quantity)",
}


def test_lines_of_tpch(tmp_path: Path) -> None:
    """Each line has its customer's nation, its order's clerk and its part's retail price; equal lines stay two."""
    folder = tmp_path / "it's"
    folder.mkdir()
    with duckdb.connect() as con:
        for name, sql in TPCH.items():
            con.execute(f"COPY ({sql}) TO '{tmp_path}/it''s/{name}.parquet'")
        assert write_lines(folder, tmp_path / "lines.parquet") == 3
        found = con.execute(f"FROM '{tmp_path}/lines.parquet' ORDER BY ALL")
        names = [column[0] for column in found.description]
        rows = found.fetchall()
    assert names == ["site", "product", "customer", "salesperson", "quantity", "unit_price", "date"]
    peru = ("PERU", 7, 10, "Clerk#1", Decimal(3), Decimal("901.50"), date(1997, 2, 3))
    assert rows == [("CHINA", 7, 11, "Clerk#2", Decimal(1), Decimal("901.50"), date(1998, 2, 3)), peru, peru]
