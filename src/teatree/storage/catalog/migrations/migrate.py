"""The migration of the catalog's schema to this release's; the only module that uses Alembic and SQLAlchemy.

All of it happens in one transaction under an advisory lock: of two processes that migrate at once the second waits and
then finds nothing to do, and one that crashes leaves the schema as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from teatree.contracts.errors import Code, OperatorError
from teatree.contracts.extras import extra_for
from teatree.storage.catalog.postgres import Postgres

with extra_for("Migrating the catalog", "server"):
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from teatree.contracts.settings import PostgresSettings

VERSION_TABLE = "teatree_schema"
"""Where Alembic keeps the schema's revision: the database may be shared with others that use Alembic."""
_LOCK = 0x7EA7_4EE0
"""The advisory lock's number: any, as long as it stays the same."""
_STATEMENT_MS_MAX = 600_000
"""Milliseconds of one statement: a change of a large table may take minutes."""


def migrate(settings: PostgresSettings) -> None:
    """Bring the catalog's schema to this release's; does nothing if it is there.

    Raises `unavailable` if PostgreSQL cannot be reached, `wrong_configuration` if a newer release made the schema.
    """
    postgres = Postgres(settings, application="teatree-migrate", statement_ms_max=_STATEMENT_MS_MAX)
    engine = create_engine("postgresql+psycopg://", creator=postgres.connect, poolclass=NullPool)
    config = Config()
    config.set_main_option("script_location", "teatree.storage.catalog:migrations")
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as e:
        raise OperatorError(
            Code.WRONG_CONFIGURATION,
            f"The catalog's schema cannot be migrated: {e}",
            where=VERSION_TABLE,
            hint="If a newer release made it, use that release.",
        ) from e
    except DBAPIError as e:
        raise postgres.translate(e.orig or e) from e
    finally:
        engine.dispose()
