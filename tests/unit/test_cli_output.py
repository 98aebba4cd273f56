"""The command line prints values exactly, and nothing that a terminal would interpret."""

from __future__ import annotations

import json
from decimal import Decimal

import duckdb
import pytest

from teatree.cli.output import Output
from teatree.cli.requests.query_reply import print_reply
from teatree.contracts.shown import shown, visible
from teatree.datasets.arrow.types import lossless
from teatree.datasets.dataset import Dataset
from teatree.datasets.results.results import exportable, plain_table, result_schema

ODD = "\x1b]0;owned\x07\x1b[31mred\x7f\x9b2J\u202e\r\n\t"


def answer(sql: str) -> Dataset:
    """Return the rows of a SELECT, as a version opened in this process returns them."""
    with duckdb.connect() as con:
        lossless(con)
        con.execute("SET TimeZone = 'UTC'")
        con.execute("CREATE TABLE odd AS SELECT $1 AS x", [ODD])
        relation = con.sql(sql)
        schema = result_schema(relation)
        return Dataset(schema, plain_table(exportable(relation, schema).to_arrow_table(), schema))


@pytest.mark.parametrize("form", ["table", "json", "jsonl"])
def test_nothing_that_a_terminal_interprets_is_printed(capfdbinary: pytest.CaptureFixture[bytes], form: str) -> None:
    """Control and bidirectional characters are replaced by their names in a table, and escaped in JSON."""
    rows = answer("SELECT x, [x] AS \"l\x1b[2J\", {'m': x} AS s FROM odd")
    print_reply(Output(json=form != "table"), rows, 1, form)  # type: ignore[arg-type]
    out = capfdbinary.readouterr().out.decode()
    assert all(character == "\n" or character.isprintable() for character in out), repr(out)
    if form == "jsonl":
        assert json.loads(out)["x"] == ODD


def test_a_table_shows_values_exactly(capfd: pytest.CaptureFixture[str]) -> None:
    """A decimal has the digits of its scale, a wide number all of its digits, NULL differs from the text NULL."""
    print_reply(
        Output(json=False),
        answer("SELECT 12.5::DECIMAL(18,2) AS a, 2::HUGEINT ** 0 AS f, 170141183460469231731687303715884105727 AS h"),
        1,
        "table",
    )
    out = capfd.readouterr().out
    assert "12.50" in out
    assert "170141183460469231731687303715884105727" in out


def test_csv_distinguishes_null(capfd: pytest.CaptureFixture[str]) -> None:
    """NULL is an empty field, the empty text is quoted, nested values are JSON, decimals have all their digits."""
    rows = answer(
        "SELECT NULL::VARCHAR AS a, '' AS b, [1, NULL] AS c, 0::DECIMAL(18,10) AS d, '{\"a\": 1e400}'::JSON AS e"
    )
    print_reply(Output(json=True), rows, 1, "csv")
    assert capfd.readouterr().out == 'a,b,c,d,e\n,"","[1,null]",0.0000000000,"{""a"": 1e400}"\n'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (Decimal("1.50"), "1.50"),
        ("a\x1b", r"'a\x1b'"),
        ([None, Decimal("0.10"), {"a": False}], '[null, 0.10, {"a": false}]'),
        (["x" * 1000] * 1000, '["' + "x" * 58 + "…"),
    ],
)
def test_messages_show_values_as_json(value: object, text: str) -> None:
    """An error about a value shows it as JSON, in one line."""
    assert shown(value) == text


def test_what_is_not_printable_is_escaped() -> None:
    """Line breaks may be kept; other control characters are escaped."""
    assert visible("a\x1b\n\u202e", keep="\n") == "a\\x1b\n\\u202e"
    assert visible("ä€ \U0001f600") == "ä€ \U0001f600"
