"""The command line against a stack that it started itself, as a user would use it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from commands import CommandResult
from teatree.cli.main import run
from teatree.contracts.environment import read_settings, user_name
from teatree.contracts.names import sender_name
from teatree.contracts.process import read_process
from teatree.embedded.managers import find_managers
from teatree.messaging.bus import Bus
from teatree.messaging.log import LogReader

TABLE = "sales(id BIGINT, site VARCHAR DEFAULT 'none', amount DECIMAL(18,2), PRIMARY KEY (id))"
COMMAND = (sys.executable, "-m", "teatree.cli.main")


def environment() -> dict[str, str]:
    """Return the environment without addresses of other stacks."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TEATREE_")}


Run = Callable[..., CommandResult]


def wait_until_listed(here: Run, name: str, version: int = 1) -> None:
    """Wait until PostgreSQL lists a model at a version: it follows the versions, and `done` does not wait for it."""
    deadline_s = time.monotonic() + 30
    while not any(m["name"] == name and m["version"] >= version for m in here("models", "--json").json):
        assert time.monotonic() < deadline_s


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder of a running stack; a Ctrl-C at the end removes all that the stack added.

    Its path is as odd as paths may be, its mode must not be changed, and it holds settings that the user wrote.
    """
    folder = tmp_path_factory.mktemp("up") / 'it\'s a "f☃lder", 50%25 #1 [x]*'
    folder.mkdir(mode=0o755)
    mine = "# mine\nTEATREE_MANAGER_IDLE_EXIT_MS=240000\n"
    (folder / "teatree.env").write_text(mine)
    up = subprocess.Popen([*COMMAND, "up", "--data", str(folder), "--json"], stdout=subprocess.PIPE, env=environment())
    assert up.stdout is not None
    for line in up.stdout:
        if json.loads(line)["part"] == "stack":
            break
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "teatree.env").stat().st_mode) == 0o600
    assert (folder / "teatree.env").read_text().startswith(mine)
    yield folder
    managers = find_managers(folder)
    up.send_signal(signal.SIGINT)
    rest, _ = up.communicate(timeout=60)
    assert up.returncode == 130
    assert {json.loads(line)["state"] for line in rest.splitlines()} == {"stopped"}
    assert managers
    assert not find_managers(folder)
    assert (folder / "teatree.env").read_text() == mine
    stopped = subprocess.run([*COMMAND, "models", "--data", str(folder)], capture_output=True, check=False)
    assert stopped.returncode == 4


@pytest.fixture
def teatree(data: Path) -> Run:
    """Return a function that runs a command on the stack."""

    def run(*arguments: str, stdin: str | None = None) -> CommandResult:
        done = subprocess.run(
            [*COMMAND, *arguments, "--data", str(data)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            env=environment(),
        )
        return CommandResult(done.returncode, done.stdout, done.stderr)

    return run


def test_a_model_from_its_creation_to_a_file_on_this_disk(teatree: Run, here: Run, tmp_path: Path) -> None:
    """create, send, query, models, versions, pull and drop, each with its result."""
    assert teatree("create", "sales", "--table", TABLE).code == 0
    row = {"id": 1, "site": "north", "amount": 9.50}
    sent = teatree("send", "sales", "append", json.dumps({"table": "sales", "rows": [row]}), "--json").json
    assert sent["result"] == {"rows": 1}
    found = teatree("query", "sales", "SELECT * FROM sales", "--json", "--min-version", str(sent["version"])).json
    assert found["rows"] == [{"id": 1, "site": "north", "amount": 9.5}]
    assert found["version"] >= sent["version"]
    wait_until_listed(here, "sales", sent["version"])
    assert [m["name"] for m in here("models", "--json").json if m["state"] == "active"] == ["sales"]
    assert here("versions", "sales", "--json", "--limit", "1").lines[0]["tables"] == {"sales": 1}
    path = tmp_path / "sales.duckdb"
    assert teatree("pull", "sales", str(path)).code == 0
    with duckdb.connect(str(path), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM sales").fetchall() == [(1,)]
    refused = teatree("drop", "sales", stdin="")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert here("drop", "sales", "--yes").code == 0
    assert here("query", "sales", "SELECT 1", "--timeout-ms", "500").code in {3, 4}


@pytest.fixture
def here(data: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command in this process, in a tenth of the time of a new process."""

    def run_here(*arguments: str) -> CommandResult:
        code = run([*arguments, "--data", str(data)])
        return CommandResult(code, *capfd.readouterr())

    return run_here


