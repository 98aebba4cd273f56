"""Direct reads in the queue: copies are one read, abandoned reads are found, a flood crowds out only itself."""

from __future__ import annotations

from teatree.contracts.read_settings import ReadSettings
from teatree.messaging.asked_reads import AskedRead, AskedReads

SETTINGS = ReadSettings(waiting_max=4, waiting_bytes_max=100, silent_repeats_max=2, silent_ms_min=0)


def read(client: str, number: int, request_id: str | None = None, body: bytes = b"x", repeat_ms: int = 0) -> AskedRead:
    """Return a read of a client's connection."""
    headers = {"Teatree-Repeat-Ms": str(repeat_ms)} if repeat_ms else {}
    if request_id is not None:
        headers["Teatree-Request-Id"] = request_id
    return AskedRead("query", headers, body, f"_INBOX.{client}.{number}", asked_ms=number)


def test_a_copy_joins_and_moves_the_reply() -> None:
    """The answer goes to the newest copy's reply subject."""
    reads = AskedReads(SETTINGS)
    first = read("a", 1, "id")
    assert not reads.repeated(first)
    reads.add(first)
    assert reads.repeated(read("a", 2, "id"))
    assert (first.reply, first.asked_ms) == ("_INBOX.a.2", 2)


def test_what_differs_is_another_read() -> None:
    """A read with another client, id, body or function, or without an id, is not a copy."""
    reads = AskedReads(SETTINGS)
    reads.add(read("a", 1, "id"))
    reads.add(read("a", 2))
    for other in (read("b", 3, "id"), read("a", 3, "other"), read("a", 3, "id", b"y"), read("a", 3)):
        assert not reads.repeated(other)


def test_a_client_that_stops_repeating_has_given_up() -> None:
    """A read is abandoned after three intervals without a repeat; one without an interval is kept."""
    reads = AskedReads(SETTINGS)
    repeating, asking_once = read("a", 0, "id", repeat_ms=1_000), read("b", 0, "id")
    reads.add(repeating)
    reads.add(asking_once)
    assert reads.given_up(3_000) == []
    assert reads.given_up(3_001) == [repeating]
    reads.repeated(read("a", 2_500, "id"))
    assert reads.given_up(5_000) == []


def test_a_client_that_repeats_often_may_miss_many() -> None:
    """A client that repeats its query every second may be silent as long as one that repeats every five seconds."""
    reads = AskedReads(ReadSettings(silent_repeats_max=2, silent_ms_min=15_000))
    often, rarely = read("a", 0, "id", repeat_ms=1_000), read("b", 0, "id", repeat_ms=6_000)
    reads.add(often)
    reads.add(rarely)
    assert reads.given_up(15_000) == []
    assert reads.given_up(15_001) == [often]
    assert reads.given_up(18_001) == [often, rarely]


def test_intervals_out_of_range_are_none() -> None:
    """An invalid interval counts as no interval."""
    for text in ("", "-1", "1e3", "99", "60001", "٣٣٣", "1" * 5_000, "100\n100"):
        assert AskedRead("query", {"Teatree-Repeat-Ms": text}, b"", "_INBOX.a.1", 0).repeat_ms == 0


def test_a_flood_crowds_out_itself() -> None:
    """At the bound the newest read of the client with the most reads is refused, whichever client sends the next."""
    reads = AskedReads(SETTINGS)
    flood = [read("flood", number) for number in range(4)]
    for asked in flood:
        assert reads.crowded_out(asked) is None
        reads.add(asked)
    own = read("flood", 5)
    assert reads.crowded_out(own) is own
    other = read("other", 6)
    assert reads.crowded_out(other) is flood[3]
    reads.remove(flood[3])
    assert reads.crowded_out(other) is None


def test_bodies_are_bounded_together() -> None:
    """A few large bodies fill the queue as many small ones do; removed reads free their bytes."""
    reads = AskedReads(SETTINGS)
    large = read("a", 1, body=b"x" * 90)
    reads.add(large)
    other = read("b", 2, body=b"x" * 20)
    assert reads.crowded_out(other) is other
    reads.remove(large)
    reads.remove(large)
    assert reads.crowded_out(other) is None
    assert len(reads) == 0
