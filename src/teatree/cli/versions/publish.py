"""`teatree publish`."""

from __future__ import annotations

from pathlib import Path

from teatree.cli.exits import usage
from teatree.cli.options import DEFAULT, Common
from teatree.cli.output import Output, size_text


def publish(path: Path, store: str, /, *, name: str | None = None, common: Common = DEFAULT) -> None:
    """Publish a version of a DuckDB file, without any service.

    Only blocks that changed since the newest version are uploaded. The file is not altered, beyond DuckDB's own
    checkpoint; no other process may have it open meanwhile. Versions are read with `pull`, `diff` and the others, with
    --store.

    Example: teatree publish sales.duckdb s3://bucket/versions

    Parameters
    ----------
    path
        The file.
    store
        Where versions go: s3://bucket/prefix, file:///folder or the path of a folder.
    name
        The model's name there, made from the file's if left out.
    """
    from teatree.contracts.environment import process_environ, read_settings  # noqa: PLC0415
    from teatree.engine.open_file import open_file  # noqa: PLC0415 - DuckDB, only for this

    output = Output(json=common.json)
    if not path.is_file():
        raise usage(f"There is no file {path}.")
    with open_file(path, store, name=name, settings=read_settings(process_environ(), common.data)) as opened:
        published = opened.publish()
    if output.json:
        output.line(published)
    elif published.is_new:
        sizes = f"{size_text(published.size_bytes)}, of which {size_text(published.pack_bytes)} were uploaded"
        output.message(f"{path} is published as version {published.version} of {published.model} ({sizes}).", "green")
    else:
        output.message(f"{path} is unchanged since version {published.version} of {published.model}.", "green")
