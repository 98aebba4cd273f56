"""`teatree query`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from teatree.cli.exits import usage
from teatree.cli.options import STORE_DEFAULT, ModelName, StoreCommon
from teatree.cli.output import Output
from teatree.cli.requests.json_args import read_value
from teatree.cli.requests.query_reply import Form, check_form, print_reply
from teatree.cli.running import store_session, with_session

if TYPE_CHECKING:
    from teatree.client.query import QueryReply
    from teatree.client.session import Session
    from teatree.datasets.dataset import Dataset

TIMEOUT_MS = 60_000


# More than fifty lines: its options and their help.
def query(
    model: ModelName,
    sql: str,
    /,
    *,
    format: Form = "table",
    param: Annotated[tuple[str, ...], Parameter(negative="", show_default=False, allow_leading_hyphen=True)] = (),
    min_version: int | None = None,
    version: int | None = None,
    at: str | None = None,
    through_log: Annotated[bool, Parameter(negative="")] = False,
    timeout_ms: int = TIMEOUT_MS,
    common: StoreCommon = STORE_DEFAULT,
) -> None:
    """Run a SELECT on the newest version, or on an older one.

    Direct reads never wait behind writes; the manager of an idle model is started first. With --version, --at or
    --store this process reads the version itself, from the object store alone.

    Example: teatree query sales 'SELECT site, sum(amount) FROM sales GROUP BY site' --format csv

    Parameters
    ----------
    model
        The model's name.
    sql
        One SELECT; ? and $name stand for parameters.
    format
        A table for people (its first rows), one JSON document (as --json), JSON lines, CSV, or an Arrow stream.
    param
        A parameter's value as JSON ('"north"', 42) for each ?, or name=value for $name; may be given several times.
    min_version
        Wait for this version first.
    version
        Read this version.
    at
        Read the newest version at a moment: 2026-01-31T14:00 in local time, or 2026-01-31T14:00:00Z.
    through_log
        Run the query in the order of the log: it sees every request sent before it.
    timeout_ms
        How long to wait for the rows.
    """
    output = Output(json=common.json or format != "table")
    check_form(format)
    parameters = read_parameters(param)
    if version is not None or at is not None or common.store is not None:
        if through_log or min_version is not None:
            raise usage(
                "--version, --at and --store cannot be combined with --through-log or --min-version.",
                "Leave out --through-log and --min-version.",
            )
        rows, found = _query_version(common, model, sql, parameters, version, at)
        print_reply(output, rows, found, format)
        return

    async def work(session: Session) -> QueryReply:
        from teatree.client.query import QueryRequest  # noqa: PLC0415

        form: Literal["json", "arrow"] = "json" if _is_json(output, format) else "arrow"
        query_request = QueryRequest(sql, parameters, form, min_version=min_version)
        return await session.model(model).ask(query_request, through_log=through_log, timeout_ms=timeout_ms)

    reply = with_session(common, work)
    print_reply(output, reply.dataset, reply.version, format)


def _query_version(
    common: StoreCommon,
    model: str,
    sql: str,
    parameters: list[Any] | dict[str, Any] | None,
    version: int | None,
    at: str | None,
) -> tuple[Dataset, int]:
    """Return the rows, and the version that they were read from in this process."""
    from teatree.client.versions.opened_version import OpenedVersion  # noqa: PLC0415 - DuckDB, only for this
    from teatree.contracts.formats.codec import dump_json, parse_json  # noqa: PLC0415

    session = store_session(common)
    with OpenedVersion(session.model(model).chain(), session.settings, version=version, at=at) as opened:
        # Parsed as a manager parses them: with all their digits.
        return opened.ask(sql, parse_json(dump_json(parameters), "--param")), opened.version


def _is_json(output: Output, form: str) -> bool:
    return form in {"json", "jsonl"} or (form == "table" and output.json)


def read_parameters(values: tuple[str, ...]) -> list[Any] | dict[str, Any] | None:
    """Return the values of several `--param`; None if there are none."""
    if not values:
        return None
    named = [value.split("=", 1) for value in values if not value.startswith(('"', "'")) and "=" in value]
    if named and len(named) != len(values):
        raise usage("Either all parameters are named or none.", "Give --param name=value, or --param value.")
    if named:
        return {name: read_value(value) for name, value in named}
    return [read_value(value) for value in values]
