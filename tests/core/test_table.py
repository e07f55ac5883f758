"""The compiled table says what a walk from the top down says, at the same cost for 5 rows and 500."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from hypothesis import given

from sidecar.core.decision.attempt import Attempt, Request
from sidecar.core.decision.conditions import Look
from sidecar.core.decision.decide import decide
from sidecar.core.decision.policy import Policy, Verdict
from sidecar.core.decision.rows import Condition, HintSource, Row
from sidecar.core.decision.table import Table, policy_looks_into_body, policy_passes
from sidecar.core.enums import FailureKind, Verb
from tests.core.making import (
    ANY_FAILURE,
    ANY_STATUS,
    CALM,
    NOW,
    answered,
    attempts,
    failed,
    get,
    policies,
    requests,
    row,
    steady,
    tables,
)

CODE = "/error/code"


def by_code(*codes: str, verb: Verb = Verb.RETRY) -> Row:
    return row(verb, 429, when=(Condition("body", CODE, "in", codes),))


def saying(code: str) -> Attempt:
    return answered(429, body=b'{"error": {"code": "%s"}}' % code.encode())


def walk_down(table: Table, request: Request, attempt: Attempt) -> Row | None:
    """The rule, written as plainly as it can be."""
    for line in table.rows:
        fits = attempt.failure in line.failures if attempt.failure is not None else attempt.status in line.statuses
        if fits and Look(request, attempt).all_hold(line.when):
            return line
    return None


def test_the_first_row_that_matches_decides() -> None:
    first, second = row(Verb.RETRY, 503), row(Verb.PASS, 503)
    assert Table((first, second)).match(get(), answered(503)) is first


def test_a_row_whose_condition_does_not_hold_is_stepped_over() -> None:
    table = Table((by_code("a"), row(Verb.PASS, 429)))
    assert table.match(get(), saying("b")) is table.rows[1]


def test_nothing_matches_an_empty_table() -> None:
    assert Table().match(get(), answered(503)) is None
    assert Table().match(get(), failed(FailureKind.RESET)) is None
    assert Table().match(get(), Attempt(1)) is None


def test_a_failure_is_matched_as_a_failure_even_with_a_status() -> None:
    table = Table((row(Verb.PASS, 200), Row(Verb.RETRY, failures=ANY_FAILURE)))
    assert table.match(get(), Attempt(1, status=200, failure=FailureKind.BODY_CUT)) is table.rows[1]


@pytest.mark.parametrize("code", ["a", "b", "c", "d", "both", "nobody"])
def test_rows_that_ask_the_same_question_keep_their_order(code: str) -> None:
    rows = (by_code("a", "both"), by_code("b"), by_code("c", "both"), by_code("d"), by_code("a", verb=Verb.PASS))
    table = Table(rows)
    assert table.match(get(), saying(code)) is walk_down(table, get(), saying(code))


def test_several_values_of_a_header_find_the_topmost_row() -> None:
    rows = tuple(row(Verb.RETRY, 429, when=(Condition("header", "x", "equals", (code,)),)) for code in "abcd")
    attempt = answered(429, ("x", "d"), ("x", "b"))
    assert Table(rows).match(get(), attempt) is rows[1]


def test_tables_of_the_same_rows_are_equal() -> None:
    assert Table((row(status=503),)) == Table((row(status=503),))
    assert hash(Table((row(status=503),))) == hash(Table((row(status=503),)))
    assert Table((row(status=503),)) != Table()
    assert Table() != ()
    assert repr(Table((row(status=503),))) == "Table(1 rows)"


@steady
@given(tables, requests, attempts)
def test_compiled_and_plain_agree(table: Table, request: Request, attempt: Attempt) -> None:
    assert table.match(request, attempt) is walk_down(table, request, attempt)


@pytest.mark.parametrize(
    ("line", "passes"),
    [
        (row(Verb.PASS, 404), True),
        (row(Verb.RETRY, 404), False),
        (row(Verb.PASS, 404, gate=True), False),
        (row(Verb.PASS, 404, when=(Condition("header", "x"),)), False),
        (row(Verb.RETRY, 503), True),
    ],
)
def test_a_status_passes_if_no_question_is_asked(line: Row, passes: bool) -> None:
    assert Table((line, Row(Verb.PASS, statuses=ANY_STATUS))).passes(404) is passes
    assert policy_passes(Policy("p", Table((line,))), 404) is passes
    assert not policy_passes(Policy("p", Table((line,)), verdict=Verdict("x", "1", "0")), 404)


@steady
@given(policies, requests, attempts)
def test_the_fast_path_agrees_with_decide(policy: Policy, request: Request, attempt: Attempt) -> None:
    if attempt.failure is not None or not policy_passes(policy, attempt.status or 0):
        return
    decision = decide(policy, request, (attempt,), NOW, 0.5, CALM)
    error = attempt.status is not None and attempt.status >= 400
    assert decision.verb is Verb.PASS
    assert decision.reason == ("not_retryable" if error else None)
    assert decision.gate_until is None


IN_BODY = HintSource("body", "/retryAfter")
IF_BODY = HintSource("header", "x", when=(Condition("body_text"),))
IN_HEADER = HintSource("header", "x", when=(Condition("header", "y"),))


@pytest.mark.parametrize(
    ("line", "looks"),
    [
        (row(status=429), False),
        (by_code("x"), True),
        (row(status=429, when=(Condition("body_text"),)), True),
        (row(status=429, when=(Condition("header", "x"),)), False),
        (row(status=429, wait=(IN_BODY,)), True),
        (row(status=429, wait=(IF_BODY,)), True),
        (row(status=429, wait=(IN_HEADER,)), False),
    ],
)
def test_a_table_says_whether_it_looks_into_the_body(line: Row, looks: bool) -> None:
    assert Table((line,)).looks_into_body(429) is looks
    assert not Table((line,)).looks_into_body(503)
    assert policy_looks_into_body(Policy("p", Table((line,))), 429) is looks


def test_a_row_behind_an_unconditional_one_looks_at_nothing() -> None:
    assert not Table((row(status=429), by_code("x"))).looks_into_body(429)


@pytest.mark.parametrize(
    ("line", "verdict", "looks"),
    [
        (row(status=429), None, True),
        (row(status=429, wait=()), None, False),
        (row(Verb.PASS, 429), None, False),
        (row(Verb.PASS, 429), Verdict("x", "1", "0"), True),
        (row(status=503), Verdict("x", "1", "0"), True),
    ],
)
def test_hints_of_the_policy_count_where_a_row_may_use_them(line: Row, verdict: Verdict | None, looks: bool) -> None:
    policy = Policy("p", Table((line,)), wait=(IN_BODY,), verdict=verdict)
    assert policy_looks_into_body(policy, 429) is looks


def test_rows_found_by_look_up_count_as_candidates() -> None:
    rows = tuple(row(status=429, when=(Condition("header", "x", "equals", (code,)),)) for code in "abcdd")
    assert set(Table(rows).candidates(429)) == set(rows)
    assert policy_looks_into_body(Policy("p", Table(rows), wait=(IN_BODY,)), 429)


def calls(act: Callable[[], object]) -> int:
    """How many calls, of Python and of C, an act makes: the same on every machine, unlike time."""
    count = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


def many_statuses(size: int) -> Table:
    """One row per status from the top down, the asked one last but one."""
    rows = [row(Verb.PASS, status) for status in range(504, 504 + size - 2)]
    return Table((*rows, row(status=503), Row(Verb.PASS, statuses=ANY_STATUS)))


def many_codes(size: int) -> Table:
    """All rows for one status, told apart by the error code."""
    rows = [by_code(f"code-{position}", verb=Verb.PASS) for position in range(size - 2)]
    return Table((*rows, by_code("asked"), Row(Verb.PASS, statuses=ANY_STATUS)))


@pytest.mark.parametrize(
    ("make", "attempt"),
    [
        (many_statuses, answered(503)),
        (many_statuses, answered(404)),
        (many_codes, saying("asked")),
        (many_codes, saying("code-1")),
        (many_codes, saying("unknown")),
    ],
)
def test_deciding_costs_the_same_with_5_rows_and_with_500(make: Callable[[int], Table], attempt: Attempt) -> None:
    few, many = (Policy("p", make(size)) for size in (5, 500))
    costs = [calls(lambda p=p: decide(p, get(), (attempt,), NOW, 0.5, CALM)) for p in (few, few, many)]  # type: ignore[misc]
    assert costs[2] <= 1.2 * costs[1]
