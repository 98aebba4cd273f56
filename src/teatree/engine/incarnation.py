"""Creation of a model's file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from attrs import frozen

from teatree.contracts.errors import RequestError
from teatree.contracts.manifest import ModelOptions, StreamStamp
from teatree.contracts.notices import Status, outcome_of
from teatree.contracts.requests import Request
from teatree.engine.apply.batch import Applied, Creation
from teatree.engine.apply.commits import Commit, Identity, create_own_tables, record_commit
from teatree.engine.apply.transaction import NextVersion
from teatree.engine.duckdb.database import Database
from teatree.engine.duckdb.handle import WriteHandle
from teatree.engine.fork import Fork, disown, fetch_fork, open_fork
from teatree.engine.model_context import ModelContext
from teatree.functions.arguments import Call
from teatree.functions.model_arguments import ModelArguments
from teatree.functions.tables import make_table
from teatree.storage.ledger.segments import Entry, encode_segment
from teatree.storage.versions.packs import BlockTable


@frozen
class CreatedModel:
    """A model that was just created: its file is open, and its outcome committed in it."""

    database: Database
    applied: Applied
    options: ModelOptions
    table: BlockTable
    """Blocks that are in the store already: those of the version of which it is a fork."""


@frozen
class _Beginning:
    """What a new model begins with."""

    identity: Identity
    tables: list[dict[str, Any]]
    fork: Fork | None


def create_model_file(
    context: ModelContext,
    stream: StreamStamp,
    request: Request,
    next_version: NextVersion,
    path: Path,
    outside: tuple[Entry, ...],
) -> CreatedModel:
    """Create the file of a `create_model` request at `path`, and commit its outcome and those in `outside` in it.

    Raises a `RequestError` if the request is wrong, or a `RetryError` that it caused; an incomplete file may remain.
    """
    if request.invalid is not None:
        raise request.invalid
    function = context.functions.require(request.function)
    arguments: ModelArguments = function.run(None, Call(request, context.for_functions()))
    options = arguments.options
    shutil.rmtree(path.parent, ignore_errors=True)
    fork: Fork | None = None
    if arguments.fork_source is not None:
        fork = fetch_fork(context, arguments.fork_source, options, request.seq, path)
        options = fork.options
    chain, limits = context.chain, context.with_options(options).limits
    identity = Identity(chain.model, chain.goal_model_id, stream, request.seq, options)
    try:
        if fork is not None:
            database = open_fork(fork, path, limits, context.hooks.on_stuck, context.clock)
        else:
            database = Database(path, limits, options.storage_version, context.hooks.on_stuck, context.clock)
        try:
            handle = WriteHandle(database, limits)
            beginning = _Beginning(identity, arguments.tables, fork)
            applied = _commit_created(database, handle, beginning, request, next_version, outside)
        except BaseException:
            database.close()
            raise
    except RequestError:
        if fork is not None:
            fork.release()
        raise
    return CreatedModel(database, applied, options, fork.table if fork else BlockTable.empty(chain.folder))


def _commit_created(
    database: Database,
    handle: WriteHandle,
    beginning: _Beginning,
    request: Request,
    next_version: NextVersion,
    outside: tuple[Entry, ...],
) -> Applied:
    identity, fork = beginning.identity, beginning.fork
    with database.transaction():
        if fork is not None:
            disown(database)
        create_own_tables(database, identity)
        for place, members in enumerate(beginning.tables):
            make_table(handle, members, f"tables[{place}].")
        for name in handle.tables():
            handle.changed(name)
        result: dict[str, Any] = {"goal_model_id": identity.goal_model_id, "tables": list(handle.tables())}
        if fork is not None:
            result["from"] = {"model": fork.point.model, "version": fork.point.version}
        tables = tuple(sorted(handle.changed_tables))
        entries = (*outside, Entry(outcome_of(request, Status.DONE, result=result, effect=True, tables=tables)))
        applied = Applied(
            version=next_version.version,
            write_id=next_version.write_id,
            offset=request.seq,
            log_at=request.at,
            last_effect_seq=request.seq,
            entries=entries,
            segment=encode_segment(entries),
            changed_tables=frozenset(handle.changed_tables),
            creation=Creation(identity.options, fork.point if fork else None),
        )
        record_commit(database, _commit(applied), 0)
    return applied


def _commit(applied: Applied) -> Commit:
    return Commit(
        version=applied.version,
        write_id=applied.write_id,
        offset=applied.offset,
        log_at=applied.log_at,
        last_effect_seq=applied.last_effect_seq,
        changed_tables=tuple(sorted(applied.changed_tables)),
        outcomes=applied.segment,
    )
