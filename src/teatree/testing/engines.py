"""The suite of engines: what the writer relies on, shown from outside, by requests and published versions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from teatree.contracts.errors import Code, FencedError, OperatorError, RequestError, RetryError
from teatree.contracts.formats.manifest import ModelState
from teatree.contracts.formats.notices import Outcome, Status
from teatree.engine.base import Engine
from teatree.engine.commits import Commit
from teatree.engine.errors import DamagedFileError, InvalidatedError
from teatree.engine.publish.shipping import ship
from teatree.functions.arguments import Call
from teatree.functions.handles import WriteAccess
from teatree.functions.inserts import insert
from teatree.functions.registry import built_in_functions
from teatree.functions.traits import Function
from teatree.testing.engine_model import TABLE, EngineModel, Killed, NewRequest, add

REQUESTS = 25
PLACES = (
    "manager.apply.commit.begin",
    "manager.apply.commit.end",
    "manager.capture.begin",
    "manager.capture.end",
    "manager.ship.pack.begin",
    "manager.ship.segment.begin",
    "manager.ship.manifest.begin",
    "manager.ship.manifest.end",
)
"""Where a writer is killed."""


def half(db: WriteAccess, call: Call) -> None:
    """Add a row, then fail as the argument `how` asks."""
    import pyarrow as pa  # noqa: PLC0415

    how = call.text("how")
    insert(db, db.table("t"), [pa.table({"id": pa.array([1_000], pa.int64()), "v": ["half"]})])
    if how == "rejected":
        raise RequestError(Code.BAD_ARGUMENT, "It fails halfway.", where="how")
    raise ZeroDivisionError(how)


def error_of(outcome: Outcome) -> str | None:
    """Return the code of an outcome's error, None if it is done."""
    return (outcome.error or {}).get("code")


