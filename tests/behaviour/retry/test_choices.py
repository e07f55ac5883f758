"""Where the standard leaves a choice, the one that is made: inputs of the fault matrix, and exactly what comes of them.

Other tests allow whatever is safe; these hold the rows of ``docs/faults.md`` to the letter.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass

import pytest

from tests.behaviour.conftest import Make
from tests.behaviour.protocol.test_malformed import CHUNKS, H, get, post
from tests.core.making import short
from tests.support.upstream import Connection, Upstream, say, say_raw
from tests.support.wire import Gone

OURS = {"host", "via", "x-request-id", "x-correlation-id"}


@dataclass(frozen=True)
class Choice:
    """One request, and what comes of it. Without a target the upstream sees nothing."""

    row: str
    raw: bytes
    status: int
    target: str = ""
    body: bytes = b""
    fields: tuple[tuple[bytes, bytes], ...] = ()
    """What the upstream sees beside Host, Via and the ids."""
    closes: bool = False

    def __str__(self) -> str:
        return f"row{self.row}"


def hello(name: bytes, value: bytes) -> tuple[tuple[bytes, bytes], ...]:
    return ((name, value),)


CHUNKED = hello(b"Transfer-Encoding", b"chunked")
SIZED = hello(b"Content-Length", b"5")
TE = b"Transfer-Encoding: chunked\r\n"

REFUSED = [
    Choice("3", post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"), 400),
    Choice("3-list", post(b"Content-Length: 5, 5\r\n", b"hello"), 400),
    Choice("7", post(b"Content-Length: 005\r\n", b"hello"), 400),
    Choice("17-blank", post(TE, b"5 \r\nhello\r\n0\r\n\r\n"), 400),
    Choice("17-empty", post(TE, b"5;\r\nhello\r\n0\r\n\r\n"), 400),
    Choice("34-2.0", get(line=b"GET /api/x HTTP/2.0\r\n"), 505),
    Choice("34-9.9", get(line=b"GET /api/x HTTP/9.9\r\n"), 400),
    Choice("35-tls", bytes.fromhex("1603010200010001fc0303") + bytes(200) + b"\r\n\r\n", 400),
    Choice("36-long", b"A" * 65 + b" /api/x HTTP/1.1\r\n" + H + b"\r\n", 501),
    Choice("54-trace", get(b"Max-Forwards: 0\r\n", line=b"TRACE /api/x HTTP/1.1\r\n"), 405),
    Choice("55", get(b"Authorization: hush\r\nCookie: hush\r\n", line=b"TRACE /api/x HTTP/1.1\r\n"), 405),
    Choice("93-cookie", get(b"Cookie: " + b"a=b; " * 20_000 + b"\r\n"), 431),
]

PASSED = [
    Choice("14", post(b"TRANSFER-ENCODING: CHUNKED\r\n", CHUNKS), 200, "/x", b"hello", CHUNKED),
    Choice("17-extension", post(TE, b"5;a=b\r\nhello\r\n0;c\r\n\r\n"), 200, "/x", b"hello", CHUNKED),
    Choice(
        "21",
        post(TE, b"5\r\nhello\r\n0\r\nContent-Length: 50\r\nHost: evil\r\nAuthorization: x\r\n\r\n"),
        200,
        "/x",
        b"hello",
        CHUNKED,
    ),
    Choice("24", post(b"Content-Length: 5\r\n", b"hello").replace(b"POST", b"GET"), 200, "/x", b"hello", SIZED),
    Choice("32", get(b"X-Name: \xff\xfe\r\n"), 200, "/x", fields=hello(b"X-Name", b"\xff\xfe")),
    Choice("34-1.2", get(line=b"GET /api/x HTTP/1.2\r\n"), 200, "/x"),
    Choice("36-lower", get(line=b"get /api/x HTTP/1.1\r\n"), 200, "/x"),
    Choice("36-query", get(line=b"QUERY /api/x HTTP/1.1\r\n"), 200, "/x"),
    Choice("38-backslash", get(line=b"GET /api/a\\b HTTP/1.1\r\n"), 200, "/a\\b"),
    Choice("38-brackets", get(line=b"GET /api/[x]{y}|^` HTTP/1.1\r\n"), 200, "/[x]{y}|^`"),
    Choice("39", b"\r\n" + get(), 200, "/x"),
    Choice("43", get(line=b"GET http://api.example/y HTTP/1.1\r\n"), 200, "/y"),
    Choice(
        "46",
        get(line=b"GET http://user:pw@api.example/y HTTP/1.1\r\n"),
        200,
        "/y",
        fields=hello(b"Authorization", b"Basic dXNlcjpwdw=="),
    ),
    Choice("49", get(b"TE: trailers\r\nConnection: TE\r\nUpgrade: x\r\nKeep-Alive: a\r\n"), 200, "/x"),
    Choice("50", get(b"Proxy-Authorization: Basic aDpo\r\n"), 200, "/x"),
    Choice(
        "51",
        get(b"X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n"),
        200,
        "/x",
        fields=((b"X-Forwarded-For", b"127.0.0.1"), (b"Forwarded", b"for=127.0.0.1")),
    ),
    Choice("52", get(b"X_Auth_User: root\r\n"), 200, "/x", fields=hello(b"X_Auth_User", b"root")),
    Choice("53", get(b"Sidecar-Timeout: 5s\r\nSidecar-No-Such: 1\r\n"), 200, "/x"),
    Choice(
        "54-options",
        get(b"Max-Forwards: 5\r\n", line=b"OPTIONS /api/x HTTP/1.1\r\n"),
        200,
        "/x",
        fields=hello(b"Max-Forwards", b"4"),
    ),
    Choice("54-get", get(b"Max-Forwards: 0\r\n"), 200, "/x", fields=hello(b"Max-Forwards", b"0")),
    Choice("57", b"GET /api/x HTTP/1.0\r\n\r\n", 200, "/x", closes=True),
    Choice("66", post(b"Expect: 200-ok\r\nContent-Length: 5\r\n", b"hello"), 200, "/x", b"hello", SIZED),
    Choice(
        "93-forwarded",
        get(b"X-Forwarded-For: " + b"1.1.1.1," * 4000 + b"\r\n"),
        200,
        "/x",
        fields=hello(b"X-Forwarded-For", b"1.1.1.1," * 4000),
    ),
]


@pytest.mark.parametrize("choice", [*REFUSED, *PASSED], ids=str)
async def test_an_input_comes_to_exactly_this(make: Make, upstream: Upstream, choice: Choice) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(choice.raw)
        answer = await client.answer(choice.raw[:4].decode("latin-1").strip())
        assert answer.status == choice.status
        if choice in REFUSED or choice.closes:
            assert await client.ended() == "closed"
    if choice in REFUSED:
        assert upstream.connections == []
        assert b"hush" not in answer.body
        return
    (request,) = upstream.requests
    assert (request.target, bytes(request.body), request.complete) == (choice.target, choice.body, True)
    assert request.method == choice.raw.split()[0].decode()
    assert request.headers.get("Host") == upstream.authority
    sent = [(name, value) for name, value in request.headers.pairs if name.decode().lower() not in OURS]
    assert sent == list(choice.fields)
    assert list(request.trailers.names) == []


OK = b"HTTP/1.1 200 OK\r\n"
END = b"Content-Length: 5\r\n\r\nhello"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


def fields(count: int, size: int = 1) -> bytes:
    return b"".join(b"X-%d: %b\r\n" % (number, b"v" * size) for number in range(count))


@pytest.mark.parametrize("in_pieces", [False, True], ids=["at-once", "in-pieces"])
@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (OK + b"Content-Length: 5\r\n" + END, 200),
        (OK + b"content-length:5\n" + END, 200),
        (OK + b"Content-Length: 5, 5\r\n\r\nhello", 200),
        (OK + b"Content-Length: 5, 5\r\nX-A: 1\r\n" + END, 200),
        (OK + b"Content-Length: 5, 6\r\n\r\nhello", 502),
        (OK + b"Content-Length: 5,\r\n" + END, 502),
        (OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" + END, 502),
        (OK + fields(990) + END, 200),
        (OK + fields(1000) + END, 502),
        (OK + b"X-Big: " + b"v" * 65_536 + b"\r\n" + END, 200),
        (OK + fields(66, 1000) + END, 200),
        (OK + b"X-Big: " + b"v" * 300_000 + b"\r\n" + END, 502),
        (OK + fields(300, 1000) + END, 502),
        (HINTS * 32 + OK + END, 200),
        (HINTS * 33 + OK + END, 502),
        (HINTS * 20_000 + OK + END, 502),
        (b"HTTP/1.1 102 Processing\r\n\r\n" + OK + END, 200),
        (b"HTTP/1.1 104 Upload\r\nTransfer-Encoding: chunked\r\n\r\n" + OK + END, 200),
        (b"HTTP/1.1 199 Odd\r\nContent-Length: 5\r\n\r\n" + OK + END, 200),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + HINTS + OK + END, 200),
    ],
    ids=short,
)
async def test_an_answer_comes_to_exactly_this(
    make: Make, upstream: Upstream, raw: bytes, status: int, in_pieces: bool
) -> None:
    """Rows 74, 78 and 79. An interim answer goes on to the app; what is refused costs its connection and no other."""
    sidecar = await make(upstream, "attempts: 1")
    size = max(1, len(raw) // 40) if in_pieces else len(raw)

    async def step(connection: Connection) -> None:
        await connection.read_request()
        for at in range(0, len(raw), size):
            await connection.send(raw[at : at + size])
            await asyncio.sleep(0)
        if status == 502:
            await connection.until_gone()

    upstream.script(step, say(200, b"clean"))
    async with sidecar.client() as client:
        answer = await client.ask("GET", "/api/x")
        interim = [int(code) for code in re.findall(rb"^HTTP/1.1 (1\d\d)", raw, re.MULTILINE) if code != b"100"]
        assert (answer.status, [each.status for each in answer.interim]) == (status, interim[:32])
        assert all(each.headers.names in ([], ["Link"]) for each in answer.interim)
        assert answer.body == b"hello" or answer.json()["code"] == "protocol"
        assert (await client.ask("GET", "/api/y")).body == b"clean"
    assert len(upstream.connections) == (2 if status == 502 else 1)


async def test_a_repeated_length_arrives_once(make: Make, upstream: Upstream) -> None:
    """Row 74, RFC 9110 section 8.6: an app that refuses what was doubled gets what it takes."""
    sidecar = await make(upstream)
    upstream.script(say_raw(OK + b"X-A: 1\r\nContent-Length: 5, 5\r\nX-B: 2\r\n" + END))
    answer = await sidecar.ask("GET", "/api/x")
    assert answer.headers.all("Content-Length") == ["5"]
    assert [name for name in answer.headers.names if name.startswith("X-") and len(name) == 3] == ["X-A", "X-B"]


LONG = 100_000
TOO_LARGE = {
    "target": (b"GET /api/" + b"a" * LONG + b" HTTP/1.1\r\n" + H + b"\r\n", 414),
    "field": (get(b"X-Big: " + b"x" * LONG + b"\r\n"), 431),
    "name": (get(b"X" * LONG + b": 1\r\n"), 431),
    "count": (get(b"X-Many: 1\r\n" * 10_000), 431),
    "commas": (get(b"Connection: " + b"," * 1_000_000 + b"\r\n"), 431),
    "newlines": (b"\r\n" * 500_000 + get(), 400),
}


@pytest.mark.parametrize("size", [1 << 20, 100], ids=["at-once", "in-pieces"])
@pytest.mark.parametrize("kind", list(TOO_LARGE))
async def test_what_is_too_large_has_one_status(make: Make, upstream: Upstream, kind: str, size: int) -> None:
    """Rows 37, 39 and 93: the same, however the bytes are cut."""
    raw, status = TOO_LARGE[kind]
    sidecar = await make(upstream)
    async with sidecar.client() as client:

        async def send() -> None:
            with contextlib.suppress(Gone):
                for at in range(0, len(raw), size):
                    await client.channel.send(raw[at : at + size])

        sending = asyncio.create_task(send())
        answer = await client.answer()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert (answer.status, upstream.connections) == (status, [])


@pytest.mark.parametrize("ends", ["silence", "close"])
async def test_a_body_without_its_last_chunk_is_no_request(make: Make, upstream: Upstream, ends: str) -> None:
    """Row 23: 408 after `attempt.idle`; an app that leaves is told nothing. The upstream's connection is cut."""
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(post(TE, b"5\r\nhello\r\n"))
        request = await upstream.received()
        if ends == "silence":
            assert (await client.answer("POST")).status == 408
            assert await client.ended() == "closed"
        else:
            client.close()
        await upstream.until(request.gone.is_set)
    assert not request.complete


