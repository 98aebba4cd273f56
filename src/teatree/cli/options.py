"""Options that every command takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from attrs import frozen
from cyclopts import Group, Parameter

COMMON = Group("Everywhere", sort_key=100)


@Parameter(name="*")
@frozen
class Common:
    """Where to connect, and how to print."""

    data: Annotated[Path | None, Parameter(group=COMMON)] = None
    """Folder of a running stack (its teatree.env holds the addresses); otherwise the environment is used."""
    json: Annotated[bool, Parameter(negative="", group=COMMON)] = False
    """Print JSON for machines: one document, or one line per item, and nothing else on standard output."""


DEFAULT = Common()


@Parameter(name="*")
@frozen
class StoreCommon(Common):
    """The same, for commands that read versions only."""

    store: Annotated[str | None, Parameter(group=COMMON)] = None
    """Another object store: file:///folder, s3://bucket/prefix or the path of a folder; then no stack is needed."""


STORE_DEFAULT = StoreCommon()
