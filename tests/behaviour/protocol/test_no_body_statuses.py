"""HEAD, 204 and 304 have no body, whatever their head says; the next answer is not mistaken for one."""

from __future__ import annotations

import pytest

from tests.behaviour.conftest import Make
from tests.support.upstream import Upstream, head_bytes, say, say_raw


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", head_bytes(200, [("Content-Length", "12345"), ("ETag", '"x"')])),
        ("HEAD", head_bytes(200, [("Transfer-Encoding", "chunked")])),
        ("HEAD", head_bytes(200)),
        ("HEAD", head_bytes(404, [("Content-Length", "9")])),
        ("GET", head_bytes(204)),
        ("PUT", head_bytes(204, [("X-A", "1")])),
        ("GET", head_bytes(304, [("ETag", '"x"')])),
        ("GET", head_bytes(304, [("Content-Length", "500")])),
    ],
)
async def test_no_body_is_awaited(make: Make, upstream: Upstream, method: str, head: bytes) -> None:
    sidecar = await make(upstream)
    upstream.script(say_raw(head), say(200, b"next"))
    async with sidecar.client() as client:
        answer = await client.ask(method, "/api/x")
        assert (answer.body, answer.cut) == (b"", None)
        assert (await client.ask("GET", "/api/y")).body == b"next"
    assert len(upstream.connections) == 1


async def test_the_length_of_a_head_answer_is_kept(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say_raw(head_bytes(200, [("Content-Length", "12345")])))
    answer = await sidecar.ask("HEAD", "/api/x")
    assert answer.headers.get("Content-Length") == "12345"


async def test_a_head_request_is_retried(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503), say(200))
    assert (await sidecar.ask("HEAD", "/api/x")).status == 200


@pytest.mark.parametrize("status", [204, 304])
async def test_a_body_where_none_may_be_spoils_the_connection_only(make: Make, upstream: Upstream, status: int) -> None:
    sidecar = await make(upstream)
    upstream.script(
        say_raw(head_bytes(status) + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"), say(200, b"good")
    )
    async with sidecar.client() as client:
        assert (await client.ask("GET", "/api/x")).status == status
        assert (await client.ask("GET", "/api/y")).body == b"good"
    assert len(upstream.connections) == 2


async def test_a_204_with_a_length_arrives_without_it(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say_raw(head_bytes(204, [("Content-Length", "0")])), say(200, b"next"))
    async with sidecar.client() as client:
        answer = await client.ask("GET", "/api/x")
        assert answer.status in (204, 502)
        assert (await client.ask("GET", "/api/y")).body == b"next"
