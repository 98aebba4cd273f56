"""`teatree log`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from teatree.cli.exits import Exit
from teatree.cli.options import DEFAULT, Common
from teatree.cli.output import Output, counted
from teatree.cli.running import with_session
from teatree.contracts.errors import Code, OperatorError

if TYPE_CHECKING:
    from teatree.client.log_advance import AdvanceReport
    from teatree.client.session import Session


def advance(*, yes: Annotated[bool, Parameter(negative="")] = False, common: Common = DEFAULT) -> Exit:
    """Resume models after the log was truncated or restored.

    For a log that lost its end or was restored from an older copy.

    First look for a newer copy of the stream: lost requests that were not applied stay lost after this, unless they are
    sent again. What the models have applied stays. The log is filled up with padding messages to its former length;
    requests accepted since under sequences that a model has passed are accepted again under their ids; nothing is
    deleted. If nothing is wrong nothing is changed. It can be run again at any time.

    Example: teatree log advance

    Parameters
    ----------
    yes
        Do not ask for confirmation.
    """
    output = Output(json=common.json)
    found = _run(common, dry_run=True)
    if found.elsewhere and not found.stalled_models:
        raise _elsewhere(found)
    if not found.stalled_models:
        if output.json:
            output.line(found)
        else:
            output.message(
                f"{found.stream} holds all that {counted(found.models, 'model')} applied: nothing was changed.",
                "green",
            )
        return Exit.OK
    if not output.json:
        columns = ("model", "error", "applied up to", "what is wrong")
        rows = ((s.model, s.code, s.offset, s.message) for s in found.stalled_models)
        output.table(columns, rows, right=("applied up to",))
    if not yes and not output.json and sys.stdin.isatty() and not _confirmed(found):
        output.remark("Nothing was changed.")
        return Exit.OK
    done = _run(common, dry_run=False)
    if output.json:
        output.line(done)
    else:
        _show(output, done)
    if done.elsewhere:
        raise _elsewhere(done)
    return Exit.OK


def _run(common: Common, *, dry_run: bool) -> AdvanceReport:
    from teatree.client.log_advance import advance_log  # noqa: PLC0415 - NATS, only for this

    async def work(session: Session) -> AdvanceReport:
        return await advance_log(session.bus, session.store, session.probe, dry_run=dry_run)

    return with_session(common, work)


def _confirmed(found: AdvanceReport) -> bool:
    print(f"Resume these models without the requests that {found.stream} has lost? [y/N] ", end="", file=sys.stderr)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _show(output: Output, done: AdvanceReport) -> None:
    output.message(f"The last sequence of {done.stream} was {done.last_seq_before:,} and is {done.last_seq:,} now.")
    output.message(f"{counted(done.padding_messages, 'padding message')} published; nothing was deleted.")
    for stalled in done.stalled_models:
        unnamed = f" ({stalled.unnamed:,} without an id got one that begins with again-)" if stalled.unnamed else ""
        again = counted(stalled.again, "request")
        output.message(f"{stalled.model}: continues after {stalled.offset:,}; {again} accepted again{unnamed}.")
    output.message(
        "A running dispatcher starts the managers again at once, otherwise within a minute (see `teatree models`)."
        " Requests without an outcome can be sent again under their ids: each takes effect once.",
        "green",
    )


def _elsewhere(found: AdvanceReport) -> OperatorError:
    first = ", ".join(found.elsewhere[:10])
    return OperatorError(
        Code.LOG_REPLACED,
        f"{counted(len(found.elsewhere), 'model')} applied another stream than this {found.stream}: {first}.",
        where=found.stream,
        hint="Restore that stream, or fork the models under other names: `teatree fork MODEL NEW`.",
    )
