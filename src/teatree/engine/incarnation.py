"""Creation of a model's file, and outcomes of requests while there is none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from teatree.contracts.errors import RequestError, TeatreeError
from teatree.contracts.failpoints import Failpoint
from teatree.contracts.manifest import ForkPoint, Manifest, ModelOptions, StreamStamp
from teatree.contracts.notices import Status, outcome_of
from teatree.contracts.requests import Request
from teatree.contracts.settings import LimitSettings
from teatree.engine.batch import Applied
from teatree.engine.commits import Commit, Identity, create_own_tables, record_commit
from teatree.engine.database import Database
from teatree.engine.fork import Fork, disown, fetch_fork, open_fork
from teatree.engine.handle import WriteHandle
from teatree.engine.ledger import EarlierOutcome, Ledger, LostOutcome
from teatree.engine.outcomes import answer_again
from teatree.engine.transaction import NextVersion
from teatree.functions.arguments import Call, Context
from teatree.functions.model_arguments import ModelArguments
from teatree.functions.registry import Registry
from teatree.functions.tables import make_table
from teatree.storage.chain import Chain
from teatree.storage.packs import BlockTable
from teatree.storage.segments import Entry, Role, encode_segment


@frozen
class CreatedModel:
    """A model that was just created: its file is open, and its outcome committed in it."""

    database: Database
    applied: Applied
    options: ModelOptions
    table: BlockTable
    """Blocks that are in the store already: those of the version of which it is a fork."""
    fork_of: ForkPoint | None


def create_model_file(
    request: Request,
    next_version: NextVersion,
    context: Context,
    functions: Registry,
    path: Path,
    stream: StreamStamp,
    chain: Chain,
    ledger: Ledger,
    failpoint: Failpoint,
    outside: tuple[Entry, ...],
) -> CreatedModel:
    """Create the file of a `create_model` request, and commit its outcome and those in `outside` in it.

    Raises a `RequestError` if the request is wrong, or a `RetryError` that it caused; an incomplete file may remain.
    """
    if request.invalid is not None:
        raise request.invalid
    arguments: ModelArguments = functions.require(request.function).run(None, Call(request, context))
    options = arguments.options
    shutil.rmtree(path.parent, ignore_errors=True)
    fork: Fork | None = None
    if arguments.fork_source is not None:
        fork = fetch_fork(arguments.fork_source, options, request.seq, chain, context.limits, path, failpoint)
        options = fork.options
    limits = attrs.evolve(context.limits, **options.limits)
    identity = Identity(chain.model, chain.goal_model_id, stream, request.seq, options)
    try:
        database = open_fork(fork, path, limits) if fork else Database(path, limits, options.storage_version)
        try:
            applied = _commit_created(
                database, limits, identity, request, next_version, arguments.tables, fork, outside
            )
        except BaseException:
            database.close()
            raise
    except RequestError:
        if fork is not None:
            fork.release()
        raise
    ledger.add(next_version.version, applied.entries)
    table = fork.table if fork else BlockTable.empty(chain.folder)
    return CreatedModel(database, applied, options, table, fork.point if fork else None)


def _commit_created(
    database: Database,
    limits: LimitSettings,
    identity: Identity,
    request: Request,
    next_version: NextVersion,
    tables: list[dict[str, Any]],
    fork: Fork | None,
    outside: tuple[Entry, ...],
) -> Applied:
    handle = WriteHandle(database, limits)
    with database.transaction():
        if fork is not None:
            disown(database)
        create_own_tables(database, identity)
        for place, members in enumerate(tables):
            make_table(handle, members, f"tables[{place}].")
        for name in handle.tables():
            handle.changed(name)
        result: dict[str, Any] = {"goal_model_id": identity.goal_model_id, "tables": list(handle.tables())}
        if fork is not None:
            result["from"] = {"model": fork.point.model, "version": fork.point.version}
        entries = (*outside, Entry(outcome_of(request, Status.DONE, result=result, effect=True)))
        applied = _created(request, next_version, entries, frozenset(handle.changed_tables))
        record_commit(database, _commit(applied), 0)
    return applied


def _created(
    request: Request, next_version: NextVersion, entries: tuple[Entry, ...], changed_tables: frozenset[str]
) -> Applied:
    return Applied(
        version=next_version.version,
        write_id=next_version.write_id,
        offset=request.seq,
        log_at=request.at,
        last_effect_seq=request.seq,
        entries=entries,
        segment=encode_segment(entries),
        changed_tables=changed_tables,
        has_created=True,
    )


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


def outcome_without_file(
    next_version: NextVersion,
    request: Request,
    manifest: Manifest,
    ledger: Ledger,
    error: TeatreeError | None = None,
    earlier: EarlierOutcome | LostOutcome | None = None,
    outside: tuple[Entry, ...] = (),
) -> Applied:
    """Return a batch of one request that changed nothing: refused with `error`, or answered with `earlier`.

    It holds the outcomes in `outside` too.
    """
    if isinstance(earlier, LostOutcome):
        entry = Entry(outcome_of(request, Status.FAILED, error=earlier.error.to_dict()), Role.REUSED)
    elif earlier is not None:
        entry = Entry(answer_again(earlier.entry.outcome, request), Role.AGAIN, earlier.version)
    else:
        status = Status.REJECTED if isinstance(error, RequestError) else Status.FAILED
        entry = Entry(outcome_of(request, status, error=error.to_dict() if error else None))
    entries = (*outside, entry)
    ledger.add(next_version.version, entries)
    return Applied(
        version=next_version.version,
        write_id=next_version.write_id,
        offset=request.seq,
        log_at=request.at,
        last_effect_seq=manifest.last_effect_seq,
        entries=entries,
        segment=encode_segment(entries),
        changed_tables=frozenset(),
    )
