"""Tables in the notation of the command line."""

from __future__ import annotations

import pytest

from teatree.cli.requests.table_text import read_table
from teatree.contracts.errors import Code, RequestError


def test_a_table_becomes_the_arguments_of_create_table() -> None:
    """Types with brackets, quoted names, NOT NULL, DEFAULT and both forms of PRIMARY KEY are parsed."""
    text = """ "my sales" ( id BIGINT not null, site VARCHAR DEFAULT 'no, where''s', amount DECIMAL(18, 2) DEFAULT 1.50,
        kind ENUM('a', 'b)'), tags VARCHAR[], place STRUCT(x INTEGER, y INTEGER), n INTEGER DEFAULT -3 NULL,
        ok BOOLEAN DEFAULT true, PRIMARY KEY (id, "site") )"""
    assert read_table(text) == {
        "table": "my sales",
        "columns": [
            {"name": "id", "type": "BIGINT", "nullable": False},
            {"name": "site", "type": "VARCHAR", "default": "no, where's"},
            {"name": "amount", "type": "DECIMAL(18, 2)", "default": "1.50"},
            {"name": "kind", "type": "ENUM('a', 'b)')"},
            {"name": "tags", "type": "VARCHAR[]"},
            {"name": "place", "type": "STRUCT(x INTEGER, y INTEGER)"},
            {"name": "n", "type": "INTEGER", "default": -3},
            {"name": "ok", "type": "BOOLEAN", "default": True},
        ],
        "primary_key": ["id", "site"],
    }
    assert read_table("t(id UUID PRIMARY KEY)") == {
        "table": "t",
        "columns": [{"name": "id", "type": "UUID"}],
        "primary_key": ["id"],
    }


@pytest.mark.parametrize(
    "text",
    ["", "sales", "sales(", "sales()", "sales(id)", "sales(id BIGINT,)", "sales(id BIGINT))", "sales(a INT DEFAULT b)"],
)
def test_anything_else_is_a_usage_error_with_an_example(text: str) -> None:
    """The message names the error, the hint shows the notation."""
    with pytest.raises(RequestError) as caught:
        read_table(text)
    assert caught.value.code is Code.USAGE
    assert "PRIMARY KEY (id)" in str(caught.value.hint)
