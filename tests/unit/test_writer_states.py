"""The states of a model that its writer goes through, and what each allows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from one_writer import OneWriter, Sent, open_database
from teatree.contracts.errors import Code, OperatorError
from teatree.contracts.formats.manifest import ModelState, StreamStamp
from teatree.contracts.formats.notices import Status
from teatree.contracts.settings import LimitSettings
from teatree.engine.closed_model import ClosedModel, NotTakenOver
from teatree.engine.model_without_data import ModelWithoutData
from teatree.engine.open_model import OpenModel
from teatree.engine.publish.prepared import Author
from teatree.engine.writer import Writer

CREATE = Sent("create_model", {"tables": [{"table": "t", "columns": [{"name": "id", "type": "BIGINT"}]}]})


@pytest.fixture
def model(tmp_path: Path) -> Iterator[OneWriter]:
    """Return a model that has no file yet."""
    made = OneWriter(tmp_path)
    yield made
    made.close()


def test_a_model_that_was_not_taken_over(model: OneWriter) -> None:
    """A writer without a fence has no manifest and applies nothing; it can be closed."""
    writer = Writer(model.writer.context, Author(StreamStamp("REQUESTS", "2026-01-01T00:00:00Z"), {}))
    assert isinstance(writer.model, NotTakenOver)
    for use in (lambda: writer.manifest, lambda: writer.state, lambda: writer.apply([])):
        with pytest.raises(OperatorError) as refused:
            use()
        assert refused.value.code is Code.INTERNAL
    writer.leave()
    writer.close()


def test_a_model_is_created_and_dropped(model: OneWriter) -> None:
    """A file is open from `create_model` until the version of `drop_model` is shipped; both may be repeated."""
    for _ in range(2):
        assert isinstance(model.writer.model, ModelWithoutData)
        assert model.writer.state is not ModelState.ACTIVE
        (created,) = model.apply(CREATE)
        assert created.status is Status.DONE
        assert isinstance(model.writer.model, OpenModel)
        assert model.writer.state is ModelState.ACTIVE
        path = open_database(model.writer).path
        model.apply(Sent("drop_model"))
        assert model.writer.state is ModelState.DROPPED
        assert not path.exists()


def test_a_refused_creation_leaves_no_file(model: OneWriter) -> None:
    """A `create_model` that is refused has an outcome and a version, and the next one succeeds."""
    (refused,) = model.apply(Sent("create_model", {"tables": [{"table": "t", "columns": []}]}))
    assert refused.status is Status.REJECTED
    assert isinstance(model.writer.model, ModelWithoutData)
    assert model.chain.newest() == model.writer.manifest
    (created,) = model.apply(CREATE)
    assert created.status is Status.DONE


def test_a_used_id_without_a_file(model: OneWriter) -> None:
    """A `create_model` under the id of an ended incarnation's is answered as that; another body is refused."""
    named = {"Teatree-Request-Id": "first"}
    other = {"tables": [{"table": "u", "columns": [{"name": "id", "type": "BIGINT"}]}]}
    (created,) = model.apply(Sent(CREATE.function, CREATE.body, named))
    model.apply(Sent("drop_model"))
    for _ in range(2):
        (reused,) = model.apply(Sent(CREATE.function, other, named))
        assert reused.status is Status.REJECTED
        assert (reused.error or {})["code"] == Code.REQUEST_ID_REUSED.value
        (again,) = model.apply(Sent(CREATE.function, CREATE.body, named))
        assert (again.status, again.result) == (Status.DONE, {"seq": created.seq})
        assert model.writer.state is ModelState.DROPPED
    (created,) = model.apply(Sent(CREATE.function, other))
    assert created.status is Status.DONE


def test_limits_end_with_their_incarnation(model: OneWriter) -> None:
    """The limits of a dropped model do not bind the next one under its name, which may ask for more."""
    most = LimitSettings().batch_requests_max
    for limits in ({"batch_requests_max": 2}, {}, {"batch_requests_max": most}):
        (created,) = model.apply(Sent("create_model", {**CREATE.body, "limits": limits}))
        assert created.status is Status.DONE, created.error
        assert model.writer.limits.batch_requests_max == limits.get("batch_requests_max", most)
        model.apply(Sent("drop_model"))
        assert model.writer.limits == model.writer.context.limits


def test_a_file_that_was_put_aside(model: OneWriter, tmp_path: Path) -> None:
    """It lies in quarantine; its writer knows its manifest, reads and applies nothing, and may take over again."""
    model.apply(CREATE)
    writer, path = model.writer, open_database(model.writer).path
    manifest = writer.manifest
    store, key = model.chain.store, model.chain.key(manifest.pack.key if manifest.pack else "")
    pack = store.get(key)
    store.delete([key])
    writer.restore(manifest, tmp_path / "from the file")
    writer.put_data_aside()
    assert writer.model == ClosedModel(manifest)
    assert (writer.manifest, writer.state) == (manifest, ModelState.ACTIVE)
    with pytest.raises(OperatorError):
        writer.restore(manifest, tmp_path / "from the store")
    store.put(key, pack)
    writer.restore(manifest, tmp_path / "from the store")
    assert not path.exists()
    assert list(writer.context.folder.quarantine.iterdir())
    with pytest.raises(OperatorError):
        writer.apply([])
    assert writer.take_over(model.chain.newest()) is None
    assert writer.restored
    assert model.rows("SELECT count(*) AS n FROM t") == [{"n": 0}]
