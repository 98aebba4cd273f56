"""The engines that come with Teatree."""

from __future__ import annotations

from teatree.engine.base import Engines
from teatree.engine.duckdb.engine import DuckDBEngine


def built_in_engines() -> Engines:
    """Return the engines that every installation has."""
    return Engines.of(DuckDBEngine())
