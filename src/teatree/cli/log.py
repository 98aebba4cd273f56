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

    For when its end was cut off, or an older copy was put back.

    First look for a newer copy of the stream: lost requests that were not applied are gone after this, unless they are
    sent again. What the models have applied stays. The log is made as long as it was, with messages that are nobody's;
    requests that were accepted since under numbers that a model has passed are accepted again under their ids; nothing
    is deleted. If nothing is wrong nothing is changed. It can be run again at any time.

    Example: teatree log advance

    Parameters
    ----------
    yes
        Do not ask.
    """
    output = Output(json=common.json)
    found = _run(common, dry_run=True)
    if found.elsewhere and not found.stalled_models:
        raise _elsewhere(found)
    if not found.stalled_models:
        if output.json:
            output.line(found)
        else:
            output.say(
                f"{found.stream} lacks nothing that {counted(found.models, 'model')} applied: nothing was changed.",
                "green",
            )
        return Exit.OK
    if not output.json:
        columns = ("model", "error", "holds up to", "what is wrong")
        rows = ((s.model, s.code, s.offset, s.message) for s in found.stalled_models)
        output.table(columns, rows, right=("holds up to",))
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
    from teatree.contracts.failpoints import failpoints  # noqa: PLC0415

    async def work(session: Session) -> AdvanceReport:
        failpoint = failpoints(session.settings.failpoints)
        return await advance_log(session.bus, session.store, failpoint, dry_run=dry_run)

    return with_session(common, work)


def _confirmed(found: AdvanceReport) -> bool:
    print(f"Let these models go on without what {found.stream} has lost? [y/N] ", end="", file=sys.stderr)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _show(output: Output, done: AdvanceReport) -> None:
    output.say(f"{done.stream} ended at {done.last_seq_before:,} and ends at {done.last_seq:,} now.")
    output.say(f"{counted(done.padding_messages, 'padding message')} published; nothing was deleted.")
    for stalled in done.stalled_models:
        unnamed = f" ({stalled.unnamed:,} without an id got one that begins with again-)" if stalled.unnamed else ""
        again = counted(stalled.again, "request")
        output.say(f"{stalled.model}: continues after {stalled.offset:,}; {again} accepted again{unnamed}.")
    output.say(
        "A running dispatcher starts the managers again at once, otherwise within a minute (`teatree models` tells)."
        " What has no outcome can be sent again under its id: it takes effect once.",
        "green",
    )


def _elsewhere(found: AdvanceReport) -> OperatorError:
    first = ", ".join(found.elsewhere[:10])
    return OperatorError(
        Code.LOG_REPLACED,
        f"Of the models, {len(found.elsewhere):,} count in another stream than this {found.stream}: {first}.",
        where=found.stream,
        hint="Restore that stream, or begin them again under other names: `teatree fork MODEL NEW`.",
    )
