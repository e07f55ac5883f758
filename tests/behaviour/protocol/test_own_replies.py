"""What the sidecar says in its own name: status, shape, ids, and two structured headers. DESIGN section 8."""

from __future__ import annotations

import pytest

from tests.behaviour.conftest import Make
from tests.support.client import Answer
from tests.support.sidecar import Running
from tests.support.structured import dictionary, members
from tests.support.upstream import Upstream, hang, refused_port, reset, say, say_raw


def check(answer: Answer, status: int, *, reason: str | None = None, readable: bool = True) -> None:
    """Every reply of our own: problem+json (RFC 9457), ids, ``Sidecar``, ``Proxy-Status`` (RFC 9209).

    Where the request's head could not be read there need not be an id.
    """
    assert answer.status == status
    assert answer.headers.get("Content-Type") == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    if readable:
        assert problem["request_id"] == answer.headers.get("X-Request-Id")
    told = dictionary(answer.headers.get("Sidecar"))
    assert told["outcome"] in {"failed", "rejected"}
    assert problem["attempts"] == told["attempts"]
    if reason is not None:
        assert problem["reason"] == reason
        assert told["reason"] == reason
    name, parameters = members(answer.headers.get("Proxy-Status"))[0]
    assert "sidecar" in name
    assert "error" in parameters


async def test_502_for_a_reset_post(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(reset())
    answer = await sidecar.ask("POST", "/api/x", body=b"one")
    check(answer, 502, reason="not_safe")
    assert answer.json()["attempts"] == 1


async def test_502_for_a_refused_connection(make: Make) -> None:
    sidecar = await make(refused_port(), "attempts: 2")
    answer = await sidecar.ask("GET", "/api/x")
    check(answer, 502, reason="attempts")
    proxy_status = answer.headers.get("Proxy-Status") or ""
    assert "connection_refused" in proxy_status


async def test_502_for_an_answer_that_is_not_http(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempts: 1")
    upstream.script(say_raw(b"SSH-2.0-OpenSSH\r\n\r\n", last=True))
    check(await sidecar.ask("GET", "/api/x"), 502)


async def test_504_when_no_answer_came_in_time(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(hang())
    check(await sidecar.ask("POST", "/api/x", body=b"one"), 504, reason="not_safe")


async def test_404_lists_the_mounts(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    answer = await sidecar.ask("GET", "/nowhere/x")
    check(answer, 404)
    assert "/api" in answer.json()["detail"] or "/api" in str(answer.json())
    assert (await sidecar.record()).outcome == "rejected"
    assert upstream.requests == []


@pytest.mark.parametrize(("target", "status"), [("api.example", 400), ("api.example:22", 403)])
async def test_a_connect_that_leads_nowhere_ends_the_connection(
    make: Make, upstream: Upstream, target: str, status: int
) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        check(await client.ask("CONNECT", target, host=target), status)
        assert upstream.requests == []
        assert await client.ended()


async def test_400_for_a_malformed_request(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(b"GET /api/x HTTP/1.1\r\nHost: a\r\nBad Header: 1\r\n\r\n")
        check(await client.answer(), 400, readable=False)
        assert await client.ended()


async def test_431_for_a_head_that_is_too_large(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(b"GET /api/x HTTP/1.1\r\nHost: a\r\nX-Big: " + b"x" * 100_000 + b"\r\n\r\n")
        check(await client.answer(), 431, readable=False)
        assert await client.ended()


async def test_403_for_an_unknown_host_where_they_are_refused(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, top="unknown_hosts: refuse")
    answer = await sidecar.ask("GET", f"http://{upstream.authority}/x", host=upstream.authority)
    check(answer, 403)
    assert upstream.requests == []


async def test_508_for_a_loop(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    address = sidecar.sidecar.address
    own = f"{address.host}:{address.port}"
    answer = await sidecar.ask("GET", f"http://{own}/x", host=own)
    assert answer.status in (403, 502, 508)
    assert all(len(record.attempts) <= 1 for record in sidecar.records)
    assert len(sidecar.records) <= 2


async def test_a_request_that_went_through_us_before_is_a_loop(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    await sidecar.ask("GET", "/api/x")
    via = upstream.requests[0].headers.get("Via") or ""
    answer = await sidecar.ask("GET", "/api/x", [("Via", via)])
    check(answer, 508)
    assert len(upstream.requests) == 1


async def test_the_shape_is_the_upstreams_where_the_policy_gives_one(make: Make) -> None:
    shape = (
        'errors: {shape: {error: {code: "{code}", message: "{message}", details: {}}, n: "{attempts}", '
        'id: "{correlation_id}", why: "{reason}"}}'
    )
    sidecar = await make(refused_port(), f"attempts: 1\n{shape}")
    answer = await sidecar.ask("GET", "/api/x", [("X-Correlation-Id", 'c"1'[0] + "1")])
    assert answer.status == 502
    assert (answer.headers.get("Content-Type") or "").startswith("application/json")
    told = answer.json()
    assert told["error"]["code"]
    assert told["error"]["message"]
    assert told["error"]["details"] == {}
    assert told["id"] == "c1"
    assert told["why"] == "attempts"
    assert str(told["n"]) == "1"
    assert answer.headers.get("Proxy-Status")


async def test_a_head_request_gets_no_body(make: Make) -> None:
    sidecar = await make(refused_port(), "attempts: 1")
    async with sidecar.client() as client:
        answer = await client.ask("HEAD", "/api/x")
        assert answer.status == 502
        assert (await client.ask("HEAD", "/nowhere")).status == 404


async def test_the_connection_goes_on_after_an_own_reply(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(reset(), say(200, b"fine"))
    async with sidecar.client() as client:
        assert (await client.ask("POST", "/api/x", body=b"one")).status == 502
        assert (await client.ask("GET", "/api/y")).body == b"fine"


async def test_handed_over_answers_carry_no_proxy_status_error(make: Make, upstream: Upstream) -> None:
    sidecar: Running = await make(upstream, "attempts: 1")
    upstream.script(say(503, b"no"))
    answer = await sidecar.ask("GET", "/api/x")
    assert "error" not in (answer.headers.get("Proxy-Status") or "")
    assert answer.headers.get("Sidecar")
