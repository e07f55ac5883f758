"""One request id and one correlation id per exchange, the same on every attempt. DESIGN section 8, Ids."""

from __future__ import annotations

import re

import pytest

from tests.behaviour.conftest import Make
from tests.support.upstream import Upstream, refused_port, say

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_sane_id_of_the_app_is_kept_everywhere(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503), say(200))
    answer = await sidecar.ask("GET", "/api/x", [("x-request-id", "order-7"), ("X-Correlation-Id", "c.1")])
    assert [request.headers.get("X-Request-Id") for request in upstream.requests] == ["order-7"] * 2
    assert [request.headers.get("X-Correlation-Id") for request in upstream.requests] == ["c.1"] * 2
    assert answer.headers.get("X-Request-Id") == "order-7"
    assert answer.headers.get("X-Correlation-Id") == "c.1"
    record = await sidecar.record()
    assert (record.request_id, record.correlation_id) == ("order-7", "c.1")


async def test_a_missing_id_is_made_and_is_the_same_on_every_attempt(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503), say(200), say(200))
    first = await sidecar.ask("GET", "/api/x")
    second = await sidecar.ask("GET", "/api/x")
    made = [request.headers.get("X-Request-Id") for request in upstream.requests]
    assert made[0] == made[1] == first.headers.get("X-Request-Id")
    assert made[2] == second.headers.get("X-Request-Id")
    assert made[0] != made[2]
    assert made[0] is not None
    assert re.fullmatch(r"[\x21-\x7e]{16,128}", made[0])


@pytest.mark.parametrize(
    "odd", ["a b", "a\tb", "a,b", 'a"b', "a;b", "x" * 129, "\xff", "", "a\\b", "${jndi:ldap://x}", "a{b}", "<a>"]
)
async def test_an_odd_id_is_replaced(make: Make, upstream: Upstream, odd: str) -> None:
    """What breaks logs: blanks, quotes, commas, length. Braces and brackets may go either way."""
    sidecar = await make(upstream)
    answer = await sidecar.ask("GET", "/api/x", [("X-Request-Id", odd)])
    if odd[:1] not in "$a<" or odd in ("a b", "a\tb", "a,b", 'a"b', "a;b"):
        assert answer.headers.get("X-Request-Id") not in (odd, "")
    assert upstream.requests[0].headers.all("X-Request-Id") == answer.headers.all("X-Request-Id")


async def test_two_ids_become_one(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    await sidecar.ask("GET", "/api/x", [("X-Request-Id", "a"), ("X-Request-Id", "b")])
    assert len(upstream.requests[0].headers.all("X-Request-Id")) == 1


async def test_an_upstream_that_echoes_the_id_does_not_double_it(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(200, headers=[("X-Request-Id", "order-7"), ("X-Correlation-Id", "c.1")]))
    answer = await sidecar.ask("GET", "/api/x", [("X-Request-Id", "order-7"), ("X-Correlation-Id", "c.1")])
    assert answer.headers.all("X-Request-Id") == ["order-7"]
    assert answer.headers.all("X-Correlation-Id") == ["c.1"]


async def test_own_answers_carry_the_ids_too(make: Make) -> None:
    sidecar = await make(refused_port(), "attempts: 1")
    answer = await sidecar.ask("GET", "/api/x", [("X-Request-Id", "order-7")])
    assert answer.headers.get("X-Request-Id") == "order-7"
    assert answer.headers.get("X-Correlation-Id")
    unknown = await sidecar.ask("GET", "/nowhere", [("X-Request-Id", "order-8")])
    assert unknown.headers.get("X-Request-Id") == "order-8"


async def test_the_names_are_the_policys(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "ids: {request: {header: X-Trace-Key}, correlation: {header: X-Conversation}}")
    answer = await sidecar.ask("GET", "/api/x", [("X-Trace-Key", "k1")])
    assert upstream.requests[0].headers.get("X-Trace-Key") == "k1"
    assert answer.headers.get("X-Trace-Key") == "k1"
    assert upstream.requests[0].headers.get("X-Conversation")


async def test_the_upstreams_own_ids_are_read_into_the_record(make: Make, upstream: Upstream) -> None:
    policy = """
ids:
  request: {header: X-Request-Id, from_response: [X-Upstream-Id], from_body: [/meta/request_id]}
  correlation: {header: X-Correlation-Id, from_body: [/correlation_id]}
errors: {code: [/error/code], message: [/error/message]}
"""
    sidecar = await make(upstream, policy)
    body = b'{"meta": {"request_id": "u2"}, "correlation_id": "c9", "error": {"code": "gone", "message": "No."}}'
    upstream.script(say(404, body), say(404, body, headers=[("x-upstream-id", "u1")]))
    answer = await sidecar.ask("GET", "/api/x")
    assert answer.body == body
    await sidecar.ask("GET", "/api/x")
    first, second = await sidecar.record(1), await sidecar.record(2)
    assert (first.upstream_request_id, first.upstream_correlation_id) == ("u2", "c9")
    assert (first.error_code, first.error_message) == ("gone", "No.")
    assert second.upstream_request_id == "u1"


async def test_a_trace_is_kept_with_a_new_span_per_attempt(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503), say(200))
    await sidecar.ask("GET", "/api/x", [("traceparent", TRACE), ("tracestate", "a=1,b=2")])
    sent = [request.headers.get("traceparent") or "" for request in upstream.requests]
    assert len(set(sent)) == 2
    for each in sent:
        version, trace, span, flags = each.split("-")
        assert (version, trace, flags) == ("00", TRACE.split("-")[1], "01")
        assert span != TRACE.split("-")[2]
    assert [request.headers.get("tracestate") for request in upstream.requests] == ["a=1,b=2"] * 2
    assert (await sidecar.record()).trace_id == TRACE.split("-")[1]


async def test_no_trace_is_made_unless_asked_for(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    await sidecar.ask("GET", "/api/x")
    assert "traceparent" not in upstream.requests[0].headers
    creating = await make(upstream, "trace: create")
    await creating.ask("GET", "/api/x")
    assert re.fullmatch(
        r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", upstream.requests[1].headers.get("traceparent") or ""
    )
