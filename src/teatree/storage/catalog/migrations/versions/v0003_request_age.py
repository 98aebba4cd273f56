"""The age of ended requests: those older than a setting are deleted without reading all of `request_log`."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add a block range index: rows end about in the order in which they are written."""
    op.execute("CREATE INDEX request_log_by_age ON request_log USING brin (finished_at)")


def downgrade() -> None:
    """Drop it."""
    op.execute("DROP INDEX request_log_by_age")
