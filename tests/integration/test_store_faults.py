"""A store, or a proxy before it, that does not behave like S3: found at the start, retried, or explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from published import PublishedModel
from store_proxy import StoreProxy
from teatree.client.versions.pull import pull_version
from teatree.client.versions.verify import verify
from teatree.contracts.errors import Code, CorruptError, OperatorError, RetryError
from teatree.contracts.settings import Settings, StoreSettings
from teatree.engine.open_file import open_file
from teatree.storage.objects.probe import FOLDER, PASSED, ensure_probed
from teatree.storage.objects.stores import open_store
from teatree.storage.versions.chain import Chain


@pytest.fixture
def proxy(s3_server: StoreSettings) -> Iterator[StoreProxy]:
    """Return a proxy before an empty store."""
    with StoreProxy(s3_server) as running:
        yield running


def test_a_store_is_probed_once(object_store_settings: StoreSettings) -> None:
    """A probe deletes all that it wrote except its mark; another store's mark does not count."""
    store = open_store(object_store_settings)
    ensure_probed(store)
    assert [info.key for info in store.list(f"{FOLDER}/")] == [PASSED]
    passed_at = store.head(PASSED)
    ensure_probed(store)
    assert store.head(PASSED) == passed_at
    store.put(PASSED, b"1 s3://another")
    ensure_probed(store)
    assert store.url.encode() in store.get(PASSED)


def test_a_store_without_conditions_is_refused(proxy: StoreProxy, tmp_path: Path) -> None:
    """Nothing is published into a store that overwrites where it must create; the error names what it lacks."""
    proxy.ignores_conditions = True
    with pytest.raises(OperatorError, match="ignores the condition of a write") as e:
        ensure_probed(open_store(proxy.settings))
    assert e.value.code is Code.WRONG_CONFIGURATION
    with open_file(tmp_path / "mine.duckdb", settings=Settings(store=proxy.settings)) as file:
        file.sql("CREATE TABLE t(x INTEGER)")
        with pytest.raises(OperatorError, match="ignores the condition of a write"):
            file.publish()
    proxy.ignores_conditions = False
    ensure_probed(open_store(proxy.settings))


@pytest.mark.parametrize("operation", ["get", "put_if_absent", "list"])
def test_redirects_end(proxy: StoreProxy, operation: str) -> None:
    """A few redirects are retried; after a few requests an endless one is an error that names its target."""
    store = open_store(proxy.settings)
    store.put("a/x", b"1")
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: store.get("a/x"),
        "put_if_absent": lambda: store.put_if_absent("a/z", b"1"),
        "list": lambda: list(store.list("a/")),
    }
    proxy.redirects = 2
    calls[operation]()
    proxy.redirects, proxy.requests = -1, 0
    with pytest.raises(RetryError, match=f"redirects to {proxy.endpoint}") as e:
        calls[operation]()
    assert f"endpoint={proxy.endpoint}" in (e.value.hint or "")
    assert proxy.requests <= 8


def test_short_replies_are_read_again_before_they_count_as_damage(proxy: StoreProxy, tmp_path: Path) -> None:
    """Single short replies are no damage; replies that are always short are."""
    with PublishedModel(proxy.settings, tmp_path) as model:
        model.create({"sales": {"id": "BIGINT"}})
        model.sql("INSERT INTO sales SELECT range FROM range(100000)")
        chain = Chain(open_store(proxy.settings), model.settings.nats.prefix, "sales")
        for cut in (1, 2):
            proxy.truncated = cut
            pull_version(chain, tmp_path / f"{cut}.duckdb")
            proxy.truncated = cut
            assert verify(chain, all_versions=True).findings == ()
        proxy.truncated = -1
        with pytest.raises(CorruptError):
            chain.get(2)
