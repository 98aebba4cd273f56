"""`teatree pull`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from teatree.cli.options import DEFAULT, Common
from teatree.cli.output import Output, size_text
from teatree.cli.running import with_store

if TYPE_CHECKING:
    from teatree.client.pull import Pulled
    from teatree.client.session import Session


def pull(model: str, path: Path | None = None, /, *, version: int | None = None, common: Common = DEFAULT) -> None:
    """Write a version as an ordinary DuckDB file.

    Every block is verified; the file appears whole or not at all. Only the object store is asked.

    Example: teatree pull sales sales.duckdb

    Parameters
    ----------
    model
        The model's name.
    path
        The file to write, MODEL.duckdb in this folder if left out; one that is there is replaced.
    version
        The version, the newest if left out.
    """
    output = Output(json=common.json)
    target = path or Path(f"{model}.duckdb")

    async def work(session: Session) -> Pulled:
        with output.progress(f"pulling {model}", unit="bytes") as advance:
            return await session.model(model).pull(target, version=version, progress=advance)

    pulled = with_store(common, work)
    if output.json:
        output.line(pulled)
    else:
        output.say(
            f"{pulled.path} holds version {pulled.version} of {model} ({size_text(pulled.size_bytes)}).", "green"
        )
