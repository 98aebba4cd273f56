"""`teatree shell` and `teatree query --version`: versions are queried from the command line, without any service."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from published import PublishedModel
from servers import TestServers, file_store
from teatree.cli.exits import Exit
from teatree.cli.main import run
from teatree.contracts.environment import connection_environ

TABLES = {"sales": {"id": "BIGINT", "site": "VARCHAR", "amount": "DECIMAL(12,2)"}}


@pytest.fixture(scope="module", params=["file", "s3"])
def published(
    request: pytest.FixtureRequest, servers: TestServers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PublishedModel]:
    """Return a model on each kind of store in turn, whose versions 3 and 4 differ; the tests leave it as it is."""
    folder = tmp_path_factory.mktemp("published")
    store = servers.fresh_bucket_prefix() if request.param == "s3" else file_store(folder / "store")
    with PublishedModel(store, folder) as made:
        made.create(TABLES)
        made.sql("INSERT INTO sales SELECT range, 'site-' || (range % 3), 1.25 FROM range(9)")
        made.sql("DELETE FROM sales WHERE id > 5")
        yield made


@pytest.fixture
def model(published: PublishedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedModel:
    """Return the model; the environment names its store and a cache of the test's own."""
    for name, value in connection_environ(published.settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TEATREE_CACHE_FOLDER", str(tmp_path / "cache"))
    return published


SUM = "SELECT count(*) AS n, sum(amount) AS total FROM sales"


def test_a_query_of_any_version_or_moment(model: PublishedModel, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """`--version` and `--at` query that version, in every format, with parameters, exactly."""
    assert run(["query", "sales", SUM, "--version", "3", "--json"]) == Exit.OK
    result = json.loads(capfdbinary.readouterr().out)
    assert (result["version"], result["rows"][0]["n"]) == (3, 9)
    assert str(result["rows"][0]["total"]) == "11.25"
    at = model.chain.get(4).at.isoformat()
    assert run(["query", "sales", f"{SUM} WHERE id < ?", "--param", "2", "--at", at, "--format", "csv"]) == Exit.OK
    assert capfdbinary.readouterr().out.decode().splitlines() == ["n,total", "2,2.50"]
    assert run(["query", "sales", SUM, "--store", model.settings.store.url, "--format", "jsonl"]) == Exit.OK
    assert json.loads(capfdbinary.readouterr().out)["n"] == 6


@pytest.mark.parametrize(
    ("sql", "extra", "code"),
    [
        ("DELETE FROM sales", [], Exit.REJECTED),
        ("SELECT 1; SELECT 2", [], Exit.REJECTED),
        ("", [], Exit.REJECTED),
        ("SELECT nothing FROM sales", [], Exit.REJECTED),
        ("SELEC", [], Exit.REJECTED),
        (SUM, ["--at", "2001-01-01T00:00:00Z", "--version", "3"], Exit.USAGE),
        (SUM, ["--min-version", "3"], Exit.USAGE),
    ],
)
def test_a_query_that_is_refused_prints_one_line(
    model: PublishedModel, capfdbinary: pytest.CaptureFixture[bytes], sql: str, extra: list[str], code: Exit
) -> None:
    """A wrong query gives an exit code and one line with the reason."""
    assert run(["query", "sales", sql, "--version", "3", *extra]) == code
    error = capfdbinary.readouterr().err.decode()
    assert error.startswith("error[")
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_a_shell_takes_statements_from_an_option_or_from_standard_input(
    model: PublishedModel, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Temporary tables and views live beside the version, which cannot be written."""
    text = f"CREATE TEMP TABLE mine AS {SUM}; SELECT n FROM mine; SHOW TABLES"
    assert run(["shell", "sales", "-c", text, "--json"]) == Exit.OK
    first, _ = map(json.loads, capfdbinary.readouterr().out.splitlines())
    assert first == {"version": 4, "columns": [{"name": "n", "type": "BIGINT"}], "rows": [{"n": 6}]}
    assert run(["shell", "sales", "-c", "INSERT INTO sales VALUES (1, 'a', 1)"]) == Exit.REJECTED
    assert b"read-only" in capfdbinary.readouterr().err
    ended = subprocess.run(
        [sys.executable, "-m", "teatree.cli.main", "shell", "sales", "--version", "3", "--format", "csv"],
        input=f"{SUM};\nSELECT min(site) FROM sales;\n",
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == ["n,total", "9,11.25", "min(site)", "site-0"]


def test_a_shell_on_a_terminal_continues_after_an_error(model: PublishedModel) -> None:
    """Prompts name the version, statements span lines, an error is printed and does not end the shell."""
    leader, follower = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "teatree.cli.main", "shell", "sales", "--version", "3"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        close_fds=True,
    )
    os.close(follower)
    os.write(
        leader, b"SELECT count(*) AS\nfound FROM sales;\nSELECT nothing;\n.tables\nSELECT 41 + 1 AS last;\n.quit\n"
    )
    shown = b""
    while True:
        try:
            piece = os.read(leader, 65_536)
        except OSError:  # the terminal closes with the child
            break
        if not piece:
            break
        shown += piece
    os.close(leader)
    assert child.wait(timeout=100) == 0
    text = shown.decode()
    assert "sales@3>" in text
    assert "found" in text
    assert "9" in text
    assert "error[bad_sql]" in text
    assert "42" in text
    assert "Traceback" not in text


def test_a_shell_reports_a_missing_pack(model: PublishedModel, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """A missing pack is named in the error, with the exit code for an operator."""
    pack = model.chain.get(3).pack
    assert pack is not None
    key = model.chain.key(pack.key)
    body = model.chain.store.get(key)
    model.chain.store.delete([key])
    code = run(["shell", "sales", "--version", "3", "-c", SUM])
    model.chain.store.put(key, body)
    assert code == Exit.OPERATOR
    error = capfdbinary.readouterr().err.decode()
    assert "is missing from the store" in error
    assert "teatree verify sales --version 3" in error
    assert run(["shell", "nothing", "-c", SUM]) == Exit.REJECTED
    assert run(["shell", "sales", "--version", "77", "-c", SUM]) == Exit.REJECTED
