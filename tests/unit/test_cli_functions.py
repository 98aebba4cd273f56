"""The commands that use functions of apps: arguments as pairs, help of a function, lists for people."""

from __future__ import annotations

from typing import Any

import pytest

from teatree.cli.functions.function_text import function_text
from teatree.cli.main import run
from teatree.cli.requests.argument_pairs import built_in, merged
from teatree.client.calls.function_info import FunctionInfo, read_app_info
from teatree.client.sending.message import json_body
from teatree.contracts.errors import CorruptError, RequestError

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "site": {"type": "string"},
        "period": {"$ref": "#/$defs/Period"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "kind": {"enum": ["a", "b"]},
        "level": {"enum": [1, "2"]},
        "pct": {"type": ["number", "string"]},
        "sites": {"type": "array", "items": {"type": "string"}},
        "endless": {"$ref": "#/$defs/Endless"},
    },
    "$defs": {"Period": {"type": "string", "format": "period"}, "Endless": {"$ref": "#/$defs/Endless"}},
}
GOALS: dict[str, Any] = {
    "name": "set_goals",
    "kind": "mutation",
    "handle": "write",
    "signature": "set_goals(site: str, pct: Decimal = 10) -> int",
    "doc": "Set the goals.\nOf a site.",
    "labels": {"team": "plan"},
    "parameters": [
        {"name": "site", "type": "str", "required": True, "doc": "The site."},
        {"name": "pct_more", "type": "Decimal", "required": False, "default": "10", "doc": ""},
    ],
    "schema": SCHEMA,
}
INFO: FunctionInfo = read_app_info({"app": {"name": "goals"}, "functions": [GOALS]}, "test")["set_goals"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("site", "007", '"007"'),
        ("site", "12", '"12"'),
        ("period", "2011-12", '"2011-12"'),
        ("note", "null", '"null"'),
        ("kind", "1", '"1"'),
        ("level", "1", "1"),
        ("pct", "10.50", "10.50"),
        ("pct", "1" + "0" * 30, "1" + "0" * 30),
        ("sites", '["a","b"]', '["a","b"]'),
        ("sites", "a", '"a"'),
        ("endless", "1", "1"),
        ("endless", "x", '"x"'),
        ("unknown", "x y", '"x y"'),
        ("site", '{"a": 1, "a": 2}', '"{\\"a\\": 1, \\"a\\": 2}"'),
        ("unknown", '1, "more": 2', '"1, \\"more\\": 2"'),
    ],
)
def test_a_pair_is_a_text_where_a_text_is_taken_and_else_json(name: str, text: str, expected: str) -> None:
    """Digits stay as written; what is no JSON is a text; nothing but one value comes of it."""
    assert json_body(merged({}, {name: text}, INFO)).decode() == f'{{"{name}":{expected}}}'


def test_a_pair_of_a_built_in_function_is_json_where_it_can_be() -> None:
    """A dash in its name is an underscore; texts that look like numbers stay texts."""
    pairs = {"primary-key": '["id"]', "table": "2011", "if-not-exists": "true"}
    expected = {"primary_key": ["id"], "table": "2011", "if_not_exists": True}
    assert merged({}, pairs, built_in("create_table")) == expected
    assert json_body(merged({}, {"n": "1", "table": "sales"}, None)) == b'{"n":1,"table":"sales"}'


def test_an_argument_that_is_given_twice_is_refused() -> None:
    """As JSON and as a pair, or in both spellings."""
    for members, pairs in (({"site": 1}, {"site": "2"}), ({}, {"pct-more": "1", "pct_more": "2"})):
        with pytest.raises(RequestError, match="given twice"):
            merged(members, pairs, INFO)


def test_a_function_is_explained_with_the_command_that_calls_it() -> None:
    """Its signature, documentation, parameters with defaults, labels, and an example."""
    text = function_text(INFO, "sales")
    assert text.startswith("set_goals(site: str, pct: Decimal = 10) -> int\n")
    for part in ("    Set the goals.\n    Of a site.", "--site", "required", "The site.", "--pct-more", '= "10"'):
        assert part in text
    assert "team=plan" in text
    assert text.endswith("teatree send sales set_goals --site SITE")


@pytest.mark.parametrize("answer", [None, [], {}, {"functions": 1}, {"functions": [{"name": "x"}]}])
def test_an_answer_that_is_no_list_of_functions_is_corrupt(answer: Any) -> None:
    """A client never shows half of it."""
    with pytest.raises(CorruptError):
        read_app_info(answer, "test")


@pytest.mark.parametrize("command", ["send", "call"])
def test_help_after_a_built_in_function_explains_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is connected to; without a function the help is the command's."""
    assert run([command, "sales", "upsert", "--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("upsert(table, rows, key)\n\n    Add rows, or set the columns")
    assert "--key" in printed
    assert '"rows" in the JSON' in printed  # --rows is an option of `send`
    assert printed.endswith("""teatree send sales upsert '{"rows": ROWS}' --table TABLE\n""")
    assert run([command, "--help"]) == 0
    assert f"Usage: teatree {command}" in capsys.readouterr().out


def test_help_of_an_apps_function_names_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Its model is asked: without a stack the error is that of every command."""
    monkeypatch.setenv("TEATREE_DATA", str(tmp_path))
    assert run(["send", "sales", "set_goals", "--help"]) == 4
    assert "No stack runs on" in capsys.readouterr().err
