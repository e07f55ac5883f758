"""CONNECT: a tunnel to allowed hosts and ports, tried again until it stands, and opaque from then on."""

from __future__ import annotations

import asyncio
import hashlib
import json

import pytest

from tests.behaviour.conftest import Make
from tests.support.client import Answer, Client
from tests.support.clock import ManualClock
from tests.support.plain import black_hole, listening, names
from tests.support.sidecar import Running
from tests.support.upstream import Upstream, free_port, refused_port, say

BIG = bytes(range(256)) * (64 << 10)
"""16 MiB."""


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends back what comes; after the end of it, a last word and its own end."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b" and goodbye")
    await writer.drain()


async def connect(client: Client, authority: str, *, ahead: bytes = b"") -> Answer:
    await client.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode() + ahead)
    return await client.one_head()


def rules(*ports: int, more: str = "") -> str:
    return f"tunnels: {{ports: {list(ports)}{more}}}"


def events(sidecar: Running, name: str) -> list[dict[str, object]]:
    lines = map(json.loads, sidecar.log.getvalue().splitlines())
    return [line for line in lines if line["event"] == name]


async def test_bytes_go_both_ways_and_a_half_close_stays_one(make: Make, upstream: Upstream) -> None:
    async with listening(echo) as port:
        sidecar = await make(upstream, top=rules(port))
        async with sidecar.client() as client:
            answer = await connect(client, f"127.0.0.1:{port}")
            assert answer.status == 200
            await client.send(b"ping")
            assert await client.source.exactly(4) == b"ping"
            client.end_sending()
            assert await client.everything() == (b" and goodbye", "closed")


async def test_the_200_has_no_framing_and_says_what_it_is(make: Make, upstream: Upstream) -> None:
    async with listening(echo) as port:
        sidecar = await make(upstream, top=rules(port))
        async with sidecar.client() as client:
            answer = await connect(client, f"127.0.0.1:{port}")
            assert "content-length" not in answer.headers
            assert "transfer-encoding" not in answer.headers
            assert answer.headers.get("sidecar") == "outcome=tunnelled, attempts=1"
            assert answer.headers.get("x-request-id")


async def test_what_the_app_sends_ahead_arrives_first(make: Make, upstream: Upstream) -> None:
    async with listening(echo) as port:
        sidecar = await make(upstream, top=rules(port))
        async with sidecar.client() as client:
            assert (await connect(client, f"127.0.0.1:{port}", ahead=b"early, ")).status == 200
            await client.send(b"late")
            assert await client.source.exactly(11) == b"early, late"


async def test_a_host_that_speaks_first_is_heard(make: Make, upstream: Upstream) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        await reader.read()

    async with listening(greet) as port:
        sidecar = await make(upstream, top=rules(port))
        async with sidecar.client() as client:
            await connect(client, f"127.0.0.1:{port}")
            assert await client.source.until(b"\r\n") == b"220 ready\r\n"


async def test_a_tunnel_is_counted_and_recorded_when_it_is_over(make: Make, upstream: Upstream) -> None:
    async with listening(echo) as port:
        sidecar = await make(upstream, top=rules(port))
        async with sidecar.client() as client:
            await connect(client, f"127.0.0.1:{port}")
            assert await sidecar.metric("sidecar_open_tunnels") == 1
            assert await sidecar.metric("sidecar_inflight_requests") == 1
            await client.send(b"ping")
            client.end_sending()
            await client.everything()
        record = await sidecar.record()
        assert (record.outcome, record.status, record.method) == ("tunnelled", 200, "CONNECT")
        assert (record.request_bytes, record.response_bytes) == (4, 16)
        assert (record.upstream, record.host) == ("unknown", f"127.0.0.1:{port}")
        assert await sidecar.metric("sidecar_tunnels_total") == 1
        assert await sidecar.metric("sidecar_open_tunnels") == 0
        assert await sidecar.metric("sidecar_inflight_requests") == 0
        labels = '{upstream="unknown",method="CONNECT",outcome="tunnelled"}'
        assert await sidecar.metric(f"sidecar_requests_total{labels}") == 1


