"""The command `teatree`: parses, calls, prints; every error becomes one line and an exit code."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

from cyclopts import App, CycloptsError, UnusedCliTokensError

from teatree.cli.exits import EXIT_HELP, Exit, error_line, exit_code, traceback_lines
from teatree.contracts.environment import process_environ
from teatree.contracts.errors import DamageWarning, TeatreeError
from teatree.contracts.shown import visible
from teatree.contracts.unknown_settings import UnknownSettingWarning

HELP = """One writer per DuckDB model behind a durable queue, and immutable versions for every reader.

`teatree demo` runs a demonstration on this machine; `teatree up` starts a stack."""

_MODULES = (
    *"stack.up stack.demo requests.models requests.create requests.drop".split(),
    *"requests.send requests.load requests.query requests.watch".split(),
    *"functions.functions functions.call functions.use_app".split(),
    *"versions.versions versions.pull versions.shell versions.verify versions.diff versions.publish".split(),
    *"versions.fork versions.restore versions.pin versions.unpin versions.pins versions.gc versions.repair".split(),
    *"requests.dead stack.resume stack.status stack.logs stack.env stack.completion".split(),
)
_COMMANDS = {module.rpartition(".")[2].replace("_", "-"): module for module in _MODULES}
"""The module of each command below `teatree.cli`, in the order of the help."""
_GROUPS = frozenset({"catalog", "log"})
"""Commands with subcommands."""
_SHOWN = (UnknownSettingWarning, DamageWarning)
_HELP_FLAGS = frozenset({"--help", "-h"})
_CALLING = frozenset({"send", "call"})
"""Commands whose help, after a model and a function, is that of the function."""


def make_app(*, listing: bool = False) -> App:
    """Return the command line's grammar; a command's module is loaded when it is used, or all for a `listing`."""
    app = App(name="teatree", help=HELP, help_epilogue=EXIT_HELP, version=teatree_version, help_format="plaintext")

    def command(module: str, name: str) -> Any:
        return getattr(import_module(module), name) if listing else f"{module}:{name}"

    for place, (name, module) in enumerate(_COMMANDS.items()):
        app.command(command(f"teatree.cli.{module}", module.rpartition(".")[2]), name=name, sort_key=place)
    catalog = App(name="catalog", help="Maintain the catalog in PostgreSQL.", sort_key=len(_COMMANDS))
    catalog.command(command("teatree.cli.stack.catalog", "rebuild"), name="rebuild")
    app.command(catalog)
    log = App(name="log", help="Maintain the log of requests in NATS.", sort_key=len(_COMMANDS) + 1)
    log.command(command("teatree.cli.stack.log", "advance"), name="advance")
    app.command(log)
    return app


def teatree_version() -> str:
    """Return the version of this package."""
    from importlib.metadata import version  # noqa: PLC0415

    return version("teatree")


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit code. Never raises."""
    with _warnings_shown():
        return _run(arguments)


def _run(given: Sequence[str]) -> int:
    arguments = _with_function_help(given)
    try:
        app = make_app(listing=_GROUPS.union(_HELP_FLAGS).issuperset(arguments))
        code = app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except UnusedCliTokensError as e:
        first = (e.unused_tokens or [""])[0]
        line = f"error[usage]: There are more arguments than expected, from {first!r} on. "
        line += "Put SQL, JSON and names with spaces into single quotes. "
        return _fail(f"{line}See `teatree {_command(arguments)}--help`.", Exit.USAGE)
    except CycloptsError as e:
        return _fail(f"error[usage]: {' '.join(str(e).split())} See `teatree {_command(arguments)}--help`.", Exit.USAGE)
    except TeatreeError as e:
        return _fail(f"{error_line(e)}{traceback_lines(e)}", exit_code(e))
    except PermissionError as e:
        line = f"error[not_authorized]: {e.strerror}: {e.filename}. Choose another place, or work as its owner."
        return _fail(line, Exit.OPERATOR)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else Exit.OK
    except BrokenPipeError:  # the reader closed the pipe: `teatree query … | head`
        _silence_stdout()
        return Exit.OK
    except Exception as e:  # print one line instead of a traceback
        if process_environ().get("TEATREE_DEBUG"):
            raise
        text = " ".join(f"{type(e).__name__}: {e}".split())
        return _fail(f"error[internal]: {text} TEATREE_DEBUG=1 shows where.", Exit.INTERNAL)
    return code if isinstance(code, int) else Exit.OK


def _with_function_help(arguments: Sequence[str]) -> Sequence[str]:
    """Return `functions MODEL FUNCTION …` for `send MODEL FUNCTION --help …`."""
    asks = not _HELP_FLAGS.isdisjoint(arguments[3:]) and arguments[0] in _CALLING
    if not asks or any(argument.startswith("-") for argument in arguments[1:3]):
        return arguments
    return ["functions", *arguments[1:3], *(a for a in arguments[3:] if a not in _HELP_FLAGS)]


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """Show each of Teatree's warnings, about a setting or damage, as one line, once."""
    with warnings.catch_warnings():
        before, seen = warnings.showwarning, set[str]()

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if not issubclass(category, _SHOWN):
                before(message, category, *place, **more)
            elif str(message) not in seen:
                seen.add(str(message))
                print(f"warning: {visible(str(message))}", file=sys.stderr)

        for shown in _SHOWN:
            warnings.simplefilter("always", shown)
        warnings.showwarning = show
        yield


def _command(arguments: Sequence[str]) -> str:
    return f"{arguments[0]} " if arguments and arguments[0] in {*_COMMANDS, *_GROUPS} else ""


def _fail(line: str, code: Exit) -> Exit:
    colour = sys.stderr.isatty() and not process_environ().get("NO_COLOR")
    line = visible(line, keep="\n")
    print(f"\033[31m{line}\033[0m" if colour else line, file=sys.stderr)
    return code


def _silence_stdout() -> None:
    """Keep the interpreter's last flush from failing on the closed pipe."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
