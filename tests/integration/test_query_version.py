"""`query` with `version`, through the log: it reads an earlier version, in the order of the requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from published import PublishedModel
from teatree.contracts.errors import Code
from teatree.contracts.formats.notices import Outcome, Status
from teatree.contracts.settings import StoreSettings
from teatree.storage.retention.pins import list_pins

SUM = {"sql": "SELECT sum(x) AS s FROM t"}


def rows_of(model: PublishedModel, outcome: Outcome) -> list[dict[str, Any]]:
    """Return the rows of a query's first page."""
    assert outcome.status is Status.DONE, outcome.error
    page = orjson.loads(model.chain.store.get(model.chain.key(outcome.pages[0]["ref"])))
    rows: list[dict[str, Any]] = page["rows"]
    return rows


def test_an_earlier_version_is_queried_through_the_log(object_store_settings: StoreSettings, tmp_path: Path) -> None:
    """It sees that version and nothing later, also between restores."""
    with PublishedModel(object_store_settings, tmp_path) as model:
        model.create({"t": {"x": "INTEGER"}})
        old = model.request("append", {"table": "t", "rows": [{"x": 1}]})
        model.request("append", {"table": "t", "rows": [{"x": 2}]})
        for version, total in ((old.version, 1), (old.version + 1, 3), (old.version, 1)):
            outcome, _ = model.send("query", {**SUM, "version": version})
            assert rows_of(model, outcome) == [{"s": total}]
        model.request("restore", {"version": old.version})
        assert rows_of(model, model.send("query", {**SUM, "version": old.version + 1})[0]) == [{"s": 3}]
        assert rows_of(model, model.send("query", SUM)[0]) == [{"s": 1}]
        assert not list(tmp_path.rglob("asked*"))
        assert list_pins(model.chain) == []


@pytest.mark.parametrize(
    ("arguments", "code", "where"),
    [
        ({**SUM, "version": 99}, Code.UNKNOWN_VERSION, "version"),
        ({**SUM, "version": -1}, Code.OUT_OF_RANGE, "version"),
        ({**SUM, "version": "1"}, Code.BAD_ARGUMENT, "version"),
        ({"sql": "SELECT * FROM read_csv('/etc/passwd')", "version": 2}, Code.SQL_NOT_ALLOWED, "sql"),
        ({"sql": "SELECT * FROM _teatree.commits", "version": 2}, Code.SQL_NOT_ALLOWED, "sql"),
        ({"sql": "SELECT nothing FROM t", "version": 2}, Code.BAD_SQL, "sql"),
    ],
)
def test_wrong_queries_are_rejected(
    file_store: StoreSettings, tmp_path: Path, arguments: dict[str, Any], code: Code, where: str
) -> None:
    """An unknown version, and a statement that the guard refuses: code and place; later requests are applied."""
    with PublishedModel(file_store, tmp_path) as model:
        model.create({"t": {"x": "INTEGER"}})
        outcome, _ = model.send("query", arguments)
        assert outcome.status is Status.REJECTED
        assert outcome.error
        assert (outcome.error["code"], outcome.error["where"]) == (code, where)
        assert model.request("append", {"table": "t", "rows": [{"x": 3}]}).tables[0].rows == 1
