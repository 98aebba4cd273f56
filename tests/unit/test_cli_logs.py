"""`teatree logs`: what is printed of which log, whatever is in it and happens to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from commands import CommandResult, run_command
from teatree.cli.stack.log_tail import BLOCK_BYTES, LINE_BYTES_MAX, LogFile, LogLine


def line(event: str, level: str = "info", **members: Any) -> str:
    """Return a line as managers write it."""
    return json.dumps(
        {"model": "sales", **members, "event": event, "level": level, "timestamp": "2026-01-31T14:00:00Z"}
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return the path of a model's log in a data folder."""
    path = tmp_path / "sales" / "manager.log"
    path.parent.mkdir()
    return path


def logs(data: Path, *arguments: str) -> CommandResult:
    """Run `teatree logs` on a data folder."""
    return run_command({"TEATREE_DATA": str(data), "TZ": "UTC"}, "logs", *arguments)


def anything(_: LogLine) -> bool:
    """Keep every line."""
    return True


def test_the_last_lines_are_printed_readably(tmp_path: Path, log: Path) -> None:
    """Time, level, event and members of each line; as many as wanted, also from before the rotation; or unchanged."""
    log.with_suffix(".log.1").write_text(line("first") + "\n" + line("second") + "\n")
    log.write_text(line("third", "warning", version=7, error="no answer") + "\n" + line("fourth"))
    shown = logs(tmp_path, "sales").out.splitlines()
    assert [text.split()[3] for text in shown] == ["first", "second", "third", "fourth"]
    assert shown[2].startswith("2026-01-31 ")
    assert "warning   third  model=sales version=7 error=no answer" in shown[2]
    assert [found["event"] for found in logs(tmp_path, "sales", "--json", "-n", "3").lines] == [
        "second",
        "third",
        "fourth",
    ]
    assert logs(tmp_path, "sales", "--json", "-n", "1").out == line("fourth") + "\n"
    assert logs(tmp_path, "sales", "-n", "0").out == ""


def test_a_level_selects_lines(tmp_path: Path, log: Path) -> None:
    """Lines of a level and above, counted after the selection; what has no level, as a traceback, is printed too."""
    log.write_text("\n".join([line("bad", "error"), "Traceback:", *(line(f"fine {n}") for n in range(99))]) + "\n")
    found = logs(tmp_path, "sales", "--level", "warning", "-n", "2", "--json").lines
    assert [entry["event"] for entry in found] == ["bad", "Traceback:"]


def test_levels_of_the_servers_are_known(tmp_path: Path) -> None:
    """The servers' own notations of a level are understood."""
    written = {
        "nats": ("[1] 2026/11/28 04:29:02.38 [ERR] bad", "[1] 2026/11/28 04:29:02.38 [INF] fine"),
        "postgres": ("2026-11-28 04:29:13.2 UTC [2] FATAL:  bad", "2026-11-28 04:29:13.2 UTC [2] LOG:  fine"),
        "seaweed": ("E1128 04:29:13.2 a.go:1 bad", "I1128 04:29:13.2 a.go:1 fine"),
        "dispatcher": (line("bad", "error"), line("fine")),
    }
    for name, lines in written.items():
        path = tmp_path / "_servers" / name / f"{name}.log"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines))
        shown = logs(tmp_path, name, "--level", "error").out
        assert "bad" in shown, name
        assert "fine" not in shown, name


def test_a_model_can_have_the_name_of_a_part(tmp_path: Path) -> None:
    """`logs nats` is the server's, with --model the model's."""
    for path, text in (("_servers/nats/nats.log", "the server"), ("nats/manager.log", "the manager")):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    assert logs(tmp_path, "nats").out == "the server\n"
    assert logs(tmp_path, "nats", "--model").out == "the manager\n"


def test_hostile_lines_are_printed_harmlessly(tmp_path: Path, log: Path) -> None:
    """Control characters, bytes that are no text, other JSON, deep and huge lines: each is shown, none acts."""
    bad: list[bytes] = [
        line("\x1b[31mred\x07", error="a\nb\u202e").encode(),
        b"\x1b]0;title\x07 \xff\xfe",
        b"[1, 2]",
        b'{"event": 1e999}',
        b'{"a":' * 5_000,
        b'{"event": "\xc3\xa9",\t"level": 7, "timestamp": {"no": 1}}\r',
        b'{"level": ["error"], "timestamp": "9999-12-31T23:59:59Z", "exception": "x\\n\x1b y"}',
        b"",
        b"\x00" * 100,
        line("long", text="x" * 500_000).encode(),
    ]
    log.write_bytes(b"\n".join(bad) + b"\n")
    shown = logs(tmp_path, "sales", "-n", "100")
    assert (shown.code, shown.err) == (0, "")
    assert not [
        character for character in shown.out if (character < " " and character != "\n") or character == "\u202e"
    ]
    assert "\\x1b[31mred\\x07" in shown.out
    assert "more)" in shown.out
    assert max(len(text) for text in shown.out.splitlines()) < 20_000
    found = logs(tmp_path, "sales", "-n", "100", "--json")
    assert len(found.lines) == len(bad) - 1
    assert all(isinstance(entry, dict) for entry in found.lines)
    assert not [character for character in found.out if character < " " and character != "\n"]


