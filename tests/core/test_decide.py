"""The judgement: each objection in its order, and the promises that hold whatever the input."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision.attempt import Attempt, Now, Pressure, Replay, Request
from sidecar.core.decision.decide import (
    LEAST_ATTEMPT_SECONDS,
    LONGEST_GATE_SECONDS,
    Decision,
    decide,
    needs_body,
    outcome_of,
)
from sidecar.core.decision.policy import Policy, Verdict
from sidecar.core.decision.rows import Backoff, Condition, HintSource, Reread, Row
from sidecar.core.decision.table import Table
from sidecar.core.decision.wait import Wait
from sidecar.core.enums import FailureKind, Jitter, Outcome, OverMax, Reason, Safe, Unit, Verb, WaitFrom
from tests.core.making import (
    ANY_FAILURE,
    CALM,
    NOW,
    answered,
    attempts,
    chances,
    eager_policies,
    failed,
    get,
    many_attempts,
    nows,
    policies,
    policy,
    post,
    pressures,
    requests,
    row,
    steady,
)

FLAT = Backoff(base_seconds=0.25, factor=2, cap_seconds=30, jitter=Jitter.NONE)


def judge(
    attempt: Attempt,
    rules: Policy | None = None,
    request: Request | None = None,
    chance: float = 0.5,
    pressure: Pressure = CALM,
) -> Decision:
    """One attempt under the calm default, unless said otherwise."""
    return decide(rules or policy(backoff=FLAT), request or get(), (attempt,), NOW, chance, pressure)


def stops(decision: Decision, reason: Reason | None) -> None:
    assert (decision.verb, decision.reason) == (Verb.PASS, reason)
    assert decision.wait is None
    assert decision.safe_because is None
    assert decision.cost == 0


# --- what is wanted --------------------------------------------------------------------------------------


def test_an_error_that_the_table_retries_is_retried() -> None:
    decision = judge(answered(503))
    assert decision.verb is Verb.RETRY
    assert decision.reason is None
    assert decision.wait == Wait(WaitFrom.BACKOFF, 0.25, 0.25, 0.25)
    assert decision.safe_because is Safe.IDEMPOTENT
    assert decision.attempts_left == 4
    assert decision.cost == 1


def test_a_failure_is_retried_like_an_error() -> None:
    assert judge(failed(FailureKind.RESET)).verb is Verb.RETRY


def test_a_success_is_handed_over_without_a_reason() -> None:
    stops(judge(answered(200)), None)
    stops(judge(answered(200), Policy("empty", Table())), None)


def test_an_error_that_the_table_hands_over_is_not_retryable() -> None:
    stops(judge(answered(404)), Reason.NOT_RETRYABLE)
    stops(judge(answered(404), Policy("empty", Table())), Reason.NOT_RETRYABLE)


@pytest.mark.parametrize(
    ("attempt", "named"),
    [
        (failed(FailureKind.PROTOCOL), FailureKind.PROTOCOL),
        (failed(FailureKind.RESOLVE, lasting=True, written=False), FailureKind.RESOLVE),
        (failed(FailureKind.TLS, lasting=True, written=False), FailureKind.TLS),
    ],
)
def test_what_would_fail_alike_is_sent_again_only_by_a_row_that_names_it(attempt: Attempt, named: FailureKind) -> None:
    by_any = decide(policy(), get(), (attempt,), NOW, 0.5, CALM)
    assert (by_any.verb, by_any.reason, by_any.attempts_left) == (Verb.PASS, Reason.ATTEMPTS, 0)
    by_name = decide(policy(row(failures=frozenset({named}))), get(), (attempt,), NOW, 0.5, CALM)
    assert by_name.verb is Verb.RETRY
    counted = decide(policy(row(failures=ANY_FAILURE, attempts=3)), get(), (attempt,), NOW, 0.5, CALM)
    assert (counted.verb, counted.attempts_left) == (Verb.RETRY, 2)
    stored = decide(policy(row(Verb.STORE, failures=ANY_FAILURE)), get(), (attempt,), NOW, 0.5, CALM)
    assert stored.verb is Verb.STORE


def test_a_failure_that_no_row_matches_is_not_retryable() -> None:
    stops(judge(failed(FailureKind.RESET), Policy("empty", Table())), Reason.NOT_RETRYABLE)


def test_the_row_is_named_in_the_decision() -> None:
    line = row(status=418, file="x.yaml", line=7)
    assert judge(answered(418), policy(line)).row is line


VERDICT = Verdict("x-should-retry", "true", "false")


@pytest.mark.parametrize(
    ("status", "words", "verb", "reason"),
    [
        (503, ["false"], Verb.PASS, Reason.SERVER_SAYS_NO),
        (503, [" false "], Verb.PASS, Reason.SERVER_SAYS_NO),
        (503, ["False"], Verb.RETRY, None),
        (404, ["TRUE"], Verb.PASS, Reason.NOT_RETRYABLE),
        (503, ["true"], Verb.RETRY, None),
        (503, [], Verb.RETRY, None),
        (503, ["maybe"], Verb.RETRY, None),
        (503, ["false", "true"], Verb.RETRY, None),
        (404, ["true"], Verb.RETRY, None),
        (404, ["false"], Verb.PASS, Reason.NOT_RETRYABLE),
        (404, ["maybe"], Verb.PASS, Reason.NOT_RETRYABLE),
        (200, ["true"], Verb.PASS, None),
        (200, ["false"], Verb.PASS, None),
    ],
)
def test_the_servers_verdict_overrules_the_row(
    status: int, words: list[str], verb: Verb, reason: Reason | None
) -> None:
    attempt = answered(status, *(("X-Should-Retry", word) for word in words))
    decision = judge(attempt, policy(verdict=VERDICT))
    assert (decision.verb, decision.reason) == (verb, reason)


BODY = Condition("body", "/state", "equals", ("pending",))
IS_JSON = Condition("header", "content-type", "equals", ("application/json",))
IN_BODY = HintSource("body", "/wait", unit=Unit.S)
HEADER = HintSource("header", "retry-after")
JSON_FIELD = ("Content-Type", "application/json")


@pytest.mark.parametrize(
    ("rows", "attempt", "more", "wanted"),
    [
        ([row(status=200, when=(BODY,))], answered(200), {}, True),
        ([row(status=200, when=(BODY,))], answered(201), {}, False),
        ([row(status=200, when=(IS_JSON, BODY))], answered(200), {}, False),
        ([row(status=200, when=(BODY, IS_JSON))], answered(200), {}, False),
        ([row(status=200, when=(IS_JSON, BODY))], answered(200, JSON_FIELD), {}, True),
        ([row(status=200, when=(Condition("method", "", "equals", ("POST",)), BODY))], answered(200), {}, False),
        (
            [row(status=200, when=(Condition("path", "", "matches", pattern=re.compile("^/jobs")), BODY))],
            answered(200),
            {},
            False,
        ),
        ([row(Verb.PASS, 200, when=(IS_JSON,)), row(status=200, when=(BODY,))], answered(200, JSON_FIELD), {}, False),
        ([row(status=503, wait=(HEADER, IN_BODY))], answered(503, ("Retry-After", "3")), {}, False),
        ([row(status=503, wait=(HEADER, IN_BODY))], answered(503, ("Retry-After", "soon")), {}, True),
        ([], answered(503), {"wait": (IN_BODY,)}, True),
        ([], answered(404), {"wait": (IN_BODY,)}, False),
        ([], answered(404, ("X-Should-Retry", "true")), {"wait": (IN_BODY,), "verdict": VERDICT}, True),
        ([], answered(200), {"wait": (IN_BODY,), "verdict": VERDICT}, False),
        ([], answered(503), {"wait": (replace(IN_BODY, when=(IS_JSON,)),)}, False),
        ([], answered(503, JSON_FIELD), {"wait": (replace(IN_BODY, when=(IS_JSON,)),)}, True),
    ],
)
def test_a_body_is_needed_only_where_the_head_leaves_something_open(
    rows: list[Row], attempt: Attempt, more: dict[str, Any], wanted: bool
) -> None:
    rules = policy(*rows, **more)
    assert needs_body(rules, get(), attempt) is wanted
    if not wanted:
        bodies = (None, b'{"state": "pending", "wait": 9}', b"no JSON")
        assert len({str(decide(rules, get(), (replace(attempt, body=each),), NOW, 0.5, CALM)) for each in bodies}) == 1


@steady
@given(policies, requests, attempts)
def test_what_the_head_settles_is_the_same_with_any_body(rules: Policy, request: Request, attempt: Attempt) -> None:
    bare = replace(attempt, body=None, failure=None, status=attempt.status or 503)
    if not needs_body(rules, request, bare):
        for body in (attempt.body, b"{}", b'{"code": 1, "error": {"code": "x"}, "a": "1"}'):
            with_body = decide(rules, request, (replace(bare, body=body),), NOW, 0.5, CALM)
            assert str(with_body) == str(decide(rules, request, (bare,), NOW, 0.5, CALM))


def test_the_servers_verdict_never_overrules_safety() -> None:
    yes = answered(503, ("X-Should-Retry", "true"))
    stops(judge(yes, policy(verdict=VERDICT), post()), Reason.NOT_SAFE)


def test_the_servers_verdict_works_where_no_row_matches() -> None:
    decision = judge(answered(404, ("X-Should-Retry", "true")), Policy("empty", Table(), verdict=VERDICT))
    assert (decision.verb, decision.row, decision.cost) == (Verb.RETRY, None, 1)


# --- objections ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pressure", "reason"),
    [
        (Pressure(response_started=True), Reason.RESPONSE_STARTED),
        (Pressure(replay=Replay.CONSUMED), Reason.BODY_CONSUMED),
        (Pressure(replay=Replay.TOO_LARGE), Reason.BODY_TOO_LARGE),
        (Pressure(replay=Replay.SPOOL_FAILED), Reason.SPOOL_FAILED),
        (Pressure(budget_tokens=0.5), Reason.BUDGET),
        (Pressure(budget_tokens=float("nan")), Reason.BUDGET),
        (Pressure(breaker_open=True), Reason.BREAKER),
        (Pressure(gate_closed_until=NOW.monotonic + 121), Reason.GATE),
        (Pressure(draining=True), Reason.DRAINING),
        (Pressure(switched_off=True), Reason.SWITCHED_OFF),
        (Pressure(client_gone=True), None),
    ],
)
def test_each_pressure_stops_the_retry_by_its_name(pressure: Pressure, reason: Reason | None) -> None:
    stops(judge(answered(503), pressure=pressure), reason)
    stops(judge(answered(404), pressure=pressure), Reason.NOT_RETRYABLE)
    stops(judge(answered(200), pressure=pressure), None)


def test_a_post_that_may_have_been_applied_is_not_sent_again() -> None:
    stops(judge(answered(503), request=post()), Reason.NOT_SAFE)
    stops(judge(failed(FailureKind.RESET), request=post()), Reason.NOT_SAFE)
    stops(judge(failed(FailureKind.CLOSED, pooled=True), request=post()), Reason.NOT_SAFE)


def test_a_post_that_was_refused_or_never_sent_is_sent_again() -> None:
    assert judge(answered(429), request=post()).safe_because is Safe.NOT_PROCESSED
    assert judge(failed(FailureKind.REFUSED, written=False), request=post()).safe_because is Safe.NEVER_SENT


@pytest.mark.parametrize(("limit", "number", "left"), [(5, 1, 4), (5, 4, 1), (2, 1, 1)])
def test_attempts_left_counts_the_sends_after_this_one(limit: int, number: int, left: int) -> None:
    decision = judge(answered(503, number=number), policy(attempts=limit))
    assert (decision.verb, decision.attempts_left) == (Verb.RETRY, left)


@pytest.mark.parametrize(("limit", "number"), [(5, 5), (5, 6), (1, 1)])
def test_the_last_attempt_is_the_last(limit: int, number: int) -> None:
    decision = judge(answered(503, number=number), policy(attempts=limit))
    stops(decision, Reason.ATTEMPTS)
    assert decision.attempts_left == 0


def test_a_row_may_allow_fewer_or_more_attempts() -> None:
    fewer = policy(row(status=408, attempts=2))
    assert judge(answered(408, number=1), fewer).verb is Verb.RETRY
    stops(judge(answered(408, number=2), fewer), Reason.ATTEMPTS)
    assert judge(answered(408, number=7), policy(row(status=408, attempts=9))).verb is Verb.RETRY


def test_a_dead_pooled_connection_costs_no_budget() -> None:
    empty = Pressure(budget_tokens=0)
    free = failed(FailureKind.CLOSED, pooled=True, written=False)
    assert judge(free, pressure=empty).cost == 0
    assert judge(free, pressure=empty).verb is Verb.RETRY
    stops(judge(replace(free, pooled=False), pressure=empty), Reason.BUDGET)
    stops(judge(replace(free, written=True), pressure=empty), Reason.BUDGET)


def test_a_row_may_cost_more_or_nothing() -> None:
    dear = policy(row(status=504, cost=5))
    assert judge(answered(504), dear).cost == 5
    stops(judge(answered(504), dear, pressure=Pressure(budget_tokens=4)), Reason.BUDGET)
    assert judge(answered(504), policy(row(status=504, cost=0)), pressure=Pressure(budget_tokens=0)).cost == 0


# --- waits -----------------------------------------------------------------------------------------------


def test_a_hint_is_the_minimum_of_the_wait() -> None:
    decision = judge(answered(503, ("Retry-After", "20")), policy(), chance=1.0)
    assert decision.wait == Wait(WaitFrom.HINT, 22, 20, 22)
    assert decision.hint_seconds == 20


@pytest.mark.parametrize("text", ["0", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_zero_hint_still_pauses(text: str) -> None:
    decision = judge(answered(503, ("Retry-After", text)))
    assert decision.wait == Wait(WaitFrom.HINT, 0.25, 0.25, 0.25)


def test_garbage_leads_to_backoff_and_not_to_an_instant_retry() -> None:
    assert judge(answered(503, ("Retry-After", "-1"))).wait == Wait(WaitFrom.BACKOFF, 0.25, 0.25, 0.25)


def test_a_rows_own_sources_replace_the_policys() -> None:
    line = row(status=403, wait=(HintSource("constant", constant_seconds=30),))
    decision = judge(answered(403, ("Retry-After", "5")), policy(line, backoff=FLAT))
    assert decision.wait == Wait(WaitFrom.CONSTANT, 30, 30, 30)


def test_decorrelated_backoff_grows_from_the_wait_before() -> None:
    rule = Backoff(base_seconds=1, cap_seconds=30, jitter=Jitter.DECORRELATED)
    decision = judge(answered(503, number=2, waited_seconds=2), policy(backoff=rule))
    assert decision.wait == Wait(WaitFrom.BACKOFF, 3.5, 1, 6)


def test_a_hint_over_the_cap_hands_the_answer_over() -> None:
    decision = judge(answered(503, ("Retry-After", "121")))
    stops(decision, Reason.WAIT_TOO_LONG)
    assert decision.hint_seconds == 121
    assert judge(answered(503, ("Retry-After", "121")), policy(over_max=OverMax.CLAMP)).verb is Verb.RETRY


def until(seconds: float, attempt: Attempt, rules: Policy | None = None, chance: float = 0.5) -> Decision:
    """Judged with this many seconds left before the deadline."""
    return judge(attempt, rules, get(deadline_at=NOW.monotonic + seconds), chance)


def test_a_wait_that_leaves_no_time_before_the_deadline_does_not_begin() -> None:
    stops(until(20, answered(503, ("Retry-After", "20"))), Reason.DEADLINE)
    stops(until(0.25, answered(503)), Reason.DEADLINE)
    stops(until(-5, answered(503)), Reason.DEADLINE)
    assert until(21, answered(503, ("Retry-After", "20"))).verb is Verb.RETRY
    assert until(0.3, answered(503)).verb is Verb.RETRY


def test_what_chance_adds_to_a_hint_gives_way_to_the_deadline() -> None:
    decision = until(21, answered(503, ("Retry-After", "20")), policy(), chance=1.0)
    most = NOW.monotonic + 21 - NOW.monotonic - LEAST_ATTEMPT_SECONDS
    assert decision.wait == Wait(WaitFrom.HINT, most, 20, most)


def test_a_closed_gate_delays_the_retry_until_it_opens() -> None:
    closed = Pressure(gate_closed_until=NOW.monotonic + 10)
    assert judge(answered(503), pressure=closed).wait == Wait(WaitFrom.BACKOFF, 10, 10, 10)
    after = judge(answered(503, ("Retry-After", "20")), pressure=closed).wait
    assert after == Wait(WaitFrom.HINT, 20, 20, 20)


def test_a_gate_that_opens_too_late_stops_the_retry() -> None:
    closed = Pressure(gate_closed_until=NOW.monotonic + 10)
    stops(judge(answered(503), request=get(deadline_at=NOW.monotonic + 10), pressure=closed), Reason.GATE)
    stops(judge(answered(503), policy(max_wait_seconds=9), pressure=closed), Reason.GATE)
    impatient = policy(row(status=503, max_wait_seconds=9))
    stops(judge(answered(503), impatient, pressure=closed), Reason.GATE)


# --- the gate --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status", "closes"),
    [
        (None, 429, True),
        (None, 503, True),
        (None, 500, False),
        (None, 404, False),
        (row(status=500, gate=True), 500, True),
        (row(status=429, gate=False), 429, False),
        (row(Verb.PASS, 429), 429, False),
        (row(Verb.PASS, 429, gate=True), 429, True),
    ],
)
def test_a_hint_closes_the_gate_where_the_row_says_so(line: Row | None, status: int, closes: bool) -> None:
    rules = policy(line) if line else policy()
    decision = judge(answered(status, ("Retry-After", "20")), rules, request=post())
    assert decision.gate_until == (NOW.monotonic + 20 if closes else None)


@pytest.mark.parametrize("value", ["0", "nonsense", ""])
def test_without_a_usable_hint_the_gate_stays_open(value: str) -> None:
    assert judge(answered(429, ("Retry-After", value))).gate_until is None


def test_a_constant_closes_the_gate_only_where_the_row_says_so() -> None:
    constant = (HintSource("constant", constant_seconds=30),)
    assert judge(answered(429), policy(row(status=429, wait=constant))).gate_until is None
    assert judge(answered(429), policy(row(status=429, wait=constant, gate=True))).gate_until == NOW.monotonic + 30


def test_the_gate_closes_also_where_this_exchange_gives_up() -> None:
    decision = judge(answered(429, ("Retry-After", "300"), number=5))
    stops(decision, Reason.ATTEMPTS)
    assert decision.gate_until == NOW.monotonic + 300


def test_an_absurd_hint_does_not_keep_an_upstream_shut() -> None:
    decision = judge(answered(429, ("Retry-After", "9" * 1000)))
    stops(decision, Reason.WAIT_TOO_LONG)
    assert decision.gate_until == NOW.monotonic + LONGEST_GATE_SECONDS


def test_the_gate_opens_when_the_hint_ends_without_what_chance_adds() -> None:
    decision = judge(answered(429, ("Retry-After", "20")), policy(), chance=1.0)
    assert decision.gate_until == NOW.monotonic + 20


def test_a_failure_closes_no_gate() -> None:
    constant = (HintSource("constant", constant_seconds=30),)
    line = Row(Verb.RETRY, failures=frozenset(FailureKind), wait=constant, gate=True)
    assert judge(failed(FailureKind.RESET), policy(line)).gate_until is None


# --- the other verbs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [Verb.LOGIN, Verb.REREAD, Verb.STORE])
def test_the_other_verbs_are_returned_where_safety_allows_what_follows(verb: Verb) -> None:
    rules = policy(row(verb, 409, reread=Reread("same")))
    decision = judge(answered(409), rules)
    assert (decision.verb, decision.reason, decision.wait) == (verb, None, None)
    assert decision.safe_because is Safe.IDEMPOTENT
    assert decision.reread == (Reread("same") if verb is Verb.REREAD else None)
    stops(judge(answered(409), rules, post()), Reason.NOT_SAFE)
    stops(judge(answered(409), rules, pressure=Pressure(replay=Replay.TOO_LARGE)), Reason.BODY_TOO_LARGE)


@pytest.mark.parametrize("verb", [Verb.LOGIN, Verb.REREAD])
def test_a_login_and_a_reread_need_an_attempt_time_and_budget(verb: Verb) -> None:
    rules = policy(row(verb, 401))
    stops(judge(answered(401, number=5), rules), Reason.ATTEMPTS)
    stops(until(0, answered(401), rules), Reason.DEADLINE)
    stops(judge(answered(401), rules, pressure=Pressure(budget_tokens=0)), Reason.BUDGET)
    held = judge(answered(401), rules, pressure=Pressure(gate_closed_until=NOW.monotonic + 3))
    assert held.wait == Wait(WaitFrom.BACKOFF, 3, 3, 3)


def test_a_login_is_made_also_where_retries_are_switched_off() -> None:
    off = Pressure(switched_off=True)
    assert judge(answered(401), policy(row(Verb.LOGIN, 401)), pressure=off).verb is Verb.LOGIN
    stops(judge(answered(409), policy(row(Verb.REREAD, 409)), pressure=off), Reason.SWITCHED_OFF)


def test_storing_needs_neither_attempts_nor_budget() -> None:
    decision = judge(
        failed(FailureKind.REFUSED, number=5, written=False),
        Policy("p", Table((Row(Verb.STORE, failures=frozenset(FailureKind)),))),
        post(),
        pressure=Pressure(budget_tokens=0, breaker_open=True),
    )
    assert (decision.verb, decision.safe_because, decision.cost) == (Verb.STORE, Safe.NEVER_SENT, 0)


def test_a_no_of_the_server_stops_every_verb() -> None:
    rules = policy(row(Verb.LOGIN, 401), verdict=VERDICT)
    stops(judge(answered(401, ("X-Should-Retry", "false")), rules), Reason.SERVER_SAYS_NO)
    assert judge(answered(401, ("X-Should-Retry", "true")), rules).verb is Verb.LOGIN


def test_a_row_and_a_hint_share_one_look_into_the_body() -> None:
    line = row(
        status=429,
        when=(Condition("body", "/code", "equals", ("slow",)),),
        wait=(HintSource("body", "/wait"),),
    )
    decision = judge(answered(429, body=b'{"code": "slow", "wait": 7}'), policy(line, backoff=FLAT))
    assert decision.wait == Wait(WaitFrom.HINT, 7, 7, 7)


# --- outcomes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "reason", "outcome"),
    [
        ((answered(200),), None, Outcome.OK),
        ((answered(301),), None, Outcome.OK),
        ((answered(503), answered(200, number=2)), None, Outcome.RECOVERED),
        ((failed(FailureKind.RESET), answered(204, number=2)), None, Outcome.RECOVERED),
        ((answered(404),), Reason.NOT_RETRYABLE, Outcome.PASSED),
        ((answered(503), answered(404, number=2)), Reason.NOT_RETRYABLE, Outcome.PASSED),
        ((answered(503),), Reason.NOT_SAFE, Outcome.PASSED),
        ((answered(503),), Reason.SERVER_SAYS_NO, Outcome.PASSED),
        ((answered(503), answered(503)), Reason.NOT_SAFE, Outcome.EXHAUSTED),
        ((answered(503), answered(503)), Reason.SERVER_SAYS_NO, Outcome.EXHAUSTED),
        ((answered(503),), Reason.ATTEMPTS, Outcome.EXHAUSTED),
        ((failed(FailureKind.RESET),), Reason.NOT_SAFE, Outcome.FAILED),
        ((answered(503), failed(FailureKind.RESET, number=2)), Reason.ATTEMPTS, Outcome.FAILED),
        ((Attempt(1, status=200, failure=FailureKind.BODY_CUT),), Reason.ATTEMPTS, Outcome.FAILED),
    ],
)
def test_how_an_exchange_ended(history: tuple[Attempt, ...], reason: Reason | None, outcome: Outcome) -> None:
    assert outcome_of(history, Decision(Verb.PASS, reason)) is outcome


# --- whatever the input ----------------------------------------------------------------------------------


@steady
@given(policies, requests, st.lists(attempts, min_size=1, max_size=3), nows, chances, pressures)
def test_every_decision_keeps_every_promise(
    rules: Policy, request: Request, drawn: list[Attempt], now: Now, chance: float, pressure: Pressure
) -> None:
    history = tuple(drawn)
    decision = decide(rules, request, history, now, chance, pressure)
    assert decision == decide(rules, request, history, now, chance, pressure)
    if decision.verb is Verb.PASS:
        assert (decision.wait, decision.safe_because, decision.cost) == (None, None, 0)
        return
    assert decision.reason is None
    assert decision.safe_because is not None
    assert pressure.replay is Replay.HELD
    assert not pressure.response_started
    if decision.verb is not Verb.STORE:
        assert decision.attempts_left > 0
        assert decision.cost <= pressure.budget_tokens
        assert not any((pressure.draining, pressure.breaker_open, pressure.client_gone))
        assert not pressure.switched_off or decision.verb is Verb.LOGIN
    if decision.verb is Verb.RETRY:
        assert decision.wait is not None
        assert decision.wait.seconds >= 0
        assert now.monotonic + decision.wait.seconds < request.deadline_at
        assert now.monotonic + decision.wait.seconds >= pressure.gate_closed_until - 1e-6


def run(rules: Policy, request: Request, answers: list[Attempt], chance: float) -> tuple[list[Attempt], float]:
    """The loop in short: send, decide, wait, send again, while answers last. The sends, and the time of the last."""
    history: list[Attempt] = []
    now = Now(0.0, 1e9)
    for answer in answers:
        waited = 0.0
        if history:
            decision = decide(rules, request, tuple(history), now, chance, CALM)
            if decision.verb in (Verb.PASS, Verb.STORE):
                break
            waited = decision.wait.seconds if decision.wait else 0.0
            now = Now(now.monotonic + waited, now.wall + waited)
        history.append(replace(answer, number=len(history) + 1, waited_seconds=waited))
    return history, now.monotonic


@steady
@given(eager_policies, requests, many_attempts, chances)
def test_what_may_have_been_applied_is_never_sent_twice(
    rules: Policy, request: Request, answers: list[Attempt], chance: float
) -> None:
    unsafe = replace(request, method="POST", keyed=False, deadline_at=float("inf"))
    history, _ = run(rules, unsafe, answers, chance)
    for attempt in history[:-1]:
        never_sent = attempt.failure is not None and not attempt.written
        assert never_sent or attempt.status == 429


@steady
@given(eager_policies, requests, many_attempts, chances)
def test_an_exchange_never_has_more_sends_than_allowed_nor_begins_one_after_its_deadline(
    rules: Policy, request: Request, answers: list[Attempt], chance: float
) -> None:
    history, last_sent_at = run(rules, replace(request, method="GET"), answers, chance)
    assert len(history) <= max([rules.attempts, *(line.attempts or 0 for line in rules.table.rows)])
    assert len(history) == 1 or last_sent_at < request.deadline_at
