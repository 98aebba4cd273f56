"""`teatree gc`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from teatree.cli.options import STORE_DEFAULT, ModelName, StoreCommon
from teatree.cli.output import Output, size_text
from teatree.contracts.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from teatree.contracts.settings import Settings
    from teatree.storage.retention.cleanup import Cleaned


def gc(model: ModelName | None = None, /, *, dry_run: bool = False, common: StoreCommon = STORE_DEFAULT) -> None:
    """Clean up versions that the retention policy does not keep.

    Objects that no kept version needs are deleted with them.

    The newest version, pinned ones and those that forks need are always kept; TEATREE_RETENTION_… sets the policy.
    Managers do the same for their models periodically; it may run at the same time.

    Example: teatree gc sales --dry-run

    Parameters
    ----------
    model
        The model's name; all models if left out.
    dry_run
        Only show what would be cleaned up.
    """
    from teatree.client.session import client_settings  # noqa: PLC0415

    output = Output(json=common.json)
    settings = client_settings(None, common.data, None, common.store)
    found: list[Cleaned] = []
    try:
        for cleaned in _clean(settings, model, dry_run=dry_run):
            found.append(cleaned)
            if output.json:
                output.line({**_members(cleaned), "dry_run": dry_run})
    finally:  # also if one model could not be cleaned up
        if found and not output.json:
            _show(output, found, dry_run=dry_run)
    if not found and not output.json:
        output.remark("There is no model yet: nothing to clean up.")


def _show(output: Output, found: list[Cleaned], *, dry_run: bool) -> None:
    columns = ("model", "kept", "cleaned up", "objects", "freed")
    rows = ((c.model, c.kept, c.cleaned, c.objects, size_text(c.bytes)) for c in found)
    output.table(columns, rows, right=columns[1:])
    for one in found:
        if one.kept_unpublished:
            output.remark(
                f"{one.kept_unpublished} versions of {one.model} are kept although the policy does not keep them: it"
                " is not recorded yet that their outcomes are published. Its manager records that within"
                " seconds, or the next one does."
            )
    if dry_run:
        output.remark("Nothing was changed: this is what would be cleaned up.")


def _members(cleaned: Cleaned) -> dict[str, object]:
    import attrs  # noqa: PLC0415

    return attrs.asdict(cleaned)


def _clean(settings: Settings, model: str | None, *, dry_run: bool) -> Iterator[Cleaned]:

    from teatree.contracts.errors import Code, RequestError, TeatreeError  # noqa: PLC0415
    from teatree.contracts.failpoints import failing_probe  # noqa: PLC0415
    from teatree.storage.catalog.catalog import Catalog  # noqa: PLC0415
    from teatree.storage.catalog.postgres import Postgres  # noqa: PLC0415
    from teatree.storage.folders import model_chains  # noqa: PLC0415
    from teatree.storage.objects.stores import open_store  # noqa: PLC0415
    from teatree.storage.retention.cleanup import Cleanup  # noqa: PLC0415
    from teatree.storage.versions.chain import Chain  # noqa: PLC0415

    store, prefix = open_store(settings.store), settings.nats.prefix
    postgres = Postgres(settings.postgres, application="teatree-cli") if settings.postgres.url else None
    try:
        chains = [Chain(store, prefix, model)] if model else model_chains(store, prefix)
        failed: TeatreeError | None = None
        for chain in chains:
            catalog, probe = Catalog(postgres) if postgres else None, failing_probe(settings.failpoints)
            cleanup = Cleanup(chain, settings.retention, settings.limits.remember_days, catalog, probe)
            try:
                cleaned = cleanup.run(SYSTEM_CLOCK.now(), dry_run=dry_run)
            except TeatreeError as e:
                failed = failed or e  # a failure of one model does not stop the others
                continue
            if not cleaned.newest:
                raise RequestError(
                    Code.UNKNOWN_MODEL, f"There is no model {chain.model!r}.", hint="`teatree models` lists them."
                )
            yield cleaned
        if failed is not None:
            raise failed
    finally:
        if postgres is not None:
            postgres.close()
