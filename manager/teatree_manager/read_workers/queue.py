"""The queue of direct reads: fair between clients, with places that long reads cannot hold against new ones.

A read counts as long once it has run for a time; that cannot be known before. Reads that wait for the first time have
their turn client by client. While one of them waits and all places are taken, the long reads beyond their share make
way, the youngest first: it is interrupted, and begins anew when one of the places for long reads is free. So each read
makes way once at most, and while no read waits nothing is interrupted.

Pure: the clock is passed in, and its user starts and interrupts.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from attrs import define, field


@define(eq=False)
class Ticket:
    """A read's place in the queue, or among those that run."""

    client: str
    is_long: bool = False
    """Whether it had to make way: it waits for a place for long reads, and is not asked to again."""
    may_make_way: bool = True
    """False once its answer is being returned."""
    joined_ms: float = 0
    began_ms: float = 0
    is_making_way: bool = False


class ReadQueue:
    """The reads of one model that wait or run."""

    def __init__(self, places: int, long_places: int, long_ms: float) -> None:
        """`places` reads run at once; `long_places` of them, at least one fewer, may be longer than `long_ms`."""
        self._places = places
        self._long_places = max(1, min(long_places, places - 1))
        self._long_ms = long_ms
        self._new = _Turns()
        self._long = _Turns()
        self._running: set[Ticket] = set()

    def __len__(self) -> int:
        """Return how many reads wait."""
        return len(self._new) + len(self._long)

    def join(self, client: str, now_ms: float) -> Ticket:
        """Add a client's read to those that wait."""
        ticket = Ticket(client, joined_ms=now_ms)
        self._new.append(ticket)
        return ticket

    def waited_ms(self, now_ms: float) -> float:
        """Return for how long a read has waited that may start; 0 if none may."""
        if len(self._running) >= self._places:
            return 0
        waiting = self._new.first() or (self._long.first() if self._may_start_long(now_ms) else None)
        return 0 if waiting is None else now_ms - waiting.joined_ms

    def _may_start_long(self, now_ms: float) -> bool:
        return self._long_running(now_ms) < self._long_places

    def next(self, now_ms: float) -> Ticket | None:
        """Return the read to start now, which then runs; None if none may start."""
        if len(self._running) >= self._places:
            return None
        ticket = None
        if self._may_start_long(now_ms):
            ticket = self._long.pop()
        if ticket is None:
            ticket = self._new.pop()
        if ticket is not None:
            ticket.began_ms = now_ms
            self._running.add(ticket)
        return ticket

    def must_make_way(self, now_ms: float) -> Ticket | None:
        """Return a running read to interrupt, so that one that never ran can start; None if there is none.

        It counts as making way until `wait_again` or `leave` is called for it.
        """
        making_way = sum(ticket.is_making_way for ticket in self._running)
        if len(self._new) <= making_way or len(self._running) < self._places:
            return None
        if self._long_running(now_ms) - making_way <= self._long_places:
            return None
        long = [t for t in self._running if self._is_long(t, now_ms) and self._can_make_way(t)]
        if not long:
            return None
        youngest = max(long, key=lambda ticket: ticket.began_ms)
        youngest.is_making_way = True
        return youngest

    def _can_make_way(self, ticket: Ticket) -> bool:
        return ticket.may_make_way and not ticket.is_long and not ticket.is_making_way

    def _long_running(self, now_ms: float) -> int:
        return sum(self._is_long(ticket, now_ms) for ticket in self._running)

    def _is_long(self, ticket: Ticket, now_ms: float) -> bool:
        return ticket.is_long or now_ms - ticket.began_ms >= self._long_ms

    def wait_again(self, ticket: Ticket) -> None:
        """Let a read that made way wait for a place for long reads."""
        self._running.discard(ticket)
        ticket.is_making_way = False
        ticket.is_long = True
        self._long.append(ticket)

    def leave(self, ticket: Ticket) -> None:
        """Forget a read that was answered or given up, wherever it stands."""
        self._running.discard(ticket)
        self._new.remove(ticket)
        self._long.remove(ticket)


@define
class _Turns:
    """Tickets that wait: the clients have their turns one after the other, each its own tickets in their order."""

    _clients: OrderedDict[str, deque[Ticket]] = field(factory=OrderedDict)

    def __len__(self) -> int:
        return sum(len(tickets) for tickets in self._clients.values())

    def append(self, ticket: Ticket) -> None:
        self._clients.setdefault(ticket.client, deque()).append(ticket)

    def first(self) -> Ticket | None:
        """Return the ticket that waits for longest."""
        return min((tickets[0] for tickets in self._clients.values()), key=lambda t: t.joined_ms, default=None)

    def pop(self) -> Ticket | None:
        if not self._clients:
            return None
        client, tickets = self._clients.popitem(last=False)
        ticket = tickets.popleft()
        if tickets:
            self._clients[client] = tickets
        return ticket

    def remove(self, ticket: Ticket) -> None:
        tickets = self._clients.get(ticket.client)
        if tickets is not None and ticket in tickets:
            tickets.remove(ticket)
            if not tickets:
                del self._clients[ticket.client]
