"""The functions of the app `goals`."""

from __future__ import annotations

import ctypes
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Annotated, Any

from teatree import App, Code, Context, Dataset, Depends, Read, Refused, RetryError, Write

app = App("goals")


@app.mutation(labels={"task_type": "plan"})
def set_goals(db: Write, ctx: Context, period: str, amounts: dict[str, Decimal]) -> dict[str, int]:
    """Set the goal of each site, and note when it was set."""
    for site, amount in amounts.items():
        if amount < 0:
            raise Refused(f"The goal of {site} is negative.", where=f"amounts.{site}", hint="Send 0 for none.")
        db.execute("DELETE FROM goals WHERE period = ? AND site = ?", (period, site))
        db.append("goals", [{"period": period, "site": site, "amount": amount}])
    db.append("notes", [{"period": period, "at": ctx.at.isoformat(), "number": ctx.random.randrange(1_000_000)}])
    return {"sites": len(amounts)}


@app.mutation
def touch(n: int) -> int:
    """Do nothing: the least that a mutation can be."""
    return n


@app.mutation
def one_row(db: Write, n: int) -> int:
    """Append one row."""
    return db.append("numbers", [{"n": n}])


def largest(db: Read) -> Decimal:
    """Return the largest goal."""
    (row,) = db.sql("SELECT coalesce(max(amount), 0) AS largest FROM goals").rows()
    found: Decimal = row["largest"]
    return found


@app.mutation
def raise_goals(db: Write, pct: Decimal, top: Annotated[Decimal, Depends(largest)]) -> Decimal:
    """Raise all goals; return what was the largest."""
    db.execute("UPDATE goals SET amount = amount * (1 + ? / 100)", (pct,))
    return top


@app.query(page_size=2)
def goals_of(db: Read, period: str) -> Dataset:
    """Return the goals of a period."""
    return db.sql("SELECT site, amount FROM goals WHERE period = ? ORDER BY site", (period,))


@app.query
def total(db: Read, period: str) -> Decimal:
    """Return the sum of a period's goals."""
    (row,) = db.sql("SELECT coalesce(sum(amount), 0) AS total FROM goals WHERE period = ?", (period,)).rows()
    found: Decimal = row["total"]
    return found


@app.query
async def doubled(n: int) -> int:
    """Return twice a number."""
    return 2 * n


@app.mutation(labels={"task_type": "test"})
def misbehave(db: Write, how: str, n: int = 0) -> Any:
    """Write a row, then do something bad."""
    db.append("numbers", [{"n": n}])
    return BAD[how](db)


def deep(depth: int) -> None:
    """Raise an error some frames deep."""
    if depth:
        deep(depth - 1)
    raise LookupError(f"the bottom of {depth}")


def swallow(db: Write) -> str:
    """Ignore the error of a statement, which voids its transaction."""
    with suppress(Exception):
        db.execute("INSERT INTO goals SELECT 'p', 's', 'no number'")
    return "all is well"


def swallow_guard(db: Write) -> int:
    """Ignore a refusal of the guard, which leaves the transaction as it was."""
    for sql in ("COMMIT", "ROLLBACK", "DELETE FROM _teatree.commits", "INSERT INTO _teatree.commits SELECT 1"):
        try:
            db.execute(sql)
        except Exception:  # noqa: BLE001, S112
            continue
        raise AssertionError(sql)
    return db.execute("UPDATE numbers SET n = n + 1000")


class UnprintableError(Exception):
    """An error without a text."""

    def __str__(self) -> str:
        raise ValueError("no text")


def _raise(error: BaseException) -> Any:
    raise error


def _print() -> str:
    print("printed by a function")
    sys.stderr.write("and to stderr\n")
    return "printed"


KEPT: list[Any] = []


def leak(db: Write) -> str:
    """Keep the handle."""
    KEPT.append(db)
    return "leaked"


def thread(db: Write) -> str:
    """Leave a thread for which Python would wait."""
    threading.Thread(target=lambda: time.sleep(10**6), name="left").start()
    return "left"


def use_leaked(_: Write) -> int:
    """Use a handle of an earlier call."""
    found: int = KEPT[-1].execute("DELETE FROM numbers")
    return found


BAD: dict[str, Callable[[Write], Any]] = {
    "raise": lambda _: _raise(ValueError("this cannot be")),
    "deep": lambda _: deep(60),
    "refuse": lambda _: _raise(Refused("not today", where="how")),
    "exit": lambda _: sys.exit(3),
    "interrupt": lambda _: _raise(KeyboardInterrupt()),
    "end": lambda _: os._exit(3),
    "unprintable": lambda _: _raise(UnprintableError()),
    "memory": lambda _: len(bytearray(10**12)),
    "recurse": lambda _: _recurse(),
    "sleep": lambda _: time.sleep(10**6),
    "sleep_in_c": lambda _: ctypes.CDLL(None).sleep(10**6),
    "keep_the_lock": lambda _: ctypes.PyDLL(None).sleep(10**6),
    "match": lambda _: re.match(r"(a+)+b", "a" * 60),
    "loop": lambda _: _loop(),
    "commit": lambda db: db.execute("COMMIT"),
    "rollback": lambda db: db.execute("ROLLBACK"),
    "begin": lambda db: db.sql("BEGIN"),
    "own_table": lambda db: db.execute("DELETE FROM _teatree.commits"),
    "swallow": swallow,
    "swallow_guard": swallow_guard,
    "object": lambda _: object(),
    "nan": lambda _: {"a": [1, {"b": float("nan")}]},
    "huge": lambda _: "x" * 2_000_000,
    "print": lambda _: _print(),
    "leak": leak,
    "thread": thread,
    "leaked": use_leaked,
    "error_of_ours": lambda _: _raise(_ours()),
}


def _ours() -> Exception:
    return RetryError(Code.UNAVAILABLE, "made by a function")


def _recurse() -> Any:
    return _recurse()


def _loop() -> Any:
    while True:
        pass


@app.mutation
def slow(ctx: Context, seconds: float, steps: int = 4) -> str:
    """Report progress for some seconds."""
    print("slow begins")
    for step in range(steps):
        ctx.progress(step / steps, f"step {step}")
        time.sleep(seconds / steps)
    return "slept"