def test_a_sender_of_the_command_line(here: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are from the user, from TEATREE_SENDER, or from --sender, which comes first."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": 3}\n')
    append = ("send", "senders", "append", '{"table": "sales", "rows": []}')
    here("create", "senders", "--table", TABLE, "--sender", "nightly")
    here(*append)
    monkeypatch.setenv("TEATREE_SENDER", "team")
    here(*append)
    here(*append, "--sender", "anna")
    here("send", "senders", "append", '{"table": "sales"}', "--rows", str(rows), "--sender", "bob")
    wrong = here(*append, "--sender", "Not.This")
    assert (wrong.code, "is not a sender name" in wrong.err) == (3, True)

    async def senders() -> list[str]:
        bus = await Bus.connect(read_settings({}, data).nats, name="test")
        log = await LogReader(bus, "senders").read(0, requests_max=99, bytes_max=10**6)
        await bus.close()
        return [request.sender for request in log.requests]

    assert asyncio.run(senders()) == ["nightly", sender_name(user_name()), "team", "anna", "bob"]


def test_printed_nouns_agree_in_number(here: Run, tmp_path: Path) -> None:
    """One row, two rows; a request that was refused is not printed as done."""
    two_rows, bad_row = tmp_path / "two.jsonl", tmp_path / "bad.jsonl"
    two_rows.write_text('{"id": 2}\n{"id": 3}\n')
    bad_row.write_text('{"id": "no"}\n')
    here("create", "words", "--table", TABLE)
    one = here("send", "words", "append", '{"table": "sales", "rows": [{"id": 1}]}')
    assert re.fullmatch(r"done  append: 1 row, version \d+ of words\n", one.out)
    two = here("send", "words", "append", '{"table": "sales"}', "--rows", str(two_rows))
    assert re.fullmatch(r"done  1 request with 2 rows, version \d+ of words\n", two.out)
    no = here("send", "words", "append", '{"table": "sales"}', "--rows", str(bad_row))
    assert re.fullmatch(r"refused  1 of 1 request; done: 0, version \d+ of words\n", no.out)
    assert here("query", "words", "SELECT 1 AS n").err.startswith("1 row, version ")


def test_a_dropped_model_is_restored_as_the_message_advises(here: Run) -> None:
    """`restore` of a dropped model asks to create it first; after that it works."""
    here("create", "undone", "--table", TABLE)
    version = here("send", "undone", "append", '{"table": "sales", "rows": [{"id": 1}]}', "--json").json["version"]
    here("drop", "undone", "--yes")
    refused = here("restore", f"undone@{version}")
    assert refused.code == 3
    assert f"`teatree create undone`, then restore undone@{version}" in refused.err
    assert here("create", "undone").code == 0
    again = here("restore", f"undone@{version}", "--json").json["version"]
    asked = here("query", "undone", "SELECT count(*) AS n FROM sales", "--json", "--min-version", str(again))
    assert asked.json["rows"] == [{"n": 1}]
    assert here("watch", "neverthere").code == 3


def test_a_local_file_is_loaded(here: Run, tmp_path: Path) -> None:
    """CSV and Parquet, appended, in place of all rows, and as a new table; no source has to be allowed."""
    assert here("create", "files", "--table", TABLE).code == 0
    german = tmp_path / "german.csv"
    rows = "".join(f"{i};Köln {i};{i},50\r\n" for i in range(45_000))
    german.write_bytes(f"ID;site;amount\r\n{rows}".encode("cp1252"))
    flags = ("--delimiter", ";", "--decimal", ",", "--encoding", "cp1252")
    refused = here("load", "files", "sales", str(german))
    assert (refused.code, "--delimiter" in refused.err or "delimiter ';'" in refused.err) == (3, True)
    loaded = here("load", "files", "sales", str(german), *flags, "--id", "jan", "--json").json
    assert (loaded["rows"], loaded["requests"]) == (45_000, 3)
    again = here("load", "files", "sales", str(german), *flags, "--id", "jan")
    assert again.code == 0, again.err
    bad = tmp_path / "bad.csv"
    bad.write_text("id,amount\n" + "".join(f"{i},1\n" for i in range(50_000, 90_000)) + "90000,x\n")
    refused = here("load", "files", "sales", str(bad))
    assert (refused.code, "line 40002, column amount: 'x'" in refused.err) == (3, True)
    totals = "SELECT count(*) AS n, sum(amount)::VARCHAR AS a, max(site) AS s FROM sales"
    found = here("query", "files", totals, "--json").json["rows"]
    assert found == [{"n": 45_000, "a": f"{sum(range(45_000)) + 22_500}.00", "s": "Köln 9999"}]
    parquet = tmp_path / "new.parquet"
    with duckdb.connect() as con:
        con.execute(f"COPY (SELECT range AS id, 1.25::DECIMAL(9,2) AS amount FROM range(30000)) TO '{parquet}'")
    assert here("load", "files", "made", str(parquet), "--mode", "create").code == 0
    assert here("load", "files", "sales", str(parquet), "--mode", "replace").code == 0
    repeated = here("load", "files", "sales", str(parquet))
    assert (repeated.code, "2 of 2 requests were refused; none of the rows was loaded." in repeated.err) == (3, True)
    both = "SELECT (SELECT count(*) FROM sales) AS a, (SELECT sum(id) FROM made) AS b"
    assert here("query", "files", both, "--json").json["rows"] == [{"a": 30_000, "b": 449_985_000}]
    one = tmp_path / "one.csv"
    one.write_text("id,amount\n7,8.5\n")
    upserted = here("send", "files", "upsert", '{"table": "sales"}', "--rows", str(one), "--json")
    assert upserted.json["applied"] == 1
    assert here("load", "files", "sales", "nowhere.csv").code == 2
    assert "unknown_model" in here("load", "nomodel", "sales", str(one)).err
    assert "There is no table 'none' in files. `teatree" in here("load", "files", "none", str(one)).err
    assert "was sent as one request, which was refused" in here("load", "files", "sales", str(one)).err
    one.write_text("id,amount\n70000,8.5\n")
    sent = here("load", "files", "sales", str(one))
    assert (sent.code, f"done  1 row of {one} is in version" in sent.out) == (0, True)
    assert here("create", "typo", "--table", "t(id BIGINTT)").code == 3
    assert "typo" not in here("models").out
    assert "source_not_allowed" in here("load", "files", "sales", one.as_uri()).err


