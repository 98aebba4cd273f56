"""Which models wait for a place on a host with as many managers as it may have, and which manager makes room."""

from __future__ import annotations

from teatree_dispatcher.room import FORGOTTEN_MS, Room


def test_in_the_order_of_waiting() -> None:
    """A place is given to the model that waits longest, however often others ask."""
    room = Room(2, 0)
    served = {"a", "b"}
    assert not room.admits("c", served, 1)
    assert not room.admits("d", served, 2)
    assert room.waiting == ("c", "d")
    assert not room.admits("d", {"a"}, 3)
    assert room.admits("c", {"a"}, 4)
    assert not room.admits("d", {"a", "c"}, 5)
    assert room.admits("d", {"c"}, 6)
    assert not room.waiting


def test_no_manager_makes_room_while_there_is_a_place() -> None:
    """While there is a place, no manager is asked to end."""
    room = Room(2, 0)
    assert room.admits("a", set(), 0)
    assert room.admits("b", {"a"}, 0)
    assert room.candidates({"a", "b"}, 10_000) == []


def test_the_least_recently_used_first() -> None:
    """The manager that was used longest ago is the first to make room; one in use is never asked to."""
    room = Room(3, 1_000)
    for model, at in (("a", 100), ("b", 50), ("c", 9_500)):
        room.used(model, at)
    served = {"a", "b", "c"}
    assert not room.admits("d", served, 10_000)
    assert room.candidates(served, 10_000) == ["b", "a"]
    assert room.missing(served) == 1
    room.dismissed("b", 10_000)
    assert room.missing(served) == 0
    assert room.candidates(served, 10_000) == []
    assert not room.admits("e", served, 10_001)
    assert room.candidates(served, 10_001) == ["a"]


def test_a_manager_that_does_not_end() -> None:
    """The manager is asked again if it has not ended after a time."""
    room = Room(1, 0)
    room.used("a", 0)
    assert not room.admits("b", {"a"}, 1)
    room.dismissed("a", 1)
    assert room.candidates({"a"}, 2) == []
    assert not room.admits("b", {"a"}, 2 + FORGOTTEN_MS - 1)
    assert room.candidates({"a"}, 2 + FORGOTTEN_MS) == ["a"]


def test_a_model_that_needs_none_any_more() -> None:
    """A model whose manager was not requested for a while delays no other."""
    room = Room(1, 0)
    assert not room.admits("gone", {"a"}, 0)
    assert not room.admits("b", {"a"}, FORGOTTEN_MS - 1)
    assert room.admits("b", set(), FORGOTTEN_MS + 1)
