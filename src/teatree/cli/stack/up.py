"""`teatree up`."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from attrs import evolve
from cyclopts import Parameter

from teatree.cli.exits import Exit
from teatree.cli.options import DEFAULT, Common
from teatree.cli.output import Output
from teatree.contracts.environment import ENV_FILE, process_environ, read_settings
from teatree.contracts.settings import NatsSettings, PostgresSettings, Settings, StoreSettings

if TYPE_CHECKING:
    from teatree.embedded.stack import Step

RELOAD = "TEATREE_MANAGER_APP_RELOAD"
_STYLES = {"starting": "dim", "ready": "green", "died": "yellow", "failed": "red", "stopped": "dim"}


def up(
    *,
    s3: Annotated[bool, Parameter(negative="")] = False,
    nats: str | None = None,
    postgres: str | None = None,
    store: str | None = None,
    reload: Annotated[bool, Parameter(negative="")] = False,
    common: Common = DEFAULT,
) -> int:
    """Start everything on this machine; one Ctrl-C stops it.

    NATS, PostgreSQL, the object store and the dispatcher, all in the folder of --data (./teatree-data if left out), on
    loopback only. External servers are given by address here or by environment variables (TEATREE_NATS_URL,
    TEATREE_POSTGRES_URL, TEATREE_STORE_URL), passwords by environment variables only. A Ctrl-C ends it with 130,
    SIGTERM with 0.

    Example: teatree up --data ~/teatree --s3

    Parameters
    ----------
    s3
        Start a real S3 server for the object store, instead of a local folder.
    nats
        An external NATS, as nats://host:4222.
    postgres
        An external PostgreSQL, as postgresql://user@host/database.
    store
        An external object store, as s3://bucket/prefix or file:///folder.
    reload
        For development: a model's manager begins anew when the code of its app changes, whatever its version.
    """
    from teatree.embedded.stack import Stack, StackOptions  # noqa: PLC0415 - the servers' wheels, only here

    environ = process_environ()
    given = read_settings({k: v for k, v in environ.items() if k != "TEATREE_DATA"}, Path("/nonexistent"))
    data = common.data or Path(environ.get("TEATREE_DATA", "teatree-data"))
    output = Output(json=common.json)
    options = StackOptions(
        data=data,
        s3=s3,
        nats=_nats(nats or environ.get("TEATREE_NATS_URL"), given.nats),
        postgres=_postgres(postgres or environ.get("TEATREE_POSTGRES_URL"), given.postgres),
        store=_store(store or environ.get("TEATREE_STORE_URL"), given.store),
        prefix=given.nats.prefix,
        environ={**environ, **({RELOAD: "1"} if reload else {})},
    )
    ended_by = Stack(options, lambda step: _print_step(output, step)).run(
        lambda settings: _ready(output, settings, data)
    )
    return Exit.INTERRUPTED if ended_by == signal.SIGINT else Exit.OK


def _nats(url: str | None, given: NatsSettings) -> NatsSettings | None:
    return None if url is None else evolve(given, url=url)


def _postgres(url: str | None, given: PostgresSettings) -> PostgresSettings | None:
    return None if url is None else evolve(given, url=url)


def _store(url: str | None, given: StoreSettings) -> StoreSettings | None:
    return None if url is None else evolve(given, url=url)


def _print_step(output: Output, step: Step) -> None:
    if output.json:
        output.line({"part": step.part, "state": step.state.value, "detail": step.detail})
        return
    if step.part == "stack":
        return
    line = f"{step.part:12} {step.state.value:9} {step.detail}".rstrip()
    output.err.print(line, style=_STYLES.get(step.state.value), soft_wrap=True)


def _ready(output: Output, settings: Settings, data: Path) -> None:
    from teatree.messaging.frames import show_url  # noqa: PLC0415

    if output.json:
        return
    folder = shlex.quote(str(data))
    output.message("")
    output.message(f"Teatree runs on {folder}. One Ctrl-C stops all of it.", "bold green")
    output.message(f"  NATS   {show_url(settings.nats.url)}")
    output.message(f"  store  {settings.store.url}")
    output.message(f"  access {shlex.quote(str(data / ENV_FILE))} (every command takes --data {folder})")
    output.message("")
    output.message("Next, in another terminal:")
    table = "sales(id BIGINT, site VARCHAR, amount DECIMAL(18,2), PRIMARY KEY (id))"
    row = '{"table": "sales", "rows": [{"id": 1, "site": "north", "amount": 9.50}]}'
    output.message(f"  teatree create sales --data {folder} --table '{table}'")
    output.message(f"  teatree send sales append --data {folder} '{row}'")
    output.message(f"  teatree query sales --data {folder} 'SELECT site, sum(amount) FROM sales GROUP BY site'")
