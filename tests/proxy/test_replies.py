"""Our own answers: signed, in the shape of the upstream's errors or as problem+json, and telling no secrets."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Any

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision.policy import Errors, Policy
from sidecar.core.enums import FailureKind, Outcome, Reason
from sidecar.proxy.message.own_response import PROXY_STATUS, OwnAnswer, fill, sidecar_field, status_for
from sidecar.wire.heads import ResponseMessage, parse_response_head
from tests.core.making import policy, steady
from tests.support.structured import dictionary, members

ANSWER = OwnAnswer(
    status=504,
    code="head_timeout",
    detail="no response head in time",
    error="http_response_timeout",
    outcome=Outcome.FAILED,
    attempts=3,
    waited_seconds=1.25,
    reason=Reason.DEADLINE,
    request_id="r-1",
    correlation_id="c-1",
    service="payments",
)
WALL = 1_696_004_797.5


def rendered(answer: OwnAnswer, shaped: Policy | None = None) -> tuple[ResponseMessage, Any]:
    head, body = answer.render(shaped, b"X-Request-Id: r-1\r\n", WALL)
    message = parse_response_head(head + b"\r\n")
    assert message.headers.getall("Content-Length") == [str(len(body))]
    return message, json.loads(body)


def test_without_a_shape_it_is_problem_json() -> None:
    message, document = rendered(ANSWER)
    assert (message.code, message.reason) == (504, "Gateway Timeout")
    assert message.headers["Content-Type"] == "application/problem+json"
    assert document == {
        "type": "about:blank",
        "title": "Gateway Timeout",
        "status": 504,
        "detail": "no response head in time",
        "code": "head_timeout",
        "outcome": "failed",
        "attempts": 3,
        "reason": "deadline",
        "request_id": "r-1",
        "correlation_id": "c-1",
    }


def test_what_is_not_known_is_left_out() -> None:
    bare = OwnAnswer(404, "mount", "no upstream is mounted there", "destination_not_found", Outcome.REJECTED)
    message, document = rendered(bare)
    assert not {"reason", "request_id", "correlation_id"} & set(document)
    assert "Retry-After" not in message.headers
    assert dictionary(message.headers["Sidecar"]) == {"outcome": "rejected", "attempts": 0}


def test_it_is_signed() -> None:
    message, _ = rendered(replace(ANSWER, received_status=503, retry_after_seconds=7))
    assert dictionary(message.headers["Sidecar"]) == {
        "outcome": "failed",
        "attempts": 3,
        "waited": 1.25,
        "reason": "deadline",
    }
    assert members(message.headers["Proxy-Status"]) == [
        ("sidecar", {"error": "http_response_timeout", "received-status": 503, "details": "head_timeout"})
    ]
    assert message.headers["Retry-After"] == "7"
    assert message.headers["X-Request-Id"] == "r-1"


@pytest.mark.parametrize("failure", list(FailureKind))
@pytest.mark.parametrize("reason", [None, *Reason])
def test_every_failure_has_a_status_and_a_word_of_rfc_9209(failure: FailureKind, reason: Reason | None) -> None:
    status = status_for(failure, reason)
    assert status in (502, 504)
    answer = OwnAnswer(status, failure, "why", PROXY_STATUS[failure], Outcome.FAILED, reason=reason)
    message, _ = rendered(answer)
    parsed: Any = http_sf.parse(message.headers["Proxy-Status"].encode(), tltype="list")
    assert isinstance(parsed[0][0], http_sf.Token)
    assert isinstance(parsed[0][1]["error"], http_sf.Token)
    assert str(parsed[0][1]["error"]) == PROXY_STATUS[failure]
    assert parsed[0][1]["details"] == failure


@pytest.mark.parametrize(
    ("failure", "reason", "status"),
    [
        (FailureKind.HEAD_TIMEOUT, None, 504),
        (FailureKind.CONNECT_TIMEOUT, Reason.ATTEMPTS, 504),
        (FailureKind.RESET, Reason.DEADLINE, 504),
        (FailureKind.RESET, Reason.NOT_SAFE, 502),
        (FailureKind.REFUSED, None, 502),
        (FailureKind.REFUSED, Reason.BREAKER, 502),
        (None, Reason.BREAKER, 503),
        (None, Reason.DRAINING, 503),
        (None, Reason.GATE, 429),
        (None, Reason.DEADLINE, 504),
        (None, None, 502),
    ],
)
def test_the_status_says_whose_fault_it_is(failure: FailureKind | None, reason: Reason | None, status: int) -> None:
    assert status_for(failure, reason) == status


def test_a_shape_is_filled_and_keeps_types() -> None:
    shape = {
        "success": False,
        "error": {"code": "{code}", "message": "{message} ({status})", "tries": "{attempts}", "at": "{timestamp}"},
        "meta": [
            {"status": "{status}"},
            "{request_id}/{correlation_id}",
            None,
            1.5,
            "{service}",
            "{reason}",
            "{other}",
        ],
    }
    message, document = rendered(ANSWER, replace(policy(), errors=Errors(shape=shape)))
    assert message.headers["Content-Type"] == "application/json"
    assert datetime.fromisoformat(document["error"].pop("at")).timestamp() == WALL
    assert document == {
        "success": False,
        "error": {"code": "HEAD_TIMEOUT", "message": "no response head in time (504)", "tries": 3},
        "meta": [{"status": 504}, "r-1/c-1", None, 1.5, "payments", "deadline", "{other}"],
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


@steady
@given(JSON)
def test_a_shape_without_places_comes_out_as_it_is(shape: object) -> None:
    assert fill(shape, {"{status}": 504}) == shape


@steady
@given(st.text(max_size=20))
def test_a_text_that_stands_alone_is_put_in_unchanged(text: str) -> None:
    assert fill({"a": ["{message}"]}, {"{message}": text, "{status}": 1}) == {"a": [text]}


@steady
@given(
    st.sampled_from(list(Outcome)),
    st.integers(0, 99),
    st.floats(0, 9999).filter(lambda seconds: seconds == 0 or seconds >= 0.001),
    st.sampled_from([None, *Reason]),
)
def test_the_sidecar_field_is_always_a_dictionary(
    outcome: Outcome, attempts: int, waited: float, reason: Reason | None
) -> None:
    line = sidecar_field(outcome, attempts, waited, reason)
    assert line.startswith(b"Sidecar: ")
    assert line.endswith(b"\r\n")
    found = dictionary(line[9:-2].decode())
    assert (found["outcome"], found["attempts"], found.get("reason")) == (outcome, attempts, reason)
    assert abs(found.get("waited", 0.0) - waited) <= 0.0005 + 1e-9


@pytest.mark.parametrize(
    "status", [400, 403, 404, 407, 408, 413, 414, 417, 429, 431, 500, 501, 502, 503, 504, 505, 508]
)
def test_every_status_of_ours_has_a_phrase(status: int) -> None:
    message, document = rendered(replace(ANSWER, status=status))
    assert message.reason == document["title"] == HTTPStatus(status).phrase
