"""The extras of the distribution: packages that a part needs, and that the base does not install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from teatree.contracts.errors import Code, OperatorError

Extra = Literal["cli", "polars", "pandas", "s3", "catalog", "server", "apps", "embedded", "testing"]
_OWN = frozenset({"teatree", "teatree_manager", "teatree_dispatcher"})


@contextmanager
def extra_for(what: str, extra: Extra) -> Iterator[None]:
    """Import packages of an extra in the block; raises `wrong_configuration` if one is not installed.

    `what` needs them, and begins the message.
    """
    try:
        yield
    except ModuleNotFoundError as e:
        if e.name is None or e.name.partition(".")[0] in _OWN:
            raise
        raise OperatorError(
            Code.WRONG_CONFIGURATION,
            f"{what} needs the Python package {e.name.partition('.')[0]}, which is not installed.",
            where=e.name,
            hint=f"Run `pip install 'teatree[{extra}]'`.",
        ) from e
