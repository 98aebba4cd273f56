"""Live queries without servers: runs on versions, what is published about them, and what a watcher makes of that."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from teatree.client.live.watched_answer import WatchedAnswer
from teatree.client.live.watching import AnswerChange
from teatree.client.pages import join_pages
from teatree.contracts.errors import Code, CorruptError, OperatorError
from teatree.contracts.formats.live import LiveKind, LiveNotice, Watching, read_live_notice
from teatree.contracts.live_settings import LiveSettings
from teatree.contracts.settings import LimitSettings
from teatree.datasets.arrow.types import lossless
from teatree.engine.duckdb.open_version import OpenVersion
from teatree.functions.pages import each_page
from teatree_manager.live.core_budget import DEBT_MS_MAX, CoreBudget
from teatree_manager.live.live_query import LiveQuery, RanAt, name_of, subject_name
from teatree_manager.read_workers.live_work import KeptAnswer, LiveBatch, LiveReply, LiveRun

FORMATS = ("arrow", "json")
QUERIES = (
    "SELECT * FROM t",
    "SELECT v, k FROM t WHERE v <> 2",
    "SELECT v, count(*) AS n FROM t GROUP BY v",
    "SELECT sum(v) AS s FROM t",
    "SELECT a.k FROM t a, t b WHERE a.v = b.v",
    "SELECT k FROM t ORDER BY v DESC, k LIMIT 2",
)
STATES = st.lists(
    st.dictionaries(st.integers(0, 4), st.one_of(st.none(), st.integers(0, 3)), max_size=5), min_size=2, max_size=4
)
"""The content of the table at each version: `v` by its key `k`."""


class MemoryVersion(OpenVersion):
    """A version in memory: a file for each would take most of the time."""

    def __init__(self, con: duckdb.DuckDBPyConnection, path: Path) -> None:
        path.touch()
        super().__init__(path, LimitSettings())
        self._connection = con


class WatchedTable:
    """Versions of a table, and one query on them."""

    def __init__(self, folder: Path, sql: str) -> None:
        self.path = folder / "version"
        self.con = duckdb.connect(":memory:")
        lossless(self.con)
        self.live = LiveQuery(name_of(sql, ()), sql, (), folder, formats=FORMATS)
        self.opened: OpenVersion | None = None

    def version(self, rows: dict[int, int | None], *, more: str = "") -> None:
        """Make a version."""
        self.con.execute(f"CREATE OR REPLACE TABLE t(k BIGINT PRIMARY KEY, v BIGINT{more})")
        for key, value in rows.items():
            self.con.execute("INSERT INTO t(k, v) VALUES (?, ?)", [key, value])
        self.opened = MemoryVersion(self.con, self.path)

    def rows(self) -> Counter[tuple[Any, ...]]:
        """Return the query's answer at the newest version."""
        return Counter(self.con.execute(self.live.sql).fetchall())

    def run(self, number: int, change_bytes_max: int = 1_000_000) -> dict[str, LiveNotice]:
        """Run the query on the newest version; return what is published, as it is received."""
        live = self.live
        assert self.opened is not None
        run = LiveRun(live.sql, (), live.kept, live.keep_as, live.key_columns, FORMATS, change_bytes_max)
        LiveBatch((run,), 100).run(self.opened, LimitSettings())  # its reply is lost: it changes nothing
        reply = LiveBatch((run,), 100).run(self.opened, LimitSettings())
        head = orjson.loads(orjson.dumps(reply.head))  # it comes from another process
        (part,) = LiveReply(head, reply.body).parts()
        notices = live.ran("m", RanAt(number, part))
        assert [path.name for path in live.folder.glob("*.arrow")] == [live.kept.name] or part.head["ran"] == "same"
        received = {}
        for form, notice in notices.items():
            body, headers = notice.to_message()
            received[form] = read_live_notice("subject", headers, body)
            assert all(value.isascii() for value in headers.values())
        return received

    def whole(self) -> AnswerChange:
        """Return the whole answer, as a watcher reads it."""
        live = self.live
        result = KeptAnswer(live.kept, live.through, 3, "arrow").result(1_000_000)
        rows = join_pages([page.body for page in each_page(result, 100)], is_arrow=True, where="test")
        return AnswerChange.whole(Watching("q", live.series, live.through, 1, live.key_columns or ()), rows)


