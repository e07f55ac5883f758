"""Where exchanges wait for their turn: bounded by number, by bytes and by each one's deadline, in order.

A ticket is one exchange about to be sent. It is settled exactly once: admitted or rejected, or its exchange left. The
queue knows who came first and who has to go; whether anybody may go is told by ``limiter``. Nothing here sleeps or
reads a clock: the loop asks, and is told which tickets are settled and when to ask again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heappop, heappush
from typing import Final, Literal

from sidecar.core.enums import Reason

__all__ = ["HELD_BY", "HeldBy", "Ticket", "TicketState", "WaitQueue"]

HeldBy = Literal["gate", "breaker", "rate", "concurrency"]
HELD_BY: Final[dict[HeldBy, Reason]] = {
    "gate": Reason.GATE,
    "breaker": Reason.BREAKER,
    "rate": Reason.RATE,
    "concurrency": Reason.CONCURRENCY,
}
"""What can hold an exchange, and the reason that is told where it cannot wait for that."""

FRESH_SECONDS: Final = 0.1
"""Whoever has waited for longer belongs to the backlog."""
BACKLOG_EVERY: Final = 10
"""Where newcomers go first, the backlog still has one turn in so many."""


class TicketState(StrEnum):
    NEW = "new"
    WAITING = "waiting"
    ADMITTED = "admitted"
    REJECTED = "rejected"
    GONE = "gone"
    """Its exchange left: the app is gone, or it was answered otherwise."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One exchange that is about to be sent (for the first time, or again)."""

    deadline_at: float
    """Monotonic seconds at which it must have been admitted: the exchange's deadline less the time an attempt needs."""
    scopes: tuple[str, ...] = ("",)
    """What it is one of, narrow first; the last is the whole upstream's."""
    number: int = 1
    """Of the attempt that is to be sent, from 1."""
    began_at: float = 0.0
    """Monotonic seconds at which its exchange began."""
    retries: int = 1 << 20
    """That the policy allows the exchange in all …"""
    backoff_seconds: float = float("inf")
    """… and what they would wait by themselves on average, without a hint."""
    repeatable: bool = True
    """Whether it could be sent again after an error: such ones make the better probes."""
    size_bytes: int = 0
    """What it keeps in memory while it waits."""
    max_wait_seconds: float = float("inf")
    """A gate that stays closed for longer is not waited for."""
    owner: object = None
    """The loop's own, for waking it up."""
    state: TicketState = TicketState.NEW
    reason: Reason | None = None
    """Why it was rejected."""
    retry_after_seconds: float = 0.0
    """With a rejection: how long the app had better wait."""
    by: HeldBy = "gate"
    """What it waits for, or waited for last."""
    scope: str = ""
    """Of what holds it; empty: the whole upstream."""
    queue: str = ""
    """The scope in whose queue it waits."""
    held_seconds: float = 0.0
    """How long it stood still; known when it is settled."""
    asked_at: float = 0.0
    is_probe: bool = False
    is_control: bool = False
    """Not held by gate or rate, so that it is seen what comes of such."""
    breaker_generation: int = 0
    concurrency_generation: int = 0


@dataclass(slots=True)
class WaitQueue:
    """Those who wait behind one gate, oldest first; the newcomers apart."""

    backlog: deque[Ticket] = field(default_factory=deque)
    newcomers: deque[Ticket] = field(default_factory=deque)
    waiting: int = 0
    turns: int = 0

    def put(self, ticket: Ticket) -> None:
        """At the end; a retry has waited before, and joins the backlog."""
        self.waiting += 1
        (self.backlog if ticket.number > 1 else self.newcomers).append(ticket)

    def next(self, now: float, newest_first: bool) -> Ticket | None:
        """Whose turn it is; it leaves the queue.

        In order; with ``newest_first``, whoever has just come goes before those who have waited long, so that a
        backlog does not delay everybody who comes after it, and one turn in ten is the backlog's.
        """
        self._age(now)
        self.turns += 1
        first, second = self.backlog, self.newcomers
        if newest_first and self.turns % BACKLOG_EVERY:
            first, second = second, first
        return _pop(first) or _pop(second)

    def peek(self) -> Ticket | None:
        """Whose turn it is where they go in order; it stays."""
        for queue in (self.backlog, self.newcomers):
            while queue and queue[0].state is not TicketState.WAITING:
                queue.popleft()
            if queue:
                return queue[0]
        return None

    def probe(self) -> Ticket | None:
        """Who is to look whether the upstream is back: one that could be sent again, and has been sent least."""
        self._age(float("inf"))
        return min(self.backlog, key=_unfit, default=None)

    def remove(self, ticket: Ticket) -> None:
        """The first one goes elsewhere."""
        for queue in (self.backlog, self.newcomers):
            if queue and queue[0] is ticket:
                queue.popleft()
        self.waiting -= 1

    def settled(self) -> None:
        """One of those who waited here is not waiting any more; forget them all where that was the last."""
        self.waiting -= 1
        if not self.waiting:
            self.backlog.clear()
            self.newcomers.clear()
        elif len(self.backlog) + len(self.newcomers) > 64 + 4 * self.waiting:
            for queue in (self.backlog, self.newcomers):
                waiting = [ticket for ticket in queue if ticket.state is TicketState.WAITING]
                queue.clear()
                queue.extend(waiting)

    def _age(self, now: float) -> None:
        while self.newcomers and now - self.newcomers[0].asked_at > FRESH_SECONDS:
            self.backlog.append(self.newcomers.popleft())


class Deadlines:
    """Who must be settled by when. Tickets that were settled otherwise are dropped when their time comes."""

    __slots__ = ("_count", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Ticket]] = []
        self._count = 0

    def put(self, ticket: Ticket, at: float) -> None:
        self._count += 1
        heappush(self._heap, (at, self._count, ticket))

    def due(self, now: float) -> list[Ticket]:
        """Those who still wait and have run out of time."""
        found = []
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].state is not TicketState.WAITING):
            ticket = heappop(self._heap)[2]
            if ticket.state is TicketState.WAITING:
                found.append(ticket)
        return found

    def next_at(self) -> float:
        """Infinity if nobody waits."""
        return self._heap[0][0] if self._heap else float("inf")

    def forget_settled(self) -> None:
        """Where most have been settled otherwise: a bound on memory."""
        self._heap = sorted(entry for entry in self._heap if entry[2].state is TicketState.WAITING)

    def __len__(self) -> int:
        return len(self._heap)


def _pop(queue: deque[Ticket]) -> Ticket | None:
    while queue:
        ticket = queue.popleft()
        if ticket.state is TicketState.WAITING:
            return ticket
    return None


def _unfit(ticket: Ticket) -> tuple[bool, bool, int]:
    return ticket.state is not TicketState.WAITING, not ticket.repeatable, ticket.number
