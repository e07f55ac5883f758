"""An exchange played through: numbers, times and waits are those that the loop would have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision.attempt import Attempt, Headers, Request
from sidecar.core.decision.policy import Idempotency, Policy
from sidecar.core.decision.rows import Backoff, Reread
from sidecar.core.dryrun.replay import rehearse, request_of
from sidecar.core.enums import FailureKind, Jitter, Reason, Verb
from tests.core.making import (
    answered,
    eager_policies,
    failed,
    get,
    headers,
    many_attempts,
    policy,
    requests,
    row,
    steady,
)

WALL = 1_696_004_797.0
EXACT = Backoff(base_seconds=1.0, jitter=Jitter.NONE)
KEYED = policy(idempotency=Idempotency("X-Key", frozenset({"PUT"})))


def test_each_answer_is_an_attempt_that_begins_after_the_wait_before_it() -> None:
    steps = rehearse(policy(backoff=EXACT), get(), (answered(503, ended_at=2.0), answered(503), answered(200)), WALL, 0)
    told = [(s.attempt.number, s.attempt.started_at, s.attempt.ended_at, s.attempt.waited_seconds) for s in steps]
    assert told == [(1, 0.0, 2.0, 0.0), (2, 3.0, 3.0, 1.0), (3, 5.0, 5.0, 2.0)]
    assert [s.decision.verb for s in steps] == [Verb.RETRY, Verb.RETRY, Verb.PASS]


def test_it_ends_where_nothing_is_sent_again() -> None:
    steps = rehearse(policy(), get(), (answered(404), answered(200)), WALL, 0)
    assert [(s.attempt.status, s.decision.reason) for s in steps] == [(404, Reason.NOT_RETRYABLE)]


def test_waits_and_slow_answers_count_toward_the_deadline() -> None:
    slow = answered(503, ended_at=29.5)
    (first, second) = rehearse(policy(backoff=EXACT), get(deadline_at=60.0), (slow, slow), WALL, 0)
    assert first.decision.verb is Verb.RETRY
    assert second.decision.reason is Reason.DEADLINE


def test_dates_are_measured_against_the_time_that_has_passed() -> None:
    dated = answered(503, ("Retry-After", "Fri, 29 Sep 2023 16:26:47 GMT"), ended_at=4.0)
    (step,) = rehearse(policy(), get(), (dated,), WALL, 0)
    assert step.decision.wait is not None
    assert step.decision.wait.min_seconds == 6.0


def test_chance_is_the_same_for_every_wait() -> None:
    steps = rehearse(policy(), get(), (answered(503), answered(503), answered(503)), WALL, 1)
    assert [s.attempt.waited_seconds for s in steps] == [0.0, 0.25, 0.5]


def test_a_login_serves_an_exchange_once() -> None:
    login = row(Verb.LOGIN, 401)
    first, second = rehearse(policy(login), get(), (answered(401), answered(401)), WALL, 0)
    assert first.decision.verb is Verb.LOGIN
    assert (second.decision.verb, second.decision.reason) == (Verb.PASS, Reason.ATTEMPTS)
    assert second.decision.safe_because is None


@pytest.mark.parametrize("times", [1, 2])
def test_a_reread_serves_it_as_often_as_it_says(times: int) -> None:
    look = row(Verb.REREAD, 409, reread=Reread(times=times))
    steps = rehearse(policy(look), get(), (answered(409),) * 4, WALL, 0)
    assert [s.decision.verb for s in steps] == [Verb.REREAD] * times + [Verb.PASS]


@pytest.mark.parametrize(
    ("method", "sent", "keyed"),
    [
        ("PUT", Headers(), True),
        ("POST", Headers(), False),
        ("PUT", headers(("x-key", "7")), True),
        ("POST", headers(("x-key", "7")), False),
    ],
    ids=["made", "none", "the app's", "the app's, not honoured"],
)
def test_a_request_is_keyed_by_the_app_or_by_the_policy(method: str, sent: Headers, keyed: bool) -> None:
    assert request_of(KEYED, method, "/", "", sent).keyed is keyed
    assert not request_of(policy(), method, "/", "", sent).keyed


@pytest.mark.parametrize(("asked", "deadline"), [("5s", 5.0), ("2m", 60.0), ("soon", 60.0), ("", 60.0)])
def test_the_app_may_only_shorten_the_deadline(asked: str, deadline: float) -> None:
    assert request_of(policy(), "GET", "/", "", headers(("Sidecar-Timeout", asked))).deadline_at == deadline


def test_a_failure_is_an_answer_too() -> None:
    (step,) = rehearse(policy(), get(), (failed(FailureKind.RESET),), WALL, 0)
    assert step.decision.verb is Verb.RETRY


@steady
@given(eager_policies, requests, many_attempts, st.floats(0, 1))
def test_every_step_but_the_last_leads_to_another_send(
    rules: Policy, request: Request, drawn: list[Attempt], chance: float
) -> None:
    answers = tuple(drawn)
    steps = rehearse(rules, request, answers, WALL, chance)
    assert 1 <= len(steps) <= len(answers)
    assert all(s.decision.verb in {Verb.RETRY, Verb.LOGIN, Verb.REREAD} for s in steps[:-1])
    assert [s.attempt.number for s in steps] == list(range(1, len(steps) + 1))
    began = [s.attempt.started_at for s in steps]
    assert began == sorted(began)
