"""The suite of `teatree.testing` on the DuckDB engine, and on a tiny one in memory: the engine interface is one."""

from __future__ import annotations

import pytest

from memory_engine import MemoryEngine
from teatree.engine.base import Engine
from teatree.engine.duckdb.engine import DuckDBEngine
from teatree.testing.engines import EngineSuite


class TestDuckDBEngine(EngineSuite):
    """A model in one DuckDB file."""

    @pytest.fixture
    def engine(self) -> Engine:
        """Return our engine."""
        return DuckDBEngine()


class TestMemoryEngine(EngineSuite):
    """A model in memory: one that keeps its commits on this host, and one that keeps published versions only."""

    @pytest.fixture(params=[True, False], ids=["keeps commits", "keeps versions"])
    def engine(self, request: pytest.FixtureRequest) -> Engine:
        """Return an engine."""
        return MemoryEngine(keeps=request.param)
