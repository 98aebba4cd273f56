"""`teatree models`."""

from __future__ import annotations

from teatree.cli.options import STORE_DEFAULT, StoreCommon
from teatree.cli.output import Output, size_text
from teatree.cli.running import with_store


def models(*, common: StoreCommon = STORE_DEFAULT) -> None:
    """List the models.

    They come from the catalog if PostgreSQL is set, otherwise from the object store. The state shows whether a model
    is damaged or stopped, and what its requests wait for. A name whose `create` was refused is no model.

    Example: teatree models --json
    """
    output = Output(json=common.json)
    listed = with_store(common, lambda session: session.models())
    found = [info for info in listed if info.state != "absent" or info.why]
    if output.json:
        output.line(found)
        return
    if not found:
        output.remark("There is no model yet: `teatree create sales` creates one.")
        return
    rows = (
        (
            info.name,
            f"{info.state}: {info.why}" if info.why else info.state,
            info.version,
            info.at,
            size_text(info.file_bytes),
            ", ".join(f"{name} ({rows:,})" for name, rows in info.tables.items()),
        )
        for info in found
    )
    output.table(("model", "state", "version", "published", "size", "tables"), rows, right=("version", "size"))
