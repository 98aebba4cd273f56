"""Functions of apps called from outside: directly, in read workers, and through the log; none harms its model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
import pytest_asyncio

from commands import run_command
from installed_apps import APPS, path_with
from processes import MODEL, Installation, ManagerServer, until
from servers import TestServers
from teatree import Dataset, connect, connect_sync
from teatree.client.model import Model
from teatree.contracts.environment import connection_environ
from teatree.contracts.errors import AppError, Code, RequestError, TeatreeError
from teatree.contracts.process import process_id
from teatree.contracts.settings import Settings, StoreSettings
from teatree.storage.model_folder import read_function_names

pytestmark = pytest.mark.asyncio(loop_scope="module")
TABLES = [{"table": "t", "columns": [{"name": "id", "type": "BIGINT"}, {"name": "amount", "type": "DECIMAL(18,2)"}]}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(
    servers: TestServers, manager_server: ManagerServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Installation]:
    """Return an installation whose model has the app `calls_app` and three rows."""
    folder = tmp_path_factory.mktemp("calls")
    settings = Settings(
        nats=servers.fresh_nats(), store=StoreSettings(url=f"file://{folder}/store"), data=folder / "data"
    )
    made = await Installation.make(settings, manager_server, folder)
    environ: dict[str, Any] = {
        **path_with(APPS),
        "TEATREE_READS_KILL_MARGIN_MS": "200",
        "TEATREE_READS_STATEMENT_KILLS_MAX": "1000",
    }
    await made.created({"app": "calls_app", "tables": TABLES}, TEATREE_READS_CLIENT_KILLS_MAX="1000", **environ)
    yield made
    await made.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model(place: Installation) -> AsyncIterator[Model]:
    """Return the model in an open session, three rows in its table."""
    async with connect(settings=place.settings) as session:
        found = session.model(MODEL)
        for number in (1, 2, 3):
            assert await found.call("add", id=number, amount=Decimal(number) / 4) == 1
        yield found


async def test_rows_come_whole_directly_and_through_the_log(model: Model) -> None:
    """As a Dataset with the columns' types, whatever the page; both ways give the same."""
    expected = [{"id": number, "amount": Decimal(number) / 4} for number in (1, 2, 3)]
    for more in ({}, {"format": "json"}, {"page_size": 1}, {"format": "json", "page_size": 1}):
        for direct in (True, False):
            found = await model.call("listed", direct=direct, **more)
            assert isinstance(found, Dataset)
            assert found.rows() == expected
    assert len(await model.call("listed", direct=True, above=Decimal("0.3"), at_most=1)) == 1
    assert (await model.call("listed", direct=True, at_most=0)).schema.names == ("id", "amount")


async def test_pages_on_the_wire_are_those_of_the_function(place: Installation) -> None:
    """Without `page_size` in the request they have the rows that the function names."""
    reply = await place.bus.request(place.bus.subjects.query(MODEL, "listed"), b"{}", timeout_ms=60_000)
    assert (reply.headers["Teatree-Pages"], reply.headers["Teatree-Rows"]) == ("2", "3")
    assert orjson.loads(reply.body)["rows"] == [{"id": 1, "amount": 0.25}, {"id": 2, "amount": 0.5}]


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "log"])
async def test_other_results_are_json(model: Model, *, direct: bool) -> None:
    """Of queries, asynchronous ones and pure functions; rows can be an argument."""
    assert await model.call("totals", direct=direct) == {"rows": 3, "amount": "1.50"}
    assert await model.call("in_turn", direct=direct, times=2) == 6
    assert await model.call("doubled", direct=direct, amount=Decimal("0.10")) == "0.20"
    assert await model.call("counted", direct=direct, lines=pl.DataFrame({"a": [1, 2]}), times=3) == 6
    assert await model.call("counted", direct=direct, lines=[{"a": 1}]) == 1
    assert await model.call("counted", {"lines": [], "times": 0}, direct=direct) == 0


