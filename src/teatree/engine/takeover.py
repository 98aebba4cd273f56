"""Takeover of a model: continues from the local file if it is current, else restores the newest version.

A read-write file lies in a folder named by its writer's epoch. The caller holds the model's lock on this host, so no
live process has a file open. A file is used only if it descends from the newest manifest's content; any other (another
writer has continued meanwhile, a lost or truncated write-ahead log, damage) is put into quarantine, and the newest
version is restored from the store: the log after it is replayed.
"""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

from attrs import frozen

from teatree.contracts.errors import CorruptError, RetryError, TeatreeError
from teatree.contracts.manifest import Manifest
from teatree.engine.apply.commits import Commit, read_commits, read_identity, unshipped
from teatree.engine.duckdb.changes import check_length
from teatree.engine.duckdb.database import Database
from teatree.engine.local.spares import sweep
from teatree.engine.model_context import ModelContext
from teatree.storage.model_folder import ModelFolder
from teatree.storage.versions.reader import materialise


@frozen
class TakenOver:
    """An open file, and its commits that are not shipped."""

    database: Database
    unshipped: tuple[Commit, ...]
    restored: bool
    """Whether it came from the store rather than from this host's disk."""


def take_file(context: ModelContext, newest: Manifest) -> TakenOver:
    """Return the model's file for the epoch of `newest`: the local one if it descends from it, else a restored one."""
    folder = context.folder
    target = folder.database(newest.epoch)
    local = _newest_local(folder)
    if local is not None:
        _discard_others(folder, local)
        if local.parent != target.parent:
            shutil.rmtree(target.parent, ignore_errors=True)
            local.parent.rename(target.parent)
        taken_over = None if folder.restore_wanted.exists() else _resume(context, target, newest)
        if taken_over is not None:
            return taken_over
        put_aside(folder, target, context.clock.now())
    folder.restore_wanted.unlink(missing_ok=True)
    sweep(folder)  # the room may be needed
    materialise(context.chain.store, newest, target)
    taken_over = _resume(context, target, newest)
    if taken_over is None:
        raise CorruptError(
            f"Version {newest.version} was restored but does not hold its own commit.", where=str(target)
        )
    return TakenOver(taken_over.database, taken_over.unshipped, restored=True)


def discard_temp(folder: ModelFolder) -> None:
    """Delete the temporary files that a killed manager has left, its own and DuckDB's; no file of the model is open."""
    for left in (folder.temp, *folder.read_write.glob("*/model.duckdb.tmp")):
        shutil.rmtree(left, ignore_errors=True)


def discard_files(folder: ModelFolder) -> None:
    """Delete the read-write files of a model that no longer needs one."""
    shutil.rmtree(folder.read_write, ignore_errors=True)


def _newest_local(folder: ModelFolder) -> Path | None:
    found = sorted(folder.read_write.glob("*/model.duckdb")) if folder.read_write.is_dir() else []
    return found[-1] if found else None


def _discard_others(folder: ModelFolder, kept: Path) -> None:
    for other in folder.read_write.iterdir():
        if other != kept.parent:
            shutil.rmtree(other, ignore_errors=True)


def _resume(context: ModelContext, path: Path, newest: Manifest) -> TakenOver | None:
    """Open the file if it descends from `newest`; None if it must not be used."""
    try:
        database = Database(path, context.limits, on_stuck=context.hooks.on_stuck, clock=context.clock)
    except CorruptError:
        return None
    try:
        check_length(database)
        pending = _pending(database, newest)
    except RetryError:
        database.close()
        raise
    except TeatreeError:  # its content is damaged: the store has a whole one
        pending = None
    if pending is None:
        database.close()
        return None
    return TakenOver(database, tuple(pending), restored=False)


def _pending(database: Database, newest: Manifest) -> list[Commit] | None:
    identity = read_identity(database)
    if (identity.goal_model_id, identity.stream) != (newest.goal_model_id, newest.stream):
        return None
    commits = read_commits(database)
    pending = unshipped(commits, newest.content_version, newest.content_write_id)
    if pending is None or max(c.offset for c in commits) < newest.offset:
        return None
    return pending


def put_aside(folder: ModelFolder, path: Path, now: datetime) -> None:
    """Put a file that must not be used into quarantine; the next takeover restores the version from the store."""
    shutil.rmtree(folder.quarantine, ignore_errors=True)  # only the last one is kept, for inspection
    folder.quarantine.mkdir(parents=True)
    path.parent.rename(folder.quarantine / f"{path.parent.name}-{int(now.timestamp())}")
