"""`teatree watch`."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from teatree.cli.exits import usage
from teatree.cli.options import DEFAULT, Common, ModelName
from teatree.cli.output import Output, cell_text
from teatree.cli.running import with_session
from teatree.contracts.errors import Code, RequestError
from teatree.contracts.formats.codec import dump_json
from teatree.contracts.formats.notices import Kind
from teatree.contracts.names import ANONYMOUS
from teatree.contracts.shown import visible

if TYPE_CHECKING:
    from teatree.client.notice import Notice
    from teatree.client.session import Session

_STYLES = {"done": "green", "rejected": "yellow", "failed": "red", "version": "cyan"}


# More than fifty lines: its options and their help.
def watch(
    model: ModelName,
    /,
    *,
    query: str | None = None,
    param: Annotated[tuple[str, ...], Parameter(negative="", show_default=False, allow_leading_hyphen=True)] = (),
    all: Annotated[bool, Parameter(negative="")] = False,
    count: int | None = None,
    common: Common = DEFAULT,
) -> None:
    """Print a model's notices, or the changes of a query's answer.

    Outcomes of requests and new versions, until Ctrl-C; no notice is missed while the connection is lost. With --query
    the answer of that query and then, after versions that changed it, the rows that were added (+), changed (~) and
    removed (-).

    Example: teatree watch sales --query 'SELECT site, sum(amount) AS amount FROM sales GROUP BY site'

    Parameters
    ----------
    model
        The model's name.
    query
        One SELECT whose answer follows from the version alone: no random() or now(), no LIMIT without ORDER BY.
    param
        A parameter's value as JSON ('"north"', 42) for each ?, or name=value for $name; may be given several times.
    all
        Start with everything that the stream of notices still holds.
    count
        Stop after this many notices, or answers and changes.
    """
    output = Output(json=common.json)
    if query is not None:
        if all:
            raise usage("--all cannot be combined with --query.", "A query begins with its whole answer.")
        with_session(common, partial(_watch_query, output, model, query, param, count))
        return
    if param:
        raise usage("--param needs --query.", "Give the query in which it stands.")

    async def work(session: Session) -> None:
        seen = 0
        if not await session.model(model).versions(1):
            raise RequestError(
                Code.UNKNOWN_MODEL,
                f"There is no model {model}.",
                where="model",
                hint=f"`teatree models` lists them; `teatree create {model}` creates it.",
            )
        output.remark(f"Watching {model}; Ctrl-C ends it.")
        async with aclosing(session.model(model).follow(after=0 if all else None)) as notices:
            async for notice in notices:
                _print(output, notice)
                seen += 1
                if seen == count:
                    return

    with_session(common, work)


async def _watch_query(
    output: Output, model: str, sql: str, param: tuple[str, ...], count: int | None, session: Session
) -> None:
    from teatree.cli.requests.live_text import print_change  # noqa: PLC0415 - Arrow, only for queries
    from teatree.cli.requests.query import read_parameters  # noqa: PLC0415

    seen = 0
    output.remark(f"Watching a query of {model}; Ctrl-C ends it.")
    async with aclosing(session.model(model).watch(sql, read_parameters(param))) as changes:
        async for change in changes:
            print_change(output, change)
            seen += 1
            if seen == count:
                return


def _print(output: Output, notice: Notice) -> None:
    if output.json:
        members = dict(notice.members)
        if notice.body:
            members |= {"kind": notice.kind, "model": notice.model, "request_id": notice.request_id}
            members["bytes"] = len(notice.body)
        output.line(members)
        return
    what = visible(_what(notice))
    output.out.print(
        f"{cell_text(notice.at) if notice.at else '':19}  {notice.kind:8}  {what}", style=_STYLES.get(notice.kind)
    )


def _what(notice: Notice) -> str:
    version = "" if notice.version is None else f"version {notice.version}"
    if notice.group is not None:
        counts = ", ".join(f"{notice.members.get(k, 0):,} {k}" for k in ("applied", "already", "refused"))
        return f"group {notice.group}: {counts}, {version}"
    request = " ".join(part for part in (notice.function, notice.request_id) if part)
    if notice.sender != ANONYMOUS:
        request += f" from {notice.sender}"
    if notice.error is not None:
        place = f" (at {notice.error['where']})" if notice.error.get("where") else ""
        return f"{request}: {notice.error.get('code')}: {notice.error.get('message')}{place}"
    if notice.kind is Kind.PROGRESS:
        part = f"{float(notice.members.get('fraction', 0)):.0%}"
        return f"{request}: {part}, {notice.members.get('text', '')}"
    result = "" if notice.result is None else f"  {dump_json(notice.result).decode()}"
    return " ".join(part for part in (request, version) if part) + result
