"""A model's condition: why its requests wait, and what is damaged in the store."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

_STATE = """
    ALTER TABLE goal_model DROP COLUMN state,
        ADD COLUMN state text GENERATED ALWAYS AS (CASE
            WHEN lifecycle = 'dropped' AND error IS NULL THEN lifecycle
            WHEN damage IS NOT NULL OR error->>'code' IN ('corrupt', 'not_found') THEN 'damaged'
            WHEN error IS NOT NULL THEN 'stopped'
            WHEN waits IS NOT NULL THEN 'waits'
            ELSE lifecycle END) STORED
    """
_STATE_BEFORE = """
    ALTER TABLE goal_model DROP COLUMN state, DROP COLUMN damage, DROP COLUMN waits,
        ADD COLUMN state text GENERATED ALWAYS AS (CASE WHEN error IS NULL THEN lifecycle ELSE 'stopped' END) STORED
    """


def upgrade() -> None:
    """Add the columns, and derive the state from them."""
    op.execute("ALTER TABLE goal_model ADD COLUMN waits text, ADD COLUMN damage jsonb")
    op.execute(_STATE)
    op.execute("COMMENT ON COLUMN goal_model.waits IS 'Why requests wait, as the manager reports it; null if not.'")
    op.execute("COMMENT ON COLUMN goal_model.damage IS 'What was found damaged in the store, by version; else null.'")
    op.execute("COMMENT ON COLUMN goal_model.state IS 'lifecycle; damaged or stopped if it needs an operator; waits.'")


def downgrade() -> None:
    """Drop them."""
    op.execute(_STATE_BEFORE)