async def test_a_direct_call_has_its_requests_id_and_seed(model: Model) -> None:
    """The same id draws the same numbers."""
    first = await model.call("drawn", direct=True, request_id="one")
    assert first == await model.call("drawn", direct=True, request_id="one")
    assert first[1:] == ["one", MODEL, "drawn"]
    assert first[0] != (await model.call("drawn", direct=True, request_id="two"))[0]


async def test_a_direct_call_sees_what_its_session_has_sent(model: Model, place: Installation) -> None:
    """And waits for `min_version`; one that does not come in time is an error."""
    version = (await model.send("add", {"id": 10, "amount": "1"})).version
    assert (await model.call("totals", direct=True))["rows"] == 4
    assert (await model.call("totals", direct=True, min_version=version))["rows"] == 4
    assert (await model.delete("t", {"id": 10})).is_done
    body = b'{"min_version": 1000000, "wait_ms": 1}'
    reply = await place.bus.request(place.bus.subjects.query(MODEL, "totals"), body, timeout_ms=60_000)
    assert orjson.loads(reply.body)["error"]["code"] == "timed_out"


async def test_functions_are_listed_with_the_schema_of_their_requests(model: Model) -> None:
    """As the manager has loaded them."""
    app = await model.functions()
    assert (app.name, app.version) == ("calls_app", "1.0")
    assert app["listed"].labels == {"task": "report"}
    assert app["listed"].schema["properties"]["at_most"] == {"type": "integer", "default": 1000}
    assert (app["add"].kind, app["listed"].handle, app["doubled"].handle) == ("mutation", "read", "none")
    assert app["add"].parameters[0]["doc"] == "Its id."


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "log"])
@pytest.mark.parametrize(
    ("function", "arguments", "code", "where"),
    [
        ("listed", {"at_most": "many"}, Code.TYPE_MISMATCH, "at_most"),
        ("listed", {"at_most": 1.5}, Code.LOSSY_NUMBER, "at_most"),
        ("listed", {"most": 1}, Code.UNKNOWN_ARGUMENT, "most"),
        ("listed", {"page_size": 0}, Code.OUT_OF_RANGE, "page_size"),
        ("listed", {"format": "csv"}, Code.BAD_ARGUMENT, "format"),
        ("counted", {"line": pl.DataFrame({"a": [1]})}, Code.UNKNOWN_ARGUMENT, "line"),
        ("totals", {"lines": pl.DataFrame({"a": [1]})}, Code.BAD_CONTENT_TYPE, "Content-Type"),
        ("nothing", {}, Code.UNKNOWN_FUNCTION, "function"),
        ("raises", {"text": "so"}, Code.APP_ERROR, "function"),
        ("refuses", {}, Code.REFUSED, "day"),
        ("exits", {"code": 0}, Code.APP_ERROR, "function"),
        ("recurses", {}, Code.APP_ERROR, "function"),
        ("writes", {"statement": "DELETE FROM t"}, Code.SQL_NOT_ALLOWED, None),
        ("writes", {"statement": "COMMIT"}, Code.SQL_NOT_ALLOWED, None),
        ("writes", {"statement": "SELECT * FROM read_csv('/etc/passwd')"}, Code.SQL_NOT_ALLOWED, None),
        ("writes", {"statement": "SELECT nothing FROM t"}, Code.BAD_SQL, None),
        ("returns_what_has_no_form", {}, Code.BAD_RESULT, "result.a[0]"),
        ("reads_input", {}, Code.APP_ERROR, "function"),
    ],
)
async def test_what_is_wrong_is_a_clear_error(
    model: Model, function: str, arguments: dict[str, Any], code: Code, where: str | None, *, direct: bool
) -> None:
    """The same directly and through the log; the next call is answered."""
    with pytest.raises(TeatreeError) as e:
        await model.call(function, arguments, direct=direct)
    assert e.value.code is code, e.value
    assert where is None or e.value.where == where
    assert await model.call("doubled", direct=True, amount=1) == "2"


