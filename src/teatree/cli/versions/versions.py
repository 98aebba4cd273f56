"""`teatree versions`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from teatree.cli.options import STORE_DEFAULT, ModelName, StoreCommon
from teatree.cli.output import Output, size_text
from teatree.cli.running import with_store

if TYPE_CHECKING:
    from teatree.client.session import Session
    from teatree.client.versions.pull import VersionInfo

LIMIT = 20
NAMES_MAX = 3
"""Names of tables or senders that are printed for one version."""


def versions(model: ModelName, /, *, limit: int = LIMIT, common: StoreCommon = STORE_DEFAULT) -> None:
    """List a model's versions, newest first.

    Reads only the object store.

    Example: teatree versions sales --limit 5

    Parameters
    ----------
    model
        The model's name.
    limit
        How many to list.
    """
    output = Output(json=common.json)

    async def work(session: Session) -> list[VersionInfo]:
        from teatree.client.versions.pull import check_model  # noqa: PLC0415

        found = await session.model(model).versions(limit)
        if not found:
            check_model(session.model(model).chain())
        return found

    found = with_store(common, work)
    if output.json:
        for info in found:
            output.line(info)
        return
    rows = (
        (
            info.version,
            info.kind if info.state == "active" else f"{info.kind} ({info.state})",
            info.at,
            info.offset,
            size_text(info.file_bytes),
            size_text(info.pack_bytes),
            f"{sum(info.tables.values()):,}",
            _shortened(info.changed_tables),
            _shortened(info.senders),
        )
        for info in found
    )
    columns = ("version", "kind", "published", "offset", "file", "added", "rows", "changed", "senders")
    output.table(columns, rows, right=("version", "offset", "file", "added", "rows"))


def _shortened(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    return ", ".join(names[:NAMES_MAX]) + more