def held(answer: WatchedAnswer) -> Counter[tuple[Any, ...]]:
    """Return what a watcher has."""
    return Counter(tuple(row.values()) for row in answer.rows().rows())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=STATES, sql=st.sampled_from(QUERIES), skips=st.lists(st.booleans(), min_size=4, max_size=4))
def test_changes_add_up_to_the_answer_at_each_version(
    tmp_path_factory: pytest.TempPathFactory, states: list[dict[int, int | None]], sql: str, skips: list[bool]
) -> None:
    """Whatever changes from version to version, also over several versions at once, and in either form."""
    model = WatchedTable(tmp_path_factory.mktemp("live"), sql)
    answer = WatchedAnswer()
    for number, state in enumerate(states, 1):
        model.version(state)
        if number == 1:
            model.run(number)
            answer.apply(model.whole())
        elif skips[number - 1] and number < len(states):
            continue
        else:
            for form, notice in model.run(number).items():
                assert notice.kind is LiveKind.CHANGE
                assert notice.since <= (answer.version or 0) <= notice.through < notice.version == number
                if form == "arrow":
                    change = AnswerChange.of_notice(notice, answer.version or 0)
                else:
                    members = orjson.loads(notice.body)
            if (answer.version or 0) < model.live.since:
                answer.apply(change)
                for name, part in (("added", change.added), ("changed", change.changed), ("removed", change.removed)):
                    assert members[name] == part.to_json_rows()
                assert members["key"] == list(change.key)
        assert held(answer) == held_whole(model) == model.rows()


def held_whole(model: WatchedTable) -> Counter[tuple[Any, ...]]:
    """Return what a watcher has that registers now."""
    answer = WatchedAnswer()
    answer.apply(model.whole())
    return held(answer)


def test_a_run_without_a_change_extends_the_range(tmp_path: Path) -> None:
    """Who has the answer of any version in it can add the next change up; others cannot."""
    model = WatchedTable(tmp_path, "SELECT k FROM t")
    model.version({1: 1})
    model.run(1)
    model.version({1: 2})
    assert model.run(2) == {}
    assert (model.live.since, model.live.through) == (1, 2)
    model.version({1: 2, 2: 2})
    notice = model.run(5)["json"]
    assert (notice.since, notice.through, notice.version) == (1, 2, 5)
    assert notice.series == model.live.series
    assert [model.live.is_held(model.live.series, version) for version in (2, 5, 6)] == [False, True, False]
    assert not model.live.is_held("another", 5)


def test_other_columns_begin_another_series(tmp_path: Path) -> None:
    """And so does a key that does not identify rows any more; a change that is too large continues it."""
    model = WatchedTable(tmp_path, "SELECT * FROM t")
    model.version({1: 1})
    model.run(1)
    series = model.live.series
    model.version({n: n for n in range(50)})
    assert model.run(2, change_bytes_max=100)["arrow"].kind is LiveKind.ANEW
    assert (model.live.series, model.live.since) == (series, 2)
    model.version({1: 1}, more=", x VARCHAR")
    assert model.run(3)["json"].kind is LiveKind.ANEW
    assert model.live.series != series
    assert held_whole(model) == Counter([(1, 1, None)])
    model.live.kept.unlink()
    assert model.run(4)["json"].kind is LiveKind.ANEW
    assert held_whole(model) == Counter([(1, 1, None)])


def test_only_versions_that_changed_its_tables_are_run(tmp_path: Path) -> None:
    """A query is due once a version that may have changed its answer is there."""
    model = WatchedTable(tmp_path, "SELECT k FROM t")
    model.version({1: 1})
    model.run(1)
    live = model.live
    live.may_have_changed({"u"}, 2)
    assert not live.is_due(2)
    live.advance(2)
    assert live.through == 2
    live.may_have_changed({"t"}, 4)
    live.may_have_changed({"t", "u"}, 6)
    live.advance(5)
    assert live.through == 2
    assert [live.is_due(newest) for newest in (3, 4, 6)] == [False, True, True]
    model.version({1: 1, 2: 2})
    model.run(4)
    assert [live.is_due(newest) for newest in (4, 5, 6)] == [False, True, True]


