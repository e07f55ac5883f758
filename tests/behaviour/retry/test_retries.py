"""An error that the table says to retry is retried; the app sees one answer, and how it came about."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from tests.behaviour.conftest import Make
from tests.support.sidecar import QUICK, SHORT
from tests.support.structured import dictionary
from tests.support.upstream import (
    Upstream,
    close,
    cut_body,
    hang,
    head_bytes,
    refused_port,
    reset,
    say,
    say_raw,
    tls_server,
)


async def test_a_first_success_is_passed_on_unchanged(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(200, b'{"a":1}', headers=[("Content-Type", "application/json")]))
    answer = await sidecar.ask("GET", "/api/v1/x?y=1")
    assert (answer.status, answer.body) == (200, b'{"a":1}')
    assert upstream.requests[0].target == "/v1/x?y=1"
    record = await sidecar.record()
    assert (record.outcome, record.reason, len(record.attempts)) == ("ok", None, 1)
    assert sidecar.clock.waits == []


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_a_retryable_status_recovers(make: Make, upstream: Upstream, status: int) -> None:
    sidecar = await make(upstream)
    upstream.script(say(status, b"no"), say(200, b"yes"))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.body) == (200, b"yes")
    record = await sidecar.record()
    assert record.outcome == "recovered"
    assert [attempt.status for attempt in record.attempts] == [status, 200]


@pytest.mark.parametrize(("after", "sends"), [("2", 2), ("", 1), (None, 1)])
async def test_a_413_is_temporary_where_it_says_when_to_try_again(
    make: Make, upstream: Upstream, after: str | None, sends: int
) -> None:
    """RFC 9110 section 15.5.14; the server refused to process it, so that a POST may go again."""
    sidecar = await make(upstream)
    fields = [] if after is None else [("Retry-After", after)]
    upstream.script(say(413, b"no", headers=fields), say(413, b"no", headers=fields), say(200))
    assert (await sidecar.ask("POST", "/api/x", body=b"one")).status == 413
    assert len(upstream.requests) == sends
    assert all(seconds >= 2 for seconds in sidecar.clock.waits)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 422, 501, 505])
async def test_an_error_that_the_table_passes_is_sent_once(make: Make, upstream: Upstream, status: int) -> None:
    sidecar = await make(upstream, "table: [{status: [501, 505], then: pass}]")
    upstream.script(say(status, b"no"))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.body) == (status, b"no")
    assert len(upstream.requests) == 1
    record = await sidecar.record()
    assert (record.outcome, record.reason) == ("passed", "not_retryable")


async def test_the_last_answer_is_handed_over_byte_for_byte(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempts: 2")
    last = [("X-Last", "1"), ("x-last", "2"), ("Content-Type", "text/odd"), ("Retry-After", "7")]
    upstream.script(say(503, b"first"), say(503, b"\x1f\x8b last", headers=last, reason="Quite Busy"))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.reason, answer.body) == (503, "Quite Busy", b"\x1f\x8b last")
    came = [(name.decode(), value.decode()) for name, value in answer.headers.pairs]
    assert [pair for pair in came if pair in last] == last
    record = await sidecar.record()
    assert (record.outcome, record.reason, len(record.attempts)) == ("exhausted", "attempts", 2)


async def test_the_last_answer_is_kept_when_the_last_attempt_brings_none(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempts: 2")
    upstream.script(say(503, b"busy", headers=[("X-Kept", "1"), ("Retry-After", "1")], reason="Busy"), reset())
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.reason, answer.body) == (503, "Busy", b"busy")
    assert (answer.headers.get("X-Kept"), answer.headers.get("Retry-After")) == ("1", "1")
    record = await sidecar.record()
    assert (record.outcome, record.reason) == ("exhausted", "attempts")
    assert [attempt.status for attempt in record.attempts] == [503, None]


async def test_an_answer_too_large_to_keep_is_never_handed_over_in_part(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempts: 2")
    upstream.script(say(503, b"x" * 3_000_000), reset())
    answer = await sidecar.ask("GET", "/api/x")
    assert answer.cut is None
    assert (answer.status, len(answer.body)) == (503, 3_000_000) or answer.status == 502


async def test_a_losing_answer_that_never_ends_does_not_hold_the_retry(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    half = head_bytes(503, [("Content-Length", "10")]) + b"half"
    upstream.script(hang(send=half), say(200, b"yes"))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.body) == (200, b"yes")
    await upstream.until(upstream.requests[0].gone.is_set)


async def test_a_losing_answer_that_is_cut_is_still_an_answer(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempts: 2")
    half = head_bytes(503, [("Content-Length", "10")]) + b"half"
    upstream.script(close(send=half), close(send=half))
    answer = await sidecar.ask("GET", "/api/x")
    assert answer.status == 502 or (answer.status == 503 and answer.cut is not None)
    assert len(upstream.requests) == 2


async def test_the_sidecar_header_tells_the_story(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503), say(503), say(200))
    answer = await sidecar.ask("GET", "/api/x")
    told = dictionary(answer.headers.get("Sidecar"))
    assert told["outcome"] == "recovered"
    assert told["attempts"] == 3
    assert told["waited"] == pytest.approx(0.3, abs=0.01)
    assert "reason" not in told


async def test_the_sidecar_header_names_the_reason(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempts: 1")
    upstream.script(say(503))
    told = dictionary((await sidecar.ask("GET", "/api/x")).headers.get("Sidecar"))
    assert told["outcome"] == "exhausted"
    assert told["reason"] == "attempts"


async def test_waits_grow_by_the_factor(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempts: 5")
    upstream.script(*[say(503)] * 4, say(200))
    assert (await sidecar.ask("GET", "/api/x")).status == 200
    assert sidecar.clock.waits == pytest.approx([0.1, 0.2, 0.4, 0.8], abs=0.02)
    record = await sidecar.record()
    assert [attempt.waited_seconds for attempt in record.attempts] == pytest.approx([0, 0.1, 0.2, 0.4, 0.8], abs=0.02)
    assert [str(attempt.wait_from) for attempt in record.attempts[1:]] == ["backoff"] * 4
    assert record.waited_seconds == pytest.approx(1.5, abs=0.05)


async def test_chance_spreads_the_wait(make: Make, upstream: Upstream) -> None:
    sidecar = await make(
        upstream, "backoff: {base: 100ms, jitter: full}", quick=QUICK.split("backoff", 1)[0], chance=0.25
    )
    upstream.script(say(503), say(200))
    await sidecar.ask("GET", "/api/x")
    assert sidecar.clock.waits == pytest.approx([0.025], abs=0.005)


async def test_the_seeds_sketch_is_additive(make: Make, upstream: Upstream) -> None:
    policy = "attempts: 5\nbackoff: {base: 250ms, factor: 2, cap: 30s, jitter: additive}"
    sidecar = await make(upstream, policy, quick="", chance=0.5)
    upstream.script(*[say(503)] * 5)
    await sidecar.ask("GET", "/api/x")
    assert sidecar.clock.waits == pytest.approx([0.375, 0.75, 1.5, 3.0], abs=0.02)


async def test_a_row_may_allow_fewer_attempts(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempts: 5\ntable: [{status: 503, then: retry, attempts: 2}]")
    upstream.script(*[say(503)] * 5)
    await sidecar.ask("GET", "/api/x")
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("failing", [reset(), close(), hang(), reset("head"), close(send=b"HTTP/1.1 20")])
async def test_an_idempotent_request_survives_a_failure(make: Make, upstream: Upstream, failing: object) -> None:
    sidecar = await make(upstream)
    upstream.script(failing, say(200, b"yes"))  # type: ignore[arg-type]
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.body) == (200, b"yes")
    record = await sidecar.record()
    assert record.outcome == "recovered"
    assert record.attempts[0].failure is not None
    assert record.attempts[0].written


@pytest.mark.parametrize(
    ("failing", "kind"),
    [
        (reset(), "reset"),
        (close(), "closed"),
        (hang(), "head_timeout"),
        (close(send=b"HTTP/1.1 200 O"), "closed"),
        (close(send=b"SSH-2.0-x\r\n\r\n"), "protocol"),
    ],
)
async def test_a_failure_is_named(make: Make, upstream: Upstream, failing: object, kind: str) -> None:
    sidecar = await make(upstream, "attempts: 1\ndeadline: 600ms", quick=SHORT)
    upstream.script(failing)  # type: ignore[arg-type]
    answer = await sidecar.ask("GET", "/api/x")
    assert answer.status in (502, 504)
    record = await sidecar.record()
    assert record.outcome == "failed"
    assert [str(attempt.failure) for attempt in record.attempts] == [kind]


async def test_an_upstream_that_never_listens_gives_502(make: Make) -> None:
    sidecar = await make(refused_port(), "attempts: 3")
    answer = await sidecar.ask("POST", "/api/x", body=b"hello")
    assert answer.status == 502
    record = await sidecar.record()
    assert (record.outcome, record.reason) == ("failed", "attempts")
    assert [str(attempt.failure) for attempt in record.attempts] == ["refused"] * 3
    assert not any(attempt.written for attempt in record.attempts)


async def test_the_first_row_that_matches_decides(make: Make, upstream: Upstream) -> None:
    policy = """