def test_rows_in_bulk_from_a_pipe(teatree: Run, here: Run, tmp_path: Path) -> None:
    """JSON lines on standard input become requests; the same id prefix again changes nothing."""
    here("create", "bulk", "--table", TABLE)
    rows = "".join(f'{{"id": {n}, "amount": 0.10}}\n' for n in range(5_000))
    file = tmp_path / "rows.jsonl"
    file.write_text(rows)
    how = ("send", "bulk", "append", '{"table": "sales"}', "--rows-per-request", "100", "--id", "x", "--json")
    first = teatree(*how, "--rows", "-", stdin=rows).json
    again = here(*how, "--rows", str(file)).json
    assert (first["sent"], first["applied"], first["already"]) == (50, 50, 0)
    assert (again["applied"], again["already"]) == (0, 50)
    sql = "SELECT count(*) AS n, sum(amount) AS s FROM sales"
    found = here("query", "bulk", sql, "--format", "csv", "--min-version", str(first["version"]))
    assert found.out == "n,s\n5000,500.00\n"


def test_refusals_have_their_exit_codes(here: Run, tmp_path: Path) -> None:
    """A rejected request exits with 3, its code and place in one line; the refused ones of many are listed."""
    here("create", "wrong", "--table", TABLE)
    refused = here("send", "wrong", "append", '{"table": "sales", "rows": [{"id": 1.5}]}')
    assert refused.code == 3
    assert refused.err.startswith("error[lossy_number]:")
    assert "rows[0].id" in refused.err
    assert refused.err.count("\n") == 1
    assert refused.out == ""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": 1}\n{"id": "no"}\n{"id": 2}\n')
    how = ("send", "wrong", "append", '{"table": "sales"}', "--rows", str(rows), "--rows-per-request", "1", "--json")
    many = here(*how)
    assert many.code == 3
    assert (many.json["applied"], many.json["refused"]) == (2, 1)
    assert here("create", "wrong").code == 3
    assert here("query", "nomodel", "SELECT 1").code == 3
    assert here("pull", "nomodel", "/nonexistent/x").code == 3


def test_watching_ends_cleanly_with_ctrl_c(here: Run, data: Path) -> None:
    """`watch --json` prints each notice as it arrives; Ctrl-C exits with 130, without a traceback."""
    here("create", "watched", "--table", TABLE)
    command = [*COMMAND, "watch", "watched", "--all", "--json", "--data", str(data)]
    watch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    assert watch.stdout is not None
    assert json.loads(watch.stdout.readline())["function"] == "create_model"
    here("send", "watched", "append", '{"table": "sales", "rows": [{"id": 7}]}', "--id", "seven")
    while True:
        notice = json.loads(watch.stdout.readline())
        if notice["kind"] == "done" and notice["request_id"] == "seven":
            break
    watch.send_signal(signal.SIGINT)
    _, err = watch.communicate(timeout=20)
    assert watch.returncode == 130
    assert err == ""


