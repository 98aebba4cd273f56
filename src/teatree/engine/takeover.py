"""Takeover of a model: continues from the local data if they are current, else restores the newest version.

Read-write data lie in a folder named by their writer's epoch. The caller holds the model's lock on this host, so no
live process has them open. They are used only if they descend from the newest manifest's content; any other (another
writer has continued meanwhile, a lost or truncated write-ahead log, damage) are put into quarantine, and the newest
version is restored from the store: the log after it is replayed.
"""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

from attrs import frozen

from teatree.contracts.errors import CorruptError, RetryError, TeatreeError
from teatree.contracts.formats.manifest import Manifest
from teatree.engine.base import Engine, ModelData
from teatree.engine.commits import Commit, unshipped
from teatree.engine.errors import DamagedFileError
from teatree.engine.local.spares import sweep
from teatree.engine.model_context import ModelContext
from teatree.storage.model_folder import ModelFolder


@frozen
class TakenOver:
    """Open data, and their commits that are not shipped."""

    data: ModelData
    unshipped: tuple[Commit, ...]
    restored: bool
    """Whether they came from the store rather than from this host's disk."""


def take_data(context: ModelContext, newest: Manifest) -> TakenOver:
    """Return the model's data for the epoch of `newest`: the local ones if they descend from it, else restored ones."""
    folder, engine = context.folder, context.engines.require(newest.options.engine)
    target = folder.data(newest.epoch, engine.name)
    local = _newest_local(folder, engine)
    if local is not None:
        _discard_others(folder, local)
        if local.parent != target.parent:
            shutil.rmtree(target.parent, ignore_errors=True)
            local.parent.rename(target.parent)
        taken_over = None if folder.restore_wanted.exists() else _resume(context, engine, target, newest)
        if taken_over is not None:
            return taken_over
        put_aside(folder, newest.epoch, context.clock.now())
    folder.restore_wanted.unlink(missing_ok=True)
    sweep(folder)  # the room may be needed
    engine.restore(context.chain, newest, target)
    taken_over = _resume(context, engine, target, newest)
    if taken_over is None:
        raise CorruptError(
            f"Version {newest.version} was restored but does not hold its own commit.", where=str(target)
        )
    return TakenOver(taken_over.data, taken_over.unshipped, restored=True)


def discard_temp(folder: ModelFolder) -> None:
    """Delete the temporary files that a killed manager has left, its own and its engine's; no data are open."""
    spilled = [path for path in folder.read_write.glob("*/model.*.tmp") if not path.parent.is_symlink()]
    for left in (folder.temp, *spilled):
        shutil.rmtree(left, ignore_errors=True)


def discard_data(folder: ModelFolder) -> None:
    """Delete the read-write data of a model that no longer needs any."""
    shutil.rmtree(folder.read_write, ignore_errors=True)


def _newest_local(folder: ModelFolder, engine: Engine) -> Path | None:
    name = folder.data(0, engine.name).name
    found = sorted(folder.read_write.glob(f"*/{name}")) if folder.read_write.is_dir() else []
    return found[-1] if found else None


def _discard_others(folder: ModelFolder, kept: Path) -> None:
    for other in folder.read_write.iterdir():
        if other != kept.parent:
            shutil.rmtree(other, ignore_errors=True)


def _resume(context: ModelContext, engine: Engine, place: Path, newest: Manifest) -> TakenOver | None:
    """Open the data if they descend from `newest`; None if they must not be used."""
    try:
        data = engine.open(context.for_engine(), place, newest)
    except DamagedFileError:
        return None
    try:
        pending = _pending(data, newest)
    except RetryError:
        data.close()
        raise
    except TeatreeError:  # their content is damaged: the store has a whole one
        pending = None
    if pending is None:
        data.close()
        return None
    return TakenOver(data, tuple(pending), restored=False)


def _pending(data: ModelData, newest: Manifest) -> list[Commit] | None:
    identity = data.identity()
    if (identity.goal_model_id, identity.stream) != (newest.goal_model_id, newest.stream):
        return None
    commits = data.commits()
    pending = unshipped(commits, newest.content_version, newest.content_write_id)
    if pending is None or max(c.offset for c in commits) < newest.offset:
        return None
    return pending


def put_aside(folder: ModelFolder, epoch: int, now: datetime) -> None:
    """Put data that must not be used into quarantine; the next takeover restores the version from the store."""
    place = folder.epoch(epoch)
    if not place.exists():  # an engine need not keep data on this host
        return
    shutil.rmtree(folder.quarantine, ignore_errors=True)  # only the last ones are kept, for inspection
    folder.quarantine.mkdir(parents=True)
    place.rename(folder.quarantine / f"{place.name}-{int(now.timestamp())}")
