"""The pause before a retry: a hint is a minimum, the cap is obeyed, chance only adds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision.retry_after import Hint
from sidecar.core.decision.rows import Backoff, Row
from sidecar.core.decision.wait import LONGEST_SPREAD_SECONDS, Wait, hint_spread, plan_wait
from sidecar.core.enums import Jitter, OverMax, Verb, WaitFrom
from tests.core.making import answered, backoffs, chances, policy, steady

FULL = Backoff(base_seconds=0.25, factor=2, cap_seconds=30, jitter=Jitter.FULL)
NONE = Backoff(base_seconds=0.25, factor=2, cap_seconds=30, jitter=Jitter.NONE)
HOUR = Hint(3600, WaitFrom.HINT)


@pytest.mark.parametrize(
    ("rule", "hint", "number", "spread"),
    [
        (FULL, 20, 1, (0, 2)),
        (FULL, 120, 1, (0, 5)),
        (FULL, 1, 1, (0, 0.25)),
        (FULL, 1, 10, (0, 1)),
        (FULL, 0, 1, (0, 0.25)),
        (FULL, 0, 10, (0, 1)),
        (NONE, 20, 1, (0, 0)),
        (NONE, 0, 1, (0.25, 0.25)),
        (NONE, 0, 10, (1, 1)),
    ],
)
def test_what_chance_adds_to_a_hint(rule: Backoff, hint: float, number: int, spread: tuple[float, float]) -> None:
    assert hint_spread(rule, hint, number) == pytest.approx(spread)


def test_without_a_hint_the_wait_is_backoff() -> None:
    wait = plan_wait(policy(backoff=FULL), None, None, answered(503, number=2), 0.5)
    assert wait == Wait(WaitFrom.BACKOFF, 0.25, 0, 0.5)


def test_a_row_may_bring_its_own_backoff_and_bounds() -> None:
    line = Row(Verb.RETRY, backoff=NONE, max_wait_seconds=7200, over_max=OverMax.CLAMP)
    assert plan_wait(policy(backoff=FULL), line, None, answered(503), 0.9) == Wait(WaitFrom.BACKOFF, 0.25, 0.25, 0.25)
    assert plan_wait(policy(), line, HOUR, answered(503), 0.9) == Wait(WaitFrom.HINT, 3600, 3600, 3600)
    assert plan_wait(policy(), Row(Verb.RETRY, over_max=OverMax.CLAMP), HOUR, answered(503), 0.9) == Wait(
        WaitFrom.HINT, 120, 120, 120
    )


def test_a_hint_over_the_cap_is_not_undercut() -> None:
    assert plan_wait(policy(), None, HOUR, answered(503), 0.5) is None


def test_a_hint_over_the_cap_may_be_clamped_or_forgotten_by_those_who_ask() -> None:
    clamped = plan_wait(policy(over_max=OverMax.CLAMP), None, HOUR, answered(503), 0.5)
    assert clamped == Wait(WaitFrom.HINT, 120, 120, 120)
    forgotten = plan_wait(policy(over_max=OverMax.BACKOFF, backoff=NONE), None, HOUR, answered(503), 0.5)
    assert forgotten == Wait(WaitFrom.BACKOFF, 0.25, 0.25, 0.25)


def test_the_cap_judges_the_hint_and_not_what_chance_adds() -> None:
    wait = plan_wait(policy(), None, Hint(120, WaitFrom.HINT), answered(503), 1.0)
    assert wait == Wait(WaitFrom.HINT, 125, 120, 125)


def test_backoff_is_never_longer_than_the_cap() -> None:
    wait = plan_wait(policy(backoff=NONE, max_wait_seconds=0.1), None, None, answered(503), 1.0)
    assert wait == Wait(WaitFrom.BACKOFF, 0.1, 0.1, 0.1)


def test_a_wait_is_moved_and_cut_as_a_whole() -> None:
    wait = Wait(WaitFrom.BACKOFF, 1, 0, 2)
    assert wait.moved_to(5) == Wait(WaitFrom.BACKOFF, 6, 5, 7)
    assert wait.moved_to(-5) == wait
    assert wait.cut_at(0.5) == Wait(WaitFrom.BACKOFF, 0.5, 0, 0.5)


@steady
@given(backoffs, st.floats(0, 1e6), st.integers(1, 10_000), chances)
def test_a_hint_is_a_minimum_and_its_spread_is_bounded(
    rule: Backoff, hinted: float, number: int, chance: float
) -> None:
    hint = Hint(hinted, WaitFrom.HINT)
    wait = plan_wait(policy(backoff=rule, max_wait_seconds=1e6), None, hint, answered(503, number=number), chance)
    assert wait is not None
    assert hinted <= wait.min_seconds <= wait.seconds <= wait.max_seconds + 1e-9
    assert wait.max_seconds <= hinted + LONGEST_SPREAD_SECONDS


@steady
@given(backoffs, st.one_of(st.none(), st.floats(0, 1e6)), st.floats(0, 1e5), st.sampled_from(OverMax), chances)
def test_no_wait_is_longer_than_the_cap_and_the_spread(
    rule: Backoff, hinted: float | None, cap: float, over_max: OverMax, chance: float
) -> None:
    hint = None if hinted is None else Hint(hinted, WaitFrom.HINT)
    wait = plan_wait(policy(backoff=rule, max_wait_seconds=cap, over_max=over_max), None, hint, answered(503), chance)
    if wait is None:
        assert hinted is not None
        assert hinted > cap
        assert over_max is OverMax.PASS
    else:
        assert 0 <= wait.seconds <= cap + LONGEST_SPREAD_SECONDS