def test_queries_through_the_log_see_earlier_requests(here: Run) -> None:
    """A query in the order of the log, in both formats of rows and with parameters."""
    here("create", "ordered", "--table", TABLE)
    for n in range(3):
        row = {"id": n, "amount": n}
        here("send", "ordered", "append", json.dumps({"table": "sales", "rows": [row]}), "--no-wait")
    sql = "SELECT id, amount FROM sales WHERE id >= ? ORDER BY id"
    found = here("query", "ordered", sql, "--param", "1", "--through-log", "--format", "jsonl")
    assert found.lines == [{"id": 1, "amount": 1}, {"id": 2, "amount": 2}]
    sql = "SELECT count(*) AS n FROM sales WHERE id < $top"
    found = here("query", "ordered", sql, "--param", "top=2", "--through-log", "--format", "csv")
    assert found.out == "n\n2\n"


def test_the_catalog_is_rebuilt(here: Run) -> None:
    """`catalog rebuild` reads the object store and counts what it wrote."""
    here("create", "rebuilt", "--table", TABLE)
    newest = here("versions", "rebuilt", "--json").lines[0]["version"]
    assert here("catalog", "rebuild", "--json").json["models"]["rebuilt"] >= newest
    wait_until_listed(here, "rebuilt", newest)


def test_history_diff_restore_and_fork(here: Run, tmp_path: Path) -> None:
    """`diff` prints what changed between two versions; `restore` brings back an earlier one; a fork is independent."""
    here("create", "plan", "--table", TABLE)
    for rows in ([{"id": 1, "amount": 1}, {"id": 2, "amount": 2}], [{"id": 3, "amount": 3}]):
        old = here("send", "plan", "append", json.dumps({"table": "sales", "rows": rows}), "--json").json["version"]
    change = {"statement": "UPDATE sales SET amount = amount + 10 WHERE id <= 2"}
    here("send", "plan", "sql", json.dumps(change))
    new = here("send", "plan", "delete", '{"table": "sales", "where": {"id": 3}}', "--json").json["version"]
    (changes,) = here("diff", "plan", str(old), str(new), "--rows", "1", "--json").json["tables"]
    assert (changes["rows_added"], changes["rows_removed"], changes["rows_changed"]) == (0, 1, 2)
    assert {row["change"] for row in changes["rows"]} == {"removed", "changed"}
    moments = here("diff", "plan", "2100-01-01", "2100-01-01T12:00Z", "--json").json
    assert (moments["before"], moments["after"], moments["tables"]) == (new, new, [])
    assert here("diff", "plan", "yesterday", str(new)).code == 3
    assert "1.00 → 11.00" in here("diff", "plan", str(old), str(new), "--rows", "1").out
    forked = here("fork", f"plan@{new}", "trial")
    assert (forked.code, forked.err) == (0, "")
    restored = here("restore", f"plan@{old}", "--json").json
    assert restored["result"] == {"version": old, "tables": ["sales"], "rows": 3, "dropped": []}
    assert "do not differ" in here("diff", "plan", str(old), str(restored["version"])).out
    for model, total in (("plan", "6.00"), ("trial", "23.00")):
        path = tmp_path / f"{model}.duckdb"
        assert here("pull", model, str(path)).code == 0
        with duckdb.connect(str(path), read_only=True) as con:
            assert str(con.execute("SELECT sum(amount) FROM sales").fetchall()[0][0]) == total
    found = here("query", "trial", "SELECT sum(amount) AS s FROM sales", "--json").json
    assert found["rows"] == [{"s": 23.0}]
    assert here("send", "trial", "append", '{"table": "sales", "rows": [{"id": 9}]}').code == 0
    for wrong in (("restore", "plan"), ("restore", "plan@x"), ("restore", "plan@1", "--at", "2026-01-01")):
        assert here(*wrong).code == 2
    assert here("restore", "plan@9999").code == 3
    assert here("fork", "plan", "trial").code == 3
    assert here("fork", "unknown", "trial2").code == 3


