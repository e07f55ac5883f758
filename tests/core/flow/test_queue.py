"""The waiting room: in order, newcomers apart, everyone settled once and in time."""

from __future__ import annotations

from sidecar.core.flow.queue import Deadlines, Ticket, TicketState, WaitQueue


def waiting(name: str, at: float = 100.0, **more: object) -> Ticket:
    ticket = Ticket(deadline_at=200.0, owner=name, **more)  # type: ignore[arg-type]
    ticket.state, ticket.asked_at = TicketState.WAITING, at
    return ticket


def names(held: WaitQueue, now: float, count: int, newest_first: bool) -> list[object]:
    found = []
    for _ in range(count):
        ticket = held.next(now, newest_first)
        if ticket is not None:
            ticket.state = TicketState.ADMITTED
            found.append(ticket.owner)
    return found


def test_they_go_in_the_order_in_which_they_came() -> None:
    held = WaitQueue()
    for name in "abc":
        held.put(waiting(name))
    assert names(held, 100.0, 5, newest_first=False) == ["a", "b", "c"]


def test_a_retry_goes_before_those_who_come_for_the_first_time() -> None:
    held = WaitQueue()
    held.put(waiting("first"))
    held.put(waiting("again", number=2))
    assert names(held, 100.0, 2, newest_first=False) == ["again", "first"]


def test_where_newcomers_go_first_the_backlog_has_one_turn_in_ten() -> None:
    held = WaitQueue()
    for n in range(30):
        held.put(waiting(f"old{n}", at=90.0))
        held.put(waiting(f"new{n}", at=99.95))
    held.backlog.extend([])
    found = names(held, 100.0, 20, newest_first=True)
    assert sum(str(name).startswith("old") for name in found) >= 2
    assert found[0] == "old0" or str(found[0]).startswith("new")


def test_who_is_settled_otherwise_is_passed_over() -> None:
    held = WaitQueue()
    gone = waiting("gone")
    held.put(gone)
    held.put(waiting("here"))
    gone.state = TicketState.GONE
    held.settled()
    assert names(held, 100.0, 1, newest_first=False) == ["here"]


def test_a_probe_is_one_that_could_be_sent_again_and_has_been_sent_least() -> None:
    held = WaitQueue()
    held.put(waiting("unsafe", repeatable=False))
    held.put(waiting("third", number=3))
    held.put(waiting("fresh"))
    ticket = held.probe()
    assert ticket is not None
    assert ticket.owner == "fresh"


def test_where_only_the_unsafe_wait_one_of_them_has_to_probe() -> None:
    held = WaitQueue()
    held.put(waiting("unsafe", repeatable=False))
    ticket = held.probe()
    assert ticket is not None


def test_deadlines_are_told_when_they_are_due_and_only_of_those_who_wait() -> None:
    deadlines = Deadlines()
    first, second = waiting("first"), waiting("second")
    second.deadline_at = 150.0
    deadlines.put(first, first.deadline_at)
    deadlines.put(second, second.deadline_at)
    assert deadlines.next_at() == 150.0
    assert deadlines.due(149.0) == []
    assert deadlines.due(150.0) == [second]
    first.state = TicketState.ADMITTED
    assert deadlines.due(1e9) == []
    assert deadlines.next_at() == float("inf")


def test_the_settled_do_not_pile_up() -> None:
    held, deadlines = WaitQueue(), Deadlines()
    held.put(waiting("stays"))
    for n in range(1000):
        ticket = waiting(str(n))
        held.put(ticket)
        deadlines.put(ticket, ticket.deadline_at)
        ticket.state = TicketState.GONE
        held.settled()
    deadlines.forget_settled()
    assert len(held.backlog) + len(held.newcomers) < 100
    assert len(deadlines) == 0
