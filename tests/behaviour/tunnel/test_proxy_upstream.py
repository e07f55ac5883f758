"""The sidecar behind a corporate proxy: absolute-form for http, CONNECT for https, ``NO_PROXY`` respected, no leaks."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.behaviour.conftest import Make
from tests.support.client import Client
from tests.support.clock import ManualClock
from tests.support.plain import listening
from tests.support.upstream import Upstream, refused_port, say

SECRET = "cl%40ve:hunt%3Ar2"
BASIC = "Basic " + base64.b64encode(b"cl@ve:hunt:r2").decode()


class Corporate:
    """A proxy that joins CONNECTs to where a test says, whatever they name, and notes their heads."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.port = 0
        self.leads_to = 0
        self.answers: list[bytes] = []
        """In place of joining, for the next ones."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        if self.answers:
            writer.write(self.answers.pop(0))
            await writer.drain()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.leads_to)
        writer.write(b"HTTP/1.1 200 Connection established\r\nX-Corporate: 1\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, far_writer))
                group.create_task(_copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def corporate() -> AsyncIterator[Corporate]:
    made = Corporate()
    async with listening(made.serve) as made.port:
        yield made


async def test_http_urls_are_asked_for_in_absolute_form(make: Make, upstream: Upstream) -> None:
    """``upstream`` plays the corporate proxy."""
    sidecar = await make(80, top=f"proxy: http://127.0.0.1:{upstream.port}")
    answer = await sidecar.ask("GET", "http://far.example/a%20b?c=1", host="far.example")
    assert (answer.status, answer.body) == (200, b"ok")
    request = upstream.requests[0]
    assert request.target == "http://far.example/a%20b?c=1"
    assert request.headers.get("host") == "far.example"
    assert "proxy-authorization" not in request.headers


async def test_an_http_upstream_is_reached_through_its_own_proxy(make: Make, upstream: Upstream) -> None:
    text = f"""
listen: 127.0.0.1:0
admin: 127.0.0.1:0
upstreams:
  - {{name: api, origin: "http://api.example:8000/base", mount: /api, proxy: "http://127.0.0.1:{upstream.port}"}}
