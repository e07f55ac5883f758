"""Heads go through as they came, both ways, but for what must change: DESIGN section 8, threats 43-57, 81."""

from __future__ import annotations

import pytest

from tests.behaviour.conftest import Make
from tests.support.client import request_bytes
from tests.support.structured import dictionary
from tests.support.upstream import Upstream, head_bytes, say, say_raw


def is_in_order(wanted: list[tuple[bytes, bytes]], among: list[tuple[bytes, bytes]]) -> bool:
    rest = iter(among)
    return all(pair in rest for pair in wanted)


async def test_request_fields_keep_order_case_and_repeats(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    sent = [
        ("X-Zebra", "1"),
        ("accept", "text/html"),
        ("X-REPEAT", "a"),
        ("x-Other", "  padded\t"),
        ("X-Repeat", "b, c"),
        ("Cookie", "a=1"),
        ("Cookie", "b=2"),
        ("X-Empty", ""),
        ("AUTHORIZATION", "Bearer t"),
        ("User-Agent", "app/1"),
        ("Accept-Encoding", "gzip, br"),
    ]
    await sidecar.ask("GET", "/api/x", sent)
    wanted = [(name.encode(), value.strip().encode()) for name, value in sent]
    assert is_in_order(wanted, upstream.requests[0].headers.pairs)


async def test_response_fields_keep_order_case_and_repeats(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    sent = [
        ("Set-Cookie", "a=1; Path=/"),
        ("x-UPPER-lower", "1"),
        ("Set-Cookie", "b=2"),
        ("Date", "Wed, 21 Oct 2015 07:28:00 GMT"),
        ("Server", "odd"),
        ("Content-Encoding", "gzip"),
        ("WWW-Authenticate", 'Basic realm="a", Bearer'),
    ]
    upstream.script(say(200, b"\x1f\x8bnot really gzip", headers=sent))
    answer = await sidecar.ask("GET", "/api/x")
    assert is_in_order([(name.encode(), value.encode()) for name, value in sent], answer.headers.pairs)
    assert answer.headers.all("Date") == ["Wed, 21 Oct 2015 07:28:00 GMT"]
    assert answer.headers.all("Server") == ["odd"]
    assert answer.body == b"\x1f\x8bnot really gzip"


@pytest.mark.parametrize(
    "target",
    [
        "/a%2Fb?x=%20",
        "/%00",
        "/%0d%0aX:%20y",
        "/..%2f..",
        "/a/../b/./c",
        "//x//y",
        "/~a;b=1,2/(c)!$&'*+:@",
        "/?",
        "/?a=1&a=2&&=",
        "/x?u=http://a/b?c",
        "/caf%C3%A9",
        "/%e2%82%ac",
        "/[x]",
        "/{x}|^`",
    ],
)
async def test_targets_are_kept_to_the_byte(make: Make, upstream: Upstream, target: str) -> None:
    sidecar = await make(upstream)
    answer = await sidecar.ask("GET", f"/api{target}")
    if target in ("/[x]", "/{x}|^`") and answer.status == 400:
        return  # not in the grammar of RFC 3986; refusing is allowed, changing is not
    assert answer.status == 200
    assert upstream.requests[0].target == target
    await sidecar.ask("GET", f"http://api.example{target}", host="api.example")
    assert upstream.requests[1].target == target


@pytest.mark.parametrize(
    ("target", "expected"), [("/api", "/"), ("/api/", "/"), ("/api?x=1", "/?x=1"), ("/api/?x", "/?x")]
)
async def test_the_mount_itself_is_the_root(make: Make, upstream: Upstream, target: str, expected: str) -> None:
    sidecar = await make(upstream)
    await sidecar.ask("GET", target)
    assert upstream.requests[0].target == expected


async def test_a_mount_matches_whole_segments_only(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    assert (await sidecar.ask("GET", "/apix/y")).status == 404
    assert (await sidecar.ask("GET", "/API/y")).status == 404
    assert upstream.requests == []


async def test_a_base_path_is_prefixed(make: Make, upstream: Upstream) -> None:
    text = f"""
listen: 127.0.0.1:0
admin: 127.0.0.1:0
upstreams:
  - {{name: api, origin: "http://127.0.0.1:{upstream.port}/base/v2", mount: /api, policy: test}}
"""
    sidecar = await make(upstream, text=text)
    await sidecar.ask("GET", "/api/x?y")
    assert upstream.requests[0].target == "/base/v2/x?y"


async def test_absolute_form_without_a_path_asks_for_the_root(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    await sidecar.ask("GET", "http://api.example", host="api.example")
    await sidecar.ask("GET", "HTTP://API.Example?x=1", host="api.example")
    assert [request.target for request in upstream.requests] == ["/", "/?x=1"]


async def test_hop_by_hop_fields_do_not_leave(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    sent = [
        ("Connection", "X-Private, keep-alive, X-Absent"),
        ("X-Private", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic c2VjcmV0"),
        ("TE", "trailers, gzip"),
        ("Trailer", "X-T"),
        ("X-Public", "2"),
    ]
    await sidecar.ask("GET", "/api/x", sent)
    names = [name.lower() for name in upstream.requests[0].headers.names]
    for gone in ("x-private", "keep-alive", "proxy-connection", "proxy-authorization", "trailer", "te"):
        assert gone not in names
    assert "x-public" in names
    assert all("x-private" not in value.lower() for value in upstream.requests[0].headers.all("Connection"))


async def test_names_in_a_second_connection_line_count_too(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    sent = [("Connection", "keep-alive"), ("Connection", "X-Private"), ("X-Private", "1")]
    await sidecar.ask("GET", "/api/x", sent)
    assert "X-Private" not in upstream.requests[0].headers


async def test_an_id_named_in_connection_is_still_there(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    answer = await sidecar.ask("GET", "/api/x", [("Connection", "X-Request-Id"), ("X-Request-Id", "order-7")])
    sent = upstream.requests[0].headers.all("X-Request-Id")
    assert len(sent) == 1
    assert sent == answer.headers.all("X-Request-Id")


async def test_connection_cannot_remove_what_is_ours(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    sent = [("Connection", "close, Host, Content-Length, X-Request-Id, Via, Authorization"), ("Authorization", "t")]
    await sidecar.ask("POST", "/api/x", sent, b"hello")
    request = upstream.requests[0]
    assert request.headers.get("Host") == upstream.authority
    assert bytes(request.body) == b"hello"
    assert request.headers.get("X-Request-Id")
    assert request.headers.get("Via")


async def test_hop_by_hop_fields_of_an_answer_do_not_arrive(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    sent = [
        ("Connection", "X-Secret, keep-alive"),
        ("X-Secret", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "Basic"),
        ("Upgrade", "h2c"),
        ("X-Public", "2"),
    ]
    upstream.script(say(200, b"x", headers=sent))
    answer = await sidecar.ask("GET", "/api/x")
    names = [name.lower() for name in answer.headers.names]
    for gone in ("x-secret", "keep-alive", "upgrade"):
        assert gone not in names
    assert "x-public" in names


async def test_upgrade_without_a_tunnel_is_not_forwarded(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    sent = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQ")]
    answer = await sidecar.ask("GET", "/api/x", sent)
    assert answer.status in (200, 501)
    for request in upstream.requests:
        assert "upgrade" not in [name.lower() for name in request.headers.names]
        assert "http2-settings" not in [name.lower() for name in request.headers.names]


async def test_host_is_the_origins(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    await sidecar.ask("GET", "/api/x")
    assert upstream.requests[0].headers.all("Host") == [upstream.authority]


async def test_host_may_be_kept(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, more="    host: keep")
    await sidecar.ask("GET", "/api/x", host="app.test:8080")
    assert upstream.requests[0].headers.all("Host") == ["app.test:8080"]


async def test_a_host_that_is_kept_is_the_targets_where_that_names_one(make: Make, upstream: Upstream) -> None:
    """RFC 9112 section 3.2.2: a proxy replaces the Host of a request in absolute-form by that of its target."""
    sidecar = await make(upstream, more="    host: keep")
    await sidecar.ask("GET", "http://api.example/x", host="internal-admin.example")
    assert upstream.requests[0].headers.all("Host") == ["api.example"]


async def test_a_request_without_a_host_gets_the_origins_where_it_is_kept(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, more="    host: keep")
    async with sidecar.client() as client:
        await client.send(b"GET /api/x HTTP/1.0\r\n\r\n")
        assert (await client.answer("GET")).status == 200
    assert upstream.requests[0].headers.all("Host") == [upstream.authority]


async def test_the_target_wins_over_a_different_host(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    answer = await sidecar.ask("GET", "http://api.example/x", host="other.example")
    assert answer.status in (200, 400)
    for request in upstream.requests:
        assert request.headers.all("Host") == [upstream.authority]


async def test_via_is_appended_both_ways(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(200, headers=[("Via", "1.1 edge")]))
    answer = await sidecar.ask("GET", "/api/x", [("Via", "1.0 before")])
    sent = ", ".join(upstream.requests[0].headers.all("Via"))
    assert sent.startswith("1.0 before, 1.1 ")
    assert ", ".join(answer.headers.all("Via")).startswith("1.1 edge")


async def test_sidecar_fields_are_ours_and_never_leave(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    await sidecar.ask("GET", "/api/x", [("Sidecar-Timeout", "5s"), ("sidecar-anything", "x"), ("SIDECAR-X", "y")])
    assert not [name for name in upstream.requests[0].headers.names if name.lower().startswith("sidecar")]


async def test_an_answer_cannot_pose_as_ours(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(200, headers=[("Sidecar", "outcome=recovered, attempts=9")]))
    answer = await sidecar.ask("GET", "/api/x")
    told = ", ".join(answer.headers.all("Sidecar"))
    assert dictionary(told)["outcome"] == "ok"
    assert "recovered" not in told


async def test_bytes_over_7f_are_forwarded_as_they_are(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say_raw(b"HTTP/1.1 200 d\xe9j\xe0\r\nX-Name: \xff\xfe\xc3\xa9\r\nContent-Length: 0\r\n\r\n"))
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x", [("X-Name", "\xff\xfe\xc3\xa9")]))
        answer = await client.answer()
    assert (b"X-Name", b"\xff\xfe\xc3\xa9") in upstream.requests[0].headers.pairs
    assert (b"X-Name", b"\xff\xfe\xc3\xa9") in answer.headers.pairs
    assert answer.head.startswith(b"HTTP/1.1 200 d\xe9j\xe0\r\n")


@pytest.mark.parametrize("reason", ["", "OK", "Quite All Right", "(really)"])
async def test_the_reason_phrase_is_kept(make: Make, upstream: Upstream, reason: str) -> None:
    sidecar = await make(upstream)
    upstream.script(say(299, reason=reason))
    assert (await sidecar.ask("GET", "/api/x")).reason == reason


async def test_an_http_10_upstream_is_served_on_as_11(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say_raw(head_bytes(200, version="1.0") + b"old", last=True))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.version, answer.body) == ("1.1", b"old")


async def test_content_encoding_is_passed_unread(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(200, b"not gzip", headers=[("Content-Encoding", "gzip, br, zstd")]))
    answer = await sidecar.ask("GET", "/api/x")
    assert answer.body == b"not gzip"


async def test_every_attempt_carries_the_same_head(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503), say(503), say(200))
    await sidecar.ask("GET", "/api/a%2Fb?x=%20", [("X-B", "1"), ("x-b", "2")])
    assert len({request.head for request in upstream.requests}) == 1


async def test_a_look_alike_length_is_an_ordinary_field(make: Make, upstream: Upstream) -> None:
    """``Transfer_Encoding`` is not ``Transfer-Encoding``: threats row 12."""
    sidecar = await make(upstream)
    answer = await sidecar.ask("POST", "/api/x", [("Transfer_Encoding", "chunked")], b"0\r\n\r\n")
    assert answer.status in (200, 400)
    if answer.status == 200:
        assert bytes(upstream.requests[0].body) == b"0\r\n\r\n"


async def test_max_forwards_zero_is_answered_here_or_counted_down(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    answer = await sidecar.ask("OPTIONS", "/api/x", [("Max-Forwards", "0")])
    assert (answer.status, "GET" in str(answer.headers.get("Allow"))) == (204, True)
    assert upstream.requests == []
