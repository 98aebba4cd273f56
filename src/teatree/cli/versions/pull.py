"""`teatree pull`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from teatree.cli.options import STORE_DEFAULT, ModelName, StoreCommon
from teatree.cli.output import Output, size_text
from teatree.cli.running import with_store

if TYPE_CHECKING:
    from teatree.client.session import Session
    from teatree.client.versions.pull import Pulled


def pull(
    model: ModelName,
    path: Path | None = None,
    /,
    *,
    version: int | None = None,
    at: str | None = None,
    rehash: Annotated[bool, Parameter(negative="")] = False,
    common: StoreCommon = STORE_DEFAULT,
) -> None:
    """Write a version as an ordinary DuckDB file.

    For a file that was pulled before only changed blocks are fetched; a process that has it open keeps the old one.
    Every block is verified; the file is replaced atomically, and an interrupted pull continues where it stopped.
    Reads only the object store.

    Example: teatree pull sales sales.duckdb

    Parameters
    ----------
    model
        The model's name.
    path
        The file to write, MODEL.duckdb in this folder if left out; an existing DuckDB file is replaced.
    version
        The version, the newest if left out.
    at
        The newest version at a moment instead: 2026-01-31T14:00 in local time, or 2026-01-31T14:00:00Z.
    rehash
        Verify the kept blocks, too, as if the file had been changed.
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
        moved = f"{size_text(pulled.size_bytes)}, of which {size_text(pulled.moved_bytes)} were fetched"
        output.message(f"{pulled.path} holds version {pulled.version} of {model} ({moved}).", "green")