async def test_an_error_of_a_function_has_its_traceback(model: Model) -> None:
    """The frames of the user's code alone."""
    with pytest.raises(AppError, match="ValueError: so") as e:
        await model.call("raises", direct=True, text="so")
    assert e.value.traceback is not None
    assert "raise ValueError(text)" in e.value.traceback
    assert "teatree_manager" not in e.value.traceback


async def test_a_mutation_cannot_be_called_directly(model: Model) -> None:
    """The error names the way that works, and nothing is changed."""
    for function in ("add", "append", "drop_model"):
        with pytest.raises(RequestError, match="applied in the order of the log") as e:
            await model.call(function, direct=True)
        assert e.value.code is Code.UNKNOWN_FUNCTION
    for options in ({"direct": True, "expected_version": 1}, {"min_version": 1}):
        with pytest.raises(RequestError) as e:
            await model.call("totals", **options)  # type: ignore[arg-type]
        assert e.value.code is Code.USAGE


async def test_another_model_is_read_through_the_log_only(model: Model) -> None:
    """A worker has no access to the store; the error names the other way."""
    with pytest.raises(RequestError, match="through the log") as e:
        await model.call("reads_another", direct=True, model="other")
    assert e.value.code is Code.USAGE


@pytest.mark.parametrize("function", ["sleeps", "spins", "long_statement", "leaves_processes"])
async def test_a_function_that_does_not_end_ends_its_worker_only(
    model: Model, place: Installation, function: str
) -> None:
    """The error names the line where it was; processes that it started end with it; others are answered meanwhile."""
    manager = place.manager_pid()
    hung = asyncio.create_task(model.call(function, direct=True))
    assert await model.call("doubled", direct=True, amount=2) == "4"
    with pytest.raises(TeatreeError) as e:
        await hung
    assert e.value.code is Code.TIMED_OUT
    assert "calls_app/__init__.py:" in str(e.value)
    await until(lambda: not _sleepers())
    assert place.manager_pid() == manager


