"""Who sent each request, the trace to which it belongs, and the tables that it wrote."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns."""
    op.execute("ALTER TABLE request_log ADD COLUMN sender text, ADD COLUMN traceparent text, ADD COLUMN tables text[]")
    op.execute("COMMENT ON COLUMN request_log.sender IS 'Who published the request; null if no one was named.'")
    op.execute("COMMENT ON COLUMN request_log.traceparent IS 'The trace to which it belongs (W3C); null without one.'")
    op.execute("COMMENT ON COLUMN request_log.tables IS 'The tables that it wrote; null if it wrote none.'")


def downgrade() -> None:
    """Drop them."""
    op.execute("ALTER TABLE request_log DROP COLUMN sender, DROP COLUMN traceparent, DROP COLUMN tables")
