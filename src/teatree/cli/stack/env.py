"""`teatree env`."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from teatree.cli.options import DEFAULT, Common
from teatree.cli.output import Output
from teatree.contracts.environment import connection_environ, connection_variables
from teatree.contracts.shown import visible

if TYPE_CHECKING:
    from teatree.contracts.settings import Settings

_NATS_TOOL = {
    "NATS_URL": "TEATREE_NATS_URL",
    "NATS_USER": "TEATREE_NATS_USER",
    "NATS_PASSWORD": "TEATREE_NATS_PASSWORD",
    "NATS_CA": "TEATREE_NATS_CA",
}
"""What the `nats` command line reads, and which of our variables has the value."""


def env(*, unset: Annotated[bool, Parameter(negative="")] = False, common: Common = DEFAULT) -> None:
    """Print what a shell needs to use the stack.

    The output is `export` lines: the TEATREE_… variables connect teatree and programs that import it; NATS_URL,
    NATS_USER, NATS_PASSWORD and NATS_CA connect the `nats` command line; `psql "$TEATREE_POSTGRES_READER_URL"` reads
    the catalog, and `duckdb -readonly "$TEATREE_DATA/sales/current.duckdb"` a model. In fish: `teatree env | source`.

    The output contains passwords: use it in $(…) only, and keep it out of files and logs. In a shell that has these
    variables --data does not choose another stack, and `teatree up` uses the servers at these addresses instead of
    starting any: eval "$(teatree env --unset)" removes the variables.

    Example: teatree env --data ./plan, as in: eval "$(teatree env --data ./plan)"; nats sub 'teatree.notify.>'

    Parameters
    ----------
    unset
        Print the lines that remove these variables from the shell; no stack has to run.
    """
    output = Output(json=common.json)
    if unset:
        output.raw(f"unset {' '.join(sorted((*connection_variables(), *_NATS_TOOL)))}\n".encode())
        return
    from teatree.client.session import client_settings  # noqa: PLC0415 - NATS, only where a stack is wanted

    values = shell_values(client_settings(None, common.data, None))
    if output.json:
        output.line(values)
        return
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())
    output.raw(os.fsencode(visible(text, keep="\n") if sys.stdout.isatty() else text))


def shell_values(settings: Settings) -> dict[str, str]:
    """Return the variables by name: ours, and those of the `nats` command line."""
    ours = connection_environ(settings)
    if not settings.data.is_dir():  # a stack elsewhere, given by its addresses
        del ours["TEATREE_DATA"]
    return ours | {name: ours[source] for name, source in _NATS_TOOL.items() if source in ours}
