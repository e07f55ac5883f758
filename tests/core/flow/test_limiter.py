"""Gates, rate limits, breaker and concurrency limit together: calm costs nothing, nobody is held too long or lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision.policy import BreakerRule, GateRule
from sidecar.core.enums import Reason
from sidecar.core.flow.breaker import State
from sidecar.core.flow.evidence import FEWEST
from sidecar.core.flow.limiter import PATIENCE, Limiter, Load, Result
from sidecar.core.flow.queue import Ticket, TicketState
from sidecar.core.flow.ratelimit_headers import RateLimitHeaders
from tests.core.making import chances, steady

DOWN = Result("failed", 0.01)
FINE = Result("ok", 0.01)


def limiter(queue: int = 1000, when_open: str = "hold") -> Limiter:
    return Limiter(BreakerRule(when_open=when_open), GateRule(queue=queue), lambda: Load(0.01))  # type: ignore[arg-type]


def asks(by: Limiter, now: float, deadline_at: float = 1e9, **more: object) -> Ticket:
    ticket = Ticket(deadline_at=deadline_at, **{"began_at": now, **more})  # type: ignore[arg-type]
    by.ask(ticket, now)
    by.release(now, 0.5)
    return ticket


def told(by: Limiter, result: Result, now: float, times: int = 1, scopes: tuple[str, ...] = ("",)) -> None:
    for _ in range(times):
        by.sends += 1
        by.finished(None, result, now, 0.5, scopes)
        by.release(now, 0.5)


def refusing(now: float = 100.0, seconds: float = 30.0) -> Limiter:
    made = limiter()
    told(made, Result("refused", 0.01, now + seconds), now, FEWEST)
    return made


def down(now: float = 100.0, **more: object) -> Limiter:
    made = limiter(**more)  # type: ignore[arg-type]
    told(made, DOWN, now, 20)
    assert made.breaker.is_open
    return made


def test_a_new_one_is_calm_and_stays_calm_while_all_is_well() -> None:
    made = limiter()
    told(made, FINE, 100.0, 1000)
    assert made.calm


def test_a_failure_now_and_then_leaves_it_calm() -> None:
    made = limiter()
    for n in range(100):
        made.sends += 9
        told(made, DOWN, 100.0 + n / 10)
        assert made.calm


def test_one_refusal_holds_nobody_else() -> None:
    made = limiter()
    told(made, Result("refused", 0.01, 700.0), 100.0)
    assert {asks(made, 101.0).state for _ in range(100)} == {TicketState.ADMITTED}


def test_refusals_among_many_successes_hold_nobody() -> None:
    made = limiter()
    for n in range(2000):
        told(made, Result("refused", 0.01, 700.0) if n % 20 == 0 else FINE, 100.0 + n / 100)
    assert made.scopes == 0


def test_an_endpoint_that_is_refused_holds_no_other() -> None:
    made = limiter()
    for n in range(200):
        told(made, Result("refused", 0.01, 700.0), 100.0 + n / 100, scopes=("endpoint:bad", ""))
        told(made, FINE, 100.0 + n / 100, scopes=("endpoint:good", ""))
    assert asks(made, 102.0, scopes=("endpoint:good", "")).state is TicketState.ADMITTED
    assert asks(made, 102.0, scopes=("endpoint:bad", "")).state is TicketState.WAITING


def test_requests_unlike_one_another_that_are_refused_close_the_upstream() -> None:
    made = limiter()
    for n in range(40):
        told(made, Result("refused", 0.01, 700.0), 100.0 + n / 100, scopes=(f"endpoint:{n}", ""))
    assert asks(made, 101.0, scopes=("endpoint:new", "")).state is TicketState.WAITING


def test_open_forgets_what_was_learnt_and_lets_everybody_go() -> None:
    made = refusing()
    held = [asks(made, 101.0) for _ in range(5)]
    made.open(101.5)
    assert made.release(101.5, 0.5) == [ticket for ticket in held if not ticket.is_control]
    assert made.calm
    assert made.openings["gate"] == made.closings["gate"] == 1


def test_what_is_sent_again_was_judged_before_it_waited_and_is_not_judged_again() -> None:
    made = down(when_open="fail")
    assert made.forecast(("",), 100.01).breaker_open
    assert asks(made, 100.01, number=2).state is TicketState.WAITING


def test_a_gate_that_stays_closed_holds_nobody_longer_than_retries_would_take() -> None:
    made = refusing(seconds=4.0)
    ticket = asks(made, 100.5, retries=2, backoff_seconds=1.0)
    now = 100.5
    while now < 120.0 and ticket.state is TicketState.WAITING:
        now += 0.1
        for probe in made.release(now, 0.5):
            if probe.state is TicketState.ADMITTED:
                made.finished(probe, Result("refused", 0.01, now + 4.0), now, 0.5)
        asks(made, now)
    assert (
        ticket.state is TicketState.GONE
    )  # it was sent, and has its answer: it has every send that it would have had alone
    assert now <= 100.5 + PATIENCE * (2 * 1.1 * 4.0 + 1.0) + 0.2


def test_refusals_hold_everybody_until_the_gate_opens() -> None:
    made = refusing(seconds=3.0)
    tickets = [asks(made, 101.0) for _ in range(3)]
    assert {ticket.state for ticket in tickets} == {TicketState.WAITING}
    assert made.release(102.9, 0.5) == []
    assert (made.next_at(102.9) or 0) >= 103.0
    now, admitted = 103.0, []
    while made.waiting:
        admitted += made.release(now, 0.5)
        now = made.next_at(now) or now
    assert admitted == tickets


def test_behind_a_gate_that_opens_too_late_nobody_waits() -> None:
    made = refusing()
    late = asks(made, 101.0, deadline_at=120.0)
    assert (late.state, late.reason) == (TicketState.REJECTED, Reason.GATE)
    assert late.retry_after_seconds >= 29.0
    assert asks(made, 101.0, max_wait_seconds=10.0).reason is Reason.GATE


def test_the_queue_is_bounded_by_number_and_by_bytes() -> None:
    made = limiter(queue=3)
    told(made, Result("refused", 0.01, 130.0), 100.0, FEWEST)
    assert [asks(made, 101.0).state for _ in range(4)] == [TicketState.WAITING] * 3 + [TicketState.REJECTED]
    made = refusing()
    assert asks(made, 101.0, size_bytes=200 << 20).state is TicketState.WAITING
    assert asks(made, 101.0, size_bytes=100 << 20).state is TicketState.REJECTED


def test_who_leaves_frees_a_place() -> None:
    made = limiter(queue=1)
    told(made, Result("refused", 0.01, 130.0), 100.0, FEWEST)
    first = asks(made, 101.0)
    made.leave(first, 102.0)
    assert first.state is TicketState.GONE
    assert asks(made, 102.0).state is TicketState.WAITING


def test_nobody_is_held_beyond_a_deadline() -> None:
    made = refusing(seconds=3.0)
    tickets = [asks(made, 100.5, deadline_at=104.0) for _ in range(100)]
    assert made.next_at(100.5) is not None
    made.release(104.0, 0.5)
    assert all(ticket.state in (TicketState.ADMITTED, TicketState.REJECTED) for ticket in tickets)


def test_one_tenants_gate_does_not_hold_another() -> None:
    made = limiter()
    told(made, Result("refused", 0.01, 130.0), 100.0, FEWEST, ("key:one", ""))
    told(made, FINE, 100.0, 9, ("key:two", ""))
    assert asks(made, 101.0, scopes=("key:one", "")).state is TicketState.WAITING
    assert asks(made, 101.0, scopes=("key:two", "")).state is TicketState.ADMITTED


def test_one_tenants_waiting_does_not_fill_anothers_queue() -> None:
    made = down()
    one = [asks(made, 100.01, scopes=("key:one", "")) for _ in range(1200)]
    assert one[-1].state is TicketState.REJECTED
    assert asks(made, 100.01, scopes=("key:two", "")).state is TicketState.WAITING


def test_an_upstream_that_is_down_holds_all_but_a_probe() -> None:
    made = down()
    tickets = [asks(made, 100.01) for _ in range(10)]
    assert {ticket.state for ticket in tickets} == {TicketState.WAITING}
    settled = made.release(made.breaker.probe_at, 0.5)
    assert len(settled) == 1
    assert settled[0].is_probe


def test_where_the_breaker_fails_the_others_are_answered_at_once() -> None:
    made = down(when_open="fail")
    rejected = asks(made, 100.01)
    assert rejected.reason is Reason.BREAKER
    assert asks(made, made.breaker.probe_at).state is TicketState.ADMITTED


def test_after_the_probe_release_ramps_up_with_the_answers() -> None:
    made, now = down(), 100.01
    for _ in range(100):
        asks(made, now)
    now = made.breaker.probe_at
    sizes, out = [], made.release(now, 0.5)
    while made.waiting:
        sizes.append(len(out))
        now, answered, out = now + 0.01, out, []
        for ticket in answered:
            made.finished(ticket, FINE, now, 0.5)
            out += made.release(now, 0.5)
    assert sizes[:5] == [1, 4, 8, 16, 32]


def test_a_probe_that_leaves_makes_way_for_another() -> None:
    made = down()
    asks(made, 100.01)
    asks(made, 100.01)
    (first,) = made.release(made.breaker.probe_at, 0.5)
    now = 100.2
    made.leave(first, now)
    assert len(made.release(now, 0.5)) == 1


def test_what_was_sent_before_it_opened_changes_nothing() -> None:
    made = down()
    before = made.breaker
    told(made, FINE, 100.01)
    told(made, DOWN, 100.02)
    assert made.breaker == before


def test_a_429_never_opens_the_breaker() -> None:
    made = limiter()
    for n in range(1000):
        told(made, Result("refused", 0.01), 100.0 + n / 100)
    assert made.breaker.state is State.CLOSED


def test_a_probe_that_is_refused_for_its_rate_has_found_the_upstream() -> None:
    made = down()
    asks(made, 100.01)
    (ticket,) = made.release(made.breaker.probe_at, 0.5)
    made.finished(ticket, Result("refused", 0.01, 101.0), 100.2, 0.5)
    assert not made.breaker.is_open


def test_failures_in_numbers_leave_fewer_under_way_at_once() -> None:
    made = Limiter(BreakerRule(), GateRule(), lambda: Load(0.1))
    made.lent |= set(range(100))
    made.sends = 100
    made.lent.update(range(100))
    for n in range(12):
        made.lent.discard(n)
        made.finished(None, DOWN, 100.0 + n / 1000, 0.5)
    assert made.concurrency is not None
    assert made.concurrency.limit < 80
    assert asks(made, 100.1).state is TicketState.WAITING


def test_it_is_calm_again_when_the_trouble_is_over() -> None:
    made = refusing(seconds=1.0)
    told(made, FINE, 140.0)
    assert made.calm


def test_an_announced_quota_is_kept_at_once() -> None:
    made = limiter()
    told(made, Result("refused", 0.01, 101.0, RateLimitHeaders(50.0)), 100.0, FEWEST + 1)
    for _ in range(200):
        asks(made, 100.5)
    now, sent = 101.0, 0
    while now < 103.0:
        sent += len(made.release(now, 0.5))
        now = made.next_at(now) or 103.0
    assert 90 <= sent <= 102


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_clock_that_jumps_an_hour_leaves_nobody_behind(jump: float) -> None:
    made, now = refusing(now=10_000.0, seconds=2.0), 10_001.0
    tickets = [asks(made, now, deadline_at=now + 60) for _ in range(50)]
    now += jump
    for _ in range(2000):
        made.release(now, 0.5)
        at = made.next_at(now)
        if at is None:
            break
        now = at
    assert all(ticket.state in (TicketState.ADMITTED, TicketState.REJECTED) for ticket in tickets)


KINDS = st.sampled_from(["ask", "ask", "ask", "ok", "failed", "refused", "busy", "leave", "pass"])
steps = st.lists(
    st.tuples(KINDS, st.floats(-3600, 3600) | st.floats(0, 1), st.floats(0, 100), st.integers(0, 3), chances),
    max_size=80,
)


@steady
@given(steps, st.sampled_from(["hold", "fail"]), st.integers(1, 8))
def test_no_story_loses_an_exchange_or_holds_it_beyond_its_deadline(
    story: list[tuple[str, float, float, int, float]], when_open: str, queue: int
) -> None:
    made, now, all_of_them, out = limiter(queue, when_open), 1e5, [], []
    for what, jump, seconds, key, chance in story:
        now += jump
        if what == "ask":
            ticket = Ticket(now + seconds, (f"key:{key}", ""), number=1 + key, size_bytes=10)
            all_of_them.append(ticket)
            made.sends += 1
            if made.calm:
                ticket.state = TicketState.ADMITTED
                out.append(ticket)
            else:
                made.ask(ticket, now)
        elif what == "leave" and all_of_them:
            made.leave(all_of_them[int(seconds) % len(all_of_them)], now)
        elif what != "pass" and out:
            made.finished(out.pop(), Result(what, 0.01, now + seconds), now, chance)  # type: ignore[arg-type]
        out += [ticket for ticket in made.release(now, chance) if ticket.state is TicketState.ADMITTED]
        late = [ticket for ticket in all_of_them if ticket.state is TicketState.WAITING and ticket.deadline_at <= now]
        assert not late, "held beyond its deadline"
        waiting = [ticket for ticket in all_of_them if ticket.state is TicketState.WAITING]
        assert made.waiting == len(waiting) <= 10 * queue
        assert made.waiting_bytes == 10 * len(waiting)
        assert not (made.calm and waiting), "calm, and somebody waits"
        at = made.next_at(now)
        assert (at is not None) == bool(waiting)
        assert at is None or at <= min(ticket.deadline_at for ticket in waiting) + 0.01
    made.release(now + 1e6, 0.5)
    assert all(ticket.state is not TicketState.WAITING for ticket in all_of_them), "lost"


FAILED = Result("failed", 0.01)
LOCAL = ("endpoint:GET /down", "")
FINE_SCOPES = ("endpoint:GET /up", "")


def test_an_endpoint_that_always_fails_says_nothing_of_the_upstream() -> None:
    made = limiter()
    told(made, Result("refused", 0.01, 101.0), 100.0, 1, FINE_SCOPES)  # some trouble, so that successes are counted
    told(made, FINE, 100.1, 30, FINE_SCOPES)
    told(made, FAILED, 102.0, 200, LOCAL)  # nobody else comes
    assert not made.breaker.is_open
    assert made.concurrency is None
    told(made, FAILED, 103.0, 30, FINE_SCOPES)
    assert made.breaker.is_open


def test_an_endpoint_that_was_accepted_and_fails_now_is_a_sign_of_an_outage() -> None:
    made = limiter()
    told(made, FAILED, 100.0, 1, FINE_SCOPES)
    told(made, FINE, 100.0, 5, FINE_SCOPES)
    told(made, FAILED, 100.1, 30, FINE_SCOPES)
    assert made.breaker.is_open


def test_where_nothing_was_accepted_lately_every_failure_counts() -> None:
    made = limiter()
    told(made, FAILED, 100.0, 30, LOCAL)
    assert made.breaker.is_open
