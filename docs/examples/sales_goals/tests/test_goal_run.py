"""`python -m sales_goals.run` in library mode: its line of JSON, and the leaves as CSV."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import goals_oracle

LINES = (
    ("", "p,1", 7, 3, 1.5),
    ("Bonn", "p,1", None, 2, 2.0),
    ("Bonn", 'an "x"', 7, 1, 0.335),
    ("Bonn", None, 10, 1, 0.335),
    ("Bonn", None, 9, 1, 0.335),
    ("Jena", "p", 7, -1, 2.0),
    (None, "\U0001f375", 8, 1, 1.0),
    (None, "\uffee", 8, 1, 1.0),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file of lines, twice each; the last one after the basis period."""
    rows = [(*line, datetime(2020, 1, 31, 23, 59)) for line in LINES] * 2 + [(*LINES[0], datetime(2020, 2, 1))]
    names = ("site", "product", "customer", "quantity", "unit_price", "invoiced_at")
    path = tmp_path / "it's.parquet"
    pq.write_table(pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), path)
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "sales_goals.run", "--basis", "2020-01-01/2020-02-01", "--goal-period", "2021"]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_a_file_becomes_goals(file: Path, tmp_path: Path) -> None:
    """As the oracle computes them; text by code point, integers by value, NULL last and as an empty field."""
    out = tmp_path / "out's.csv"
    done = run("--lines", file, "--pct", 10, "--pct-site", "Bonn=-12.5", "--pct-site", "=0", "--out", out)
    assert done.returncode == 0, done.stderr
    lines = pq.read_table(file).to_pylist()
    dimensions = ("site", "product", "customer")
    basis = goals_oracle.basis_by_leaf(lines, dimensions, "invoiced_at", date(2020, 1, 1), date(2020, 2, 1))
    pct = goals_oracle.to_decimal
    goals = goals_oracle.set_goals(basis, lambda leaf: leaf[0], pct(10), {"Bonn": pct(-12.5), "": pct(0)})
    text = out.read_text(encoding="utf-8")
    header, *found = csv.reader(text.splitlines())
    assert header == ["site", "product", "customer", "basis", "goal"]
    assert found == [
        [*("" if value is None else str(value) for value in leaf), amount(basis[leaf]), amount(goals.goal[leaf])]
        for leaf in sorted(basis, key=goals_oracle.by_order)
    ]
    assert '"","p,1",7,' in text  # an empty text is not NULL
    report = json.loads(done.stdout)
    assert report.pop("seconds") > 0
    assert report.pop("load_seconds") > 0
    assert report == {
        "sites": 4,
        "leaves": 8,
        "basis": amount(sum(basis.values())),
        "goal": amount(sum(goals.goal.values())),
        "without_goal": ["Jena"],
    }


def amount(cents: int) -> str:
    """Return cents as an amount."""
    sign, size = "-" if cents < 0 else "", abs(cents)
    return f"{sign}{size // 100}.{size % 100:02}"


def test_a_folder_keeps_the_model(file: Path, tmp_path: Path) -> None:
    """A second run replaces lines and goals."""
    arguments = ("--lines", file, "--pct", 0, "--data", tmp_path / "plan", "--out", tmp_path / "goals.csv")
    first, second = (run(*arguments) for _ in range(2))
    assert first.returncode == second.returncode == 0, second.stderr
    assert json.loads(first.stdout)["basis"] == json.loads(second.stdout)["basis"]
    assert (tmp_path / "plan" / "sales_goals.duckdb").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--pct", "ten"), 2, "is no number"),
        (("--pct", 10, "--pct-site", "Bonn"), 2, "SITE=PERCENT"),
        (("--pct", 10, "--pct-site", "Rome=5"), 1, "no site 'Rome'"),
        (("--pct", 10, "--lines", "/nonexistent.parquet"), 1, "No files found"),
    ],
)
def test_what_is_wrong_is_one_line(
    file: Path, tmp_path: Path, arguments: tuple[object, ...], code: int, message: str
) -> None:
    """Without a traceback, and no file of goals is written."""
    out = tmp_path / "goals.csv"
    done = run("--lines", file, "--out", out, *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()
