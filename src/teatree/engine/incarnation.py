"""Creation of a model's data, which begins an incarnation."""

from __future__ import annotations

import shutil
from typing import Any

from attrs import frozen

from teatree.contracts.errors import RequestError
from teatree.contracts.formats.manifest import ModelOptions
from teatree.contracts.formats.notices import Status, outcome_of
from teatree.contracts.formats.requests import Request
from teatree.engine.apply.batch import Applied, Creation
from teatree.engine.apply.transaction import NextVersion
from teatree.engine.base import ModelData
from teatree.engine.commits import Commit, Identity
from teatree.engine.fork import PinnedSource, pin_source
from teatree.engine.model_context import ModelContext
from teatree.engine.publish.preparer import VersionPreparer
from teatree.functions.arguments import Call
from teatree.functions.model_arguments import ModelArguments
from teatree.functions.tables import make_table
from teatree.storage.ledger.segments import Entry, encode_segment


@frozen
class CreatedModel:
    """A model that was just created: its data are open, and its outcome committed in them."""

    data: ModelData
    applied: Applied
    options: ModelOptions


@frozen
class _Beginning:
    """What a new model begins with."""

    identity: Identity
    tables: list[dict[str, Any]]
    source: PinnedSource | None


def create_data(
    context: ModelContext,
    preparer: VersionPreparer,
    request: Request,
    next_version: NextVersion,
    outside: tuple[Entry, ...],
) -> CreatedModel:
    """Create the data of a `create_model` request, and commit its outcome and those in `outside` in them.

    Raises a `RequestError` if the request is wrong, or a `RetryError` that it caused; incomplete data may remain.
    """
    if request.invalid is not None:
        raise request.invalid
    function = context.functions.require(request.function)
    arguments: ModelArguments = function.run(None, Call(request, context.for_functions()))
    options, source = arguments.options, None
    if arguments.fork_source is not None:
        source = pin_source(context, arguments.fork_source, options, request.seq)
        options = source.options
    chain = context.chain
    identity = Identity(chain.model, chain.goal_model_id, preparer.author.stream, request.seq, options)
    try:
        data = _begun(context.with_options(options), preparer.base.epoch, identity, source)
        try:
            applied = _commit_created(
                data, _Beginning(identity, arguments.tables, source), request, next_version, outside
            )
        except BaseException:
            data.close()
            raise
    except RequestError:
        if source is not None:
            source.release()
        raise
    return CreatedModel(data, applied, options)


def _begun(context: ModelContext, epoch: int, identity: Identity, source: PinnedSource | None) -> ModelData:
    engine = context.engines.require(identity.options.engine)
    place = context.folder.data(epoch, engine.name)
    shutil.rmtree(place.parent, ignore_errors=True)
    if source is None:
        return engine.create(context.for_engine(), place, identity)
    try:
        return engine.fork(context.for_engine(), place, source.manifest, identity)
    except RequestError as e:
        if e.where == "version":
            e.where = "from.version"
        raise


def _commit_created(
    data: ModelData, beginning: _Beginning, request: Request, next_version: NextVersion, outside: tuple[Entry, ...]
) -> Applied:
    connection, identity, source = data.connection, beginning.identity, beginning.source
    handle = connection.handle
    connection.begin(())
    try:
        for place, members in enumerate(beginning.tables):
            make_table(handle, members, f"tables[{place}].")
        for name in handle.tables():
            handle.changed(name)
        result: dict[str, Any] = {"goal_model_id": identity.goal_model_id, "tables": list(handle.tables())}
        if source is not None:
            result["from"] = {"model": source.point.model, "version": source.point.version}
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
            creation=Creation(identity.options, source.point if source else None),
        )
        connection.commit(_commit(applied), 0)
    except BaseException:
        connection.rollback()
        raise
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