"""
    sidecar = await make(upstream, text=text)
    upstream.script(say(503), say(200, b"fine"))
    answer = await sidecar.ask("GET", "/api/x?y")
    assert (answer.status, answer.body) == (200, b"fine")
    assert [request.target for request in upstream.requests] == ["http://api.example:8000/base/x?y"] * 2
    assert upstream.requests[0].headers.get("host") == "api.example:8000"
    assert (await sidecar.record()).path == "/api/x"


async def test_the_credential_of_the_proxy_goes_to_the_proxy_and_nowhere_else(make: Make, upstream: Upstream) -> None:
    environ = {"WAY_OUT": f"http://{SECRET}@127.0.0.1:{upstream.port}/"}
    sidecar = await make(80, top="proxy: env:WAY_OUT\nlog: {sample: 1}", environ=environ)
    sent = [("Proxy-Authorization", "Basic YXBwOm93bg==")]
    answer = await sidecar.ask("GET", "http://far.example/", sent, host="far.example")
    assert answer.status == 200
    assert upstream.requests[0].headers.all("proxy-authorization") == [BASIC]
    shown = sidecar.log.getvalue() + repr(sidecar.sidecar.deployment) + answer.head.decode()
    shown += (await sidecar.admin("/debug/exchanges")).body.decode()
    shown += (await sidecar.admin("/config")).body.decode()
    for secret in ("hunt", BASIC[6:], SECRET):
        assert secret not in shown


async def test_https_goes_through_connect_and_is_verified_end_to_end(
    make: Make, tls_upstream: Upstream, authority_file: str, corporate: Corporate, tmp_path: object
) -> None:
    corporate.leads_to = tls_upstream.port
    environ = {"WAY_OUT": f"http://{SECRET}@127.0.0.1:{corporate.port}"}
    more = f"    ca_file: {authority_file}\n    proxy: env:WAY_OUT"
    sidecar = await make(tls_upstream, scheme="https", more=more, environ=environ)
    async with sidecar.client() as client:
        assert (await client.ask("GET", "/api/one")).status == 200
        assert (await client.ask("GET", "/api/two")).status == 200
    (head,) = corporate.heads
    assert head.startswith(f"CONNECT localhost:{tls_upstream.port} HTTP/1.1\r\nHost: localhost:{tls_upstream.port}\r\n")
    assert f"Proxy-Authorization: {BASIC}\r\n" in head
    assert [request.target for request in tls_upstream.requests] == ["/one", "/two"]
    assert "proxy-authorization" not in tls_upstream.requests[0].headers
    assert "hunt" not in sidecar.log.getvalue()


async def test_a_tunnel_goes_through_connect_as_well(make: Make, upstream: Upstream, corporate: Corporate) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello ")
        writer.write(await reader.readexactly(4))
        await writer.drain()

    async with listening(greet) as port:
        corporate.leads_to = port
        sidecar = await make(upstream, top=f"proxy: http://127.0.0.1:{corporate.port}")
        async with sidecar.client() as client:
            await _connect(client, "far.example:443")
            await client.send(b"ping")
            assert await client.everything() == (b"hello ping", "closed")
    assert corporate.heads[0].startswith("CONNECT far.example:443 HTTP/1.1\r\n")


async def _connect(client: Client, authority: str) -> None:
    await client.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    assert (await client.one_head()).status == 200


async def test_a_proxy_that_recovers_is_tried_again(
    make: Make, upstream: Upstream, corporate: Corporate, clock: ManualClock
) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await writer.drain()

    async with listening(greet) as port:
        corporate.leads_to = port
        corporate.answers = [b"HTTP/1.1 503 Busy\r\n\r\n", b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n"]
        policies = {"default": "backoff: {base: 1s, jitter: none}\ntable: [{failure: any, then: retry}]"}
        sidecar = await make(upstream, top=f"proxy: http://127.0.0.1:{corporate.port}", policies=policies)
        async with sidecar.client() as client:
            await _connect(client, "far.example:443")
            assert await client.everything() == (b"hello", "closed")
    assert clock.waits == pytest.approx([1.0, 2.0], abs=0.05)


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic\r\n\r\n", "unreachable", "407"),
        (b"HTTP/1.1 403 No\r\n\r\n", "unreachable", "403"),
        (b"HTTP/1.1 504 Late\r\n\r\n", "connect_timeout", "504"),
        (b"SSH-2.0-x\r\n\r\n", "protocol", "HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n", "protocol", "too large"),
        (b"", "closed", "closed"),
    ],
    ids=["407", "403", "504", "no-http", "too-large", "nothing"],
)
async def test_a_proxy_that_refuses_is_named_as_the_cause(
    make: Make, tls_upstream: Upstream, corporate: Corporate, answer: bytes, code: str, said: str
) -> None:
    corporate.answers = [answer]
    more = f"    proxy: http://127.0.0.1:{corporate.port}"
    sidecar = await make(tls_upstream, "attempts: 1", scheme="https", more=more)
    got = await sidecar.ask("GET", "/api/")
    assert got.status in (502, 504)
    assert got.json()["code"] == code
    assert "proxy" in got.json()["detail"]
    assert said in got.json()["detail"]
    assert tls_upstream.requests == []


async def test_bytes_behind_the_proxys_200_are_no_part_of_tls(
    make: Make, tls_upstream: Upstream, corporate: Corporate
) -> None:
    corporate.answers = [b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"]
    more = f"    proxy: http://127.0.0.1:{corporate.port}"
    sidecar = await make(tls_upstream, "attempts: 1", scheme="https", more=more)
    got = await sidecar.ask("GET", "/api/")
    assert (got.status, got.json()["code"]) == (502, "protocol")


async def test_a_dead_proxy_is_502_and_never_gone_around(make: Make, upstream: Upstream) -> None:
    more = f"    proxy: http://127.0.0.1:{refused_port()}"
    sidecar = await make(upstream, "attempts: 2", more=more)
    got = await sidecar.ask("GET", "/api/")
    assert (got.status, got.json()["code"]) == (502, "refused")
    assert upstream.requests == []


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
async def test_the_variable_no_proxy_is_respected(make: Make, upstream: Upstream, name: str) -> None:
    dead = f"proxy: http://127.0.0.1:{refused_port()}"
    quiet = {"default": "attempts: 1"}
    sidecar = await make(80, top=dead, policies=quiet, environ={name: " intra.example , .corp.example"})
    seen = {}
    for host in ("intra.example", "x.intra.example", "a.corp.example", "far.example"):
        answer = await sidecar.ask("GET", f"http://{host}/", host=host)
        seen[host] = answer.json()["code"]
    # Directly, these names do not resolve; through the proxy, nobody is there.
    direct = {"intra.example": "resolve", "x.intra.example": "resolve", "a.corp.example": "resolve"}
    assert seen == {**direct, "far.example": "refused"}


async def test_the_list_in_the_file_goes_before_the_variable_and_loopback_is_always_direct(
    make: Make, upstream: Upstream
) -> None:
    top = f"proxy: http://127.0.0.1:{refused_port()}\nno_proxy: [other.example]"
    quiet = {"default": "attempts: 1"}
    sidecar = await make(upstream, "attempts: 1", top=top, policies=quiet, environ={"NO_PROXY": "*"})
    assert (await sidecar.ask("GET", "/api/")).status == 200
    assert (await sidecar.ask("GET", f"http://127.0.0.1:{upstream.port}/", host="x")).status == 200
    assert (await sidecar.ask("GET", "http://far.example/", host="x")).json()["code"] == "refused"


async def test_an_upstream_may_go_direct_although_all_others_do_not(make: Make, upstream: Upstream) -> None:
    text = f"""
listen: 127.0.0.1:0
admin: 127.0.0.1:0
proxy: http://127.0.0.1:{upstream.port}
upstreams:
  - {{name: near, origin: "http://near.invalid", mount: /near, proxy: direct, policy: test}}
  - {{name: far, origin: "http://far.invalid", mount: /far, policy: test}}
"""
    sidecar = await make(upstream, "attempts: 1", text=text)
    assert (await sidecar.ask("GET", "/near/")).json()["code"] == "resolve"
    assert (await sidecar.ask("GET", "/far/")).status == 200


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "0xa9fea9fe", "2852039166", "[::ffff:a9fe:a9fe]", "metadata.google.internal", "[fe80::1]"],
)
async def test_what_is_never_dialled_is_not_asked_of_a_proxy_either(make: Make, upstream: Upstream, host: str) -> None:
    sidecar = await make(80, top=f"proxy: http://127.0.0.1:{upstream.port}")
    answer = await sidecar.ask("GET", f"http://{host}/latest/", host=host)
    assert (answer.status, answer.json()["code"]) == (403, "address")
    assert upstream.requests == []