def _sleepers() -> list[int]:
    """Return the processes that `leaves_processes` started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", b"601"] and process_id(int(path.parent.name)) is not None:
            found.append(int(path.parent.name))
    return found


async def test_a_function_that_ends_its_process_or_takes_too_much_fails_alone(model: Model) -> None:
    """Each is one error; the next call has another worker."""
    with pytest.raises(TeatreeError, match="exit code 7"):
        await model.call("ends", direct=True, code=7)
    with pytest.raises(TeatreeError, match="exit code"):
        await model.call("closes_everything", direct=True)
    for _ in range(3):
        assert await model.call("forks", direct=True) is True
    with pytest.raises(TeatreeError) as e:
        await model.call("takes_memory", direct=True, megabytes=4_000)
    assert e.value.code is Code.OVER_LIMIT
    assert await model.call("hoards", direct=True, megabytes=1) == 1
    with pytest.raises(TeatreeError) as e:
        await model.call("hoards", direct=True, megabytes=4_000)
    assert e.value.code is Code.OVER_LIMIT
    assert await model.call("hoards", direct=True, megabytes=1) == 1
    with pytest.raises(TeatreeError) as e:
        await model.call("returns_much", direct=True, chars=5_000_000)
    assert e.value.code is Code.RESULT_TOO_LARGE
    assert await model.call("doubled", direct=True, amount=1) == "2"


async def test_a_handle_ends_with_its_call(model: Model) -> None:
    """A thread cannot use it, nor can the next call that kept it."""
    assert "another thread" in await model.call("leaves_a_thread", direct=True)
    assert await model.call("keeps", direct=True) == 1
    with pytest.raises(RequestError, match="had ended"):
        await model.call("keeps", direct=True)


async def test_what_functions_print_and_log_is_in_the_managers_log(model: Model, place: Installation) -> None:
    """It is no part of an answer; a line of their logger names the request."""
    await model.call("prints", direct=True, text="printed in a worker")
    await model.call("logs", direct=True, text="logged in a worker", request_id="logging")
    (log,) = place.folder.glob("manager-*.log")
    await until(lambda: "printed in a worker" in log.read_text() and "logged in a worker" in log.read_text())
    (line,) = [json.loads(line) for line in log.read_text().splitlines() if "logged in" in line]
    assert (line["event"], line["request_id"], line["function"]) == ("logged in a worker", "logging", "logs")
    assert (line["model"], line["level"]) == (MODEL, "info")
    assert "amount" in line


async def test_it_works_without_async(model: Model, place: Installation) -> None:
    """The same calls, with the same arguments."""
    version = (await model.call_for_reply("totals", {})).version  # another session knows nothing of what this one sent

    def work() -> list[Any]:
        with connect_sync(settings=place.settings) as session:
            found = session.model(model.name)
            listed = found.call("listed", direct=True, min_version=version)
            return [found.call("doubled", amount=Decimal("0.5")), len(listed), found.functions().name]

    assert await asyncio.to_thread(work) == ["1.0", 3, "calls_app"]


async def test_an_imported_app_has_typed_stubs(
    model: Model, place: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take and return what the functions' hints name, with and without async."""
    monkeypatch.syspath_prepend(APPS)
    calls_app = import_module("calls_app")
    for direct in (True, False):
        bound = model.bind(calls_app.app, direct=direct)
        assert await bound.totals() == calls_app.Totals(3, Decimal("1.50"))
        assert await bound.doubled(amount=Decimal("0.10")) == Decimal("0.20")
        assert len(await bound.listed(at_most=2)) == 2
        assert await bound.counted(lines=await bound.listed()) == 3
    assert list(signature(bound.add).parameters) == ["id", "amount"]

    def work() -> Any:
        with connect_sync(settings=place.settings) as session:
            return session.model(MODEL).bind(calls_app.app, direct=True).totals()

    assert (await asyncio.to_thread(work)).rows == 3


async def test_the_command_line_lists_calls_and_explains(model: Model, place: Installation) -> None:
    """Arguments are pairs or JSON; rows have the formats of `query`."""
    environ = connection_environ(place.settings)

    def command(*arguments: str) -> str:
        found = run_command(environ, *arguments)
        assert found.code == 0, found.err
        return found.out

    def work() -> None:
        assert "calls_app" in command("functions", MODEL, "--json")
        assert command("functions", MODEL, "--label", "task=report").count("listed(") == 1
        schema = json.loads(command("functions", MODEL, "--schema"))["requests"]["listed"]
        assert schema["properties"]["above"]
        explained = command("send", MODEL, "add", "--help")
        assert "--amount" in explained
        assert "Its id." in explained
        assert command("call", MODEL, "listed", "--at-most", "1", "--format", "csv").splitlines() == [
            "id,amount",
            "1,0.25",
        ]
        assert command("call", MODEL, "doubled", '{"amount": 2}').strip() == '"4"'
        assert json.loads(command("call", MODEL, "totals", "--through-log", "--json"))["result"]["rows"] == 3
        assert json.loads(command("send", MODEL, "doubled", "--amount", "0.25", "--json"))["result"] == "0.50"
        found = run_command(environ, "call", MODEL, "add", "--id", "1", "--amount", "1")
        assert (found.code, "unknown_function" in found.err) == (3, True)
        names = place.local().function_names.read_text().split()
        assert {"add", "listed"} <= set(names) == set(read_function_names(place.local()))
        found = run_command(environ, "functions", MODEL, "nothing")
        assert (found.code, "There are: add, " in found.err) == (3, True)

    await asyncio.to_thread(work)
