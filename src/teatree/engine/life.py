"""The beginning of a model's life, and outcomes of requests while there is no file."""

from __future__ import annotations

import shutil
from pathlib import Path

import attrs

from teatree.contracts.errors import RequestError, TeatreeError
from teatree.contracts.manifest import Manifest, ModelOptions, StreamStamp
from teatree.contracts.notices import Outcome, Status
from teatree.contracts.requests import Request
from teatree.engine.batch import Applied
from teatree.engine.commits import Commit, Identity, create_own_tables, record_commit
from teatree.engine.database import Database
from teatree.engine.handle import WriteHandle
from teatree.engine.ledger import Ledger, Prior
from teatree.engine.transaction import Target, answer_again
from teatree.functions.arguments import Call, Context
from teatree.functions.registry import find_function
from teatree.functions.tables import make_table
from teatree.storage.chain import Chain
from teatree.storage.segments import Entry, Role, encode_segment


def begin_life(
    request: Request,
    target: Target,
    context: Context,
    path: Path,
    stream: StreamStamp,
    chain: Chain,
    ledger: Ledger,
) -> tuple[Database, Applied, ModelOptions]:
    """Create the file that a `create_model` asks for, its outcome committed in it.

    Raises a `RequestError`, the file gone again, if the request is wrong.
    """
    if request.invalid is not None:
        raise request.invalid
    options, tables = find_function(request.function).run(None, Call(request, context))
    limits = attrs.evolve(context.limits, **options.limits)
    shutil.rmtree(path.parent, ignore_errors=True)
    database = Database(path, limits, options.storage_version)
    try:
        handle = WriteHandle(database, limits)
        with database.transaction():
            create_own_tables(database, Identity(chain.model, chain.goal_model_id, stream, request.seq, options))
            for place, members in enumerate(tables):
                make_table(handle, members, f"tables[{place}].")
            result = {"goal_model_id": chain.goal_model_id, "tables": list(handle.tables())}
            entry = Entry(_outcome(request, Status.DONE, result=result, effect=True))
            segment = encode_segment((entry,))
            applied = Applied(
                version=target.version,
                write_id=target.write_id,
                offset=request.seq,
                log_at=request.at,
                last_effect_seq=request.seq,
                entries=(entry,),
                segment=segment,
                changed_tables=frozenset(handle.changed_tables),
                born=True,
            )
            commit = Commit(
                version=target.version,
                write_id=target.write_id,
                offset=request.seq,
                log_at=request.at,
                last_effect_seq=request.seq,
                changed_tables=tuple(sorted(handle.changed_tables)),
                outcomes=segment,
            )
            record_commit(database, commit, 0)
    except BaseException:
        database.close()
        raise
    ledger.add(target.version, (entry,))
    return database, applied, options


def outcome_without_file(
    target: Target,
    request: Request,
    manifest: Manifest,
    ledger: Ledger,
    error: TeatreeError | None = None,
    prior: Prior | None = None,
) -> Applied:
    """Return a batch of one request that changed nothing: refused with `error`, or answered as `prior` was."""
    if prior is not None:
        entry = Entry(answer_again(prior.entry.outcome, request), Role.AGAIN, prior.version)
    else:
        status = Status.REJECTED if isinstance(error, RequestError) else Status.FAILED
        entry = Entry(_outcome(request, status, error=error.to_dict() if error else None))
    ledger.add(target.version, (entry,))
    return Applied(
        version=target.version,
        write_id=target.write_id,
        offset=request.seq,
        log_at=request.at,
        last_effect_seq=manifest.last_effect_seq,
        entries=(entry,),
        segment=encode_segment((entry,)),
        changed_tables=frozenset(),
    )


def _outcome(
    request: Request,
    status: Status,
    *,
    result: object = None,
    error: dict[str, object] | None = None,
    effect: bool = False,
) -> Outcome:
    return Outcome(
        seq=request.seq,
        request_id=request.request_id,
        function=request.function,
        body_hash=request.body_hash,
        status=status,
        at=request.at,
        result=result,
        error=error,
        group=request.group,
        effect=effect,
    )
