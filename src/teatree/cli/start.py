"""The entry point of the command `teatree`: it ends without a traceback on a Ctrl-C while code is being loaded, too."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process."""
    try:
        from teatree.cli.main import run  # noqa: PLC0415 - slow to load

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
