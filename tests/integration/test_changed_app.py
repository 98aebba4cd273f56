"""Code of an app that is exchanged while its model's manager runs: no direct call runs other code than the log's."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

from commands import run_command
from installed_apps import path_with, write_app
from processes import MODEL, Installation, table, until_async
from teatree.contracts.environment import connection_environ

SOURCE = """
from teatree import App, Read
app = App("greeter")

@app.query
def greeting(name: str) -> str:
    return "{word}, " + name
"""


async def ask(installation: Installation, function: str = "greeting", **arguments: Any) -> dict[str, Any]:
    """Return the reply to a direct call."""
    subject = installation.bus.subjects.query(MODEL, function)
    reply = await installation.bus.request(subject, json.dumps(arguments).encode(), timeout_ms=60_000)
    found: dict[str, Any] = json.loads(reply.body)
    return found


async def end_workers(installation: Installation) -> None:
    """End the read workers: the next call starts one, which imports the app anew."""
    for pid in (await ask(installation, "health"))["read_workers"]:
        os.kill(pid, signal.SIGKILL)

    async def have_ended() -> bool:
        return not (await ask(installation, "health"))["read_workers"]

    await until_async(have_ended)


async def test_a_new_version_makes_the_manager_leave_and_the_next_one_has_it(
    installation: Installation, tmp_path: Path
) -> None:
    """Until then the call is answered with what the client repeats, `unavailable`."""
    write_app(tmp_path / "apps", "greeter", SOURCE.format(word="Hello"), version="1")
    environ: dict[str, Any] = dict(path_with(tmp_path / "apps"))
    manager = await installation.created({**table("id"), "app": "greeter"}, **environ)
    assert (await ask(installation, name="Ada"))["result"] == "Hello, Ada"
    write_app(tmp_path / "apps", "greeter", SOURCE.format(word="Welcome"), version="2")
    assert (await ask(installation, name="Ada"))["result"] == "Hello, Ada"  # its worker has imported it
    await end_workers(installation)
    assert (await ask(installation, name="Ada"))["error"]["code"] == "unavailable"
    assert await manager.exit_code() == 0
    installation.manager(**environ)
    assert (await installation.send("greeting", {"name": "Ada"}, "a"))["result"] == "Welcome, Ada"
    assert (await ask(installation, name="Ada"))["result"] == "Welcome, Ada"


async def test_other_code_under_the_same_version_is_not_run(installation: Installation, tmp_path: Path) -> None:
    """The manager stays, until `use_app`: through the log requests meet the code that it has loaded."""
    write_app(tmp_path / "apps", "greeter", SOURCE.format(word="Hello"))
    environ: dict[str, Any] = dict(path_with(tmp_path / "apps"))
    manager = await installation.created({**table("id"), "app": "greeter"}, **environ)
    write_app(tmp_path / "apps", "greeter", SOURCE.format(word="Welcome"))
    error = (await ask(installation, name="Ada"))["error"]
    assert (error["code"], "was changed after" in error["message"]) == ("unavailable", True)
    assert (await installation.send("greeting", {"name": "Ada"}, "a"))["result"] == "Hello, Ada"
    assert (await ask(installation, "query", sql="SELECT 1 AS n"))["rows"] == [{"n": 1}]
    assert manager.code is None
    used = await asyncio.to_thread(
        run_command, connection_environ(installation.settings), "use-app", MODEL, "greeter", "--json"
    )
    assert used.json["result"] == {"app": "greeter"}, used.err
    assert await manager.exit_code() == 0


async def test_while_it_is_developed_a_manager_leaves_when_the_code_changes(
    installation: Installation, tmp_path: Path
) -> None:
    """Under the same version too; code that cannot be imported is an error of its calls until it is repaired."""
    write_app(tmp_path / "apps", "greeter", SOURCE.format(word="Hello"))
    environ: dict[str, Any] = {**path_with(tmp_path / "apps"), "TEATREE_MANAGER_APP_RELOAD": "1"}
    manager = await installation.created({**table("id"), "app": "greeter"}, **environ)
    for source, expected in (("def", "SyntaxError"), (SOURCE.format(word="Welcome"), "Welcome, Ada")):
        write_app(tmp_path / "apps", "greeter", source)
        assert await manager.exit_code() == 0
        manager = installation.manager(**environ)
        assert expected in json.dumps(await installation.send("greeting", {"name": "Ada"}, expected[:7]))
