"""Keys: one for each gate key in trouble, bounded, the oldest forgotten."""

from __future__ import annotations

from sidecar.core.flow.keys import MOST_LANES, Keys, KeyState, Result
from sidecar.core.flow.queue import Ticket


def test_a_refusal_closes_the_gate_and_begins_a_pace() -> None:
    lane = KeyState()
    lane.refused(Result("refused", 0.01, 101.0), 100.0, 0, (10, 1.0))
    assert lane.ready_at(100.0) >= 101.0
    assert lane.pace is not None
    assert not lane.take(100.5)


def test_an_upstream_that_takes_nothing_and_asks_for_quiet_is_down_and_not_too_slow() -> None:
    lane = KeyState()
    assert lane.refused(Result("busy", 0.01, 101.0), 100.0, 0, (1000, 1.0))
    assert lane.pace is None
    assert not lane.refused(Result("busy", 0.01, 101.0), 100.1, 0, (1000, 1.0))


def test_one_that_takes_some_and_asks_others_for_quiet_is_paced() -> None:
    lane = KeyState()
    lane.refused(Result("busy", 0.01, 101.0), 100.0, 0, (1000, 1.0))
    for n in range(12):
        lane.succeeded(101.0 + n / 100, 0)
    assert not lane.refused(Result("busy", 0.01, 103.0), 102.0, 0, (1000, 1.0))
    assert lane.pace is not None


def test_a_pace_that_was_in_nobodys_way_for_half_a_minute_is_over() -> None:
    lane = KeyState()
    lane.refused(Result("refused", 0.01, 101.0), 100.0, 0, (10, 1.0))
    assert not lane.is_over(129.0)
    assert lane.is_over(131.0)


def test_a_million_keys_cost_no_more_than_a_few_thousand() -> None:
    lanes = Keys()
    lanes.use("waits").held.put(Ticket(200.0))
    for n in range(20_000):
        lanes.use(str(n)).refused(Result("refused", 0.01, 150.0), 100.0, 0, (1, 1.0))
        lanes.forget(100.0)
        assert len(lanes) <= MOST_LANES + 1
    assert lanes.get("waits") is not None, "somebody waits there"
    assert lanes.get("0") is None, "the oldest goes first"
    assert lanes.get("19999") is not None
