"""A limiter that is one of several: what others tell holds here too, and without them it goes on alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision.policy import BreakerRule, GateRule
from sidecar.core.flow import rate_limit as rate_limits
from sidecar.core.flow.breaker import Breaker, State
from sidecar.core.flow.evidence import FEWEST
from sidecar.core.flow.gate import Gate
from sidecar.core.flow.keys import Grant, KeyState
from sidecar.core.flow.limiter import Load, Result
from sidecar.core.flow.queue import Ticket, TicketState
from sidecar.core.flow.shared_limiter import SharedLimiter
from sidecar.core.flow.shared_state import BreakerNews, KeyNews, breaker_note, key_note
from tests.core.making import chances, steady

NOW = 1000.0
CLOSED = key_note(Gate(NOW + 5, NOW), rate_limits.begin(NOW, NOW + 5, 20, 1.0, slow_start=True), NOW)
OPEN = breaker_note(Breaker(State.OPEN, 2, opened_at=NOW - 0.5, probe_at=NOW + 0.1), NOW)


def replica(*, shares: bool = True) -> SharedLimiter:
    made = SharedLimiter(BreakerRule(), GateRule(), lambda: Load(0.01))
    made.lend(shares=shares)
    return made


def ends(by: SharedLimiter, kind: str, now: float, opens_at: float | None = None, ticket: Ticket | None = None) -> None:
    by.sends += 1
    by.finished(ticket, Result(kind, 0.01, opens_at), now, 0.5)  # type: ignore[arg-type]
    by.release(now, 0.5)


def asks(by: SharedLimiter, now: float, deadline_at: float = 1e9) -> Ticket:
    ticket = Ticket(deadline_at, began_at=now)
    by.ask(ticket, now)
    by.release(now, 0.5)
    return ticket


def lane(by: SharedLimiter) -> KeyState:
    found = by._keys.get("")
    assert found is not None
    return found


def test_a_refusal_is_news_with_what_was_learnt_from_it() -> None:
    by = replica()
    for _ in range(FEWEST):
        ends(by, "refused", NOW, NOW + 1)
    (news,) = by.news
    assert isinstance(news, KeyNews)
    assert (news.key, news.expected) == ("", 0)
    assert news.rate is not None


def test_a_late_refusal_is_news_of_the_gate_alone() -> None:
    by = replica()
    for _ in range(FEWEST):
        ends(by, "refused", NOW, NOW + 1)
    by.news.clear()
    ends(by, "refused", NOW + 0.01, NOW + 2)
    (news,) = by.news
    assert isinstance(news, KeyNews)
    assert news.rate is None


def test_alone_there_is_no_news_to_gather() -> None:
    by = replica(shares=False)
    for _ in range(FEWEST):
        ends(by, "refused", NOW, NOW + 1)
    for _ in range(30):
        ends(by, "failed", NOW)
    assert by.news == []


def test_what_another_one_was_told_holds_here() -> None:
    by = replica()
    assert by.told_key("", CLOSED, NOW)
    assert not by.calm
    held = asks(by, NOW)
    assert held.state is TicketState.WAITING
    assert by.gates_closed(NOW) == 1
    assert by.next_at(NOW) == pytest.approx(NOW + 5)


def test_behind_an_open_gate_the_store_says_when() -> None:
    by = replica()
    by.told_key("", CLOSED, NOW)
    held = [asks(by, NOW) for _ in range(3)]
    after = NOW + 5.01
    assert by.release(after, 0.5) == []
    ((key, found),) = by.wanting(after)
    pace = found.rate
    assert pace is not None
    assert by.wanted(key, found) == 4
    by.granted(key, Grant(pace.generation, (0.0, 0.5), 0.2, 12, 11.0), after)
    assert by.release(after, 0.5) == held[:1]
    assert by.next_at(after) == pytest.approx(after + 0.5)
    assert by.ask_store_at() == pytest.approx(after + 0.2)
    assert not list(by.wanting(after + 0.1))
    now = lane(by).rate
    assert now is not None
    assert (lane(by).total, now.recent) == (12, 11.0)


def test_who_is_turned_away_before_the_store_has_said_anything_is_told_a_time() -> None:
    by = replica()
    by.told_key("", CLOSED, NOW)
    held = asks(by, NOW, deadline_at=NOW + 6)
    by.release(NOW + 6.1, 0.5)
    assert held.state is TicketState.REJECTED
    assert 0 <= held.retry_after_seconds < 60


def test_what_is_only_repeated_keeps_no_pace_alive() -> None:
    by = replica()
    by.told_key("", CLOSED, NOW)
    for seconds in (10, 20, 29):
        by.told_key("", {**CLOSED, "@until": "0"}, NOW + seconds)
    by.release(NOW + 36, 0.5)
    assert by.calm


def test_news_for_a_store_that_is_slower_than_trouble_is_bounded() -> None:
    by = replica()
    for tenant in range(3000):
        by.told_key("other", {**CLOSED, "@until": "60"}, NOW)
        by.sends += 8
        for _ in range(FEWEST):
            by.finished(None, Result("refused", 0.01, NOW + 60), NOW, 0.5, (f"{tenant:08x}",))
    assert len(by.news) == 1024
    last = by.news[-1]
    assert isinstance(last, KeyNews)
    assert last.key == f"{2999:08x}"
    assert len(by.all_news(NOW)) == 256
    assert by.ask_store_at() == float("inf")
    assert list(by.wanting(NOW + 61)) == []


def test_an_answer_about_another_generation_counts_for_nothing() -> None:
    by = replica()
    by.told_key("", CLOSED, NOW)
    held = asks(by, NOW)
    by.granted("", Grant(99, (0.0,), 0.0, 1000, 1.0), NOW + 6)
    by.granted("no such lane", Grant(1, (0.0,), 0.0, 1, 1.0), NOW + 6)
    assert by.release(NOW + 6, 0.5) == []
    assert held.state is TicketState.WAITING


def test_when_the_store_is_lost_those_who_wait_go_on_by_the_pace_known_here() -> None:
    by = replica()
    by.told_key("", CLOSED, NOW)
    held = asks(by, NOW)
    assert by.release(NOW + 6, 0.5) == []
    by.lend(shares=False)
    assert by.release(NOW + 6, 0.5) == [held]
    assert held.state is TicketState.ADMITTED


def test_alone_it_takes_its_own_share_of_the_rate_and_the_whole_again_when_the_store_is_back() -> None:
    by = replica()
    by.told_key("", CLOSED, NOW)
    after = NOW + 6
    for _ in range(10):
        lane(by).told(Result("ok", 0.01), after)
    by.granted("", Grant(1, (), 0.0, 100, 50.0), after)
    whole = lane(by).rate
    by.lend(shares=False)
    alone = lane(by).rate
    assert whole is not None
    assert alone is not None
    assert alone.rate == pytest.approx(whole.rate / 11)  # ten of a hundred and the ten that were not told
    by.lend(shares=True)
    again = lane(by).rate
    assert again is not None
    assert again.rate == pytest.approx(whole.rate)


def test_a_lane_that_somebody_needs_elsewhere_is_not_forgotten() -> None:
    by = replica()
    by.told_key("", CLOSED, NOW)
    by.told_needed("", NOW + 5)
    by.told_needed("unknown", NOW + 9)
    by.release(NOW + 9.5, 0.5)
    assert not by.calm
    by.release(NOW + 60, 0.5)
    assert by.calm


def test_several_who_begin_at_once_add_up() -> None:
    by = replica()
    by.tick(NOW - 2)
    for _ in range(8):
        by.sends += 1
    assert by.told_key("", {**CLOSED, "@begun": "-0.1"}, NOW)
    (news,) = by.news
    assert isinstance(news, KeyNews)
    assert news.expected == 0
    assert news.rate is not None
    assert news.rate.rate == pytest.approx(7 / 2)
    by.told_key("", {**CLOSED, "@begun": "-0.1"}, NOW)
    assert len(by.news) == 1


@pytest.mark.parametrize("garbage", [{}, {"@until": "x"}, {"open": "1"}, {"open": "perhaps"}], ids=str)
def test_garbage_changes_nothing(garbage: dict[str, str]) -> None:
    by = replica()
    assert not by.told_key("", garbage, NOW)
    assert not by.told_breaker(garbage, NOW, 0.5)
    assert by.calm


def test_an_open_breaker_elsewhere_is_open_here() -> None:
    by = replica()
    assert by.told_breaker(OPEN, NOW, 0.5)
    held = asks(by, NOW)
    assert (by.breaker.is_open, held.state) == (True, TicketState.WAITING)
    assert by.release(NOW + 0.3, 0.5) == [held]
    assert held.is_probe
    assert any(isinstance(item, BreakerNews) for item in by.news)


def test_whose_probe_is_out_puts_off_the_others() -> None:
    by = replica()
    by.told_breaker(OPEN, NOW, 0.0)
    later = breaker_note(Breaker(State.PROBING, 2, opened_at=NOW - 0.5, probe_at=NOW + 1.0, probes=1), NOW)
    by.told_breaker(later, NOW, 0.5)
    asks(by, NOW)
    assert by.release(NOW + 0.9, 0.5) == []
    assert len(by.release(NOW + 1.06, 0.5)) == 1


def test_closed_elsewhere_is_closed_here_and_few_go_at_first() -> None:
    by = replica()
    by.told_breaker(OPEN, NOW, 0.5)
    held = [asks(by, NOW) for _ in range(30)]
    by.told_breaker({"open": "0"}, NOW + 0.05, 0.5)
    admitted = by.release(NOW + 0.05, 0.5)
    assert not by.breaker.is_open
    assert 0 < len(admitted) < len(held)


def test_one_who_is_answered_does_not_believe_that_nobody_answers() -> None:
    by = replica()
    by.tick(NOW - 1.5)
    by.tick(NOW - 0.5)
    by.sends += 5
    by.told_breaker(OPEN, NOW, 0.5)
    assert not by.breaker.is_open
    assert by.calm


def test_one_who_fails_too_believes_it() -> None:
    by = replica()
    by.tick(NOW - 1.5)
    by.tick(NOW - 0.5)
    by.sends += 5
    ends(by, "failed", NOW - 0.1)
    by.told_breaker(OPEN, NOW, 0.5)
    assert by.breaker.is_open


def test_one_who_was_contradicted_keeps_its_troubles_to_itself_for_a_while() -> None:
    by = replica()
    for _ in range(25):
        ends(by, "failed", NOW)
    assert by.breaker.is_open
    by.told_breaker({"open": "0"}, NOW + 1, 0.5)
    by.news.clear()
    fails_again(by, NOW + 2)
    assert by.breaker.is_open
    assert by.news == []
    by.told_breaker({"open": "0"}, NOW + 90, 0.5)
    fails_again(by, NOW + 95)
    assert by.news


def fails_again(by: SharedLimiter, now: float) -> None:
    for n in range(30):
        ticket = asks(by, now + n / 100, deadline_at=now + 1)
        if ticket.state is TicketState.ADMITTED:
            ends(by, "failed", now + n / 100, ticket=ticket)


def test_a_store_that_comes_is_told_everything() -> None:
    by = replica(shares=False)
    for _ in range(FEWEST):
        ends(by, "refused", NOW, NOW + 5)
    for _ in range(30):
        ends(by, "failed", NOW)
    kinds = {type(item) for item in by.all_news(NOW)}
    assert kinds == {KeyNews, BreakerNews}
    assert all(item.expected == -1 for item in by.all_news(NOW) if isinstance(item, KeyNews))


@st.composite
def happenings(draw: st.DrawFn) -> tuple[str, float]:
    kinds = ["ask", "end", "fail", "refuse", "told", "open", "close", "lend", "lost", "grant", "pass", "leave", "back"]
    return draw(st.sampled_from(kinds)), draw(st.floats(0, 3))


@steady
@given(st.lists(happenings(), max_size=60), chances)
def test_whatever_others_say_nobody_is_lost_or_held_beyond_the_deadline(
    script: list[tuple[str, float]], chance: float
) -> None:
    by = replica()
    now, made, under_way = NOW, list[Ticket](), list[Ticket]()

    def settle() -> None:
        under_way.extend(ticket for ticket in by.release(now, chance) if ticket.state is TicketState.ADMITTED)

    for kind, amount in script:
        now += amount
        if kind == "ask":
            made.append(Ticket(now + 5, asked_at=now))
            by.ask(made[-1], now)
        elif kind in ("end", "fail", "refuse"):
            ticket = under_way.pop(0) if under_way else None
            ends(by, {"end": "ok", "fail": "failed", "refuse": "refused"}[kind], now, now + amount, ticket)
        elif kind == "told":
            by.told_key(
                "",
                key_note(Gate(now + amount, now), rate_limits.begin(now, now + amount, 3, 1.0, slow_start=True), now),
                now,
            )
        elif kind == "open":
            by.told_breaker(OPEN, now, chance)
        elif kind == "close":
            by.told_breaker({"open": "0"}, now, chance)
        elif kind in ("lend", "lost"):
            by.lend(shares=kind == "lend")
        elif kind == "grant":
            for key, found in list(by.wanting(now)):
                if found.rate is not None:
                    by.granted(key, Grant(found.rate.generation, (0.0, amount), amount, 3, 2.0), now)
        elif kind == "leave" and made:
            by.leave(made[0], now)
        elif kind == "back":
            now -= 2 * amount  # a clock that jumps
        settle()
        at = by.next_at(now)
        assert (at is None) == (by.waiting == 0)
        assert at is None or at > now
        assert at is None or at <= now + 5 + 60
    now = max([now, *(ticket.deadline_at for ticket in made)]) + 0.01
    settle()
    assert by.waiting == 0
    assert not [ticket for ticket in made if ticket.state in (TicketState.NEW, TicketState.WAITING)]