def test_a_line_longer_than_memory_is_cut(tmp_path: Path, log: Path) -> None:
    """Of a huge line the beginning is kept, and what was left out is counted; the lines around it are whole."""
    size = LINE_BYTES_MAX + 3 * BLOCK_BYTES + 5
    log.write_bytes(b"before\n" + b"x" * size + b"\nafter\n")
    for count, expected in ((1, ["after"]), (3, ["before", "x" * LINE_BYTES_MAX, "after"])):
        with LogFile(log) as file:
            lines, found = file.last(count, anything)
            kept = list(lines)
        assert found == count
        assert [part.text.decode() for part in kept] == expected
        assert [part.cut_bytes for part in kept if part.cut_bytes] == [size - LINE_BYTES_MAX] * (count == 3)
    assert f"({size - 4_000:,} more)" in logs(tmp_path, "sales").out


@pytest.mark.parametrize("size", [1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES + 1])
@pytest.mark.parametrize("end", ["", "\n"])
def test_the_last_lines_are_found_across_blocks(log: Path, size: int, end: str) -> None:
    """Wherever blocks end, the last lines are those that were written last."""
    written = ["a" * size, "b", "c" * size]
    log.write_text("\n".join(written) + end)
    for count in range(4):
        with LogFile(log) as file:
            lines, found = file.last(count, anything)
            kept = [part.text.decode() for part in (*lines, *(file.rest(anything) if count else ()))]
        assert found == min(count, 3)
        assert [text for text in kept if text] == written[3 - found :]


def test_a_log_that_is_rotated_and_emptied_is_followed(log: Path) -> None:
    """All that is added is read: under a new file of that name, in the former one, and after the file was emptied."""
    log.write_text("one\n")

    def added(text: str, path: Path = log) -> list[bytes]:
        with path.open("a") as file:
            file.write(text)
        return [part.text for part in follower.added(anything)]

    with LogFile(log) as follower:
        assert [part.text for part in follower.last(10, anything)[0]] == [b"one"]
        assert added("two\nth") == [b"two"]
        assert added("ree\n") == [b"three"]
        former = log.with_suffix(".log.1")
        log.replace(former)
        assert added("late\n", former) == [b"late"]
        assert added("four\n") == [b"four"]
        assert added("later\n", former) == [b"later"]
        log.write_text("")
        assert [*follower.added(anything)] == []
        assert added("five\n") == [b"five"]
        log.unlink()
        log.mkdir()
        assert [*follower.added(anything)] == []


def test_follow_prints_at_once_and_ends_with_ctrl_c(tmp_path: Path, log: Path) -> None:
    """--follow prints lines as they are added, across a rotation; Ctrl-C ends it without a traceback, as 130."""
    log.write_text(line("one") + "\n")
    command = [sys.executable, "-m", "teatree.cli.main", "logs", "sales", "--follow", "--data", str(tmp_path), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ))
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["event"] == "one"
    log.replace(log.with_suffix(".log.1"))
    log.write_text(line("two") + "\n")
    assert json.loads(process.stdout.readline())["event"] == "two"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_what_has_no_log_is_refused_with_what_there_is(tmp_path: Path, log: Path) -> None:
    """An unknown model, a bad name, a folder or pipe in place of the log, and a data folder that does not exist."""
    log.write_text("x\n")
    (tmp_path / "\x1b[31m").mkdir()
    (tmp_path / "\x1b[31m" / "manager.log").write_text("x")
    unknown = logs(tmp_path, "other")
    assert unknown.code == 3
    assert "There is no log of other" in unknown.err
    assert unknown.err.endswith("There are those of: sales.\n")
    for name in ("Sales", "../sales", "a\x1b[31m", "sales/"):
        refused = logs(tmp_path, name)
        assert (refused.code, "bad_name" in refused.err, "\x1b" in refused.err) == (3, True, False), name
    log.unlink()
    os.mkfifo(log)
    assert logs(tmp_path, "sales").code == 3
    for folder, code in ((tmp_path / "no\x1bne", 2), (tmp_path / "file", 2)):
        (tmp_path / "file").touch()
        failed = logs(folder, "sales")
        assert failed.code == code
        assert "\x1b" not in failed.err
    assert logs(tmp_path, "sales", "--lines", "-1").code == 2
