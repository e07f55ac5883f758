"""No effect is ever doubled: DESIGN section 3, the five permissions and everything outside them."""

from __future__ import annotations

import pytest

from tests.behaviour.conftest import Make
from tests.support.structured import dictionary
from tests.support.upstream import Connection, Step, Upstream, close, hang, reset, say

KEYED = "idempotency: {header: Idempotency-Key, methods: [POST, PATCH], format: uuid}"


async def test_500_unkeyed_posts_with_one_reset_in_five_act_at_most_once(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)

    def one_in_five(connection: Connection) -> Step:
        return reset("request") if len(upstream.requests) % 5 == 4 else say(201, b"made")

    upstream.otherwise = one_in_five
    answers = [await sidecar.ask("POST", f"/api/orders/{number}", body=b"one") for number in range(500)]
    assert len(upstream.effects) == 500
    assert set(upstream.effects.values()) == {1}
    failed = [answer for answer in answers if answer.status != 201]
    assert len(failed) == 100
    assert {answer.status for answer in failed} == {502}
    assert all("reason=not_safe" in (answer.headers.get("Sidecar") or "") for answer in failed)


async def test_posts_on_one_kept_connection_act_at_most_once(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    turns = iter([say(201), say(201), reset(), say(201), close(), say(201), reset("head"), say(201)])
    upstream.otherwise = lambda _: next(turns)
    async with sidecar.client() as client:
        answers = [await client.ask("POST", f"/api/{number}", body=b"one") for number in range(8)]
    statuses = [answer.status for answer in answers]
    assert statuses == [201, 201, 502, 201, 502, 201, 502, 201]
    assert set(upstream.effects.values()) == {1}
    assert len(upstream.requests) == 8


@pytest.mark.parametrize("failing", [reset("nothing"), reset("head"), reset(), close(), close("head"), hang()])
async def test_a_post_that_may_have_been_applied_is_not_sent_again(
    make: Make, upstream: Upstream, failing: Step
) -> None:
    sidecar = await make(upstream)
    upstream.script(failing, say(201))
    answer = await sidecar.ask("POST", "/api/x", body=b"one")
    assert answer.status in (502, 504)
    assert len(upstream.requests) <= 1
    assert len(upstream.connections) == 1
    record = await sidecar.record()
    assert (record.outcome, record.reason) == ("failed", "not_safe")


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
async def test_a_post_with_an_error_answer_is_handed_over(make: Make, upstream: Upstream, status: int) -> None:
    sidecar = await make(upstream)
    upstream.script(say(status, b"broken"), say(201))
    answer = await sidecar.ask("POST", "/api/x", body=b"one")
    assert (answer.status, answer.body) == (status, b"broken")
    record = await sidecar.record()
    assert (record.outcome, record.reason) == ("passed", "not_safe")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "QUERY"])
async def test_idempotent_methods_are_sent_again(make: Make, upstream: Upstream, method: str) -> None:
    sidecar = await make(upstream)
    upstream.script(reset(), say(503), say(200))
    body = b"state" if method in ("PUT", "QUERY") else None
    assert (await sidecar.ask(method, "/api/x", body=body)).status == 200
    assert [request.method for request in upstream.requests] == [method] * 3
    assert len({bytes(request.body) for request in upstream.requests}) == 1


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_other_methods_are_not(make: Make, upstream: Upstream, method: str) -> None:
    sidecar = await make(upstream)
    upstream.script(reset(), say(200))
    assert (await sidecar.ask(method, "/api/x", body=b"one")).status == 502
    assert len(upstream.requests) == 1


async def test_the_apps_own_key_allows_a_retry(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, KEYED)
    upstream.script(reset(), say(503), say(201, b"made"))
    answer = await sidecar.ask("POST", "/api/x", [("idempotency-key", "order-7")], b"one")
    assert (answer.status, answer.body) == (201, b"made")
    assert [request.headers.get("Idempotency-Key") for request in upstream.requests] == ["order-7"] * 3


async def test_a_key_of_our_own_is_the_same_on_every_attempt(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, KEYED)
    upstream.script(reset(), say(503), say(201), say(201))
    assert (await sidecar.ask("POST", "/api/x", body=b"one")).status == 201
    assert (await sidecar.ask("POST", "/api/x", body=b"one")).status == 201
    keys = [request.headers.get("Idempotency-Key") for request in upstream.requests]
    assert len(set(keys[:3])) == 1
    assert keys[0] is not None
    assert len(keys[0]) == 36
    assert keys[3] not in keys[:3]


async def test_a_quoted_key_is_a_structured_string(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, KEYED.replace("uuid", "quoted"))
    await sidecar.ask("POST", "/api/x", body=b"one")
    key = upstream.requests[0].headers.get("Idempotency-Key")
    assert key is not None
    assert (key[0], key[-1], len(key)) == ('"', '"', 38)