def test_status_shows_every_part_and_model(here: Run, teatree: Run, data: Path) -> None:
    """Latency and version of each part; each model's version, waiting requests and manager; a model without manager."""
    assert here("create", "observed", "--table", TABLE).code == 0
    sent = here("send", "observed", "append", '{"table": "sales", "rows": [{"id": 1}]}', "--json").json
    wait_until_listed(here, "observed", sent["version"])
    done = teatree("status", "--json")
    assert (done.code, done.err) == (0, "")
    parts = {part["name"]: part for part in done.json["parts"]}
    assert {part["state"] for part in parts.values()} == {"ready"}
    assert all(part["latency_ms"] > 0 and part["error"] is None for part in parts.values())
    assert all(parts[name]["version"] for name in ("nats", "dispatcher", "postgres"))
    assert "password" not in done.out
    model = {model["name"]: model for model in done.json["models"]}["observed"]
    assert (model["state"], model["waiting_requests"]) == ("active", 0)
    assert model["version"] >= sent["version"]
    manager = read_process(data / "observed" / "manager.json")
    assert manager is not None
    assert model["manager"]["pid"] == manager.pid
    assert model["manager"]["memory_bytes"] > 1_000_000
    os.kill(manager.pid, signal.SIGSTOP)  # it holds its subscription, and does not answer
    try:
        here("send", "observed", "append", '{"table": "sales", "rows": [{"id": 2}]}', "--no-wait")
        stopped = {model["name"]: model for model in here("status", "--json").json["models"]}["observed"]
    finally:
        os.kill(manager.pid, signal.SIGCONT)
    assert stopped["waiting_requests"] == 1
    assert stopped["manager"]["error"]["code"] == "timed_out"
    shown = here("status")
    assert re.search(r"\n nats +ready +[\d.]+ +\d", shown.out)
    assert re.search(r"\n observed +active", shown.out)


def test_status_names_the_part_that_is_missing(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part that does not answer is named, the others and the models are still shown, and the exit code is 4."""
    addresses = {
        "nats": ("TEATREE_NATS_URL", "nats://user:secret@127.0.0.1:1"),
        "postgres": ("TEATREE_POSTGRES_URL", "postgresql://user:secret@127.0.0.1:1/x"),
        "store": ("TEATREE_STORE_URL", "s3://bucket/x?endpoint=http://127.0.0.1:1&region=x"),
    }
    assert here("create", "still", "--table", TABLE).code == 0
    wait_until_listed(here, "still")
    for missing, (variable, value) in addresses.items():
        with monkeypatch.context() as patched:
            patched.setenv(variable, value)
            patched.setenv("TEATREE_STORE_ACCESS_KEY", "secret")
            patched.setenv("TEATREE_STORE_SECRET_KEY", "secret")
            done = here("status", "--json")
            assert done.code == 4, missing
            states = {part["name"]: part["state"] for part in done.json["parts"]}
            assert states[missing] in {"unavailable", "timed_out"}
            assert {name for name, state in states.items() if state != "ready"} - {"dispatcher"} == {missing}
            assert "still" in [model["name"] for model in done.json["models"]]
            text = here("status")
            assert text.code == 4
            assert "secret" not in done.out + done.err + text.out + text.err


def test_logs_of_a_running_stack(here: Run) -> None:
    """Managers, the dispatcher and the servers have logs, each with a level that is known."""
    assert here("create", "logged", "--table", TABLE).code == 0
    assert "took the model over" in here("logs", "logged").out
    started = here("logs", "dispatcher", "--json").lines
    assert {"level", "event", "timestamp"} <= set(started[0])
    for server in ("nats", "postgres"):
        assert here("logs", server).out
        assert here("logs", server, "--level", "critical").out == ""


def test_a_shell_uses_the_stack_with_nothing_of_ours_installed(here: Run, data: Path, tmp_path: Path) -> None:
    """README's lines: `. DIR/teatree.env`, then a plain NATS client publishes and a plain DuckDB reads."""
    assert here("create", "plain", "--table", TABLE).code == 0
    (tmp_path / "pub.py").write_text(
        "import asyncio, os, sys, nats\n"
        "async def main():\n"
        "    client = await nats.connect(os.environ['TEATREE_NATS_URL'], user=os.environ['TEATREE_NATS_USER'],\n"
        "        password=os.environ['TEATREE_NATS_PASSWORD'])\n"
        "    await client.publish(sys.argv[1], sys.argv[2].encode())\n"
        "    await client.drain()\n"
        "asyncio.run(main())\n"
    )
    script = (
        f"set -a; . {shlex.quote(str(data / 'teatree.env'))}; set +a\n"
        f"{sys.executable} {tmp_path / 'pub.py'} teatree.request.plain.append "
        """'{"table": "sales", "rows": [{"id": 2, "site": "Jena"}]}'\n"""
        'printf "%s" "$TEATREE_DATA"'
    )
    assert subprocess.check_output(["/bin/sh", "-euc", script], text=True, env=environment()) == str(data)
    current = data / "plain" / "current.duckdb"

    def count() -> int:
        with duckdb.connect(str(current), read_only=True) as con:
            return len(con.sql("FROM sales").fetchall())

    deadline_s = time.monotonic() + 30
    while not (current.exists() and count() == 1):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
