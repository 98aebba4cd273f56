"""The command line: its start-up cost and its errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from teatree.cli.exits import error_line, exit_code
from teatree.cli.main import _COMMANDS, run
from teatree.contracts.errors import Code, CorruptError, OperatorError, RequestError, RetryError, TeatreeError

COMMANDS = _COMMANDS


@pytest.mark.parametrize("command", [*COMMANDS, "catalog rebuild", "log advance"])
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` of each command shows an example, the common options and the exit codes."""
    assert run([*command.split(), "--help"]) == 0
    printed = capsys.readouterr().out
    for expected in (f"Example: teatree {command}", "--data", "--json", "Exit codes"):
        assert expected in printed


@pytest.mark.parametrize("command", [(), ("catalog",), ("log", "--help")])
def test_help_describes_each_command_in_one_line(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of commands describes each in one line of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*command]) == 0
    lines = [line.strip("│ ").split() for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert lines
    names = {line[0] for line in lines}
    assert names <= {*_COMMANDS, "catalog", "log", "rebuild", "advance", "--help", "--version"}
    assert not [line for line in lines if len(line) < 2]


@pytest.mark.parametrize(
    "arguments", [["models"], ["versions", "sales"], ["query", "sales", "SELECT 1"], ["gc"], ["watch", "sales"]]
)
def test_without_a_stack_commands_name_what_is_missing(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a data folder a command fails and names --data and TEATREE_DATA; a mistyped variable is named."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("TEATREE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TEATREE_DTA", "somewhere")
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    warning, error = printed.err.splitlines()
    assert warning.startswith("warning: TEATREE_DTA in the environment is not a setting")
    assert "Did you mean TEATREE_DATA?" in warning
    assert "--data" in error
    assert "TEATREE_DATA" in error
    monkeypatch.setenv("TEATREE_DATA", str(tmp_path / "a folder"))
    assert run(arguments) == 4
    assert f"teatree up --data '{tmp_path}/a folder'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a file", "what?", "back\\slash", "a file/below"])
def test_up_refuses_what_cannot_be_a_data_folder(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A file, and a path that DuckDB would misread, are refused before anything is started."""
    (tmp_path / "a file").touch()
    assert run(["up", "--data", str(tmp_path / name)]) in {2, 5}
    printed = capsys.readouterr().err
    assert "data folder" in printed or "is a file, not a folder" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


def test_help_loads_nothing_heavy() -> None:
    """The top-level help starts without database, Arrow, S3 or NATS libraries."""
    script = (
        "import sys; from teatree.cli.main import _COMMANDS, run; run(['--help']); import teatree;"
        "sys.exit(' '.join(m for m in ('duckdb', 'pyarrow', 'polars', 'boto3', 'nats', 'psycopg', 'numpy')"
        " if m in sys.modules) or 0)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "teatree demo" in found.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["creat"],
        ["create"],
        ["create", "sales", "--foo"],
        ["create", "sales", "--table", "sales("],
        ["send", "sales", "append", "{not json"],
        ["send", "sales", "append", "[1]"],
        ["send", "sales", "append", '{"a": 1, "a": 2}'],
        ["load", "sales", "sales", "x", "--mode", "other"],
        ["query", "sales", "SELECT 1", "--format", "xml"],
        ["query", "sales", "SELECT", "1"],
        ["unpin", "sales"],
        ["unpin", "sales@1", "year-end"],
        ["watch", "sales", "--count", "many"],
    ],
)
def test_wrong_usage_is_one_line_and_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line ends with exit code 2 and one line of error, nothing on standard output."""
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error[")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestError(Code.USAGE, "x"), 2),
        (RequestError(Code.UNKNOWN_TABLE, "x"), 3),
        (RetryError(Code.UNAVAILABLE, "x"), 4),
        (OperatorError(Code.WRONG_CONFIGURATION, "x"), 5),
        (CorruptError("x"), 5),
        (OperatorError(Code.INTERNAL, "x"), 1),
    ],
)
def test_exit_codes_follow_from_the_group_of_the_error(error: TeatreeError, code: int) -> None:
    """Each group of errors has its exit code."""
    assert exit_code(error) == code


def test_an_error_is_one_line_with_place_and_advice() -> None:
    """Line breaks of a message do not break the line."""
    error = RequestError(Code.BAD_SQL, "Parser Error:\n  SELEC", where="sql", hint="Write SELECT.")
    assert error_line(error) == "error[bad_sql]: Parser Error: SELEC (at sql) Write SELECT."


def test_without_a_running_stack_the_error_names_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder without a running stack is exit code 4 and names the command that starts one."""
    assert run(["send", "sales", "append", "{}", "--data", str(tmp_path)]) == 4
    assert f"teatree up --data {tmp_path}" in capsys.readouterr().err


def test_an_internal_error_is_one_line_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception is exit code 1 without a trace."""

    def boom(*_: object) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("teatree.cli.requests.models.with_store", boom)
    assert run(["models"]) == 1
    assert capsys.readouterr().err == "error[internal]: ZeroDivisionError: by zero TEATREE_DEBUG=1 shows where.\n"


def test_unquoted_sql_is_refused_from_its_second_word_on(capsys: pytest.CaptureFixture[str]) -> None:
    """SQL without quotes is several arguments: the message names the first surplus one, and quotes."""
    assert run(["query", "sales", "SELECT", "site", "FROM", "sales"]) == 2
    printed = capsys.readouterr().err
    assert "from 'site' on" in printed
    assert "single quotes" in printed


@pytest.mark.parametrize("command", ["models", "versions", "pull", "verify", "shell"])
@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_store_that_is_not_there_is_wrong_usage(
    command: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistyped folder of --store does not look like a store without models."""
    monkeypatch.chdir(tmp_path)
    arguments = [command] if command == "models" else [command, "sales"]
    assert run([*arguments, "--store", form.format(tmp_path / "nowhere")]) == 2
    assert f"There is no folder '{tmp_path}/nowhere'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["versions", "dead", "pins"])
def test_a_list_of_an_unknown_model_is_an_error(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistyped model does not look like one without versions, pins or dead letters."""
    monkeypatch.setenv("TEATREE_STORE_URL", tmp_path.as_uri())
    assert run([command, "sale"]) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error[unknown_model]: The object store has no model 'sale'.")


def test_the_folder_of_another_user_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teatree.env that this user may not read is an error about permissions, not an internal one."""

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert run(["models", "--data", str(tmp_path)]) == 5
    assert f"This user may not read {tmp_path}/teatree.env" in capsys.readouterr().err


def test_an_early_interrupt_prints_nothing() -> None:
    """A Ctrl-C while the command's own code is being loaded is exit code 130 without output."""
    script = (
        "import sys, importlib.abc\n"
        "class Interrupted(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'teatree.cli.main': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from teatree.cli.start import main\n"
        "main()\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (130, "")