table:
  - {status: 429, when: {body: /error/code, in: [insufficient_quota]}, then: pass}
  - {status: 429, then: retry}
"""
    sidecar = await make(upstream, policy)
    broke = b'{"error": {"code": "insufficient_quota"}}'
    upstream.script(say(429, b'{"error": {"code": "slow_down"}}'), say(429, broke))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.body) == (429, broke)
    record = await sidecar.record()
    assert [attempt.status for attempt in record.attempts] == [429, 429]


async def test_a_body_that_a_row_looked_into_is_passed_on_untouched(make: Make, upstream: Upstream) -> None:
    policy = "table: [{status: 409, when: {body: /code, equals: busy}, then: retry}]"
    sidecar = await make(upstream, policy)
    big = b'{"code": "other", "pad": "' + b"x" * 200_000 + b'"}'
    upstream.script(say(409, chunks=[big[:1000], big[1000:70_000], big[70_000:]]))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.body) == (409, big)


async def test_an_unknown_method_is_forwarded_and_not_retried(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503), say(200))
    answer = await sidecar.ask("BREW", "/api/pot")
    assert answer.status == 503
    assert [request.method for request in upstream.requests] == ["BREW"]
    assert (await sidecar.record()).reason == "not_safe"


async def test_a_success_status_may_be_retried_by_the_table(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "table: [{status: 202, then: retry}]")
    upstream.script(say(202, b"not yet"), say(200, b"done"))
    assert (await sidecar.ask("GET", "/api/x")).body == b"done"


async def test_redirects_are_passed_on_and_never_followed(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(302, headers=[("Location", "/elsewhere")]))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.headers.get("Location")) == (302, "/elsewhere")
    assert len(upstream.requests) == 1


async def test_the_losing_answer_does_not_spoil_the_connection(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503, b"x" * 300_000), say(200, b"yes"), say(200, b"next"))
    assert (await sidecar.ask("GET", "/api/x")).body == b"yes"
    assert (await sidecar.ask("GET", "/api/y")).body == b"next"
    await upstream.until(lambda: upstream.open_connections <= 1)


async def test_a_route_has_its_own_policy(make: Make, upstream: Upstream) -> None:
    more = "    routes: [{methods: [GET], path: /v1/once/**, policy: once}]"
    sidecar = await make(upstream, more=more, policies={"once": "extends: test\nattempts: 1"})
    upstream.script(say(503), say(503), say(200))
    assert (await sidecar.ask("GET", "/api/v1/once/a/b")).status == 503
    assert (await sidecar.ask("GET", "/api/v1/other")).status == 200


async def test_an_http_proxy_request_reaches_the_named_upstream(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503), say(200, b"yes"))
    answer = await sidecar.ask("GET", "http://api.example/v1/x?y=%20", host="api.example")
    assert (answer.status, answer.body) == (200, b"yes")
    assert upstream.requests[1].target == "/v1/x?y=%20"
    assert upstream.requests[1].headers.get("Host") == upstream.authority


async def test_an_unknown_host_gets_the_default_policy(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503), say(200, b"yes"))
    answer = await sidecar.ask("GET", f"http://{upstream.authority}/v1/x", host=upstream.authority)
    assert (answer.status, answer.body) == (200, b"yes")
    assert (await sidecar.record()).outcome == "recovered"


async def test_verified_tls_upstreams_work(make: Make, tls_upstream: Upstream, authority_file: str) -> None:
    sidecar = await make(tls_upstream, scheme="https", more=f"    ca_file: {authority_file}")
    tls_upstream.script(say(503), say(200, b"safe"))
    assert (await sidecar.ask("GET", "/api/x")).body == b"safe"


async def test_a_certificate_that_nobody_vouches_for_is_refused(make: Make, tls_upstream: Upstream) -> None:
    sidecar = await make(tls_upstream, "attempts: 1", scheme="https")
    answer = await sidecar.ask("POST", "/api/x", body=b"secret")
    assert answer.status == 502
    record = await sidecar.record()
    assert [str(attempt.failure) for attempt in record.attempts] == ["tls"]
    assert not record.attempts[0].written
    assert tls_upstream.requests == []


async def test_a_certificate_for_another_name_is_refused(
    make: Make, authority: trustme.CA, authority_file: str, tmp_path: Path
) -> None:
    path = tmp_path / "other.pem"
    authority.issue_cert("other.example").private_key_and_cert_chain_pem.write_to_path(str(path))
    async with Upstream.start(tls=tls_server(str(path))) as upstream:
        sidecar = await make(upstream, "attempts: 1", scheme="https", more=f"    ca_file: {authority_file}")
        assert (await sidecar.ask("POST", "/api/x", body=b"secret")).status == 502
        assert str((await sidecar.record()).attempts[0].failure) == "tls"
        assert upstream.requests == []


async def test_a_server_that_speaks_no_tls_is_a_tls_failure(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempts: 1", scheme="https")
    upstream.script(say_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n", read="nothing", last=True))
    assert (await sidecar.ask("POST", "/api/x", body=b"secret")).status == 502
    record = await sidecar.record()
    assert str(record.attempts[0].failure) == "tls"
    assert not record.attempts[0].written


async def test_a_handshake_that_stalls_is_a_connect_timeout(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempts: 1", scheme="https")
    upstream.script(hang(read="nothing"))
    assert (await sidecar.ask("POST", "/api/x", body=b"secret")).status == 504
    record = await sidecar.record()
    assert str(record.attempts[0].failure) == "connect_timeout"
    assert not record.attempts[0].written


async def test_an_answer_cut_over_tls_is_cut_for_the_app(
    make: Make, tls_upstream: Upstream, authority_file: str
) -> None:
    sidecar = await make(tls_upstream, scheme="https", more=f"    ca_file: {authority_file}")
    tls_upstream.script(cut_body(b"half", length=1000), cut_body(b"half", length=None, how="reset"))
    for _ in range(2):
        assert (await sidecar.ask("GET", "/api/x")).cut is not None
