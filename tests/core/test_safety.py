"""The five permissions, and nothing else, allow an attempt to be repeated."""

from __future__ import annotations

import pytest
from hypothesis import given

from sidecar.core.decision.attempt import Attempt, Request
from sidecar.core.decision.rows import Row
from sidecar.core.decision.safety import why_safe
from sidecar.core.enums import IDEMPOTENT_METHODS, FailureKind, Safe, Verb
from tests.core.making import answered, attempts, failed, get, policy, post, requests, rows, steady

UNPROCESSED = Row(Verb.RETRY, processed=False)
PROCESSED = Row(Verb.RETRY, processed=True)


@pytest.mark.parametrize("kind", FailureKind)
def test_what_was_never_written_may_be_sent_whatever_the_method(kind: FailureKind) -> None:
    assert why_safe(policy(), None, post(), failed(kind, written=False)) is Safe.NEVER_SENT


@pytest.mark.parametrize("kind", FailureKind)
@pytest.mark.parametrize("pooled", [False, True])
def test_what_was_written_may_have_been_applied(kind: FailureKind, pooled: bool) -> None:
    assert why_safe(policy(), None, post(), failed(kind, pooled=pooled)) is None


@pytest.mark.parametrize("method", sorted(IDEMPOTENT_METHODS))
def test_an_idempotent_method_may_be_repeated(method: str) -> None:
    assert why_safe(policy(), None, Request(method), failed(FailureKind.RESET)) is Safe.IDEMPOTENT


@pytest.mark.parametrize("method", ["POST", "PATCH", "get", "CONNECT", "PURGE", "", "GET "])
def test_every_other_method_may_not(method: str) -> None:
    assert why_safe(policy(), None, Request(method), answered(503)) is None


def test_a_key_that_the_upstream_honours_allows_it() -> None:
    assert why_safe(policy(), None, post(keyed=True), answered(503)) is Safe.KEYED


@pytest.mark.parametrize(
    ("line", "status", "safe"),
    [
        (None, 429, Safe.NOT_PROCESSED),
        (Row(Verb.RETRY), 429, Safe.NOT_PROCESSED),
        (PROCESSED, 429, None),
        (UNPROCESSED, 503, Safe.NOT_PROCESSED),
        (PROCESSED, 503, None),
        (Row(Verb.RETRY), 503, None),
        (None, 503, None),
    ],
)
def test_an_upstream_that_states_that_it_did_not_act_allows_it(
    line: Row | None, status: int, safe: Safe | None
) -> None:
    assert why_safe(policy(), line, post(), answered(status)) is safe


def test_a_failure_states_nothing() -> None:
    assert why_safe(policy(), UNPROCESSED, post(), failed(FailureKind.RESET)) is None
    cut = Attempt(1, status=429, failure=FailureKind.BODY_CUT)
    assert why_safe(policy(), UNPROCESSED, post(), cut) is None


def test_an_answer_was_sent_for_even_if_nothing_was_written_yet() -> None:
    assert why_safe(policy(), None, post(), answered(503, written=False)) is None


def test_the_operator_may_take_the_risk_for_a_method() -> None:
    risky = policy(resend_methods=frozenset({"POST"}))
    assert why_safe(risky, None, post(), failed(FailureKind.RESET)) is Safe.RESEND_METHODS
    assert why_safe(risky, None, Request("PATCH"), failed(FailureKind.RESET)) is None


def test_the_strongest_permission_is_named() -> None:
    assert why_safe(policy(), UNPROCESSED, get(keyed=True), answered(503)) is Safe.IDEMPOTENT


@steady
@given(rows, requests, attempts)
def test_no_permission_comes_from_nowhere(line: Row, request: Request, attempt: Attempt) -> None:
    safe = why_safe(policy(), line, request, attempt)
    if safe is None or request.method in IDEMPOTENT_METHODS or request.keyed:
        return
    never_sent = attempt.failure is not None and not attempt.written
    assert never_sent or (attempt.status == 429 and line.processed is None)
