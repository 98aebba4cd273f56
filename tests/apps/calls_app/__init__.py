"""An app of tests: what is called directly, well-behaved and not."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from decimal import Decimal
from typing import Annotated, Any

import attrs

from teatree import App, Context, Dataset, Depends, Read, Refused, Write

app = App("calls_app")


@attrs.frozen
class Totals:
    """What a table adds up to."""

    rows: int
    amount: Decimal


def limit(at_most: int = 1_000) -> int:
    """Give the most rows."""
    return at_most


@app.mutation
def add(db: Write, ctx: Context, id: Annotated[int, "Its id."], amount: Decimal) -> int:
    """Add a row."""
    ctx.progress(0.5, "half way")
    return db.append("t", [{"id": id, "amount": amount}])


@app.query(page_size=2, labels={"task": "report"})
def listed(db: Read, at_most: Annotated[int, Depends(limit)], above: Decimal = Decimal(0)) -> Dataset:
    """List rows, by id."""
    return db.sql("SELECT id, amount FROM t WHERE amount > ? ORDER BY id LIMIT ?", [above, at_most])


@app.query
def totals(db: Read) -> Totals:
    """Add all rows up."""
    (row,) = db.sql("SELECT count(*) AS rows, sum(amount) AS amount FROM t").rows()
    return Totals(row["rows"], row["amount"] or Decimal(0))


@app.query
async def in_turn(db: Read, times: int = 2) -> int:
    """Count several times, asynchronously."""
    found = 0
    for _ in range(times):
        await asyncio.sleep(0)
        found += len(db.table("t"))
    return found


@app.query
def doubled(amount: Decimal) -> Decimal:
    """Double a number."""
    return 2 * amount


@app.query
def counted(lines: Dataset, times: int = 1) -> int:
    """Count rows."""
    return len(lines) * times


@app.query
def drawn(ctx: Context) -> list[Any]:
    """Draw a number."""
    return [ctx.random.random(), ctx.request_id, ctx.model, ctx.function]


@app.query
def raises(text: str) -> None:
    """Raise an error."""
    raise ValueError(text)


@app.query
def refuses() -> None:
    """Refuse."""
    raise Refused("Not today.", where="day", hint="Tomorrow.")


@app.query
def exits(code: int) -> None:
    """End the interpreter."""
    sys.exit(code)


@app.query
def ends(code: int) -> None:
    """End the process."""
    os._exit(code)


@app.query(time_ms_max=400)
def sleeps() -> None:
    """Sleep where no interrupt of DuckDB arrives."""
    time.sleep(600)


@app.query(time_ms_max=400)
def spins(db: Read) -> int:
    """Run statements again and again, whatever they raise."""
    found = 0
    while True:
        with suppress(Exception):
            found += len(db.table("t"))


@app.query(time_ms_max=400)
def long_statement(db: Read) -> Dataset:
    """Run a statement that takes minutes."""
    return db.sql("SELECT count(*) AS n FROM range(120000) a, range(100000) b WHERE (a.range * b.range) % 7 = 3")


@app.query(time_ms_max=400)
def leaves_processes() -> None:
    """Start processes that outlive it, one with its descriptors."""
    subprocess.Popen(["sleep", "601"])
    if os.fork() == 0:
        time.sleep(602)
        os._exit(0)
    time.sleep(603)


@app.query
def leaves_a_thread(db: Read) -> str:
    """Leave a thread that uses its handle."""
    found: list[str] = []

    def work() -> None:
        try:
            db.tables()
        except Exception as e:  # noqa: BLE001
            found.append(str(e))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    threading.Thread(target=time.sleep, args=(600,)).start()
    return found[0]


@app.query
def forks() -> bool:
    """Return in two processes."""
    return os.fork() > 0


@app.query
def closes_everything() -> None:
    """Close all descriptors of its process."""
    os.closerange(0, 1_000)


@app.query
def prints(text: str) -> None:
    """Print."""
    print(text)


@app.query
def logs(ctx: Context, text: str) -> None:
    """Log."""
    ctx.logger.info(text, extra={"amount": Decimal(1)})


@app.query
def reads_input() -> str:
    """Read the standard input."""
    return input()


@app.query
def writes(db: Read, statement: str) -> int:
    """Write, though it may not."""
    return len(db.sql(statement))


@app.query
def reads_another(db: Read, model: str) -> tuple[str, ...]:
    """Read another model."""
    return db.other(model).tables()


@app.query
def returns_what_has_no_form() -> Any:
    """Return a value without a JSON form."""
    return {"a": [object()]}


@app.query
def returns_much(chars: int) -> str:
    """Return a long text."""
    return "x" * chars


@app.query
def takes_memory(megabytes: int) -> int:
    """Take memory."""
    return len(bytearray(megabytes * 1_000_000))


hoard: list[bytearray] = []


@app.query
def hoards(megabytes: int) -> int:
    """Keep memory."""
    hoard.append(bytearray(megabytes * 1_000_000))
    return len(hoard)


@app.query
def recurses() -> None:
    """Call itself."""
    recurses()


kept: list[Read] = []


@app.query
def keeps(db: Read) -> int:
    """Keep its handle, and use that of the call before."""
    kept.append(db)
    return len(kept[0].tables())
