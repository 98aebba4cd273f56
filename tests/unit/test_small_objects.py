"""Small JSON objects beside a chain: absent, whole, or `corrupt`."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import frozen

from teatree.contracts.errors import CorruptError
from teatree.storage.objects.local import LocalObjectStore
from teatree.storage.objects.small_objects import create_object, read_members, read_object, write_object

KEY = "models/a/note"


@frozen
class Note:
    """A value."""

    version: int
    text: str


def test_an_object_is_written_and_read(tmp_path: Path) -> None:
    """A value is read as it was written; an absent one is None."""
    store = LocalObjectStore(tmp_path)
    assert read_object(store, KEY, "The note", Note) is None
    write_object(store, KEY, Note(1, "a"))
    write_object(store, KEY, Note(2, "b"))
    assert read_object(store, KEY, "The note", Note) == Note(2, "b")
    assert read_members(store, KEY, "The note", lambda members: int(members["version"])) == 2


def test_an_object_is_created_once(tmp_path: Path) -> None:
    """The first one that is created stays."""
    store = LocalObjectStore(tmp_path)
    assert create_object(store, KEY, Note(1, "a"))
    assert not create_object(store, KEY, Note(2, "b"))
    assert read_object(store, KEY, "The note", Note) == Note(1, "a")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b"null", b'{"version": 1}', b'{"version": "1"}'])
def test_a_damaged_object_is_corrupt(tmp_path: Path, body: bytes) -> None:
    """Whatever cannot be read as the value is `corrupt`, with its name and its key."""
    store = LocalObjectStore(tmp_path)
    store.put(KEY, body)
    with pytest.raises(CorruptError, match="The note is damaged") as caught:
        read_object(store, KEY, "The note", Note)
    assert caught.value.where == KEY
    with pytest.raises(CorruptError, match="The note is damaged"):
        read_members(store, KEY, "The note", lambda members: members["text"].strip())
