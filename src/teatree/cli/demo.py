"""`teatree demo`."""

from __future__ import annotations

from teatree.cli.options import DEFAULT, Common


def demo(*, common: Common = DEFAULT) -> None:
    """See it work: many writers, a killed manager, every number compared.

    Example: teatree demo
    """
    raise NotImplementedError(common)
