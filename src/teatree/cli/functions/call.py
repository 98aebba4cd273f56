"""`teatree call`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from teatree.cli.options import SENDER_DEFAULT, AppFunctionName, ModelName, SenderCommon
from teatree.cli.output import Output
from teatree.cli.requests.argument_pairs import function_info, merged
from teatree.cli.requests.json_args import read_given
from teatree.cli.requests.query_reply import Form, check_form, print_reply
from teatree.cli.requests.request_progress import progress_shower
from teatree.cli.running import with_session
from teatree.contracts.formats.codec import dump_json

if TYPE_CHECKING:
    from teatree.client.calls.model_calls import CallReply
    from teatree.client.session import Session

TIMEOUT_MS = 60_000


# More than fifty lines: its options and their help.
def call(
    model: ModelName,
    function: AppFunctionName,
    args: str | None = None,
    /,
    *,
    file: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    format: Form = "table",
    min_version: int | None = None,
    through_log: Annotated[bool, Parameter(negative="")] = False,
    timeout_ms: int = TIMEOUT_MS,
    common: SenderCommon = SENDER_DEFAULT,
    **pairs: Annotated[str, Parameter(allow_leading_hyphen=True)],
) -> None:
    """Call a query of a model's app, and print its result.

    It runs on the newest version and never waits behind writes, as a pure function does; the manager of an idle model
    is started first. `teatree functions MODEL FUNCTION` shows a function's parameters. Mutations are sent: `teatree
    send`.

    Example: teatree call sales goals_by --dimensions '["site"]' --format csv

    Parameters
    ----------
    model
        The model's name.
    function
        A query or a pure function of the model's app.
    args
        Its arguments: one JSON object.
    file
        Read the arguments from this file; - is standard input.
    format
        Rows as a table for people (its first rows), one JSON document (as --json), JSON lines, CSV, or an Arrow stream.
    min_version
        Wait for this version first.
    through_log
        Call it in the order of the log: it sees every request sent before it.
    timeout_ms
        How long to wait for the result.
    pairs
        An argument, as --name value: for a parameter that takes a text the text, else JSON.
    """
    output = Output(json=common.json or format != "table")
    check_form(format)
    members = read_given(args, file)

    async def work(session: Session) -> CallReply:
        from teatree.client.calls.call_arguments import CallArguments  # noqa: PLC0415 - loaded by a session anyway

        target = session.model(model)
        given = merged(members, pairs, await function_info(target, function, timeout_ms) if pairs else None)
        with output.progress(function, unit="%") as advance:
            return await target.call_for_reply(
                function,
                CallArguments(given),
                direct=not through_log,
                min_version=min_version,
                timeout_ms=timeout_ms,
                on_notice=progress_shower(advance),
            )

    reply = with_session(common, work)
    from teatree.datasets.dataset import Dataset  # noqa: PLC0415 - Arrow, after the answer

    if isinstance(reply.result, Dataset):
        print_reply(output, reply.result, reply.version, format)
    elif output.json:
        output.line({"version": reply.version, "result": reply.result})
    else:
        output.message(dump_json(reply.result).decode())
