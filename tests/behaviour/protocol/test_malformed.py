"""Malformed requests: 400 (or what else the RFC allows), the connection closed, the upstream none the wiser.

Row numbers are those of the threat checklist: framing 1-25, lines and fields 26-39, host and target 40-46.
Every case is followed by a well-formed request on the same connection, which must not be served: whoever
cannot tell where a request ends must not guess where the next one begins.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

import pytest

from tests.behaviour.conftest import Make
from tests.support.client import Client, request_bytes
from tests.support.sidecar import Running
from tests.support.upstream import Upstream, say
from tests.support.wire import Gone

H = b"Host: sidecar.test\r\n"
NEXT = b"GET /api/smuggled HTTP/1.1\r\n" + H + b"\r\n"


@dataclass(frozen=True)
class Case:
    row: str
    raw: bytes
    status: int = 400

    def __str__(self) -> str:
        return f"row{self.row}"


def post(fields: bytes, body: bytes = b"") -> bytes:
    return b"POST /api/x HTTP/1.1\r\n" + H + fields + b"\r\n" + body


def get(fields: bytes = b"", line: bytes = b"GET /api/x HTTP/1.1\r\n", host: bytes = H) -> bytes:
    return line + host + fields + b"\r\n"


OTHERWISE = {"8-identity": 501, "8-chunke": 501, "8-gzip": 501, "34-HTTP/2.0": 505, "34-HTTP/0.9": 505}
"""What is not 400."""


def case(row: str, raw: bytes) -> Case:
    return Case(row, raw, OTHERWISE.get(row, 400))


CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"

FRAMING = [
    case("1-length-and-chunked", post(b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\nX")),
    case("1-chunked-and-length", post(b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", b"0\r\n\r\nX")),
    case("2", post(b"Content-Length: 5\r\nContent-Length: 10\r\n", b"hello")),
    case("2-list", post(b"Content-Length: 5, 10\r\n", b"hello")),
    *[
        case(f"4-{index}", post(b"Content-Length: " + value + b"\r\n", b"hello"))
        for index, value in enumerate(
            [b"+5", b"-5", b"0x5", b"5_0", b"1e2", b"5 5", "５".encode(), b"5.0", b"five", b'"5"', b"5;", b"5\x0b"]
        )
    ],
    case("5", post(b"Content-Length:\r\n", b"hello")),
    case("5-then-43", post(b"Content-Length:\r\nContent-Length: 43\r\n", NEXT)),
    case("6", post(b"Content-Length: 99999999999999999999\r\n", b"hello")),
    case("6-longer", post(b"Content-Length: " + b"9" * 400 + b"\r\n", b"hello")),
    *[
        case(f"8-{value.decode()}", post(b"Transfer-Encoding: " + value + b"\r\n", CHUNKS))
        for value in (b"xchunked", b"identity", b"chunke", b'"chunked"', b"chunked;x=1", b"gzip")
    ],
    case("9-not-last", post(b"Transfer-Encoding: chunked, identity\r\n", CHUNKS)),
    case("9-twice", post(b"Transfer-Encoding: chunked, chunked\r\n", CHUNKS)),
    case("9-two-lines", post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", CHUNKS)),
    case("9-two-kinds", post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", CHUNKS)),
    case("9-gzip-first", post(b"Transfer-Encoding: gzip, chunked\r\n", CHUNKS)),
    case("10-empty", post(b"Transfer-Encoding:\r\n", b"hello")),
    case("10-empty-with-length", post(b"Transfer-Encoding:\r\nContent-Length: 5\r\n", b"hello")),
    case("10-leading-comma", post(b"Transfer-Encoding: ,chunked\r\n", CHUNKS)),
    case("10-trailing-comma", post(b"Transfer-Encoding: chunked,\r\n", CHUNKS)),
    *[
        case(f"11-before-{byte:02x}", post(b"Transfer-Encoding:" + bytes([byte]) + b"chunked\r\n", CHUNKS))
        for byte in (0x0B, 0x0C, 0x00, 0xA0, 0x85, 0xFF)
    ],
    *[
        case(f"11-after-{byte:02x}", post(b"Transfer-Encoding: chunked" + bytes([byte]) + b"\r\n", CHUNKS))
        for byte in (0x0B, 0x0C, 0x00, 0xA0, 0x85, 0xFF)
    ],
    case("13", b"POST /api/x HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS),
    case("15-coding", post(b"Transfer-Encoding : chunked\r\n", CHUNKS)),
    case("15-length", post(b"Content-Length : 5\r\n", b"hello")),
    case("15-tab", post(b"Content-Length\t: 5\r\n", b"hello")),
]

LINES = [
    case("26-request-line", b"GET /api/x HTTP/1.1\n" + H + b"\r\n"),
    case("26-field", b"GET /api/x HTTP/1.1\r\nHost: sidecar.test\nX-A: 1\r\n\r\n"),
    case("26-all", b"GET /api/x HTTP/1.1\nHost: sidecar.test\n\n"),
    case("26-end", b"GET /api/x HTTP/1.1\r\nHost: sidecar.test\r\n\n"),
    case("27", get(b"X: a\rSet-Cookie: b\r\n")),
    case("27-request-line", get(line=b"GET /api/x\rHTTP/1.1\r\n")),
    *[
        case(f"28-{byte:02x}", get(b"X: a" + bytes([byte]) + b"b\r\n"))
        for byte in [*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F]
    ],
    case("29", get(b"X: a\r\n b\r\n")),
    case("29-tab", get(b"X: a\r\n\tb\r\n")),
    case("29-host", get(host=b"Host:\r\n sidecar.test\r\n")),
    case("29-name", post(b"Transfer-\r\nEncoding: chunked\r\n", CHUNKS)),
    case("29-smuggled-length", post(b"X: a\r\n Content-Length: 5\r\n", b"hello")),
    case("30-space", b"GET /api/x HTTP/1.1\r\n " + H + b"\r\n"),
    case("30-tab", b"GET /api/x HTTP/1.1\r\n\tX: 1\r\n" + H + b"\r\n"),
    case("31-no-name", get(b": value\r\n")),
    case("31-no-colon", get(b"novalue\r\n")),
    case("31-brackets", get(b"X-A[]: 1\r\n")),
    case("31-80", get(b"X-\x80: 1\r\n")),
    case("31-paren", get(b"X(A): 1\r\n")),
    case("31-space", get(b"X A: 1\r\n")),
    case("31-nul", get(b"X\x00A: 1\r\n")),
    case("31-at", get(b"X@A: 1\r\n")),
    case("33-two-spaces", get(line=b"GET /api/x  HTTP/1.1\r\n")),
    case("33-two-spaces-before", get(line=b"GET  /api/x HTTP/1.1\r\n")),
    case("33-tab", get(line=b"GET\t/api/x HTTP/1.1\r\n")),
    case("33-tab-after", get(line=b"GET /api/x\tHTTP/1.1\r\n")),
    case("33-leading", get(line=b" GET /api/x HTTP/1.1\r\n")),
    case("33-trailing", get(line=b"GET /api/x HTTP/1.1 \r\n")),
    *[
        case(f"34-{version.decode()}", get(line=b"GET /api/x " + version + b"\r\n"))
        for version in (
            b"HTTP/2.0",
            b"HTTP/9.9",
            b"HTTP/1",
            b"HTTP/01.1",
            b"http/1.1",
            b"HTTP/1.1x",
            b"HTTP/1.10",
            b"HTTP/0.9",
            b"HTP/1.1",
            b"HTTP/1.",
            b"HTTP/-1.1",
        )
    ],
    case("35-no-version", b"GET /api/x\r\n\r\n"),
    case("35-garbage", bytes(range(128, 256)) + b"\r\n\r\n"),
    case("35-ssh", b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
    case("35-tls", bytes.fromhex("1603010200010001fc0303") + bytes(200) + b"\r\n\r\n"),
    case("35-h2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    case("36-not-a-token", get(line=b'G=":<>(e),[T];?" /api/x HTTP/1.1\r\n')),
    case("36-empty", get(line=b" /api/x HTTP/1.1\r\n")),
    case("36-at", get(line=b"G@T /api/x HTTP/1.1\r\n")),
    case("38-nul", get(line=b"GET /api/\x00a HTTP/1.1\r\n")),
    case("38-raw-utf8", get(line=b"GET /api/caf\xc3\xa9 HTTP/1.1\r\n")),
    case("38-blank", get(line=b"GET /api/a b HTTP/1.1\r\n")),
    case("38-fragment", get(line=b"GET /api/a#frag HTTP/1.1\r\n")),
    case("38-del", get(line=b"GET /api/a\x7fb HTTP/1.1\r\n")),
    case("38-ff", get(line=b"GET /api/a\xffb HTTP/1.1\r\n")),
]

HOSTS = [
    case("40", b"GET /api/x HTTP/1.1\r\nX-A: 1\r\n\r\n"),
    case("41", get(b"Host: other\r\n")),
    case("41-equal", get(H)),
    *[
        case(f"42-{index}", get(host=b"Host: " + value + b"\r\n"))
        for index, value in enumerate(
            [b"", b"u:p@h", b"u@h", b"h/path", b"a,b", b"h:99999", b"h:x", b"[::1", b"h\tx", b"h x", b"h?q", b"h#f"]
        )
    ],
    case("44-star", get(line=b"GET * HTTP/1.1\r\n")),
    case("44-authority", get(line=b"GET host:80 HTTP/1.1\r\n")),
    case("44-relative", get(line=b"GET index.html HTTP/1.1\r\n")),
    *[
        case(f"45-{index}", get(line=b"GET " + target + b" HTTP/1.1\r\n"))
        for index, target in enumerate(
            [b"ftp://x/", b"gopher://x/", b"file:///etc/passwd", b"unix:/s", b"http:/x", b"http://", b"http:///x"]
        )
    ],
    *[
        case(f"45-port-{index}", get(line=b"GET " + target + b" HTTP/1.1\r\n"))
        for index, target in enumerate([b"http://h:99999/", b"http://h:x/", b"http://[::1/", b"http://a,b/"])
    ],
    *[
        case(f"59-{index}", b"CONNECT " + target + b" HTTP/1.1\r\n" + H + b"\r\n")
        for index, target in enumerate(
            [b"host", b"host:0", b"host:99999", b"http://host:443", b"host:443/x", b"u@host:443", b"/x", b"*"]
        )
    ],
]

# In these the head is fine and the body is not: the upstream may have seen a part, never a whole.
BODIES = [
    *[
        case(f"16-{index}", post(b"Transfer-Encoding: chunked\r\n", size + b"\r\nhello\r\n0\r\n\r\n"))
        for index, size in enumerate([b"-1", b"+5", b"0x5", b"5_0", b" 5", b"", b"G", b"F" * 17, b"5 5"])
    ],
    case("18-lf", post(b"Transfer-Encoding: chunked\r\n", b"5\nhello\r\n0\r\n\r\n")),
    case("18-cr-x", post(b"Transfer-Encoding: chunked\r\n", b"5\rXhello\r\n0\r\n\r\n")),
    case("18-cr-in-extension", post(b"Transfer-Encoding: chunked\r\n", b"5;a\rb\r\nhello\r\n0\r\n\r\n")),
    case("18-lf-in-extension", post(b"Transfer-Encoding: chunked\r\n", b"5;a\nb\r\nhello\r\n0\r\n\r\n")),
    case("18-lf-at-the-end", post(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\n\n")),
    case("19-longer", post(b"Transfer-Encoding: chunked\r\n", b"4\r\nhello\r\n0\r\n\r\n")),
    case("19-shorter", post(b"Transfer-Encoding: chunked\r\n", b"6\r\nhello\r\n0\r\n\r\n")),
    case("19-not-crlf", post(b"Transfer-Encoding: chunked\r\n", b"5\r\nhelloXX0\r\n\r\n")),
    case("20-extension", post(b"Transfer-Encoding: chunked\r\n", b"5;" + b"a" * 100_000 + b"\r\nhello\r\n0\r\n\r\n")),
    case(
        "22-trailers",
        post(b"Transfer-Encoding: chunked\r\n", b"0\r\n" + b"X-T: 1\r\n" * 10_000 + b"\r\n"),
    ),
    case("22-bad-trailer", post(b"Transfer-Encoding: chunked\r\n", b"0\r\nX T: 1\r\n\r\n")),
]


async def play(sidecar: Running, raw: bytes) -> tuple[bytes, str]:
    async with sidecar.client() as client:
        sending = asyncio.create_task(client.channel.send(raw))
        try:
            return await client.everything(patience_seconds=3)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


def verify(case: Case, data: bytes) -> None:
    line, _, rest = data.partition(b"\r\n")
    version, status, _ = line.split(b" ", 2)
    assert version in (b"HTTP/1.1", b"HTTP/1.0")
    assert int(status) == case.status, line
    assert not re.search(rb"HTTP/1\.[01] \d\d\d ", rest), "the request behind it was served"
    assert b"Traceback" not in data


@pytest.mark.parametrize("case", [*FRAMING, *LINES, *HOSTS], ids=str)
async def test_it_is_refused_and_never_forwarded(make: Make, upstream: Upstream, case: Case) -> None:
    sidecar = await make(upstream)
    data, _ = await play(sidecar, case.raw + NEXT)
    verify(case, data)
    assert upstream.connections == []
    assert "Traceback" not in sidecar.log.getvalue()


@pytest.mark.parametrize("case", BODIES, ids=str)
async def test_a_broken_body_is_refused_and_never_whole(make: Make, upstream: Upstream, case: Case) -> None:
    sidecar = await make(upstream)
    data, _ = await play(sidecar, case.raw + NEXT)
    verify(case, data)
    await upstream.until(lambda: upstream.open_connections == 0)
    assert not any(request.complete for request in upstream.requests)
    assert len(upstream.requests) <= 1


@pytest.mark.parametrize(
    "raw",
    [
        post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"),
        post(b"Content-Length: 5, 5\r\n", b"hello"),
        post(b"Content-Length: 005\r\n", b"hello"),
        post(b"TRANSFER-ENCODING: CHUNKED\r\n", CHUNKS),
        post(b"Transfer-Encoding: chunked\r\n", b"5 \r\nhello\r\n0\r\n\r\n"),
        post(b"Transfer-Encoding: chunked\r\n", b"5;a=b\r\nhello\r\n0;c\r\n\r\n"),
        post(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\nContent-Length: 50\r\nHost: evil\r\n\r\n"),
        post(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\nAuthorization: x\r\n\r\n"),
        b"\r\n" + post(b"Content-Length: 5\r\n", b"hello"),
        b"POST /api/x HTTP/1.2\r\n" + H + b"Content-Length: 5\r\n\r\nhello",
        b"POST /api/x HTTP/1.1\r\nhOsT:sidecar.test\r\nCONTENT-length:5  \r\n\r\nhello",
    ],
)
async def test_what_may_be_mended_arrives_clean_or_is_refused(make: Make, upstream: Upstream, raw: bytes) -> None:
    """Rows 3, 7, 14, 17, 21, 39: accepted, it goes out once and unambiguous; the upstream's reader is strict."""
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(raw)
        answer = await client.answer("POST")
        assert answer.status in (200, 400, 505)
        if answer.status != 200:
            assert upstream.requests == [] or not upstream.requests[0].complete
            return
    [request] = upstream.requests
    assert bytes(request.body) == b"hello"
    assert not {"authorization", "evil"} & {name.lower() for name in request.headers.names}
    assert not {"authorization", "host", "content-length"} & {name.lower() for name in request.trailers.names}
    assert len(request.headers.all("Content-Length")) + len(request.headers.all("Transfer-Encoding")) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
