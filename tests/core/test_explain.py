"""A decision told: the object is a contract, the text says the same."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from sidecar.core.decision.attempt import Attempt, Now, Pressure, Request
from sidecar.core.decision.decide import Decision, decide
from sidecar.core.decision.policy import Policy
from sidecar.core.decision.rows import Row
from sidecar.core.decision.wait import Wait
from sidecar.core.dryrun.explain import REASONS, SAFE, VERBS, WAITS, explain_object, explain_text
from sidecar.core.enums import Reason, Safe, Verb, WaitFrom
from tests.core.making import (
    CALM,
    NOW,
    answered,
    attempts,
    get,
    nows,
    policies,
    policy,
    post,
    pressures,
    requests,
    row,
    steady,
)

LINE = row(status=503, file="config/policies/default.yaml", line=12)


def told(request: Request) -> Decision:
    return decide(policy(LINE), request, (answered(503, ("Retry-After", "20")),), NOW, 0.5, CALM)


def test_a_get_on_503_with_a_hint_is_told_as_a_retry() -> None:
    assert explain_object("api", "default", told(get())) == {
        "upstream": "api",
        "policy": "default",
        "row": {"file": "config/policies/default.yaml", "line": 12},
        "decision": "retry",
        "reason": None,
        "wait": {"from": "hint", "min_seconds": 20, "max_seconds": 22},
        "safe_because": "idempotent",
        "attempts_left": 4,
        "gate": True,
    }


def test_a_post_on_503_without_a_key_is_told_as_not_safe() -> None:
    object_ = explain_object("api", "default", told(post()))
    assert (object_["decision"], object_["reason"], object_["wait"]) == ("pass", "not_safe", None)


def test_the_text_tells_the_same_to_a_person() -> None:
    assert explain_text("api", "default", told(get())).splitlines() == [
        "retry: send again",
        "  upstream       api",
        "  policy         default",
        "  row            config/policies/default.yaml:12",
        "  safe           idempotent: its method is idempotent",
        "  wait           20 … 22 s, asked for by the upstream",
        "  attempts left  4",
        "  gate           closes for every exchange of this upstream",
    ]


def test_the_text_names_the_reason_and_what_was_asked_for() -> None:
    text = explain_text("api", "default", told(post()))
    assert "reason         not_safe: it may have been applied" in text
    assert "asked          20 s" in text


@pytest.mark.parametrize(
    ("line", "text"),
    [(None, "none matches"), (Row(Verb.PASS), "built in"), (Row(Verb.PASS, line=7), "line 7")],
)
def test_a_row_without_a_file_is_still_named(line: Row | None, text: str) -> None:
    assert f"row            {text}" in explain_text("api", "p", Decision(Verb.PASS, None, line))


def test_a_wait_without_a_range_is_one_number() -> None:
    decision = Decision(Verb.RETRY, wait=Wait(WaitFrom.CONSTANT, 30, 30, 30))
    assert "wait           30 s, a constant of the policy" in explain_text("api", "p", decision)


def test_every_word_has_its_sentence() -> None:
    assert set(REASONS) == set(Reason)
    assert set(SAFE) == set(Safe)
    assert set(VERBS) == set(Verb)
    assert set(WAITS) == set(WaitFrom)


@steady
@given(policies, requests, attempts, nows, pressures)
def test_every_decision_can_be_told(
    rules: Policy, request: Request, attempt: Attempt, now: Now, pressure: Pressure
) -> None:
    decision = decide(rules, request, (attempt,), now, 0.5, pressure)
    assert json.loads(json.dumps(explain_object("api", rules.name, decision)))["decision"] == decision.verb
    assert explain_text("api", rules.name, decision)
