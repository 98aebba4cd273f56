"""The entry point of the command `teatree`: it ends without a traceback on a Ctrl-C while code is being loaded, too."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process."""
    try:
        from teatree.cli.exits import error_line, exit_code  # noqa: PLC0415 - slow to load
        from teatree.contracts.errors import TeatreeError  # noqa: PLC0415
        from teatree.contracts.extras import extra_for  # noqa: PLC0415

        try:
            with extra_for("The command teatree", "cli"):
                from teatree.cli.main import run  # noqa: PLC0415
        except TeatreeError as e:
            print(error_line(e), file=sys.stderr)
            sys.exit(exit_code(e))
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
