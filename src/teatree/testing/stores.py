"""The suite of object stores: what every version depends on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from teatree.contracts.errors import Code, CorruptError, RequestError
from teatree.storage.objects.base import NotFoundError, ObjectStore

LARGE_BYTES = 33_000_000
"""More than goes to S3 in one overwriting put."""


# More than ten public methods: each is a test.
class ObjectStoreSuite:
    """What every store does. Override the fixture `opener`."""

    @pytest.fixture
    def opener(self) -> Callable[[], ObjectStore]:
        """Return what opens a store; all that one test opens are of one place, empty at first."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, opener: Callable[[], ObjectStore]) -> ObjectStore:
        """Return an empty store."""
        return opener()

    def test_what_was_put_is_read_whole_and_by_ranges(self, store: ObjectStore) -> None:
        """An object has exactly the bytes that were written, in any range."""
        store.put("packs/1", b"0123456789")
        assert store.get("packs/1") == b"0123456789"
        assert store.get_range("packs/1", 3, 4) == b"3456"
        assert store.get_range("packs/1", 10, 0) == b""
        assert b"".join(store.stream("packs/1")) == b"0123456789"

    def test_an_object_can_be_empty(self, store: ObjectStore) -> None:
        """An empty object is created, read and not replaced like any other."""
        assert store.put_if_absent("stub", b"")
        assert store.get("stub") == b""
        assert not store.put_if_absent("stub", b"more")
        assert b"".join(store.stream("stub")) == b""

    @pytest.mark.parametrize(("offset", "length"), [(8, 3), (10, 1), (1_000, 5)])
    def test_a_range_beyond_the_end_is_corruption_not_a_short_result(
        self, store: ObjectStore, offset: int, length: int
    ) -> None:
        """Reading a range returns all of its bytes or fails."""
        store.put("packs/1", b"0123456789")
        with pytest.raises(CorruptError):
            store.get_range("packs/1", offset, length)

    def test_the_error_of_a_missing_object_has_its_key(self, store: ObjectStore, tmp_path: Path) -> None:
        """Every way to read names the missing key; `head` returns none."""
        store.put("models/there", b"")
        for read in (store.get, lambda key: store.get_range(key, 0, 1), lambda key: list(store.stream(key))):
            with pytest.raises(NotFoundError) as caught:
                read("models/missing")
            assert (caught.value.code, caught.value.key) == (Code.NOT_FOUND, "models/missing")
        with pytest.raises(NotFoundError):
            store.download("models/missing", tmp_path / "file")
        assert list(tmp_path.glob("*file*")) == []
        assert store.head("models/missing") is None
        assert store.head("models") is None

    def test_put_replaces_and_create_does_not(self, store: ObjectStore) -> None:
        """The conditional put never changes an existing object; the plain one does."""
        assert store.put_if_absent("manifests/1", b"first")
        assert not store.put_if_absent("manifests/1", b"second")
        assert store.get("manifests/1") == b"first"
        store.put("manifests/1", b"third")
        assert store.get("manifests/1") == b"third"

    def test_large_bodies_go_from_memory_and_from_files(self, store: ObjectStore, tmp_path: Path) -> None:
        """A body beyond one put arrives unchanged, created or overwritten, and comes back into a file."""
        body = os.urandom(LARGE_BYTES)
        source = tmp_path / "source"
        source.write_bytes(body)
        store.put("packs/bytes", body)
        assert store.put_if_absent("packs/file", source)
        assert not store.put_if_absent("packs/file", body)
        store.put("packs/file 2", source)
        for key in ("packs/bytes", "packs/file", "packs/file 2"):
            store.download(key, tmp_path / "target")
            assert (tmp_path / "target").read_bytes() == body
        assert store.get_range("packs/file 2", LARGE_BYTES - 10, 10) == body[-10:]

    @pytest.mark.parametrize(("size_bytes", "rounds"), [(100, 1), (5_000_000, 1)])
    def test_of_eight_creators_at_once_one_wins(
        self, opener: Callable[[], ObjectStore], size_bytes: int, rounds: int
    ) -> None:
        """Exactly one of any number of writers creates an object, and all read that one's bytes."""
        stores = [opener() for _ in range(8)]
        bodies = [bytes([i]) * size_bytes for i in range(8)]
        with ThreadPoolExecutor(8) as pool:
            for number in range(rounds):
                start = threading.Barrier(8)
                key = f"manifests/{number}"

                def create(i: int, key: str = key, start: threading.Barrier = start) -> bool:
                    start.wait()
                    return stores[i].put_if_absent(key, bodies[i])

                won = list(pool.map(create, range(8)))
                assert won.count(True) == 1
                assert all(store.get(key) == bodies[won.index(True)] for store in stores)

    def test_one_store_serves_many_threads(self, store: ObjectStore) -> None:
        """Threads share a store: for writing new folders, reading and removing them."""

        def work(i: int) -> bytes:
            for turn in range(5):
                store.put(f"archive/{turn}/{i}", bytes([i]))
                assert store.get(f"archive/{turn}/{i}") == bytes([i])
                store.delete([f"archive/{turn}/{i}"])
            store.put(f"archive/0/{i}", bytes([i]))
            return store.get(f"archive/0/{i}")

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(8))) == [bytes([i]) for i in range(8)]
        assert len(_keys(store, "archive/")) == 8

    def test_head_returns_size_and_time(self, store: ObjectStore) -> None:
        """Size and time of an object are known without reading it, in UTC."""
        store.put("packs/1", b"12345")
        info = store.head("packs/1")
        assert info is not None
        assert (info.key, info.size_bytes) == ("packs/1", 5)
        assert info.modified_at.tzinfo == UTC
        assert abs(info.modified_at - datetime.now(UTC)) < timedelta(hours=1)
        assert list(store.list("packs/")) == [info] or next(store.list("packs/")).size_bytes == 5

    def test_keys_are_listed_in_order_from_a_place_on(self, store: ObjectStore) -> None:
        """A listing is in the order of keys, over folders, and begins after any key, whether it exists or not."""
        keys = [f"models/{model}/manifests/{n:020}" for model in ("a", "b") for n in (1, 2, 9, 10, 300)]
        others = ["models/b/packs/1", "models/b/outcomes/1", "other/1", "models/é/manifests/1"]
        for key in [*others, *reversed(keys)]:
            store.put(key, b"")
        assert _keys(store) == sorted(keys + others)
        assert _keys(store, "models/a/manifests/") == keys[:5]
        assert _keys(store, "models/a/manifests/", keys[2]) == keys[3:5]
        assert _keys(store, "models/a/manifests/", f"models/a/manifests/{8:020}") == keys[2:5]
        assert _keys(store, "models/b/manifests/" + "0" * 18 + "1") == [keys[8]]
        assert _keys(store, "models/b/", keys[-1]) == ["models/b/outcomes/1", "models/b/packs/1"]
        assert _keys(store, "models/", "models/b/p") == ["models/b/packs/1", "models/é/manifests/1"]
        assert _keys(store, "nothing/") == []

    def test_a_listing_spans_pages(self, store: ObjectStore) -> None:
        """A listing is complete beyond the thousand keys of one reply."""
        keys = [f"m/{i:04}" for i in range(1_050)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.put(key, b""), keys))
        assert _keys(store, "m/") == keys
        store.delete(keys)
        assert _keys(store) == []

    def test_deleting_skips_missing_objects(self, store: ObjectStore) -> None:
        """Deleting again what was deleted is no error, so an interrupted clean-up can be repeated."""
        store.put("pages/1/1", b"")
        store.put("pages/2", b"")
        store.delete(["pages/1/1", "pages/never", "nowhere/at/all"])
        store.delete(["pages/1/1"])
        store.delete([])
        assert _keys(store) == ["pages/2"]
        assert store.put_if_absent("pages/1/1", b"again")

    @pytest.mark.parametrize(
        "key", ["", "/etc/passwd", "a/../b", "..", "a//b", "a/", "./a", "a\\b", "a\nb", "a\0", "x" * 300]
    )
    def test_a_key_that_leads_elsewhere_is_refused(self, store: ObjectStore, key: str) -> None:
        """No key leaves the store's root, whatever is done with it."""
        for use in (store.get, store.head, lambda key: store.put(key, b""), lambda key: store.delete([key])):
            with pytest.raises(RequestError) as caught:
                use(key)
            assert caught.value.code == Code.BAD_NAME

    def test_names_may_hold_any_printable_text(self, store: ObjectStore) -> None:
        """A table's name becomes part of a key: blanks, signs and umlauts are kept."""
        keys = sorted(
            f"archive/1/{name}.parquet" for name in ("sales 2024", "größe", "a+b%20&c?d=e#f", "日本", "O'Neill")
        )
        for key in keys:
            store.put(key, key.encode())
        assert _keys(store, "archive/") == keys
        assert [store.get(key) for key in keys] == [key.encode() for key in keys]
        store.delete(keys)
        assert _keys(store) == []


def _keys(store: ObjectStore, prefix: str = "", start_after: str = "") -> list[str]:
    return [info.key for info in store.list(prefix, start_after)]
