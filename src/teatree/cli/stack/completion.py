"""`teatree completion`."""

from __future__ import annotations

from typing import Literal

from teatree.cli.options import DEFAULT, Common
from teatree.cli.output import Output


def completion(shell: Literal["bash", "zsh", "fish"], /, *, common: Common = DEFAULT) -> None:
    """Print the completion script of a shell.

    Commands, options and their values are completed, and models: those that had a manager in the data folder (--data,
    TEATREE_DATA or ./teatree-data), without connecting to anything.

    bash: eval "$(teatree completion bash)" in ~/.bashrc. zsh: the same in ~/.zshrc, after compinit.
    fish: teatree completion fish > ~/.config/fish/completions/teatree.fish

    Example: teatree completion bash

    Parameters
    ----------
    shell
        The shell that will read it.
    """
    from teatree.cli.main import make_app  # noqa: PLC0415 - it refers to this module

    output = Output(json=common.json)
    script = make_app(listing=True).generate_completion(shell=shell)
    if output.json:
        output.line({"shell": shell, "script": script})
    else:
        output.raw(script.encode())
