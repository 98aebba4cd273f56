"""`teatree catalog`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from teatree.cli.options import DEFAULT, Common
from teatree.cli.output import Output, counted
from teatree.contracts.errors import Code, OperatorError

if TYPE_CHECKING:
    from teatree.cli.output import Advance
    from teatree.contracts.settings import Settings


def rebuild(*, common: Common = DEFAULT) -> None:
    """Rebuild the catalog from the manifests in the object store.

    Versions, objects and requests of all models; PostgreSQL need not hold anything.

    Example: teatree catalog rebuild
    """
    from teatree.client.session import client_settings  # noqa: PLC0415

    output = Output(json=common.json)
    settings = client_settings(None, common.data, None)
    if settings.postgres.url is None:
        raise OperatorError(
            Code.WRONG_CONFIGURATION,
            "No PostgreSQL is configured.",
            where="TEATREE_POSTGRES_URL",
            hint="Set it, or name the folder of a running stack with --data.",
        )
    with output.progress("rebuilding") as advance:
        counts = _rebuild(settings, advance)
    if output.json:
        output.line({"models": counts})
        return
    output.message(
        f"The catalog holds {counted(sum(counts.values()), 'version')} of {counted(len(counts), 'model')}.", "green"
    )


def _rebuild(settings: Settings, advance: Advance) -> dict[str, int]:
    from teatree.storage.catalog.catalog import Catalog  # noqa: PLC0415
    from teatree.storage.catalog.migrations.migrate import migrate  # noqa: PLC0415
    from teatree.storage.catalog.postgres import Postgres  # noqa: PLC0415
    from teatree.storage.catalog.projection import rebuild as rebuild_catalog_command  # noqa: PLC0415
    from teatree.storage.objects.stores import open_store  # noqa: PLC0415

    migrate(settings.postgres)  # the database may be a new one
    postgres = Postgres(settings.postgres, application="teatree-cli")
    try:
        return rebuild_catalog_command(
            open_store(settings.store),
            Catalog(postgres),
            settings.nats.prefix,
            lambda model, done, total: advance(done, total, description=f"rebuilding {model}"),
        )
    finally:
        postgres.close()
