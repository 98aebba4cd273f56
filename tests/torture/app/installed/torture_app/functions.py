"""The functions of the apps: each does what `torture.app.expected` does a second time."""

from __future__ import annotations

import sys
import time
from typing import Any

from teatree import App, Context, Dataset, Read, Refused, Write

from .version import VERSION

SLOW_MS_MAX = 2_000
STEPS = 4


def made(name: str) -> App:
    """Return an app of this name with all functions."""
    app = App(name, version=VERSION)
    mark = f"{name} {VERSION}"
    _add_mutations(app, mark)
    _add_queries(app, mark)
    return app


def _add_mutations(app: App, mark: str) -> None:
    @app.mutation
    def both(db: Write, a: int, v: int) -> dict[str, int]:
        """Append to two tables."""
        rows = db.append("pairs", [{"a": a, "v": v}, {"a": 0, "v": -v}])
        return {"rows": rows + db.append("moved", [{"a": a, "v": v, "by": mark}])}

    @app.mutation
    def deduct(db: Write, counter: int, n: int) -> dict[str, int]:
        """Take an amount from a counter and note it; refused, after the note, if it holds less."""
        db.append("moved", [{"a": counter, "v": n, "by": mark}])
        if not db.execute("UPDATE counter SET n = n - ? WHERE id = ? AND n >= ?", (n, counter, n)):
            raise Refused("The counter holds less.", where="n")
        return {"rows": 2}

    @app.mutation(time_ms_max=SLOW_MS_MAX)
    def slow(db: Write, ctx: Context, ms: int, v: int) -> dict[str, int]:
        """Write, take its time, and write again."""
        db.append("moved", [{"a": -1, "v": v, "by": mark}])
        for step in range(STEPS):
            ctx.progress(step / STEPS, "slow")
            time.sleep(ms / 1000 / STEPS)
        return {"rows": 1 + db.append("moved", [{"a": -2, "v": v, "by": mark}])}

    @app.mutation
    def fail(db: Write, how: str, v: int) -> Any:
        """Write to two tables, then end badly."""
        both(db, 1, v)
        match how:
            case "raise":
                raise ValueError(f"it has written {v}")
            case "refuse":
                raise Refused("It has written.", where="how")
            case "exit":
                sys.exit(3)
            case "key":
                db.append("items", [{"id": -1}, {"id": -1}])
            case "commit":
                db.execute("COMMIT")
            case "no_table":
                db.append("nowhere", [{"a": 1}])
        return object()


def _add_queries(app: App, mark: str) -> None:
    @app.query
    def counters(db: Read) -> Dataset:
        """Return the rows of `counter`."""
        return db.sql("SELECT id, n FROM counter ORDER BY id")

    @app.query
    def state(db: Read) -> dict[str, Any]:
        """Return what each version of `pairs` must satisfy."""
        return {**_pairs(db), "by": mark}

    @app.query
    def peek(db: Read, model: str, version: int | None = None) -> dict[str, Any]:
        """Return what another model's `pairs` hold."""
        return {**_pairs(db.other(model, version)), "by": mark}


def _pairs(db: Read) -> dict[str, Any]:
    (row,) = db.sql(
        "SELECT count(*) AS n, CAST(coalesce(sum(v), 0) AS BIGINT) AS v, CAST(coalesce(sum(a), 0) AS BIGINT) AS a"
        " FROM pairs"
    ).rows()
    return {"pairs": row["n"], "sum": row["v"], "sum_a": row["a"]}
