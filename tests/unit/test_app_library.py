"""Library mode: an app's functions on a file in this process, without any service."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest
from attrs import frozen

import teatree
from teatree import App, Code, Context, Dataset, Depends, OperatorError, Read, RequestError, Write
from teatree.contracts.errors import RetryError
from teatree.engine.open_file import OpenFile

app = App("shop", version="1")


@frozen
class Sale:
    """A sale."""

    id: int
    amount: Decimal


def total(db: Read) -> Decimal:
    """Return the sum of all amounts."""
    return Decimal(db.sql("SELECT coalesce(sum(amount), 0) AS s FROM sales").rows()[0]["s"])


@app.mutation
def set_up(db: Write) -> None:
    """Create the table."""
    db.create_table("sales", {"id": "BIGINT", "amount": "DECIMAL(18,2)"}, primary_key="id")


@app.mutation
def sell(db: Write, sales: list[Sale], before: Annotated[Decimal, Depends(total)], *, fail: bool = False) -> Decimal:
    """Add sales, and return the sum before them."""
    db.append("sales", sales)
    db.execute("UPDATE sales SET amount = amount + ?", [Decimal(1)])
    if fail:
        raise KeyError("no")
    return before


@app.query
def sales(db: Read, least: Decimal = Decimal(0)) -> Dataset:
    """Return the sales of at least an amount."""
    return db.sql("SELECT * FROM sales WHERE amount >= ? ORDER BY id", [least])


@app.query
async def count(db: Read) -> int:
    """Return the number of sales."""
    return len(db.table("sales"))


@app.query
def double(of: int, ctx: Context) -> tuple[int, str, str]:
    """Compute without a model."""
    return 2 * of, ctx.model, ctx.request_id


@app.mutation
def prices(db: Write, model: str, version: int | None = None) -> int:
    """Take prices from another model."""
    other = db.other(model, version)
    found = other.sql("SELECT id, price FROM prices")
    return db.execute("UPDATE sales SET amount = p.price FROM p WHERE p.id = sales.id", tables={"p": found})


@pytest.fixture
def file(tmp_path: Path) -> Iterator[OpenFile]:
    """Yield a file in which the table was made."""
    with teatree.open(tmp_path / "shop.duckdb", app=app) as opened:
        opened.call("set_up")
        yield opened


def test_functions_run_on_a_file(file: OpenFile) -> None:
    """Arguments are Python's or JSON's values, results are Python's; nothing is made beside the file."""
    assert file.call("sell", sales=[Sale(1, Decimal("1.50")), {"id": 2, "amount": "2.5"}]) == 0
    assert file.call("sell", sales=[]) == Decimal("6.00")
    assert file.call("sales", least="3.50").rows() == [
        {"id": 1, "amount": Decimal("3.50")},
        {"id": 2, "amount": Decimal("4.50")},
    ]
    assert file.call("count") == 2
    assert file.call("double", of=4, request_id="r-1") == (8, "shop", "r-1")
    assert file.sql("SELECT count(*) FROM sales").fetchall() == [(2,)]
    assert {path.name.removesuffix(".wal") for path in file.path.parent.iterdir()} == {"shop.duckdb"}


def test_a_mutation_is_one_transaction(file: OpenFile) -> None:
    """What a function did before it raised is undone, its error is its own, and the next call works."""
    with pytest.raises(KeyError, match="no"):
        file.call("sell", sales=[Sale(1, Decimal(1))], fail=True)
    assert file.call("count") == 0
    with pytest.raises(RequestError) as caught:
        file.call("sell", sales=[Sale(1, Decimal(1)), Sale(1, Decimal(2))])
    assert caught.value.code is Code.CONSTRAINT
    file.call("sell", sales=[Sale(1, Decimal(1))])
    assert file.call("count") == 1


@pytest.mark.parametrize(
    ("name", "arguments", "code", "where"),
    [
        ("nosuch", {}, Code.UNKNOWN_FUNCTION, "function"),
        ("sell", {}, Code.MISSING_ARGUMENT, "sales"),
        ("sell", {"sales": [], "x": 1}, Code.UNKNOWN_ARGUMENT, "x"),
        ("sell", {"sales": [{"id": 1, "amount": "x"}]}, Code.TYPE_MISMATCH, "sales[0].amount"),
        ("double", {"of": 1, "request_id": "a b"}, Code.BAD_REQUEST_ID, "request_id"),
    ],
)
def test_bad_arguments_are_named(file: OpenFile, name: str, arguments: dict[str, Any], code: Code, where: str) -> None:
    """What is wrong with a call is an error of the tree, before anything runs."""
    with pytest.raises(RequestError) as caught:
        file.call(name, **arguments)
    assert (caught.value.code, caught.value.where) == (code, where)


