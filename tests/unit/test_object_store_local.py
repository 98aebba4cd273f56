"""The object store in a folder, beyond the common behaviour: crashes, leftovers, its URL."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from teatree.contracts.errors import Code, OperatorError, RequestError, RetryError
from teatree.contracts.settings import StoreSettings
from teatree.storage.objects.base import ObjectStore
from teatree.storage.objects.stores import open_store

_WRITER = """
import sys
from teatree.contracts.settings import StoreSettings
from teatree.storage.objects.stores import open_store
store = open_store(StoreSettings(url=sys.argv[1]))
body = bytes(8_000_000)
print("ready", flush=True)
for number in range(10_000):
    store.put_if_absent(f"packs/{number}", body)
"""


def test_a_killed_writer_leaves_whole_objects_only(tmp_path: Path) -> None:
    """After kill -9 at any moment every object that is listed is whole."""
    url = (tmp_path / "store").as_uri()
    for delay_s in (0.02, 0.05, 0.11):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, url], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(delay_s)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        store = open_store(StoreSettings(url=url))
        assert all(info.size_bytes == 8_000_000 for info in store.list(""))
        store.delete([info.key for info in store.list("")])


def test_old_leftovers_are_removed_at_open_and_young_ones_kept(tmp_path: Path) -> None:
    """Temporary files of a killed writer are removed after a day; younger ones are kept."""
    store = open_store(StoreSettings(url=tmp_path.as_uri()))
    store.put("a", b"")
    old, young = tmp_path / ".tmp" / "1-old", tmp_path / ".tmp" / "1-young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 100_000,) * 2)
    open_store(StoreSettings(url=tmp_path.as_uri()))
    assert (old.exists(), young.exists()) == (False, True)
    assert [info.key for info in store.list("")] == ["a"]
    with pytest.raises(RequestError):
        store.get(".tmp/1-young")


def test_opening_touches_nothing(tmp_path: Path) -> None:
    """A reader of a wrong folder does not create it."""
    store = open_store(StoreSettings(url=(tmp_path / "no" / "store").as_uri()))
    assert list(store.list("")) == []
    assert store.head("a/b") is None
    assert list(tmp_path.iterdir()) == []


def test_an_emptied_folder_is_removed_and_created_again(tmp_path: Path) -> None:
    """Clean-up leaves no empty folders, and a writer that had one open creates it again."""
    store, cleaner = (open_store(StoreSettings(url=tmp_path.as_uri())) for _ in range(2))
    store.put("archive/1/sales.parquet", b"1")
    cleaner.delete(["archive/1/sales.parquet"])
    assert not (tmp_path / "archive").exists()
    assert store.put_if_absent("archive/1/sales.parquet", b"2")
    assert cleaner.get("archive/1/sales.parquet") == b"2"


def test_a_full_disk_is_reported_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is a RetryError, and leaves no file."""
    store = open_store(StoreSettings(url=tmp_path.as_uri()))
    store.put("a", b"")

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RetryError) as caught:
            store.put_if_absent("b", b"body")
    assert caught.value.code == Code.DISK_FULL
    assert store.head("b") is None
    assert list((tmp_path / ".tmp").iterdir()) == []
    assert store.put_if_absent("b", b"body")


def test_a_key_cannot_be_another_ones_folder(tmp_path: Path) -> None:
    """A conflict of a file and a folder is an error of the key, and changes neither."""
    store = open_store(StoreSettings(url=tmp_path.as_uri()))
    store.put("a/b", b"1")
    for key in ("a", "a/b/c"):
        with pytest.raises(RequestError) as caught:
            store.put(key, b"2")
        assert caught.value.code == Code.BAD_NAME
        assert not store.head(key)
    assert store.get("a/b") == b"1"


def test_a_listing_of_many_folders_skips_what_lies_before(tmp_path: Path) -> None:
    """Order is by whole keys, also where a folder's name begins another name."""
    store = open_store(StoreSettings(url=tmp_path.as_uri()))
    keys = sorted(["a-b", "a.b/1", "a/x", "a/y/1", "a/y-1", "a0", "b", "a b/c"])
    for key in keys:
        store.put(key, b"")
    assert [info.key for info in store.list("")] == keys
    for i, key in enumerate(keys):
        assert [info.key for info in store.list("", key)] == keys[i + 1 :]
        assert key in [info.key for info in store.list(key[:3])]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/folder",
        "file://host/folder",
        "file:relative",
        "file:///",
        "/no/scheme",
        "s3:///prefix",
        "s3://bucket/p?endpiont=http://x",
        "s3://bucket?endpoint=localhost:9000",
        "s3://key:hunter2@bucket/prefix",
    ],
)
def test_a_url_that_names_no_store_is_refused_without_its_secrets(url: str) -> None:
    """A wrong URL is an OperatorError, which does not repeat its password."""
    with pytest.raises(OperatorError) as caught:
        open_store(StoreSettings(url=url))
    assert caught.value.code == Code.WRONG_CONFIGURATION
    assert "hunter2" not in str(caught.value)


def test_a_local_store_does_not_load_boto3(tmp_path: Path) -> None:
    """A local store does not import S3's libraries."""
    script = (
        "import sys; from teatree.contracts.settings import StoreSettings;"
        "from teatree.storage.objects.stores import open_store;"
        "open_store(StoreSettings(url=sys.argv[1])).put('a', b''); sys.exit('boto3' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script, tmp_path.as_uri()], check=False).returncode == 0


def test_a_folder_that_is_created_during_a_check(tmp_path: Path) -> None:
    """Threads that open a new store at once, write and list, never report its folder as unavailable."""

    def write_and_look(store: ObjectStore, start: threading.Barrier, number: int) -> None:
        start.wait()
        assert store.head("none") is None
        store.put(f"a/{number}", b"x")

    with ThreadPoolExecutor(8) as pool:
        for round_ in range(50):
            store = open_store(StoreSettings(url=(tmp_path / str(round_)).as_uri()))
            start = threading.Barrier(8)
            list(pool.map(partial(write_and_look, store, start), range(8)))


def test_a_folder_that_is_unavailable(tmp_path: Path) -> None:
    """Objects of a folder that has vanished are unavailable, not missing, and no new folder takes its place."""
    store = open_store(StoreSettings(url=(tmp_path / "store").as_uri()))
    assert store.head("a/b") is None
    store.put("a/b", b"1")
    (tmp_path / "store").rename(tmp_path / "away")
    for ask in (
        lambda: store.head("a/b"),
        lambda: store.get("a/b"),
        lambda: store.put("a/c", b"2"),
        lambda: store.put_if_absent("x/y", b"2"),
        lambda: list(store.list("")),
    ):
        with pytest.raises(RetryError) as away:
            ask()
        assert away.value.code is Code.UNAVAILABLE
    assert not (tmp_path / "store").exists()
    (tmp_path / "away").rename(tmp_path / "store")
    store.put("x/y", b"2")
    assert store.get("a/b") == b"1"
    assert store.head("z") is None
