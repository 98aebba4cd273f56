"""`teatree logs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from teatree.cli.exits import usage
from teatree.cli.options import DEFAULT, Common, ModelName
from teatree.cli.output import Output
from teatree.cli.stack.log_tail import Keep, LogFile, LogLine
from teatree.cli.stack.log_text import Level, entry_json, entry_text, is_at_least, read_entry_of
from teatree.contracts.clock import SYSTEM_CLOCK
from teatree.contracts.data_folder import check_data_folder, former_log, server_log
from teatree.contracts.environment import data_folder, process_environ
from teatree.contracts.errors import Code, RequestError
from teatree.contracts.names import check_model
from teatree.storage.model_folder import local_models, model_folder

LINES = 50
NAMES_MAX = 50
"""Models that the error about an unknown one lists."""
POLL_S = 0.2
"""How often --follow looks for new lines."""
PARTS = ("dispatcher", "nats", "postgres", "seaweed")
_STYLES = {"debug": "dim", "warning": "yellow", "error": "red", "critical": "bold red"}


# More than fifty lines: its options and their help.
def logs(
    name: ModelName,
    /,
    *,
    follow: Annotated[bool, Parameter(alias="-f", negative="")] = False,
    lines: Annotated[int, Parameter(alias="-n", validator=Number(gte=0))] = LINES,
    level: Level | None = None,
    model: Annotated[bool, Parameter(negative="")] = False,
    common: Common = DEFAULT,
) -> None:
    """Print the log of a model's manager, or of a server.

    It is that of this host, read from the data folder; nothing has to run. With --json the lines of managers and of the
    dispatcher are printed as they are; a line that is no JSON object becomes the `event` of one.

    Example: teatree logs sales --follow --level warning

    Parameters
    ----------
    name
        A model, or `dispatcher`, `nats`, `postgres` or `seaweed`.
    follow
        Keep printing what is added, until Ctrl-C; also after the log has been rotated.
    lines
        How many of the last lines to print.
    level
        Only lines of this level and above; lines without a level, such as those of a traceback, are printed too.
    model
        The name is a model's, though a part of the stack has it too.
    """
    output = Output(json=common.json)
    data = common.data or data_folder(process_environ())
    check_data_folder(data)
    if not data.is_dir():
        raise usage(
            f"There is no folder {str(data)!r}.", "Name the data folder of a stack with --data or TEATREE_DATA."
        )
    path = _path(data, name, is_model=model)

    def keep(line: LogLine) -> bool:
        return bool(line.text.strip()) and (level is None or is_at_least(read_entry_of(line), level))

    try:
        with LogFile(path) as file:
            _print_last(output, file, former_log(path), lines, keep)
            while follow:
                for line in file.added(keep):
                    _print(output, line)
                SYSTEM_CLOCK.sleep(POLL_S)
            for line in file.rest(keep):
                _print(output, line)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise _no_log(data, name) from None


def _print_last(output: Output, file: LogFile, former: Path, count: int, keep: Keep) -> None:
    """Print the last lines, as many as are missing from the former file first."""
    last, found = file.last(count, keep)
    if found < count and former.is_file():
        with LogFile(former) as before:
            for line in before.last(count - found, keep)[0]:
                _print(output, line)
    for line in last:
        _print(output, line)


def _path(data: Path, name: str, *, is_model: bool) -> Path:
    if name in PARTS and not is_model:
        return server_log(data, name)
    return model_folder(data, check_model(name)).log


def _no_log(data: Path, name: str) -> RequestError:
    parts = [part for part in PARTS if server_log(data, part).is_file()]
    there = ", ".join([*local_models(data)[:NAMES_MAX], *parts])
    return RequestError(
        Code.UNKNOWN_MODEL,
        f"There is no log of {name} in {data}.",
        where=str(data),
        hint=f"There are those of: {there}." if there else "No part of a stack has run there.",
    )


def _print(output: Output, line: LogLine) -> None:
    entry = read_entry_of(line)
    if output.json:
        output.raw(entry_json(entry) + b"\n")
    else:
        output.out.print(entry_text(entry), style=_STYLES.get(entry.level or ""), soft_wrap=True)