def test_calls_do_not_meet_the_users_transactions(file: OpenFile) -> None:
    """A call sees what is committed, leaves the user's transaction open, and a conflict is an error to try again."""
    file.call("sell", sales=[Sale(1, Decimal(1))])
    file.connection.execute("BEGIN")
    file.connection.execute("UPDATE sales SET amount = 100")
    assert file.call("sales").rows() == [{"id": 1, "amount": Decimal("2.00")}]
    with pytest.raises(RetryError) as caught:
        file.call("sell", sales=[])
    assert caught.value.code is Code.BUSY
    file.connection.execute("COMMIT")
    assert file.call("sell", sales=[]) == 100
    assert file.connection.sql("SELECT amount FROM sales").fetchall() == [(Decimal("101.00"),)]


def test_the_users_connection_stays_as_it_is(file: OpenFile) -> None:
    """Calls change no setting of the connection to work with."""
    before = file.sql("SELECT name, value FROM duckdb_settings() ORDER BY name").fetchall()
    file.call("sales")
    assert file.sql("SELECT name, value FROM duckdb_settings() ORDER BY name").fetchall() == before


def test_one_call_runs_at_a_time(file: OpenFile) -> None:
    """Calls of several threads follow each other; one within a call is refused."""
    threads = [threading.Thread(target=lambda i=i: file.call("sell", sales=[Sale(i, Decimal(1))])) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.call("count") == 8

    inner = App("inner")

    @inner.mutation
    def outer(db: Write) -> None:
        file.call("count")

    with pytest.raises(RequestError, match="runs on the same file"):
        file.bind(inner).outer()
    assert file.call("count") == 8


def test_stubs_have_the_functions_signatures(file: OpenFile) -> None:
    """Bound functions show their request's parameters, and call the function on the file."""
    shop = file.bind(app)
    assert dir(shop) == ["count", "double", "prices", "sales", "sell", "set_up"]
    assert (
        str(inspect.signature(shop.sales))
        == "(*, least: decimal.Decimal = Decimal('0')) -> teatree.datasets.dataset.Dataset"
    )
    assert list(inspect.signature(shop.sell).parameters) == ["sales", "fail"]
    assert shop.sell.__doc__ == "Add sales, and return the sum before them."
    assert shop.sell(sales=[Sale(1, Decimal(1))]) == 0
    with pytest.raises(AttributeError, match="no function 'nosuch'"):
        _ = shop.nosuch
    with pytest.raises(TypeError):
        shop.sell([])


def test_a_transaction_gives_the_handle_itself(file: OpenFile) -> None:
    """A notebook works with the handle of mutations, and passes it to functions as they are."""
    with file.transaction() as db:
        assert sell(db, [Sale(1, Decimal(1))], total(db)) == 0
        assert len(db.table("sales")) == 1
    with pytest.raises(KeyError), file.transaction() as db:
        sell(db, [Sale(2, Decimal(1))], Decimal(0), fail=True)
    assert file.call("count") == 1


def test_a_file_without_an_app_or_a_store_has_no_calls_or_versions(tmp_path: Path) -> None:
    """A file that was opened without an app has no functions, one without a store no versions and no other models."""
    with teatree.open(tmp_path / "plain.duckdb", str(tmp_path / "store")) as plain:
        with pytest.raises(RequestError, match="without an app"):
            plain.call("count")
        with pytest.raises(RequestError):
            plain.bind()
        plain.bind(app).set_up()
        assert plain.publish().version == 1
    with teatree.open(tmp_path / "shop.duckdb", app=app) as shop:
        shop.call("set_up")
        with pytest.raises(OperatorError) as failed:
            shop.publish()
        assert failed.value.code is Code.WRONG_CONFIGURATION
        with pytest.raises(RequestError, match="no object store"):
            shop.call("prices", model="plain")
    with pytest.raises(RequestError, match="is closed"):
        shop.call("count")


def test_other_models_are_read_from_the_store(tmp_path: Path) -> None:
    """A function reads the newest version of another model, or one that it names, and joins its rows."""
    store = str(tmp_path / "store")
    with teatree.open(tmp_path / "list.duckdb", store, name="list") as other:
        for price in (5, 7):
            other.sql(f"CREATE OR REPLACE TABLE prices AS SELECT 1 AS id, {price} AS price")
            other.publish()
    with teatree.open(tmp_path / "shop.duckdb", store, app=app) as file:
        file.call("set_up")
        file.call("sell", sales=[Sale(1, Decimal(1)), Sale(2, Decimal(1))])
        assert file.call("prices", model="list") == 1
        assert file.call("sales").to_polars()["amount"].to_list() == [7, 2]
        assert file.call("prices", model="list", version=1) == 1
        assert file.call("sales").to_polars()["amount"].to_list() == [5, 2]
        wrong: list[tuple[dict[str, Any], Code]] = [
            ({"model": "nosuch"}, Code.UNKNOWN_MODEL),
            ({"model": "No such"}, Code.BAD_NAME),
            ({"model": "list", "version": 9}, Code.UNKNOWN_VERSION),
            ({"model": "list", "version": 0}, Code.UNKNOWN_VERSION),
        ]
        for arguments, code in wrong:
            with pytest.raises(RequestError) as caught:
                file.call("prices", **arguments)
            assert caught.value.code is code, caught.value
        assert file.call("count") == 2