async def test_the_body_of_a_method_without_one_is_never_the_next_request(
    make: Make, upstream: Upstream, method: str
) -> None:
    """Rows 24 and 25."""
    sidecar = await make(upstream)
    body = request_bytes("GET", "/api/smuggled")
    async with sidecar.client() as client:
        await client.send(request_bytes(method, "/api/x", body=body) + request_bytes("GET", "/api/next"))
        first = await client.answer(method)
        assert first.status in (200, 400)
        if first.status == 200:
            assert (await client.answer()).status == 200
    assert [request.target for request in upstream.requests] in (["/x", "/next"], ["/x"], [])
    if upstream.requests:
        assert bytes(upstream.requests[0].body) == body


async def test_a_chunked_body_that_never_ends_is_never_whole(make: Make, upstream: Upstream) -> None:
    """Row 23."""
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(post(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n"))
        data, _ = await client.everything()
        assert data == b"" or data.startswith((b"HTTP/1.1 408", b"HTTP/1.1 400", b"HTTP/1.1 504", b"HTTP/1.1 502"))
    await upstream.until(lambda: upstream.open_connections == 0)
    assert not any(request.complete for request in upstream.requests)


async def test_a_million_tiny_chunks_are_taken_or_refused(make: Make, upstream: Upstream) -> None:
    """Row 20, scaled down to what a test may cost: memory is bounded by the policy either way."""
    sidecar = await make(upstream, "attempt: {connect: 1s, head: 10s, idle: 10s}", quick="")
    async with sidecar.client() as client:
        answer = await client.ask("PUT", "/api/x", chunks=[b"x"] * 50_000)
        assert answer.status in (200, 400, 413)
    if answer.status == 200:
        assert bytes(upstream.requests[0].body) == b"x" * 50_000


async def test_a_megabyte_of_leading_newlines_is_cut(make: Make, upstream: Upstream) -> None:
    """Row 39."""
    sidecar = await make(upstream)
    data, _ = await play(sidecar, b"\r\n" * 500_000 + NEXT)
    assert data == b"" or data.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
    assert upstream.requests == []


async def test_options_star_is_answered_here(make: Make, upstream: Upstream) -> None:
    """Row 44."""
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        answer = await client.ask("OPTIONS", "*")
        assert (answer.status, answer.body) == (204, b"")
        assert "GET" in str(answer.headers.get("Allow"))
        assert "Content-Length" not in answer.headers
        assert str(answer.headers.get("Sidecar")).startswith("outcome=ok")
        assert (await client.ask("GET", "/api/x")).status == 200
    assert [request.method for request in upstream.requests] == ["GET"]


@pytest.mark.parametrize("in_pieces", [False, True], ids=["whole", "in-pieces"])
async def test_a_later_minor_version_is_served_as_1_1(make: Make, upstream: Upstream, in_pieces: bool) -> None:
    """RFC 9110 section 2.5; the connection stays."""
    sidecar = await make(upstream)
    raw = b"POST /api/x HTTP/1.2\r\n" + H + b"Content-Length: 5\r\n\r\nhello"
    async with sidecar.client() as client:
        for piece in [raw[at : at + 1] for at in range(len(raw))] if in_pieces else [raw]:
            await client.send(piece)
        assert (await client.answer("POST")).status == 200
        assert (await client.ask("GET", "/api/x")).status == 200
    assert upstream.requests[0].version == "HTTP/1.1"


@pytest.mark.parametrize("name", ["Transfer_Encoding", "transfer_encoding", "Content_Length", "Keep_Alive"])
async def test_a_look_alike_of_a_framing_field_goes_no_further(make: Make, upstream: Upstream, name: str) -> None:
    """Row 12: a server that makes variables of field names takes the one for the other."""
    sidecar = await make(upstream)
    upstream.script(say(200, b"hello", headers=[(name, "chunked"), ("X_Other", "1")]))
    answer = await sidecar.ask("POST", "/api/x", [(name, "chunked"), ("X_Other", "1")], body=b"hello")
    assert (answer.status, answer.body) == (200, b"hello")
    [request] = upstream.requests
    for fields in (request.headers, answer.headers):
        assert name.lower() not in {each.lower() for each in fields.names}
        assert fields.get("X_Other") == "1"


@pytest.mark.parametrize("method", ["TRACE", "TRACK"])
async def test_trace_echoes_no_secret(make: Make, upstream: Upstream, method: str) -> None:
    """Row 55."""
    sidecar = await make(upstream)
    answer = await sidecar.ask(method, "/api/x", [("Authorization", "Bearer hush"), ("Cookie", "hush=1")])
    assert answer.status in (200, 405, 501)
    assert b"hush" not in answer.body


async def test_credentials_in_a_target_are_refused_or_dropped(make: Make, upstream: Upstream) -> None:
    """Row 46."""
    sidecar = await make(upstream)
    answer = await sidecar.ask("GET", "http://user:hush@api.example/x", host="api.example")
    assert answer.status in (200, 400)
    assert "hush" not in sidecar.log.getvalue()
    assert all(b"hush" not in request.head for request in upstream.requests)


async def test_a_post_without_framing_has_no_body(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(post(b""))
        assert (await client.answer("POST")).status == 200
    assert bytes(upstream.requests[0].body) == b""
    assert upstream.requests[0].headers.get("Content-Length") in (None, "0")


async def test_broken_requests_leave_the_others_alone(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as good:
        assert (await good.ask("GET", "/api/x")).status == 200
        for case in FRAMING[:5]:
            await play(sidecar, case.raw)
        assert (await good.ask("GET", "/api/x")).status == 200


async def test_a_thousand_malformed_requests_leave_a_short_log(make: Make, upstream: Upstream) -> None:
    """Row 85, a tenth of it."""
    sidecar = await make(upstream)
    for _ in range(1000):
        await play(sidecar, b"GET /api/x HTTP/1.1\r\nno colon\r\n\r\n")
    assert len(sidecar.log.getvalue().splitlines()) < 150
    assert (await sidecar.ask("GET", "/api/x")).status == 200


async def test_a_half_sent_head_is_nothing(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(b"GET /api/x HTTP/1.1\r\nHost: si")
        client.end_sending()
        await _answered_or_closed(client)
    assert upstream.connections == []


async def _answered_or_closed(client: Client) -> None:
    try:
        assert (await client.answer()).status in (400, 408)
    except Gone:
        return
