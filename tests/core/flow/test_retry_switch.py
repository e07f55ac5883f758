"""Retries turned off and on: for all, for one, for a time."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.flow.retry_switch import RetrySwitch

NAMES = ("a", "b")


def test_one_can_be_turned_off_by_itself() -> None:
    switch = RetrySwitch()
    switch.turn_off("a", 10.0)
    assert [switch.is_off(name, 9.9) for name in NAMES] == [True, False]
    assert not switch.is_off("a", 10.0)


def test_one_can_be_turned_on_while_all_others_are_off() -> None:
    switch = RetrySwitch()
    switch.turn_off(None, math.inf)
    switch.turn_on("a")
    assert [switch.off_until(name, 1e9) for name in ("a", "b", "that a reload brings")] == [None, math.inf, math.inf]


@given(
    st.lists(st.tuples(st.sampled_from([None, *NAMES]), st.floats(0, 100)), max_size=6),
    st.sampled_from([None, *NAMES]),
    st.floats(0, 100),
)
def test_the_last_word_counts(earlier: list[tuple[str | None, float]], last: str | None, now: float) -> None:
    switch = RetrySwitch()
    for name, until in earlier:
        switch.turn_off(name, until)
    switch.turn_off(last, 50.0)
    for name in NAMES if last is None else (last,):
        assert switch.is_off(name, now) == (now < 50.0)
    switch.turn_on(None)
    assert not any(switch.is_off(name, now) for name in NAMES)
