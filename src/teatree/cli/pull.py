"""`teatree pull`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from teatree.cli.options import STORE_DEFAULT, StoreCommon
from teatree.cli.output import Output, size_text
from teatree.cli.running import with_store

if TYPE_CHECKING:
    from teatree.client.pull import Pulled
    from teatree.client.session import Session


def pull(
    model: str,
    path: Path | None = None,
    /,
    *,
    version: int | None = None,
    at: str | None = None,
    rehash: Annotated[bool, Parameter(negative="")] = False,
    common: StoreCommon = STORE_DEFAULT,
) -> None:
    """Write a version as an ordinary DuckDB file.

    A file that was pulled before gets only the blocks that changed; who has it open keeps the old one. Every block is
    verified; the file appears whole or not at all, and an interrupted pull goes on where it was.
    Only the object store is asked.

    Example: teatree pull sales sales.duckdb

    Parameters
    ----------
    model
        The model's name.
    path
        The file to write, MODEL.duckdb in this folder if left out; a DuckDB file that is there is replaced.
    version
        The version, the newest if left out.
    at
        The newest version at a moment instead: 2026-01-31T14:00 in local time, or 2026-01-31T14:00:00Z.
    rehash
        Check every block that is kept, too, as if somebody had touched the file.
    """
    output = Output(json=common.json)
    target = path or Path(f"{model}.duckdb")

    async def work(session: Session) -> Pulled:
        with output.progress(f"pulling {model}", unit="bytes") as advance:
            return await session.model(model).pull(target, version=version, at=at, progress=advance, rehash=rehash)

    pulled = with_store(common, work)
    if output.json:
        output.line(pulled)
    else:
        moved = f"{size_text(pulled.size_bytes)}, of which {size_text(pulled.moved_bytes)} were moved"
        output.say(f"{pulled.path} holds version {pulled.version} of {model} ({moved}).", "green")