async def test_the_first_tunnel_to_each_host_tells_once_how_to_get_retries(make: Make, upstream: Upstream) -> None:
    async with listening(echo) as port, listening(echo) as other:
        sidecar = await make(upstream, top=rules(port, other), lookup=names({"api.test": ["127.0.0.1"]}))
        for authority in (f"api.test:{port}", f"api.test:{port}", f"127.0.0.1:{other}"):
            async with sidecar.client() as client:
                assert (await connect(client, authority)).status == 200
        told = events(sidecar, "tunnel")
        assert [line["host"] for line in told] == [f"api.test:{port}", f"127.0.0.1:{other}"]
        assert "hosts: [api.test]" in str(told[0]["message"])


async def test_a_host_that_is_back_in_time_is_reached_by_a_later_attempt(
    make: Make, upstream: Upstream, clock: ManualClock
) -> None:
    port = free_port()
    sidecar = await make(
        upstream, top=rules(port), policies={"default": "attempts: 3\ntable: [{failure: any, then: retry}]"}
    )
    clock.hold()
    async with sidecar.client() as client:
        opening = asyncio.create_task(connect(client, f"127.0.0.1:{port}", ahead=b"ping"))
        await clock.sleeping()
        async with listening(echo, port=port):
            clock.release()
            answer = await opening
            assert answer.status == 200
            assert str(answer.headers.get("sidecar")).startswith("outcome=tunnelled, attempts=2, waited=")
            assert await client.source.exactly(4) == b"ping"
    record = await sidecar.record()
    assert [(each.status, each.failure) for each in record.attempts] == [(None, "refused"), (200, None)]


async def test_a_host_that_stays_away_is_502_after_all_attempts(make: Make, upstream: Upstream) -> None:
    port = refused_port()
    sidecar = await make(
        upstream, top=rules(port), policies={"default": "attempts: 3\ntable: [{failure: any, then: retry}]"}
    )
    async with sidecar.client() as client:
        answer = await client.ask("CONNECT", f"127.0.0.1:{port}", host="x")
        assert (answer.status, answer.json()["code"], answer.json()["attempts"]) == (502, "refused", 3)
        assert await client.ended() == "closed"
    assert (await sidecar.record()).outcome == "failed"


@pytest.mark.parametrize("known", [{}, {"gone.test": []}], ids=["unknown", "empty"])
async def test_a_name_that_resolves_to_nothing_is_502(
    make: Make, upstream: Upstream, known: dict[str, list[str]]
) -> None:
    sidecar = await make(upstream, policies={"default": "attempts: 1"}, lookup=names(known))
    async with sidecar.client() as client:
        answer = await client.ask("CONNECT", "gone.test:443", host="x")
        assert (answer.status, answer.json()["code"]) == (502, "resolve")
        assert "error=dns_error" in str(answer.headers.get("proxy-status"))


async def test_a_dead_first_address_costs_a_quarter_of_a_second(make: Make, upstream: Upstream) -> None:
    """RFC 8305: the second address is tried a quarter of a second later, within the same attempt."""
    async with listening(echo) as port:
        with black_hole("127.0.0.2", port):
            sidecar = await make(
                upstream, quick="", top=rules(port), lookup=names({"two.test": ["127.0.0.2", "127.0.0.1"]})
            )
            for _ in range(3):
                async with sidecar.client() as client:
                    assert (await connect(client, f"two.test:{port}")).status == 200
            await sidecar.record(3)
    seconds = min(record.attempts[0].duration_seconds for record in sidecar.records)
    assert 0.2 < seconds < 0.5  # a busy machine is late; the limit of a connection attempt is seconds
    assert all(len(record.attempts) == 1 for record in sidecar.records)


async def test_an_address_that_refuses_costs_nothing(make: Make, upstream: Upstream) -> None:
    async with listening(echo) as port:
        lookup = names({"two.test": ["127.0.0.3", "127.0.0.1"]})
        sidecar = await make(upstream, top=rules(port), lookup=lookup)
        for _ in range(3):
            async with sidecar.client() as client:
                assert (await connect(client, f"two.test:{port}")).status == 200
        await sidecar.record(3)
    assert all(len(record.attempts) == 1 for record in sidecar.records)
    assert min(record.attempts[0].duration_seconds for record in sidecar.records) < 0.2


