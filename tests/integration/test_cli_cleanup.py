"""`teatree pin`, `unpin`, `pins`, `gc` and `versions`, with nothing but an object store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from published import PublishedModel
from teatree.cli.exits import Exit
from teatree.cli.main import run
from teatree.contracts.settings import StoreSettings


@pytest.fixture
def model(file_store: StoreSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a model with eight versions, of which the policy of this environment keeps only the newest."""
    monkeypatch.setenv("TEATREE_STORE_URL", file_store.url)
    monkeypatch.setenv("TEATREE_DATA", str(tmp_path / "data"))
    for name in ("GRACE_MS", "KEEP_ALL_HOURS", "HOURLY_DAYS", "DAILY_DAYS"):
        monkeypatch.setenv(f"TEATREE_RETENTION_{name}", "0")
    with PublishedModel(file_store, tmp_path) as made:
        made.create({"t": {"id": "BIGINT"}})
        for number in range(6):
            made.request("append", {"table": "t", "rows": [{"id": number}]})
    return "sales"


def printed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """Return the JSON lines on standard output."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_pin_clean_up_and_look(model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A pinned version stays, the others are cleaned up, and every command reports it."""
    assert run(["pin", "sales@3", "--name", "june", "--note", "closing", "--json"]) == Exit.OK
    assert printed(capsys)[0]["version"] == 3
    assert run(["pin", "sales@5", "--until", "2999-01-01T00:00:00Z"]) == Exit.OK
    assert "version-5" in capsys.readouterr().out
    assert run(["gc", "sales", "--dry-run", "--json"]) == Exit.OK
    dry = printed(capsys)[0]
    assert run(["versions", "sales", "--json"]) == Exit.OK
    assert len(printed(capsys)) == 8
    assert run(["gc", "--json"]) == Exit.OK
    done = printed(capsys)[0]
    assert (dry.pop("dry_run"), done.pop("dry_run")) == (True, False)
    assert dry == done
    assert (done["kept"], done["cleaned"]) == (3, 5)
    assert run(["versions", "sales", "--json"]) == Exit.OK
    assert [line["version"] for line in printed(capsys)] == [8, 5, 3]
    assert run(["pull", "sales", str(tmp_path / "x.duckdb"), "--version", "4"]) == Exit.REJECTED
    assert "the nearest kept versions are 3 and 5" in capsys.readouterr().err
    assert run(["pull", "sales", str(tmp_path / "x.duckdb"), "--version", "3"]) == Exit.OK
    assert run(["unpin", "sales", "june"]) == Exit.OK
    capsys.readouterr()
    assert run(["pins", "sales", "--json"]) == Exit.OK
    assert [line["name"] for line in printed(capsys)] == ["version-5"]
    assert run(["pins", "sales"]) == Exit.OK
    assert "2999-01-01" in capsys.readouterr().out
    assert run(["gc", "sales"]) == Exit.OK
    assert run(["pull", "sales", str(tmp_path / "y.duckdb"), "--version", "3"]) == Exit.REJECTED


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["pin", "sales@99"], Exit.REJECTED, "has no version 99"),
        (["pin", "sales@x"], Exit.USAGE, "names no version"),
        (["pin", "sales@2", "--name", "a b"], Exit.REJECTED, "not a pin's name"),
        (["pin", "sales@2", "--until", "2001-01-01T00:00:00Z"], Exit.REJECTED, "has passed"),
        (["pin", "absent_model@2"], Exit.REJECTED, "absent_model"),
        (["unpin", "sales", "nothing"], Exit.REJECTED, "no pin 'nothing'"),
        (["gc", "absent_model"], Exit.REJECTED, "no model 'absent_model'"),
    ],
)
def test_wrong_arguments_are_reported(
    model: str, capsys: pytest.CaptureFixture[str], arguments: list[str], code: Exit, text: str
) -> None:
    """An unknown version, a bad name or an unknown model: one line, and nothing was pinned or cleaned up."""
    assert run(arguments) == code
    assert text in capsys.readouterr().err
    assert run(["versions", "sales", "--json"]) == Exit.OK
    assert len(printed(capsys)) == 8
    assert run(["pins", "sales", "--json"]) == Exit.OK
    assert printed(capsys) == []


def test_a_name_is_not_given_twice(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Setting the same pin again is no error; pinning another version under its name is."""
    for _ in range(2):
        assert run(["pin", "sales@3", "--name", "june"]) == Exit.OK
    assert run(["pin", "sales@4", "--name", "june"]) == Exit.REJECTED
    assert "keeps version 3" in capsys.readouterr().err
