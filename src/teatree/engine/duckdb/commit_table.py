"""Teatree's own tables inside a model's file: the commits, and which of them are not shipped yet.

Every transaction of a batch inserts one row of `_teatree.commits`, in the same transaction as its effects, and deletes
those of versions that were shipped long ago. The newest row is the file's offset; rows beyond the newest manifest are
commits that a crash left unshipped. A transaction that failed has no row, so it is never taken for committed.
"""

from __future__ import annotations

from datetime import UTC

import orjson

from teatree.contracts.errors import CorruptError
from teatree.contracts.formats.codec import dump_json, structure, unstructure
from teatree.contracts.formats.manifest import ModelOptions, StreamStamp
from teatree.contracts.names import OWN_SCHEMA
from teatree.engine.commits import Commit, Identity
from teatree.engine.duckdb.database import Database

_COMMITS = f"{OWN_SCHEMA}.commits"
_MODEL = f"{OWN_SCHEMA}.model"


def create_own_tables(database: Database, identity: Identity) -> None:
    """Create Teatree's tables in a new file, in the caller's transaction."""
    database.rows(f"CREATE SCHEMA {OWN_SCHEMA}")
    database.rows(
        f"CREATE TABLE {_MODEL}(model VARCHAR, goal_model_id VARCHAR, stream VARCHAR, stream_created VARCHAR,"
        " created_seq UBIGINT, options VARCHAR)"
    )
    database.rows(
        f"CREATE TABLE {_COMMITS}(version UBIGINT, write_id VARCHAR, applied_offset UBIGINT, log_at TIMESTAMP,"
        " last_effect_seq UBIGINT, changed_tables VARCHAR[], outcomes BLOB, dropped BOOLEAN, applied_index UINTEGER)"
    )
    database.rows(
        f"INSERT INTO {_MODEL} VALUES (?, ?, ?, ?, ?, ?)",
        (
            identity.model,
            identity.goal_model_id,
            identity.stream.name,
            identity.stream.created,
            identity.created_seq,
            dump_json(unstructure(identity.options)).decode(),
        ),
    )


def read_identity(database: Database) -> Identity:
    """Return the model to which the file belongs; raises `corrupt` if it is no model's file."""
    rows = database.rows(f"SELECT * FROM {_MODEL}")
    if len(rows) != 1:
        raise CorruptError("The file does not name the model to which it belongs.", where=str(database.path))
    model, goal_model_id, stream, created, created_seq, options = rows[0]
    return Identity(
        model=model,
        goal_model_id=goal_model_id,
        stream=StreamStamp(stream, created),
        created_seq=created_seq,
        options=structure(orjson.loads(options), ModelOptions, str(database.path)),
    )


def record_commit(database: Database, commit: Commit, shipped_version: int | None) -> None:
    """Insert a transaction's row and delete those below `shipped_version`, in the caller's transaction."""
    if shipped_version is not None:
        database.rows(f"DELETE FROM {_COMMITS} WHERE version < ?", (shipped_version,))
    database.rows(
        f"INSERT INTO {_COMMITS} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            commit.version,
            commit.write_id,
            commit.offset,
            commit.log_at.astimezone(UTC).replace(tzinfo=None),
            commit.last_effect_seq,
            list(commit.changed_tables),
            commit.outcomes,
            commit.dropped,
            commit.index,
        ),
    )


def adopt_commits(database: Database, shipped_version: int, version: int, write_id: str) -> None:
    """Give the commits that a crash left unshipped the version and write id under which they will be shipped.

    Runs in the caller's transaction. A file restored from that version must hold its own commit.
    """
    database.rows(
        f"UPDATE {_COMMITS} SET version = ?, write_id = ? WHERE version > ?", (version, write_id, shipped_version)
    )


def read_commits(database: Database) -> list[Commit]:
    """Return the rows that the file holds, by offset."""
    rows = database.rows(f"SELECT * FROM {_COMMITS} ORDER BY applied_offset")
    return [
        Commit(version, write_id, offset, log_at.replace(tzinfo=UTC), effect, tuple(changed), bytes(outcomes), *more)
        for version, write_id, offset, log_at, effect, changed, outcomes, *more in rows
    ]


def is_committed(database: Database, seq: int) -> bool:
    """Return whether the file holds the commit that ends with this request."""
    return bool(database.rows(f"SELECT 1 FROM {_COMMITS} WHERE applied_offset = ?", (seq,)))