# More than ten public methods: each is a test.
class EngineSuite:
    """What every engine does. Override the fixture `engine`."""

    @pytest.fixture
    def engine(self) -> Engine:
        """Return the engine."""
        raise NotImplementedError

    @pytest.fixture
    def empty(self, engine: Engine, tmp_path: Path) -> Iterator[EngineModel]:
        """Return a model that does not exist yet."""
        functions = built_in_functions().extended(Function("half", half))
        model = EngineModel(engine, tmp_path, functions=functions)
        yield model
        model.end()

    @pytest.fixture
    def model(self, empty: EngineModel) -> EngineModel:
        """Return a model with a table `t`."""
        return empty.created(TABLE)

    # --- requests ----------------------------------------------------------------------------------------------------

    def test_requests_take_effect_in_order(self, model: EngineModel) -> None:
        """Each request finds what those before it have left, in the same batch and in earlier ones."""
        other = {"table": "u", "columns": [{"name": "n", "type": "BIGINT"}]}
        outcomes = model.run(
            add(1, 2),
            NewRequest("create_table", other),
            NewRequest("append", {"table": "u", "rows": [{"n": 1}, {"n": None}]}),
            NewRequest("replace", {"table": "t", "rows": [{"id": 3, "v": "x"}]}),
            add(1),
        )
        assert [outcome.status for outcome in outcomes] == [Status.DONE] * 5
        assert model.rows() == [{"id": 1, "v": "1"}, {"id": 3, "v": "x"}]
        assert model.rows("SELECT count(*) AS all, count(n) AS given FROM u") == [{"all": 2, "given": 1}]
        model.run(NewRequest("drop_table", {"table": "t"}))
        newest = model.manifests()[-1]
        assert [(entry.name, entry.rows) for entry in newest.tables] == [("u", 2)]
        assert newest.changed_tables == ("t",)

    def test_an_id_takes_effect_once(self, model: EngineModel) -> None:
        """A request that is sent again has the first one's outcome: in its batch, in later ones, after a restart."""
        first = add(1, request_id="a")
        outcomes = model.run(first, first, add(2))
        model.run(first)
        model.end()
        model.take_over()
        outcomes += model.run(first, add(1, 5, request_id="a"))
        assert [error_of(outcome) for outcome in outcomes] == [None] * 4 + [Code.REQUEST_ID_REUSED]
        assert model.ids() == [1, 2]

    @pytest.mark.parametrize(
        ("bad", "code"),
        [
            (add(1), Code.CONSTRAINT),
            (add(5, 5), Code.CONSTRAINT),
            (NewRequest("append", {"table": "t", "rows": [{"v": "x"}]}), Code.MISSING_COLUMN),
            (NewRequest("append", {"table": "t", "rows": [{"id": "x"}]}), Code.TYPE_MISMATCH),
            (NewRequest("append", {"table": "x", "rows": []}), Code.UNKNOWN_TABLE),
            (NewRequest("create_table", TABLE), Code.TABLE_EXISTS),
            (NewRequest("nothing"), Code.UNKNOWN_FUNCTION),
            (add(5, expected_version=2), Code.STALE_VERSION),
            (NewRequest("query", {"sql": "SELECT x FROM t"}), Code.BAD_SQL),
            (NewRequest("half", {"how": "rejected"}), Code.BAD_ARGUMENT),
            (NewRequest("half", {"how": "failed"}), Code.INTERNAL),
        ],
    )
    def test_a_request_that_fails_harms_only_itself(self, model: EngineModel, bad: NewRequest, code: Code) -> None:
        """It has no effect at all, also if it had changed something; its neighbours in the batch are done."""
        model.run(add(1))
        outcomes = model.run(add(2), bad, add(3), bad, add(4))
        assert [error_of(outcome) for outcome in outcomes] == [None, code, None, code, None]
        assert {outcome.status for outcome in outcomes[1::2]} <= {Status.REJECTED, Status.FAILED}
        assert model.ids() == [1, 2, 3, 4]

    def test_outcomes_do_not_depend_on_batches(self, engine: Engine, tmp_path: Path) -> None:
        """Requests one by one, and in batches of any size, have the same outcomes and leave the same rows."""
        draw = random.Random(1)
        sent = [_drawn(draw) for _ in range(REQUESTS)]
        found: list[tuple[list[Any], list[Any]]] = []
        for batch_max in (1, 7, 1_000):
            model = EngineModel(engine, tmp_path / str(batch_max)).created(TABLE)
            outcomes = model.run(*sent, batch_max=batch_max)
            found.append(([(o.status, o.result, o.error, o.tables) for o in outcomes], model.rows()))
            model.end()
        assert found[1] == found[0]
        assert found[2] == found[0]
        assert sum(outcome[2] is not None for outcome in found[0][0]) > 5

    def test_a_query_reads_what_precedes_it(self, model: EngineModel) -> None:
        """Its pages hold the effects of the requests before it, and of none after it."""
        outcomes = model.run(add(1), NewRequest("query", {"sql": "SELECT count(*) AS n FROM t"}), add(2))
        (page,) = outcomes[1].pages
        assert b'"rows":[{"n":1}]' in model.chain.store.get(model.chain.key(page["ref"]))
        assert not outcomes[1].effect

    def test_a_request_that_is_set_aside(self, model: EngineModel) -> None:
        """It has no effect, and an outcome."""
        (request,) = model.publish(add(1))
        applied = model.writer.set_aside(request, RetryError(Code.SET_ASIDE, "It was set aside."))
        model.writer.advance_base(ship(model.writer.capture(applied, 0), model.writer.context))
        assert error_of(model.outcomes()[request.seq]) == Code.SET_ASIDE
        model.run(add(2))
        assert model.ids() == [2]

    def test_a_writer_that_leaves(self, model: EngineModel) -> None:
        """It begins no further transaction, and refuses no request for that."""
        requests = model.publish(add(1))
        model.writer.leave()
        with pytest.raises(RetryError) as refused:
            model.writer.apply(requests)
        assert refused.value.code is Code.UNAVAILABLE
        model.end()
        model.take_over()
        model.carry()
        assert model.ids() == [1]

    # --- incarnations ------------------------------------------------------------------------------------------------

    def test_a_model_is_created_and_dropped(self, empty: EngineModel) -> None:
        """Its state decides whether there are data; a new incarnation has nothing of the one before."""
        for _ in range(2):
            empty.created(TABLE)
            empty.run(add(1))
            newest = empty.manifests()[-1]
            assert (newest.state, newest.options.engine) == (ModelState.ACTIVE, empty.engine.name)
            assert newest.content is not None
            empty.run(NewRequest("drop_model"))
            newest = empty.manifests()[-1]
            assert (newest.state, newest.content, newest.tables) == (ModelState.DROPPED, None, ())
            empty.end()

    def test_a_creation_that_is_refused(self, empty: EngineModel) -> None:
        """It leaves nothing, also if some of its tables were created; the next one succeeds."""
        empty.take_over()
        arguments = {"engine": empty.engine.name, "tables": [TABLE, TABLE]}
        (refused,) = empty.run(NewRequest("create_model", arguments))
        assert error_of(refused) == Code.TABLE_EXISTS
        (refused,) = empty.run(NewRequest("create_model", {"engine": "none such"}))
        assert error_of(refused) == Code.BAD_ARGUMENT
        assert empty.writer.state is ModelState.ABSENT
        empty.end()
        empty.created(TABLE).run(add(1))
        assert empty.ids() == [1]

    def test_a_fork(self, model: EngineModel, engine: Engine, tmp_path: Path) -> None:
        """It begins as the other model's version, and neither changes the other."""
        model.run(add(1))
        version = model.chain.newest_version()
        model.run(add(2))
        fork = EngineModel(engine, tmp_path, name="fork")
        fork.created(**{"from": {"model": "m", "version": version}}).run(add(7))
        model.run(add(3))
        fork.end()
        fork.take_over()
        assert fork.run(add(1))[0].status is Status.REJECTED
        assert (fork.ids(), model.ids()) == ([1, 7], [1, 2, 3])
        fork.end()

    # --- versions ----------------------------------------------------------------------------------------------------

    def test_every_version_stays_as_it_was(self, model: EngineModel) -> None:
        """Each can be restored from the store, whatever was published later."""
        for n in range(4):
            model.run(add(n))
        model.run(NewRequest("replace", {"table": "t", "rows": []}))
        versions = [m for m in model.manifests() if m.state is ModelState.ACTIVE]
        found = [(m.tables[0].rows, model.ids(m.version)) for m in versions]
        assert found == [(0, []), (1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (4, [0, 1, 2, 3]), (0, [])]

    def test_a_capture_stays_while_more_is_committed(self, model: EngineModel) -> None:
        """A captured version is shipped while the next batch is applied: it holds nothing of that."""
        first, second = model.publish(add(1), add(2))
        prepared = model.writer.capture(model.writer.apply([first]), 0)
        applied = model.writer.apply([second])
        model.writer.advance_base(ship(prepared, model.writer.context))
        assert model.ids() == [1]
        model.writer.advance_base(ship(model.writer.capture(applied, 0), model.writer.context))
        assert model.ids() == [1, 2]

    def test_a_writer_restores_any_version(self, model: EngineModel, tmp_path: Path) -> None:
        """An open model writes an earlier version and the newest one to a place."""
        model.run(add(1))
        model.run(add(2))
        for manifest, ids in zip(model.manifests()[-2:], ([1], [1, 2]), strict=True):
            place = tmp_path / f"{manifest.version}.restored"
            model.writer.restore(manifest, place)
            reader = model.engine.read(place, model.writer.limits)
            assert reader.answer("SELECT id FROM t ORDER BY id", (), model.writer.limits).to_pydict() == {"id": ids}
            with pytest.raises(RequestError):
                reader.answer("SELECT * FROM missing", (), model.writer.limits)
            reader.close()

    # --- writers that follow one another -----------------------------------------------------------------------------

    @pytest.mark.parametrize("place", PLACES)
    def test_a_writer_is_killed(self, model: EngineModel, place: str) -> None:
        """The next one completes what it began: each request has one effect and one outcome."""
        model.run(add(1))
        model.publish(add(2), add(2), add(3))
        model.kill.place = place
        with pytest.raises(Killed):
            model.carry()
        model.end()
        model.take_over()
        model.carry()
        model.run(add(4))
        outcomes = model.outcomes()
        assert [error_of(outcomes[r.seq]) for r in model.log] == [None, None, None, Code.CONSTRAINT, None, None]
        assert model.ids() == [1, 2, 3, 4]

    def test_several_commits_are_left(self, model: EngineModel) -> None:
        """All that a killed writer had committed and not shipped is published by the next one, once."""
        first, second, third = model.publish(add(1), add(1), add(2))
        model.writer.capture(model.writer.apply([first]), 0)
        model.writer.apply([second])
        model.writer.apply([third])
        model.end()
        model.take_over()
        model.carry()
        outcomes = model.outcomes()
        assert [error_of(outcomes[r.seq]) for r in (first, second, third)] == [None, Code.CONSTRAINT, None]
        assert model.ids() == [1, 2]

    def test_another_host_takes_over(self, model: EngineModel) -> None:
        """The former writer publishes nothing more; what only it had applied is applied again, once."""
        model.run(add(1))
        former = model.writer
        prepared = former.capture(former.apply(model.publish(add(2))), 0)
        model.take_over("another")
        with pytest.raises(FencedError):
            ship(prepared, former.context)
        former.close()
        model.run(add(3))
        model.end()
        model.take_over()  # its data do not descend from the newest version
        model.run(add(4))
        assert model.writer.restored
        assert model.ids() == [1, 2, 3, 4]
        assert {error_of(outcome) for outcome in model.outcomes().values()} == {None}

    def test_damaged_data_are_restored(self, model: EngineModel) -> None:
        """The store has all that was published, so the next writer needs no data of this host."""
        model.run(add(1))
        model.end()
        folder, manifest = model.writer.context.folder, model.writer.manifest
        place = folder.data(manifest.epoch, model.engine.name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"damage")
        with pytest.raises(DamagedFileError):
            model.engine.open(model.writer.context.for_engine(), place, manifest)
        model.take_over()
        assert model.writer.restored
        model.run(add(2))
        assert model.ids() == [1, 2]

    def test_data_are_put_aside(self, model: EngineModel) -> None:
        """The writer applies nothing more until it takes over again, from the store."""
        model.run(add(1))
        model.writer.put_data_aside()
        with pytest.raises(OperatorError):
            model.writer.apply(model.publish(add(2)))
        assert model.writer.take_over(model.chain.newest()) is None
        model.carry()
        assert model.ids() == [1, 2]

    @pytest.mark.parametrize("reached", [True, False])
    def test_a_commit_whose_end_is_not_known(
        self, model: EngineModel, monkeypatch: pytest.MonkeyPatch, *, reached: bool
    ) -> None:
        """Data that were invalidated in a commit are opened again, and show whether it took effect."""
        model.run(add(1))
        connection = model.open_model.data.connection
        commit = connection.commit

        def losing(record: Commit, shipped_version: int | None) -> None:
            monkeypatch.undo()
            if reached:
                commit(record, shipped_version)
            raise InvalidatedError(Code.UNAVAILABLE, "The commit's end is not known.")

        monkeypatch.setattr(connection, "commit", losing)
        outcomes = model.run(add(2), add(2), add(3))
        assert [error_of(outcome) for outcome in outcomes] == [None, Code.CONSTRAINT, None]
        assert model.ids() == [1, 2, 3]
        model.end()
        model.take_over()
        assert model.ids() == [1, 2, 3]

    def test_commits_are_recorded_with_their_effects(self, model: EngineModel) -> None:
        """The newest record is the offset; those beyond a version are given the version that ships them."""
        model.run(add(1))
        data, shipped_version = model.open_model.data, model.writer.manifest.version
        applied = model.writer.apply(model.publish(add(2), add(3)))
        newest = data.commits()[-1]
        assert (newest.offset, newest.version, newest.write_id) == (applied.offset, applied.version, applied.write_id)
        assert data.connection.is_committed(applied.offset)
        assert not data.connection.is_committed(applied.offset + 1)
        data.adopt(shipped_version, 99, "w" * 16)
        assert data.commits()[-1] == attrs.evolve(newest, version=99, write_id="w" * 16)
        assert data.identity().goal_model_id == model.chain.goal_model_id


def _drawn(draw: random.Random) -> NewRequest:
    """Return a random request: appends that repeat keys, and others between them."""
    n = draw.randrange(12)
    kinds: list[Callable[[], NewRequest]] = [
        lambda: add(n),
        lambda: add(n, n + 20),
        lambda: add(n, request_id="again"),
        lambda: add(n, expected_version=2),
        lambda: NewRequest("replace", {"table": "t", "rows": [{"id": n}]}),
        lambda: NewRequest("append", {"table": "t", "rows": [{"v": "no key"}]}),
        lambda: NewRequest("drop_table", {"table": "t", "if_exists": True}),
        lambda: NewRequest("create_table", {**TABLE, "if_not_exists": True}),
    ]
    return draw.choices(kinds, weights=[20, 5, 2, 2, 2, 1, 1, 3])[0]()
