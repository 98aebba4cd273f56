"""The start of the command `teatree`: a Ctrl-C while its code is still being loaded ends it quietly, too."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process."""
    try:
        from teatree.cli.main import run  # noqa: PLC0415 - what takes the time

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
