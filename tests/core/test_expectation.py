"""What holds of a case and what does not: the whole range of a wait, and both ends of chance."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision.attempt import Attempt
from sidecar.core.decision.policy import Policy
from sidecar.core.decision.rows import Backoff
from sidecar.core.dryrun.expectations import Case, Expected, Failed, judge
from sidecar.core.dryrun.replay import rehearse
from sidecar.core.enums import Jitter, Reason, Safe, Verb, WaitFrom
from tests.core.making import answered, attempts, get, policies, policy, post, row, steady

WALL = 1_767_225_600.0
LINE = row(status=503, file="config/policies/default.yaml", line=12)
BUSY = answered(503, ("Retry-After", "20"))
CASE = Case("it holds", "t.yaml", "-", policy(LINE), get(deadline_at=60.0), (BUSY,), (5,), ((),), WALL)


def expecting(name: str, value: object, case: Case = CASE) -> Failed | None:
    return judge(replace(case, expected=((Expected(name, value, 7),),)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("decision", Verb.RETRY),
        ("reason", None),
        ("safe_because", Safe.IDEMPOTENT),
        ("attempts_left", 4),
        ("gate", True),
        ("policy", "made"),
        ("row.file", "default.yaml"),
        ("row.file", "policies/default.yaml"),
        ("row.line", 12),
        ("wait.from", WaitFrom.HINT),
        ("wait.min", 20.0),
        ("wait.max", 22.0),
        ("wait.at_least", 20.0),
        ("wait.at_least", 1.0),
        ("wait.at_most", 22.0),
    ],
)
def test_what_is_so_is_met(name: str, value: object) -> None:
    assert expecting(name, value) is None


@pytest.mark.parametrize(
    ("name", "value", "expected", "came"),
    [
        ("decision", Verb.PASS, "pass", "retry"),
        ("reason", Reason.NOT_SAFE, "not_safe", "null"),
        ("safe_because", None, "null", "idempotent"),
        ("attempts_left", 3, "3", "4"),
        ("gate", False, "false", "true"),
        ("policy", "other", "other", "made"),
        ("row", None, "null", "config/policies/default.yaml:12"),
        ("row.file", "fault.yaml", "fault.yaml", "config/policies/default.yaml:12"),
        ("row.file", "ult.yaml", "ult.yaml", "config/policies/default.yaml:12"),
        ("row.line", 13, "13", "config/policies/default.yaml:12"),
        ("wait", None, "null", "hint 20s … 22s"),
        ("wait.from", WaitFrom.BACKOFF, "backoff", "hint"),
        ("wait.min", 21.0, "21s", "20s … 22s"),
        ("wait.max", 21.0, "21s", "20s … 22s"),
        ("wait.at_least", 21.0, "21s", "20s … 22s"),
        ("wait.at_most", 21.0, "21s", "20s … 22s"),
    ],
)
def test_what_is_not_so_is_told_with_what_came(name: str, value: object, expected: str, came: str) -> None:
    failed = expecting(name, value)
    assert failed is not None
    assert (failed.line, failed.attempt, failed.decision.verb) == (7, 1, Verb.RETRY)
    assert [(unmet.name, unmet.expected, unmet.came) for unmet in failed.unmet] == [(name, expected, came)]


def test_a_wait_that_is_not_there_is_told_once() -> None:
    wanted = (Expected("wait.from", WaitFrom.HINT, 7), Expected("wait.min", 20.0, 8))
    failed = judge(replace(CASE, request=post(), expected=(wanted,)))
    assert failed is not None
    assert [(unmet.name, unmet.came) for unmet in failed.unmet] == [("wait", "null")]


def test_every_unmet_expectation_of_an_answer_is_told_at_once() -> None:
    wanted = (Expected("decision", Verb.PASS, 7), Expected("gate", True, 8), Expected("attempts_left", 0, 9))
    failed = judge(replace(CASE, expected=(wanted,)))
    assert failed is not None
    assert [unmet.name for unmet in failed.unmet] == ["decision", "attempts_left"]


def test_an_answer_to_a_send_that_is_never_made_fails_at_its_place() -> None:
    two = replace(CASE, request=post(), answers=(BUSY, answered(200)), lines=(5, 6), expected=((), ()))
    failed = judge(two)
    assert failed is not None
    assert (failed.line, failed.attempt, failed.decision.reason) == (6, 1, Reason.NOT_SAFE)
    assert [(unmet.expected, unmet.came) for unmet in failed.unmet] == [("another send", "pass (not_safe)")]


def test_what_hangs_on_the_dice_does_not_hold() -> None:
    """1 s is left: full jitter of 2 s fits at its shortest and not at its longest."""
    rules = policy(backoff=Backoff(base_seconds=2.0, jitter=Jitter.FULL))
    slow = replace(CASE, policy=rules, answers=(answered(500, ended_at=59.0),))
    failed = expecting("decision", Verb.RETRY, slow)
    assert failed is not None
    assert failed.unmet[0].came == "retry or pass"
    assert failed.decision.reason is Reason.DEADLINE
    other = expecting("decision", Verb.PASS, slow)
    assert other is not None
    assert other.decision.verb is Verb.RETRY


def test_the_range_is_that_of_all_dice() -> None:
    """Decorrelated: the second wait reaches as far as the first one was long."""
    rules = policy(backoff=Backoff(base_seconds=1.0, jitter=Jitter.DECORRELATED))
    twice = replace(CASE, policy=rules, answers=(answered(500), answered(500)), lines=(5, 6))
    ends = (Expected("wait.min", 1.0, 7), Expected("wait.max", 9.0, 7))
    assert judge(replace(twice, expected=((), ends))) is None


@steady
@given(policies, attempts, st.floats(0, 1))
def test_no_roll_of_the_dice_leaves_an_expected_range(rules: Policy, attempt: Attempt, chance: float) -> None:
    """What every case promises of a wait holds for whatever chance ``serve`` draws."""
    answer = replace(attempt, ended_at=0.0)
    case = replace(CASE, policy=rules, answers=(answer,))
    (drawn,) = rehearse(rules, case.request, (answer,), WALL, chance)
    wait = drawn.decision.wait
    if wait is None:
        return
    assert expecting("wait.at_least", wait.seconds + 0.001, case) is not None
    assert wait.seconds < 0.001 or expecting("wait.at_most", wait.seconds - 0.001, case) is not None