REFUSED = [
    pytest.param("127.0.0.1:22", 403, id="port"),
    pytest.param("127.0.0.1:6379", 403, id="another-port"),
    pytest.param("example.com", 400, id="no-port"),
    pytest.param("example.com:0", 400, id="port-0"),
    pytest.param("example.com:99999", 400, id="port-too-large"),
    pytest.param("example.com:https", 400, id="port-by-name"),
    pytest.param("http://example.com:443", 400, id="url"),
    pytest.param("example.com:443/x", 400, id="path"),
    pytest.param("me:secret@example.com:443", 400, id="credentials"),
    pytest.param("::1:443", 400, id="bare-ipv6"),
    pytest.param("[::1:443", 400, id="open-bracket"),
    pytest.param("[::1]:22", 403, id="ipv6-port"),
    pytest.param("169.254.169.254:443", 403, id="metadata"),
    pytest.param("[::ffff:169.254.169.254]:443", 403, id="mapped-metadata"),
    pytest.param("[fe80::1]:443", 403, id="link-local"),
    pytest.param("[fd00:ec2::254]:443", 403, id="metadata-ipv6"),
    pytest.param("0xa9fea9fe:443", 403, id="metadata-hexadecimal"),
]


@pytest.mark.parametrize(("target", "status"), REFUSED)
async def test_a_target_that_may_not_be_is_refused_and_the_connection_ends(
    make: Make, upstream: Upstream, target: str, status: int
) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        behind = b"GET /api/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
        await client.send(f"CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + behind)
        answer = await client.answer()
        assert answer.status == status
        assert "443" not in answer.json()["detail"]  # no inventory of what is allowed; an id may hold these digits
        assert await client.ended() == "closed"
    assert upstream.requests == []
    assert "secret" not in sidecar.log.getvalue()
    assert await sidecar.metric("sidecar_tunnels_total") == 0


async def test_our_own_ports_are_no_tunnel(make: Make, upstream: Upstream) -> None:
    """Whatever they are called; the ports are known only once they are bound, so the rule has to be told then."""
    sidecar = await make(upstream, top="tunnels: {ports: [1]}", policies={"default": "attempts: 1"})
    listener, admin = sidecar.sidecar.address.port, sidecar.sidecar.admin_address.port
    text = sidecar.path.read_text().replace("[1]", f"[{listener}, {admin}]")
    again = await make(upstream, text=text, policies={"default": "attempts: 1"})
    own = {again.sidecar.address.port, again.sidecar.admin_address.port}
    assert not own & {listener, admin}
    again.sidecar._pools.guard.own_ports.update((listener, admin))
    for host in ("127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]", "0.0.0.0"):  # noqa: S104 - dialled
        for port in (listener, admin):
            async with again.client() as client:
                answer = await client.ask("CONNECT", f"{host}:{port}", host="x")
                assert answer.status in (403, 508), host


async def test_only_named_hosts_are_tunnelled_to_where_they_are_named(make: Make, upstream: Upstream) -> None:
    async with listening(echo) as port:
        lookup = names({name: ["127.0.0.1"] for name in ("a.test", "b.test", "x.c.test", "c.test")})
        top = rules(port, more=', hosts: [a.test, "*.c.test"]')
        sidecar = await make(upstream, top=top, lookup=lookup)
        found = {}
        for host in ("a.test", "A.test", "x.c.test", "b.test", "c.test"):
            async with sidecar.client() as client:
                await client.send(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                found[host] = (await client.one_head()).status
        assert found == {"a.test": 200, "A.test": 200, "x.c.test": 200, "b.test": 403, "c.test": 403}


async def test_an_empty_list_of_hosts_means_no_tunnels(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, top="tunnels: {hosts: []}")
    assert (await sidecar.ask("CONNECT", "api.example:443", host="x")).status == 403


async def test_unknown_hosts_that_are_refused_get_no_tunnel_either(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, top="unknown_hosts: refuse")
    assert (await sidecar.ask("CONNECT", "elsewhere.example:443", host="x")).status == 403


async def test_the_hosts_of_an_https_upstream_lead_to_its_origin(
    make: Make, tls_upstream: Upstream, authority_file: str
) -> None:
    sidecar = await make(
        tls_upstream, scheme="https", more=f"    ca_file: {authority_file}", top="unknown_hosts: refuse", lookup=None
    )
    async with sidecar.client() as client:
        assert (await connect(client, "api.example:443")).status == 200
    record = await sidecar.record()
    assert (record.upstream, record.policy) == ("api", "test")


@pytest.mark.parametrize(
    ("fields", "body"),
    [(b"Content-Length: 5\r\n", b"hello"), (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n")],
    ids=["sized", "chunked"],
)
async def test_a_connect_with_a_body_is_refused(make: Make, upstream: Upstream, fields: bytes, body: bytes) -> None:
    async with listening(echo) as port:
        sidecar = await make(upstream, top=rules(port))
        async with sidecar.client() as client:
            head = b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n%b\r\n" % (port, fields)
            await client.send(head + body)
            assert (await client.answer()).status == 400
            assert await client.ended() == "closed"


async def test_garbage_behind_the_head_of_a_refused_connect_is_not_a_request(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(b"CONNECT 127.0.0.1:25 HTTP/1.1\r\nHost: x\r\n\r\n" + b"\x16\x03\x01\x00\xff" * 40)
        assert (await client.answer()).status == 403
        assert await client.ended() == "closed"
    assert len(sidecar.records) == 1


async def test_the_preface_of_http_2_is_refused(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert (await client.answer()).status in (400, 505)
        assert await client.ended() == "closed"


async def test_a_tunnel_without_a_byte_ends_after_its_idle_time(make: Make, upstream: Upstream) -> None:
    async with listening(echo) as port:
        sidecar = await make(upstream, top=rules(port, more=", idle: 200ms"))
        async with sidecar.client() as client:
            await connect(client, f"127.0.0.1:{port}")
            await client.send(b"ping")
            assert await client.source.exactly(4) == b"ping"
            assert await client.ended() in ("reset", "closed")
        record = await sidecar.record()
        assert record.outcome == "tunnelled"
        assert 0.2 <= record.duration_seconds < 2


async def test_a_reset_stays_a_reset(make: Make, upstream: Upstream) -> None:
    async def slam(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4)
        writer.transport.abort()

    async with listening(slam) as port:
        sidecar = await make(upstream, top=rules(port))
        async with sidecar.client() as client:
            await connect(client, f"127.0.0.1:{port}")
            await client.send(b"ping" + bytes(1 << 20))
            assert await client.ended() == "reset"
        assert (await sidecar.record()).outcome == "tunnelled"


async def test_an_app_that_leaves_takes_its_tunnel_along(make: Make, upstream: Upstream) -> None:
    gone = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            gone.set()

    async with listening(wait) as port:
        sidecar = await make(upstream, top=rules(port))
        async with sidecar.client() as client:
            await connect(client, f"127.0.0.1:{port}")
            client.reset()
        async with asyncio.timeout(60):
            await gone.wait()
        assert (await sidecar.record()).outcome == "tunnelled"
        assert sidecar.sidecar.listener.connections == 0


async def test_a_host_that_does_not_read_slows_the_app_down_and_nothing_piles_up(
    make: Make, upstream: Upstream
) -> None:
    reading = asyncio.Event()
    digest = hashlib.sha256()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reading.wait()
        while data := await reader.read(65536):
            digest.update(data)
        writer.write(digest.digest())
        await writer.drain()

    async with listening(slow) as port:
        sidecar = await make(upstream, top=rules(port))
        async with sidecar.client() as client:
            await connect(client, f"127.0.0.1:{port}")
            app = next(iter(sidecar.sidecar.listener._connections))
            transport = app.transport
            assert transport is not None
            sending = asyncio.create_task(client.send(BIG))
            await sidecar.until(lambda: not transport.is_reading())
            relay = app.current.relay  # type: ignore[union-attr]
            assert relay.upstream.transport.get_write_buffer_size() < 1 << 20
            reading.set()
            await sending
            client.end_sending()
            assert await client.everything() == (hashlib.sha256(BIG).digest(), "closed")


async def test_an_app_that_does_not_read_slows_the_host_down(make: Make, upstream: Upstream) -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BIG)
        await writer.drain()

    async with listening(pour) as port:
        sidecar = await make(upstream, top=rules(port))
        async with sidecar.client(receive_buffer_bytes=4096) as client:
            await connect(client, f"127.0.0.1:{port}")
            app = next(iter(sidecar.sidecar.listener._connections))
            relay = app.current.relay  # type: ignore[union-attr]
            await sidecar.until(lambda: not relay.upstream.transport.is_reading())
            assert app.transport is not None
            assert app.transport.get_write_buffer_size() < 1 << 20
            data, how = await client.everything()
            assert (hashlib.sha256(data).digest(), how) == (hashlib.sha256(BIG).digest(), "closed")


async def test_a_tunnel_behind_an_unread_answer_does_not_pile_up_either(make: Make, upstream: Upstream) -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BIG)
        await writer.drain()

    async with listening(pour) as port:
        sidecar = await make(upstream, top=rules(port))
        upstream.script(say(200, bytes(8 << 20)))
        async with sidecar.client(receive_buffer_bytes=4096) as client:
            ahead = f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n"
            await client.send(f"GET /api/ HTTP/1.1\r\nHost: x\r\n\r\n{ahead}".encode())
            assert len((await client.answer()).body) == 8 << 20
            assert (await client.one_head()).status == 200
            app = next(iter(sidecar.sidecar.listener._connections))
            relay = app.current.relay  # type: ignore[union-attr]
            await sidecar.until(lambda: not relay.upstream.transport.is_reading())
            assert app.transport is not None
            assert app.transport.get_write_buffer_size() < 1 << 20
            data, _ = await client.everything()
            assert len(data) == len(BIG)


async def test_tunnels_hold_a_shutdown_no_longer_than_its_limit(make: Make, upstream: Upstream) -> None:
    async with listening(echo) as port:
        sidecar = await make(upstream, top=rules(port))
        async with sidecar.client() as client:
            await connect(client, f"127.0.0.1:{port}")
            assert await sidecar.sidecar.drain(0.05) == 1
            assert await client.ended() in ("reset", "closed")
        assert (await sidecar.record()).outcome == "tunnelled"


async def test_an_app_that_leaves_while_its_tunnel_is_tried_is_told_so(
    make: Make, upstream: Upstream, clock: ManualClock
) -> None:
    port = refused_port()
    sidecar = await make(upstream, top=rules(port), policies={"default": "table: [{failure: any, then: retry}]"})
    clock.hold()
    async with sidecar.client() as client:
        await client.send(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await clock.sleeping()
        client.reset()
    assert (await sidecar.record()).outcome == "client_gone"


async def test_http_urls_of_an_https_upstream_go_out_as_verified_https(
    make: Make, tls_upstream: Upstream, authority_file: str
) -> None:
    """Origination: the app writes ``http://``, the network sees TLS or nothing at all."""
    sidecar = await make(tls_upstream, scheme="https", more=f"    ca_file: {authority_file}")
    for target in ("http://api.example/x", "http://API.example:80/x", "http://api.example:443/x"):
        assert (await sidecar.ask("GET", target, host="api.example")).status == 200
    assert {request.headers.get("host") for request in tls_upstream.requests} == {f"localhost:{tls_upstream.port}"}
    untrusted = await make(tls_upstream, scheme="https", policies={"test": "attempts: 1"})
    assert (await untrusted.ask("GET", "http://api.example/x", host="api.example")).status == 502
    assert len(tls_upstream.requests) == 3


async def test_https_urls_in_absolute_form_go_out_verified(
    make: Make, tls_upstream: Upstream, authority_file: str
) -> None:
    """Some clients send ``GET https://…`` to a proxy: it is never called in plain text."""
    sidecar = await make(tls_upstream, scheme="https", more=f"    ca_file: {authority_file}")
    assert (await sidecar.ask("GET", "https://api.example/x", host="api.example")).status == 200
    untrusted = await make(tls_upstream, scheme="https", policies={"test": "attempts: 1"})
    answer = await untrusted.ask("GET", "https://api.example/x", host="api.example")
    assert answer.status == 502
    assert "tls_certificate_error" in str(answer.headers.get("proxy-status"))
    assert len(tls_upstream.requests) == 1
