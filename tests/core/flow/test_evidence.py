"""Evidence: a few refusals among many successes are none, whatever the order; memory is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.flow.evidence import Evidence, is_evidence, wilson
from tests.core.making import steady


@pytest.mark.parametrize(
    ("refused", "answers", "bound"), [(0, 10, 0.0), (5, 10, 0.2255), (10, 10, 0.7143), (1, 1, 0.2), (30, 100, 0.2188)]
)
def test_wilsons_lower_bound(refused: int, answers: int, bound: float) -> None:
    assert wilson(refused, answers) == pytest.approx(bound, abs=0.02)


@steady
@given(st.integers(0, 1000), st.integers(0, 1000))
def test_the_bound_is_below_the_share_and_never_negative(refused: int, accepted: int) -> None:
    answers = refused + accepted
    assert 0 <= wilson(refused, answers) <= (refused / answers if answers else 0) + 1e-9


def test_few_answers_and_small_shares_are_no_evidence() -> None:
    assert not is_evidence(0, 19)
    assert not is_evidence(97, 3)
    assert not is_evidence(900, 100)
    assert is_evidence(0, 20)
    assert is_evidence(60, 40)


def test_what_is_older_than_ten_seconds_is_forgotten() -> None:
    found = Evidence()
    for n in range(100_000):
        found.add(1000.0 + n / 100, 1, 0)
    assert len(found._slots) <= 100
    assert found.recent(2100.0)[:2] == (0, 0)


def test_the_last_second_is_enough_where_it_is_a_sample() -> None:
    found = Evidence()
    for n in range(50):
        found.add(1000.0 + n / 10, 0, 1)
    for n in range(50):
        found.add(1006.0 + n / 50, 1, 0)
    assert found.recent(1006.99)[1] == 0
    assert found.recent(1009.0)[1] == 50


def test_a_clock_that_is_set_back_begins_anew() -> None:
    found = Evidence()
    found.add(1000.0, 0, 9)
    found.add(10.0, 1, 0)
    assert found.recent(10.0)[:2] == (1, 0)
