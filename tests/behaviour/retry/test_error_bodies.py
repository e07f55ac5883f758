"""Rows and records that look into an error's body: bounded, however large or broken it is, and the body untouched."""

from __future__ import annotations

import gzip
import json

import pytest

from tests.behaviour.conftest import Make
from tests.support.structured import dictionary
from tests.support.upstream import Upstream, say

POLICY = """
errors: {code: [/error/code], message: [/error/message], known: [KNOWN]}
table:
  - {status: 503, when: {body: /error/code, in: [KNOWN]}, then: retry, attempts: 2}
  - {status: 503, then: pass}
"""
KNOWN = b'{"error":{"code":"KNOWN","message":"m"}}'
COUNTED = 'sidecar_upstream_errors_total{upstream="api",code="%s"}'


async def test_a_pointer_into_a_huge_body_finds_nothing_and_the_body_comes_through(
    make: Make, upstream: Upstream
) -> None:
    """Only its first 64 KiB are looked at, which is no whole JSON."""
    sidecar = await make(upstream, POLICY)
    body = b'{"padding":"' + b"x" * (32 << 20) + b'","error":{"code":"KNOWN"}}'
    upstream.script(say(503, body))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.cut, answer.body == body) == (503, None, True)
    assert len(upstream.requests) == 1
    assert await sidecar.metric(COUNTED % "other") == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"code":"KNOWN\xff"}}',
        b"\xff\xfe" + '{"error":{"code":"KNOWN"}}'.encode("utf-16-le"),
        b"[" * 60_000,
        b'{"error":{"code":["KNOWN"]}}',
        b'{"error":"KNOWN"}',
        b"<html>KNOWN</html>",
        b"",
    ],
)
async def test_a_body_that_cannot_be_read_is_handed_over_as_it_came(
    make: Make, upstream: Upstream, body: bytes
) -> None:
    sidecar = await make(upstream, POLICY)
    upstream.script(say(503, body))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.body) == (503, body)
    assert await sidecar.metric(COUNTED % "other") == 1


async def test_a_body_that_unpacks_to_64_mib_is_looked_at_within_bounds(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, POLICY)
    packed = gzip.compress(b'{"padding":"' + b"x" * (64 << 20) + b'"}')
    upstream.script(say(503, packed, headers=[("Content-Encoding", "gzip")]))
    answer = await sidecar.ask("GET", "/api/x")
    assert answer.body == packed
    assert sidecar.records[0].error_code is None


async def test_each_error_answer_is_counted_once_by_its_code(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, POLICY)
    upstream.script(say(503, KNOWN), say(503, KNOWN), say(404, b'{"error":{"code":"made up"}}'), say(200, KNOWN))
    for _ in range(3):
        await sidecar.ask("GET", "/api/x")
    assert await sidecar.metric(COUNTED % "KNOWN") == 2
    assert await sidecar.metric(COUNTED % "other") == 1
    told = dictionary((await sidecar.ask("GET", "/api/x")).headers.get("Sidecar"))
    assert told == {"outcome": "ok", "attempts": 1}


async def test_nothing_is_counted_where_the_policy_does_not_say_where_codes_stand(
    make: Make, upstream: Upstream
) -> None:
    sidecar = await make(upstream)
    upstream.script(say(404, KNOWN))
    await sidecar.ask("GET", "/api/x")
    assert "sidecar_upstream_errors_total{" not in (await sidecar.admin("/metrics")).body.decode()


BROTLI = b"\x0b\x13\x80" + KNOWN + b"\x03"
"""What a decoder of br would read as ``KNOWN``; nothing here can."""


async def test_a_body_that_cannot_be_decoded_is_told_in_the_record(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, POLICY)
    upstream.script(say(503, BROTLI, headers=[("Content-Encoding", "br")]))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.body) == (503, BROTLI)
    record = await sidecar.record()
    assert [attempt.body_unread for attempt in record.attempts] == ["br"]
    told = json.loads((await sidecar.admin("/debug/exchanges")).body)
    assert '"body_unread": "br"' in json.dumps(told)
    upstream.script(say(404, BROTLI, headers=[("Content-Encoding", "br")]))
    await sidecar.ask("GET", "/api/x")
    assert (await sidecar.record(2)).attempts[0].body_unread == ""


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ([("Accept-Encoding", "gzip, deflate, br, zstd")], ["gzip, deflate"]),
        ([("accept-encoding", "br")], ["identity"]),
        ([("Accept-Encoding", "gzip"), ("X-A", "1"), ("Accept-Encoding", "br")], ["gzip"]),
        ([("Accept-Encoding", "gzip")], ["gzip"]),
        ([], []),
    ],
)
async def test_where_the_policy_looks_only_readable_codings_are_asked_for(
    make: Make, upstream: Upstream, fields: list[tuple[str, str]], sent: list[str]
) -> None:
    sidecar = await make(upstream, POLICY)
    for number in range(2):  # the second time by what was remembered of the first
        await sidecar.ask("GET", "/api/x", headers=fields)
        assert upstream.requests[number].headers.all("Accept-Encoding") == sent


@pytest.mark.parametrize(
    "signature",
    [
        ("Authorization", "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=accept-encoding;host, Signature=b"),
        ("Signature-Input", 'sig=("@method" "accept-encoding");created=1'),
    ],
)
async def test_a_signed_field_is_not_changed(make: Make, upstream: Upstream, signature: tuple[str, str]) -> None:
    sidecar = await make(upstream, POLICY)
    await sidecar.ask("GET", "/api/x", headers=[("Accept-Encoding", "gzip, br"), signature])
    assert upstream.requests[0].headers.all("Accept-Encoding") == ["gzip, br"]


async def test_where_the_policy_does_not_look_every_coding_may_come(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    await sidecar.ask("GET", "/api/x", headers=[("Accept-Encoding", "gzip, br")])
    assert upstream.requests[0].headers.all("Accept-Encoding") == ["gzip, br"]
