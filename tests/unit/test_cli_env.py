"""`teatree env` and `teatree completion`: what a shell makes of their output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from commands import run_command
from teatree.contracts.environment import ENV_FILE, read_env_file
from teatree.embedded.env_file import write_block

ODD = 'it\'s a "$HOME" `id` & (b) \\ é;\u2028 #'
ADDRESSES = {
    "TEATREE_NATS_URL": "tls://host:4222",
    "TEATREE_NATS_USER": "us er",
    "TEATREE_NATS_PASSWORD": ODD,
    "TEATREE_NATS_CA": "/a b/ca.pem",
    "TEATREE_STORE_URL": "s3://bucket/main?endpoint=http://host:1&region=x",
    "TEATREE_POSTGRES_URL": "postgresql://teatree@/teatree?host=%2Fx",
}


def in_shell(script: str, *names: str) -> list[str]:
    """Return the variables of these names after a script, which a shell runs without others."""
    shown = "".join(f'printf "%s\\0" "${{{name}-unset}}"; ' for name in names)
    done = subprocess.run(["/bin/sh", "-euc", f"{script}\n{shown}"], capture_output=True, check=True, env={})
    assert done.stderr == b""
    return done.stdout.decode().split("\0")[:-1]


def test_a_shell_gets_the_addresses(tmp_path: Path) -> None:
    """`eval` sets every variable to its exact value, those of the nats command line as well; --unset removes them."""
    environ = {**ADDRESSES, "TEATREE_DATA": str(tmp_path)}
    done = run_command(environ, "env")
    assert (done.code, done.err) == (0, "")
    names = [*environ, "NATS_URL", "NATS_USER", "NATS_PASSWORD", "NATS_CA"]
    expected = [*environ.values(), *list(ADDRESSES.values())[:4]]
    assert in_shell(done.out, *names) == expected
    assert run_command(environ, "env", "--json").json == {"TEATREE_PREFIX": "teatree"} | dict(
        zip(names, expected, strict=True)
    )
    removed = run_command({}, "env", "--unset").out
    assert in_shell(f"{done.out}\n{removed}", *names) == ["unset"] * len(names)


def test_a_folder_that_is_not_here_is_no_variable(tmp_path: Path) -> None:
    """For a stack elsewhere TEATREE_DATA is left out; without any stack nothing is printed, and the exit code is 4."""
    environ = {**ADDRESSES, "TEATREE_DATA": str(tmp_path / "none")}
    assert "TEATREE_DATA" not in run_command(environ, "env").out
    failed = run_command({"TEATREE_DATA": str(tmp_path / "none")}, "env")
    assert (failed.code, failed.out) == (4, "")


def test_a_shell_reads_teatree_env(tmp_path: Path) -> None:
    """`. DIR/teatree.env` sets the values that teatree reads from it; users may quote theirs, or not."""
    path = tmp_path / ENV_FILE
    path.write_text("TEATREE_PREFIX=\"my one\"\nTEATREE_HOST='it'\"'\"'s'\n# x\nTEATREE_LOAD_ROOTS=/a,s3://b\n")
    write_block(path, ADDRESSES)
    found = read_env_file(path)
    assert found == {
        "TEATREE_PREFIX": "my one",
        "TEATREE_HOST": "it's",
        "TEATREE_LOAD_ROOTS": "/a,s3://b",
        **ADDRESSES,
    }
    assert in_shell(f"set -a; . {path}; set +a", *found) == list(found.values())
    path.write_text("A=/my folder\nB='open\nC='a' b\nD=a'b\n")
    assert read_env_file(path) == {"A": "/my folder", "B": "'open", "C": "'a' b", "D": "a'b"}


def completed(script: str, tmp_path: Path, *words: str) -> set[str]:
    """Return what bash offers for the last of these words."""
    listed = " ".join(f"'{word}'" for word in words)
    command = Path(sys.executable).parent
    lines = [
        f"PATH={command}:$PATH; export TEATREE_DATA={tmp_path}",
        script,
        f"COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; _teatree; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
    ]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_bash_completes_commands_options_values_and_models(tmp_path: Path) -> None:
    """Commands and levels from the script, models from the data folder; a folder with a hostile name is no model."""
    for name in ("sales", "goals", "\x1b[31m", "No Model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manager.log").touch()
    script = run_command({}, "completion", "bash").out
    assert completed(script, tmp_path, "teatree", "st") == {"status"}
    assert {"warning", "error"} <= completed(script, tmp_path, "teatree", "logs", "--level", "")
    assert completed(script, tmp_path, "teatree", "query", "") == {"goals", "sales"}
    assert completed(script, tmp_path, "teatree", "pull", "sa") == {"sales"}
    assert completed(script, tmp_path, "teatree", "query", "--data", str(tmp_path / "none"), "") == set()


def test_bash_completes_functions(tmp_path: Path) -> None:
    """The built-in ones, and those of the model's app as its manager wrote them down, but for what is no name."""
    (tmp_path / "sales").mkdir()
    (tmp_path / "sales" / "functions.txt").write_text("upgrade\n$(reboot)\nlisted\n")
    script = run_command({}, "completion", "bash").out
    assert completed(script, tmp_path, "teatree", "send", "sales", "up") == {"update", "upsert", "upgrade"}
    assert completed(script, tmp_path, "teatree", "call", "sales", "") == {"upgrade", "listed"}
    assert completed(script, tmp_path, "teatree", "call", "../sales", "") == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell: str) -> None:
    """Scripts name every command; another shell is refused."""
    script = run_command({}, "completion", shell, "--json").json["script"]
    for command in ("status", "logs", "catalog", "rebuild"):
        assert command in script
    assert run_command({}, "completion", "tcsh").code == 2
