"""Which direct read runs next: fair between clients, long reads never in the way of new ones."""

from __future__ import annotations

from teatree_manager.read_workers.queue import ReadQueue, Ticket

LONG_MS = 1_000


def queue(places: int = 4, long_places: int = 2) -> ReadQueue:
    """Return an empty queue."""
    return ReadQueue(places, long_places, LONG_MS)


def start(reads: ReadQueue, now_ms: float) -> list[Ticket]:
    """Start all that may start."""
    started = []
    while (ticket := reads.next(now_ms)) is not None:
        started.append(ticket)
    return started


def make_way(reads: ReadQueue, now_ms: float) -> list[Ticket]:
    """Let all reads make way that must."""
    found = []
    while (ticket := reads.must_make_way(now_ms)) is not None:
        found.append(ticket)
    for ticket in found:
        reads.wait_again(ticket)
    return found


def test_how_long_reads_wait_that_could_run() -> None:
    """It shows when another worker is worth its start: not while all places are taken, nor for a long read's turn."""
    reads = queue(places=2, long_places=1)
    assert reads.waited_ms(100) == 0
    reads.join("a", 10)
    reads.join("a", 20)
    assert reads.waited_ms(100) == 90
    start(reads, 100)
    reads.join("a", 110)
    assert reads.waited_ms(200) == 0
    (moved,) = make_way(reads, 5_000)
    assert reads.waited_ms(5_000) == 4_890
    start(reads, 5_000)
    reads.leave(moved)


def test_clients_take_turns() -> None:
    """A client with a hundred reads delays only itself; the reads of one client keep their order."""
    reads = queue(places=2, long_places=1)
    flood = [reads.join("flood", 0) for _ in range(100)]
    other = [reads.join("other", 0) for _ in range(2)]
    started: list[Ticket] = []
    for _ in range(4):
        started += start(reads, 0)
        reads.leave(started[-1])
    assert started[:4] == [flood[0], other[0], flood[1], other[1]]


def test_no_more_run_than_there_are_places() -> None:
    """The rest waits, however many there are."""
    reads = queue(places=3)
    tickets = [reads.join("a", 0) for _ in range(10)]
    assert start(reads, 0) == tickets[:3]
    assert len(reads) == 7
    reads.leave(tickets[1])
    assert start(reads, 0) == [tickets[3]]


def test_nothing_makes_way_while_nothing_waits() -> None:
    """Long reads may hold all places as long as no new one wants them."""
    reads = queue()
    for _ in range(4):
        reads.join("a", 0)
    start(reads, 0)
    assert reads.must_make_way(5_000) is None


def test_long_reads_beyond_their_share_make_way_for_new_ones() -> None:
    """The youngest ones go first, and no more than there are new reads; two stay whatever comes."""
    reads = queue()
    slow = []
    for now_ms in range(4):
        slow.append(reads.join("slow", 0))
        start(reads, now_ms)
    reads.join("a", 0)
    assert make_way(reads, 500) == []
    assert make_way(reads, 2_000) == [slow[3]]
    assert len(start(reads, 2_000)) == 1
    for _ in range(3):
        reads.join("b", 0)
    assert make_way(reads, 2_100) == [slow[2]]


def test_a_read_that_made_way_runs_on_a_place_for_long_reads() -> None:
    """It waits until one is free, though others are, and then keeps its place."""
    reads = queue()
    slow = [reads.join("slow", 0) for _ in range(4)]
    start(reads, 0)
    reads.join("a", 0)
    (moved,) = make_way(reads, 2_000)
    (new,) = start(reads, 2_000)
    reads.leave(new)
    assert start(reads, 2_100) == []
    stayed = [ticket for ticket in slow if ticket is not moved]
    for ticket in stayed[:2]:
        reads.leave(ticket)
    assert start(reads, 2_200) == [moved]
    for _ in range(5):
        reads.join("b", 0)
    start(reads, 2_300)
    assert moved not in make_way(reads, 9_000)


def test_new_reads_never_keep_long_ones_waiting_for_ever() -> None:
    """A place for long reads that is free goes to a long read before a new one."""
    reads = queue(places=2, long_places=1)
    slow = [reads.join("slow", 0) for _ in range(2)]
    start(reads, 0)
    reads.join("a", 0)
    (moved,) = make_way(reads, 2_000)
    start(reads, 2_000)
    for _ in range(10):
        reads.join("a", 0)
    reads.leave(next(ticket for ticket in slow if ticket is not moved))
    assert start(reads, 2_100) == [moved]


def test_a_read_whose_answer_is_on_the_way_does_not_make_way() -> None:
    """Interrupting it would not free a place sooner."""
    reads = queue(places=2, long_places=1)
    slow = [reads.join("slow", 0) for _ in range(2)]
    start(reads, 0)
    for ticket in slow:
        ticket.may_make_way = False
    reads.join("a", 0)
    assert make_way(reads, 5_000) == []


def test_a_read_can_leave_from_anywhere() -> None:
    """Given up while it waits, runs, or waits again: nothing is left of it."""
    reads = queue(places=2, long_places=1)
    tickets = [reads.join("a", 0) for _ in range(3)]
    start(reads, 0)
    (moved,) = make_way(reads, 5_000)
    for ticket in [*tickets, moved]:
        reads.leave(ticket)
    assert len(reads) == 0
    assert start(reads, 0) == []
    fresh = [reads.join("b", 0) for _ in range(2)]
    assert start(reads, 0) == fresh