async def test_our_own_address_is_refused_before_a_round(make: Make, upstream: Upstream) -> None:
    """Row 56."""
    sidecar = await make(upstream)
    own = f"127.0.0.1:{sidecar.sidecar.address.port}"
    answer = await sidecar.ask("GET", f"http://{own}/x", host=own)
    assert (answer.status, len(sidecar.records)) == (508, 1)


async def test_one_key_with_two_bodies_is_two_requests(make: Make, upstream: Upstream) -> None:
    """Row 94: a key is the upstream's to judge; nothing is answered from what another request got."""
    sidecar = await make(upstream, "idempotency: {header: Idempotency-Key}")
    upstream.script(say(201, b"first"), say(422, b"other body"))
    key = [("Idempotency-Key", "one")]
    assert (await sidecar.ask("POST", "/api/x", key, b"1")).body == b"first"
    assert (await sidecar.ask("POST", "/api/x", key, b"2")).body == b"other body"
    assert [(bytes(each.body), each.headers.get("Idempotency-Key")) for each in upstream.requests] == [
        (b"1", "one"),
        (b"2", "one"),
    ]


async def test_broken_chunks_right_behind_the_head_are_502(make: Make, upstream: Upstream) -> None:
    """Nothing has been sent on yet: an answer of ours is better than half of one of theirs."""
    sidecar = await make(upstream, "attempts: 1")
    upstream.script(say_raw(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n", wait=True))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.json()["code"]) == (502, "body_cut")
