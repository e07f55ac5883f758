"""Opened tunnels: an unmodified https:// app gets the full engine, for the hosts that are named and no others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sidecar.config.load import load_deployment
from sidecar.core.enums import Outcome
from sidecar.intercept.authority import create
from tests.behaviour.conftest import Make
from tests.support.sidecar import Running
from tests.support.upstream import Upstream, say, say_raw

CONNECT = "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n{1}\r\n"


class InterceptedConnection:
    """An app at the inner end of a tunnel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(
        self, target: str = "/v1/x", host: str = "api.example", method: str = "GET"
    ) -> tuple[int, str, bytes]:
        """Status, head in lower case, body of one request."""
        self.writer.write(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        return await self.answer()

    async def answer(self) -> tuple[int, str, bytes]:
        async with asyncio.timeout(60):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = next(
                (int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length")), 0
            )
            return int(head.split()[1]), head, await self.reader.readexactly(length)

    async def ended(self) -> bytes:
        """What is left, once the sidecar has ended the connection."""
        async with asyncio.timeout(60):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    @property
    def tls(self) -> ssl.SSLObject:
        found = self.writer.get_extra_info("ssl_object")
        assert isinstance(found, ssl.SSLObject)
        return found


@contextlib.asynccontextmanager
async def tunnel(
    sidecar: Running, authority: str = "api.example:443", *, fields: str = "", ahead: bytes = b""
) -> AsyncIterator[InterceptedConnection]:
    """A tunnel that was granted."""
    address = sidecar.sidecar.address
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(CONNECT.format(authority, fields).encode() + ahead)
        inside = InterceptedConnection(reader, writer)
        status, _, _ = await inside.answer()
        assert status == 200
        yield inside
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def intercepted(
    sidecar: Running, *, fields: str = "", alpn: tuple[str, ...] = ()
) -> AsyncIterator[InterceptedConnection]:
    """TLS through a tunnel to ``api.example``, which the app verifies by the sidecar's authority."""
    context = ssl.create_default_context(cafile=ca_of(sidecar) / "ca.pem")
    if alpn:
        context.set_alpn_protocols(list(alpn))
    async with tunnel(sidecar, fields=fields) as inside:
        await inside.writer.start_tls(context, server_hostname="api.example")
        yield inside


def ca_of(sidecar: Running) -> Path:
    rule = sidecar.sidecar.deployment.intercept
    assert rule is not None
    return Path(rule.folder)


def told(sidecar: Running, name: str) -> list[dict[str, object]]:
    lines = map(json.loads, sidecar.log.getvalue().splitlines())
    return [line for line in lines if line["event"] == name]


@pytest.fixture
async def opened(make: Make, tls_upstream: Upstream, authority_file: str, tmp_path: Path) -> Running:
    return await open_one(make, tls_upstream, authority_file, tmp_path)


async def open_one(
    make: Make, upstream: Upstream, authority_file: str, tmp_path: Path, *, top: str = "", trusted: bool = True
) -> Running:
    create(tmp_path / "ca", ["api.example"], datetime.now(UTC))
    more = f"    ca_file: {authority_file}" if trusted else ""
    top = f"intercept: {{hosts: [api.example], ca: {tmp_path / 'ca'}}}\n{top}"
    return await make(upstream, scheme="https", more=more, top=top)


async def test_what_an_app_sends_over_https_is_retried(opened: Running, tls_upstream: Upstream) -> None:
    tls_upstream.script(say(503), say(200, b"fine"))
    async with intercepted(opened) as app:
        status, head, body = await app.ask("/a%2Fb?x=%20")
    assert (status, body) == (200, b"fine")
    assert "sidecar: outcome=recovered, attempts=2" in head
    assert [request.target for request in tls_upstream.requests] == ["/a%2Fb?x=%20"] * 2
    connect, exchange = opened.records
    assert connect.outcome is Outcome.TUNNELLED
    assert (exchange.outcome, exchange.upstream) == (Outcome.RECOVERED, "api")


async def test_one_tunnel_carries_many_requests(opened: Running, tls_upstream: Upstream) -> None:
    async with intercepted(opened) as app:
        for _ in range(3):
            assert (await app.ask())[0] == 200
    assert len(tls_upstream.connections) == 1


async def test_http_1_1_is_agreed_on_whatever_else_is_offered(opened: Running) -> None:
    async with intercepted(opened, alpn=("h2", "http/1.1")) as app:
        assert app.tls.selected_alpn_protocol() == "http/1.1"


async def test_a_certificate_is_made_once_and_lives_for_a_day(opened: Running) -> None:
    found = []
    for _ in range(2):
        async with intercepted(opened) as app:
            certificate = app.tls.getpeercert()
            assert certificate is not None
            found.append(certificate)
    assert found[0] == found[1]
    ends, begins = (ssl.cert_time_to_seconds(str(found[0][key])) for key in ("notAfter", "notBefore"))
    assert ends - begins <= 26 * 3600


async def test_a_request_for_another_host_is_misdirected(opened: Running, tls_upstream: Upstream) -> None:
    async with intercepted(opened) as app:
        status, _, _ = await app.ask(host="other.example")
        assert status == 421
        assert await app.ended() == b""
    async with intercepted(opened) as app:
        assert (await app.ask("https://other.example/x"))[0] == 421
    assert not tls_upstream.requests


async def test_a_tunnel_within_a_tunnel_is_refused(opened: Running) -> None:
    async with intercepted(opened) as app:
        assert (await app.ask("other.example:443", method="CONNECT"))[0] == 405


async def test_what_is_not_tls_ends_the_tunnel_and_is_told(opened: Running) -> None:
    async with tunnel(opened) as app:
        app.writer.write(b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\n" * 4)
        await app.ended()
    await opened.until(lambda: bool(told(opened, "intercept_refused")))
    assert "is not TLS" in str(told(opened, "intercept_refused")[0]["message"])


async def test_tls_that_begins_before_the_answer_is_cut(opened: Running) -> None:
    address = opened.sidecar.address
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(CONNECT.format("api.example:443", "").encode() + b"\x16\x03\x01")
    assert await InterceptedConnection(reader, writer).ended() == b""
    writer.close()


async def test_an_app_that_does_not_trust_us_is_named_with_what_to_do(opened: Running) -> None:
    proxy = f"http://127.0.0.1:{opened.sidecar.address.port}"
    child = await asyncio.create_subprocess_exec(
        "curl", "--silent", "--proxy", proxy, "https://api.example/", stdout=asyncio.subprocess.DEVNULL
    )
    assert await child.wait() == 60
    await opened.until(lambda: bool(told(opened, "intercept_refused")))
    assert "sidecar ca" in str(told(opened, "intercept_refused")[0]["message"])


async def test_an_http_2_preface_is_no_request(opened: Running, tls_upstream: Upstream) -> None:
    async with intercepted(opened, alpn=("h2",)) as app:
        app.writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        status, _, _ = await app.answer()
        assert status in (400, 505)
        assert await app.ended() == b""
    assert not tls_upstream.requests


async def test_the_upstreams_certificate_is_verified_as_always(
    make: Make, tls_upstream: Upstream, authority_file: str, tmp_path: Path
) -> None:
    sidecar = await open_one(make, tls_upstream, authority_file, tmp_path, trusted=False)
    async with intercepted(sidecar) as app:
        status, head, _ = await app.ask()
    assert status == 502
    assert "tls_certificate_error" in head
    assert not tls_upstream.requests


async def test_the_credential_is_asked_for_at_the_tunnel_and_not_again_inside(
    make: Make, tls_upstream: Upstream, authority_file: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("app:word", encoding="ascii")
    top = f"access: {{credential: file:{secret}}}"
    sidecar = await open_one(make, tls_upstream, authority_file, tmp_path, top=top)
    with pytest.raises(AssertionError):
        async with tunnel(sidecar):
            pass
    async with intercepted(sidecar, fields="Proxy-Authorization: Basic YXBwOndvcmQ=\r\n") as app:
        assert (await app.ask())[0] == 200
    assert "proxy-authorization" not in tls_upstream.requests[0].headers


async def test_a_tunnel_to_port_80_is_plain_http_and_is_read(opened: Running, tls_upstream: Upstream) -> None:
    """Node's fetch and undici ask for one even for http:// URLs; it leaves as verified https all the same."""
    tls_upstream.script(say(503), say(200, b"fine"))
    async with tunnel(opened, "api.example:80") as app:
        status, head, body = await app.ask()
    assert (status, body) == (200, b"fine")
    assert "outcome=recovered" in head


@pytest.mark.parametrize("method", ["GET", "QUERY", "LIST", "X-Odd"])
async def test_a_method_goes_through_an_opened_tunnel_as_it_is(
    opened: Running, tls_upstream: Upstream, method: str
) -> None:
    """Methods are an open list (RFC 9110 section 9.1); Vault's LIST is none of aiohttp's."""
    async with tunnel(opened, "api.example:80") as app:
        assert (await app.ask(method=method))[0] == 200
    assert tls_upstream.requests[0].method == method
    assert opened.records[-1].method == method


async def test_a_request_that_comes_with_the_connect_is_read(opened: Running) -> None:
    ahead = b"GET /v1/x HTTP/1.1\r\nHost: api.example\r\n\r\n"
    async with tunnel(opened, "api.example:80", ahead=ahead) as app:
        assert (await app.answer())[0] == 200


async def test_port_80_stays_opaque_where_tunnels_name_it(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, top="tunnels: {ports: [80, 443]}")
    assert sidecar.sidecar.opener.opens("any.example", 80) is None


async def test_a_port_of_its_own_is_intercepted_where_it_is_named_and_nowhere_else(opened: Running) -> None:
    opener = opened.sidecar.opener
    rule = opened.sidecar.deployment.intercept
    assert rule is not None
    named = replace(rule, hosts=("api.example:8443",))
    opener.apply(replace(opened.sidecar.deployment, intercept=named), lambda host: ssl.create_default_context())
    assert opener.opens("api.example", 8443) == "https"
    assert opener.opens("api.example", 443) is None


async def test_an_upgrade_inside_is_relayed(opened: Running, tls_upstream: Upstream) -> None:
    switched = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    tls_upstream.script(say(503), say_raw(switched + b"hello", wait=True))
    asks = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA\r\n"
    async with intercepted(opened) as app:
        app.writer.write(f"GET /ws HTTP/1.1\r\nHost: api.example\r\n{asks}\r\n".encode())
        status, _, _ = await app.answer()
        assert status == 101
        assert await app.reader.readexactly(5) == b"hello"


async def test_a_reload_that_the_authority_does_not_cover_keeps_what_was(
    opened: Running, tls_upstream: Upstream
) -> None:
    text = opened.path.read_text(encoding="utf-8").replace("hosts: [api.example], ca", "hosts: [new.example], ca")
    opened.path.write_text(text, encoding="utf-8")
    later = opened.sidecar.apply(load_deployment(opened.path, environ={}).deployment)
    assert later == ("intercept",)
    assert "new.example" in str(told(opened, "intercept_failed")[0]["message"])
    async with intercepted(opened) as app:
        assert (await app.ask())[0] == 200


async def test_an_idle_connection_inside_ends_with_the_drain(opened: Running) -> None:
    async with intercepted(opened) as app:
        assert (await app.ask())[0] == 200
        cut = await opened.sidecar.drain(5)
        assert cut == 0
        assert await app.ended() == b""


async def test_a_tunnel_for_which_no_certificate_can_be_made_ends_at_once(opened: Running) -> None:
    def contexts(host: str) -> ssl.SSLContext:
        raise OSError("the disk is full")

    opened.sidecar.opener._contexts = contexts
    address = opened.sidecar.address
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(CONNECT.format("api.example:443", "").encode())
    inside = InterceptedConnection(reader, writer)
    assert await inside.ended() == b""
    writer.close()
    [line] = told(opened, "intercept_refused")
    assert "no certificate" in str(line["message"])