async def test_a_key_that_the_upstream_does_not_honour_allows_nothing(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(reset(), say(201))
    answer = await sidecar.ask("POST", "/api/x", [("Idempotency-Key", "order-7")], b"one")
    assert answer.status == 502
    assert len(upstream.requests) == 1


async def test_a_key_that_connection_takes_away_allows_nothing_on_its_own(make: Make, upstream: Upstream) -> None:
    """Either the upstream gets a key on every attempt, or there is one attempt."""
    sidecar = await make(upstream, KEYED)
    upstream.script(reset(), say(201))
    sent = [("Connection", "Idempotency-Key"), ("Idempotency-Key", "order-7")]
    await sidecar.ask("POST", "/api/x", sent, b"one")
    keys = [request.headers.get("Idempotency-Key") for request in upstream.requests]
    assert len(keys) == 1 or (keys[0] is not None and len(set(keys)) == 1)


async def test_an_empty_key_is_no_key(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, KEYED)
    upstream.script(reset(), say(201))
    await sidecar.ask("POST", "/api/x", [("Idempotency-Key", "")], b"one")
    keys = [request.headers.all("Idempotency-Key") for request in upstream.requests]
    assert keys[0] not in ([], [""])
    assert all(len(each) == 1 for each in keys)
    assert len({each[0] for each in keys}) == 1


async def test_a_429_states_that_nothing_was_done(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(429), say(201))
    assert (await sidecar.ask("POST", "/api/x", body=b"one")).status == 201


async def test_a_row_may_state_that_nothing_was_done(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "table: [{status: 409, then: retry, processed: false}]")
    upstream.script(say(409), say(201))
    assert (await sidecar.ask("POST", "/api/x", body=b"one")).status == 201


async def test_the_operator_may_take_the_risk(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "resend_methods: [POST]")
    upstream.script(reset(), say(201))
    assert (await sidecar.ask("POST", "/api/x", body=b"one")).status == 201
    assert (await sidecar.ask("PATCH", "/api/x", body=b"one")).status == 200


async def test_the_upstreams_verdict_overrules_the_row_but_not_safety(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, 'verdict: {header: x-should-retry, yes: "true", no: "false"}')
    upstream.script(say(503, headers=[("X-Should-Retry", "false")]))
    answer = await sidecar.ask("GET", "/api/x")
    assert answer.status == 503
    assert (await sidecar.record(1)).reason == "server_says_no"
    upstream.script(say(409, headers=[("x-should-retry", "true")]), say(200))
    assert (await sidecar.ask("GET", "/api/x")).status == 200
    upstream.script(say(409, headers=[("x-should-retry", "true")]))
    assert (await sidecar.ask("POST", "/api/x", body=b"one")).status == 409
    assert (await sidecar.record(3)).reason == "not_safe"


async def test_two_different_keys_are_not_made_one_by_us(make: Make, upstream: Upstream) -> None:
    """Whatever the upstream makes of them, every attempt carries the same fields."""
    sidecar = await make(upstream, KEYED)
    upstream.script(reset(), say(201))
    await sidecar.ask("POST", "/api/x", [("Idempotency-Key", "a"), ("Idempotency-Key", "b")], b"one")
    keys = [request.headers.all("Idempotency-Key") for request in upstream.requests]
    assert all(each == keys[0] for each in keys)
    assert keys[0] in (["a", "b"], ["a"])


@pytest.mark.parametrize("method", ["get", "Get", "put", "DELETe"])
async def test_methods_are_case_sensitive(make: Make, upstream: Upstream, method: str) -> None:
    """``get`` is not GET (RFC 9110 section 9.1): nobody knows what it does, so it is not sent again."""
    sidecar = await make(upstream)
    upstream.script(say(503), say(200))
    answer = await sidecar.ask(method, "/api/x")
    assert answer.status in (400, 501, 503)
    assert len(upstream.requests) <= 1


async def test_a_keyed_post_keeps_its_body_and_head_on_every_attempt(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, KEYED)
    upstream.script(say(503), reset(), say(201))
    body = b"x" * 150_000
    assert (await sidecar.ask("POST", "/api/x", [("Idempotency-Key", "order-7")], body)).status == 201
    assert [bytes(request.body) == body for request in upstream.requests] == [True] * 3
    assert len({request.head for request in upstream.requests}) == 1


async def test_an_answer_that_nothing_was_done_is_not_handed_over_after_a_send_that_may_have_done_it(
    make: Make, upstream: Upstream
) -> None:
    """The 429 was true of the first send. The second may have been applied: the app must not take it for refused."""
    sidecar = await make(upstream)
    upstream.script(say(429, b"slow down", headers=[("Retry-After", "1")]), reset())
    answer = await sidecar.ask("POST", "/api/x", body=b"order")
    assert answer.status == 502
    told = dictionary(answer.headers.get("Sidecar"))
    assert (told["outcome"], told["attempts"], told["reason"]) == ("failed", 2, "not_safe")


async def test_our_key_goes_only_to_the_upstream_whose_policy_names_it(make: Make, upstream: Upstream) -> None:
    text = f"""
listen: 127.0.0.1:0
admin: 127.0.0.1:0
upstreams:
  - {{name: keyed, origin: 'http://{upstream.authority}', mount: /keyed, policy: keyed}}
  - {{name: plain, origin: 'http://{upstream.authority}', mount: /plain, policy: default}}
"""
    sidecar = await make(upstream, text=text, policies={"keyed": f"extends: default\n{KEYED}\n"})
    with_key = await sidecar.ask("POST", "/keyed/x", body=b"1")
    without = await sidecar.ask("POST", "/plain/x", body=b"1")
    keys = [request.headers.get("Idempotency-Key") for request in upstream.requests]
    assert keys == [with_key.headers.get("Idempotency-Key"), None]
    assert keys[0] is not None
    assert "Idempotency-Key" not in without.headers


async def test_a_key_counts_only_for_the_methods_that_it_is_honoured_for(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "idempotency: {header: X-Key, methods: [PUT, PATCH]}")
    for method, sends in (("PATCH", 2), ("POST", 1)):
        upstream.script(reset(), say(200))
        await sidecar.ask(method, "/api/x", [("X-Key", "mine")], body=b"1")
        assert len([request for request in upstream.requests if request.method == method]) == sends
        upstream.script()
