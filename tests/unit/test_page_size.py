"""The number of rows of a result's page if the client names none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from teatree.client.query import QueryRequest
from teatree.contracts.formats.codec import dump_json
from teatree.contracts.formats.requests import read_request
from teatree.contracts.settings import LimitSettings, StoreSettings
from teatree.functions.arguments import Call, CallContext
from teatree.functions.query import read_query
from teatree.functions.sources import Sources


@pytest.mark.parametrize(
    ("format", "rows_max", "expected"),
    [("arrow", 10_000, 10_000), ("json", 10_000, 1_000), ("arrow", 10, 10), ("json", 10, 10)],
)
def test_a_query_without_a_page_size_is_never_refused(format: str, rows_max: int, expected: int) -> None:
    """A model may allow few rows a page: a client that names none gets what it allows, not a refusal."""
    limits = LimitSettings(page_rows_max=rows_max)
    args = QueryRequest("SELECT 1", format="arrow" if format == "arrow" else "json").args()
    request = read_request("sales", "query", 1, datetime.now(UTC), {}, dump_json(args))
    assert read_query(Call(request, CallContext(limits, Sources((), StoreSettings()))), limits).page_rows == expected
