"""The catalog's four tables: a projection of the version chains, which other programs read."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision: str | None = None

_TABLES = (
    """
    CREATE TABLE goal_model (
        goal_model_id  uuid PRIMARY KEY,
        name           text NOT NULL UNIQUE,
        engine         text NOT NULL DEFAULT 'duckdb',
        lifecycle           text NOT NULL DEFAULT 'absent' CHECK (lifecycle IN ('absent', 'active', 'dropped')),
        state          text GENERATED ALWAYS AS (CASE WHEN error IS NULL THEN lifecycle ELSE 'stopped' END) STORED,
        version        bigint NOT NULL DEFAULT 0,
        applied_offset bigint NOT NULL DEFAULT 0,
        epoch          bigint NOT NULL DEFAULT 0,
        options        jsonb NOT NULL DEFAULT '{}',
        tables         jsonb NOT NULL DEFAULT '[]',
        size_bytes     bigint NOT NULL DEFAULT 0,
        store_url      text,
        error          jsonb,
        writer         jsonb,
        lease_until    timestamptz,
        created_at     timestamptz NOT NULL DEFAULT now(),
        updated_at     timestamptz NOT NULL DEFAULT now()
    )
    """,
    "COMMENT ON TABLE goal_model IS 'One row a model: its newest recorded version and who may write it.'",
    "COMMENT ON COLUMN goal_model.lifecycle IS 'State of the model in its newest recorded version.'",
    "COMMENT ON COLUMN goal_model.state IS 'lifecycle, or stopped while an error needs an operator.'",
    "COMMENT ON COLUMN goal_model.applied_offset IS 'Sequence in the log up to which the version holds everything.'",
    "COMMENT ON COLUMN goal_model.epoch IS 'Number of the fence manifest of the writer of that version.'",
    "COMMENT ON COLUMN goal_model.writer IS 'The process that holds the lease: it should write; the chain decides.'",
    """
    CREATE TABLE goal_model_version (
        goal_model_id  uuid NOT NULL,
        version        bigint NOT NULL,
        write_id       text NOT NULL,
        kind           text NOT NULL,
        epoch          bigint NOT NULL,
        applied_offset bigint NOT NULL,
        user_version   bigint NOT NULL,
        at             timestamptz NOT NULL,
        log_at         timestamptz NOT NULL,
        size_bytes     bigint NOT NULL,
        pack_bytes     bigint NOT NULL,
        requests       integer NOT NULL,
        changed_tables text[] NOT NULL,
        PRIMARY KEY (goal_model_id, version)
    )
    """,
    "COMMENT ON TABLE goal_model_version IS 'One row a version: its manifest in short.'",
    """
    CREATE TABLE content_index (
        goal_model_id uuid NOT NULL,
        version       bigint NOT NULL,
        kind          text NOT NULL CHECK (kind IN ('snapshot', 'pack', 'outcomes', 'parquet', 'page')),
        table_name    text,
        uri           text NOT NULL,
        rows          bigint NOT NULL,
        bytes         bigint NOT NULL,
        checksum      text NOT NULL,
        at            timestamptz NOT NULL,
        PRIMARY KEY (goal_model_id, uri)
    )
    """,
    "CREATE INDEX content_index_by_version ON content_index (goal_model_id, version)",
    "COMMENT ON TABLE content_index IS 'One row an object: where it lies, and its rows, bytes and blake3.'",
    """
    CREATE TABLE request_log (
        goal_model_id uuid NOT NULL,
        request_id    text NOT NULL,
        seq           bigint NOT NULL,
        function      text NOT NULL,
        state         text NOT NULL CHECK (state IN ('started', 'done', 'rejected', 'failed')),
        version       bigint,
        result        jsonb,
        error         jsonb,
        group_id      text,
        accepted_at   timestamptz NOT NULL,
        finished_at   timestamptz,
        PRIMARY KEY (goal_model_id, request_id)
    )
    """,
    "CREATE INDEX request_log_by_seq ON request_log (goal_model_id, seq)",
    "COMMENT ON TABLE request_log IS 'One row a request: how it ended, and in which version.'",
)


def upgrade() -> None:
    """Create the tables."""
    for statement in _TABLES:
        op.execute(statement)


def downgrade() -> None:
    """Drop them: all can be rebuilt from the object store."""
    op.execute("DROP TABLE goal_model, goal_model_version, content_index, request_log")
