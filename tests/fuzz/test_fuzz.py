"""The fuzz, bounded: the same seeds each time. ``make fuzz`` takes new ones, for an hour."""

from __future__ import annotations

import pytest

from tests.fuzz.corpus import CORPUS
from tests.fuzz.plans import Act, Plan, Request, Run, Site, Talk, make
from tests.fuzz.shrink import shrink
from tests.fuzz.world import play

SEEDS = 120
PER_TEST = 20


@pytest.mark.parametrize("first", range(1, SEEDS, PER_TEST))
def test_what_must_hold_holds_in_random_runs(first: int) -> None:
    for seed in range(first, first + PER_TEST):
        run = make(seed)
        faults = play(run).faults
        if faults:
            pytest.fail(f"seed {seed}: {faults}; the smallest run that fails so:\n{shrink(run, faults[0])}")


@pytest.mark.parametrize("number", range(len(CORPUS)))
def test_what_must_hold_holds_in_runs_that_once_failed(number: int) -> None:
    assert not play(CORPUS[number]).faults


def test_a_run_can_be_made_again_from_what_is_printed() -> None:
    names = {each.__name__: each for each in (Act, Plan, Request, Run, Site, Talk)}
    for seed in range(50):
        assert eval(str(make(seed)), names) == make(seed)  # noqa: S307 - what this test has just printed