def test_names_distinguish_queries() -> None:
    """By statement, parameters and their types; the order of named ones does not matter."""
    queries: list[tuple[str, Any]] = [
        ("SELECT 1", ()), ("SELECT 2", ()), ("SELECT ?", ["1"]), ("SELECT ?", [1]), ("SELECT ?", [True]),
        ("SELECT ?", [1.0]), ("SELECT $a", {"a": 1}), ("SELECT '\udc80'", ()),
    ]  # fmt: skip
    names = [name_of(*query) for query in queries]
    assert len(set(names)) == len(names)
    assert name_of("q", {"a": 1, "b": 2}) == name_of("q", {"b": 2, "a": 1})
    assert subject_name(names[0], "json") != subject_name(names[0], "arrow")


def test_a_watcher_refuses_what_does_not_fit(tmp_path: Path) -> None:
    """A change of another version, or that removes what is not there, is never added up in silence."""
    model = WatchedTable(tmp_path, "SELECT v FROM t")
    model.version({1: 1})
    model.run(1)
    answer = WatchedAnswer()
    answer.apply(model.whole())
    model.version({1: 2})
    notice = model.run(2)["arrow"]
    with pytest.raises(CorruptError):
        answer.apply(AnswerChange.of_notice(notice, 7))
    answer.apply(AnswerChange.of_notice(notice, 1))
    with pytest.raises(CorruptError):
        answer.apply(AnswerChange.of_notice(notice, 2))


def test_what_is_no_notice_is_refused() -> None:
    """Whatever is published on the subjects of live queries."""
    for body in (b"", b"{", b"[]", b"{}", b'{"kind":"x","model":"m"}', b'{"kind":"change","model":"m","to":[]}'):
        with pytest.raises(OperatorError) as refused:
            read_live_notice("s", {}, body)
        assert refused.value.code is Code.CORRUPT
    for header in ("", "{}", "[]", '{"query":"q","series":"s","version":"x","lease_ms":1,"key":[],"current":true}'):
        with pytest.raises(OperatorError):
            Watching.of_header(header, "s")
    odd = Watching("q", "s", 5, 6, ("ä\n😀", 'x"y'), current=True)
    assert odd.to_header().isascii()
    assert Watching.of_header(odd.to_header(), "s") == odd


class TestCoreBudget:
    def test_share(self) -> None:
        """On average runs take the share; what was saved comes on top, once."""
        budget, now_ms, used_ms = CoreBudget(LiveSettings(core_share=0.1, saved_ms=1_000), 0), 0.0, 0.0
        for cost_ms in itertools.islice(itertools.cycle((5, 50, 1, 200)), 400):
            now_ms += budget.wait_ms(now_ms)
            now_ms += cost_ms
            used_ms += cost_ms
            budget.spend(cost_ms, now_ms)
        assert 0.1 * now_ms - 300 <= used_ms <= 0.1 * now_ms + 1_300

    def test_idle(self) -> None:
        """After a quiet time runs begin at once, and no more is saved than may be."""
        budget = CoreBudget(LiveSettings(core_share=0.5, saved_ms=100), 0)
        budget.spend(300, 0)
        assert budget.wait_ms(0) == 400
        assert budget.wait_ms(1_000_000) == 0
        budget.spend(101, 1_000_000)
        assert budget.wait_ms(1_000_000) == 2

    def test_debt(self) -> None:
        """However much first answers took, changes follow after a bounded time."""
        budget = CoreBudget(LiveSettings(core_share=0.1), 0)
        budget.spend(1e9, 0)
        assert budget.wait_ms(0) == DEBT_MS_MAX / 0.1

    def test_nothing(self) -> None:
        """A share of nothing is a very small one."""
        budget = CoreBudget(LiveSettings(core_share=0.0, saved_ms=1), 0)
        budget.spend(2, 0)
        assert 0 < budget.wait_ms(0) < 1e6
