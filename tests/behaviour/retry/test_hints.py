"""The upstream's own word on when to come back comes first, and is never undercut: DESIGN section 4."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from tests.behaviour.conftest import Make
from tests.support.sidecar import Running
from tests.support.upstream import Upstream, say


async def waits(sidecar: Running) -> list[float]:
    """The pauses of the first exchange, each from the answer to the next send."""
    record = await sidecar.record()
    return [attempt.waited_seconds for attempt in record.attempts[1:]]


async def test_retry_after_in_seconds_is_a_minimum(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503, headers=[("Retry-After", "20")]), say(200))
    assert (await sidecar.ask("GET", "/api/x")).status == 200
    [wait] = await waits(sidecar)
    assert 20 <= wait <= 25
    assert (await sidecar.record()).attempts[1].wait_from == "hint"


@pytest.mark.parametrize("value", ["1.5", "1.500", "002"])
async def test_decimal_and_padded_seconds_are_read(make: Make, upstream: Upstream, value: str) -> None:
    sidecar = await make(upstream)
    upstream.script(say(429, headers=[("Retry-After", value)]), say(200))
    await sidecar.ask("GET", "/api/x")
    assert float(value) <= sum(await waits(sidecar)) <= float(value) + 1.5


async def test_retry_after_as_a_date_is_read(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    later = formatdate(time.time() + 30, usegmt=True)
    upstream.script(say(503, headers=[("Retry-After", later)]), say(200))
    await sidecar.ask("GET", "/api/x")
    assert 28 <= sum(await waits(sidecar)) <= 36


@pytest.mark.parametrize("value", ["0", "Wed, 21 Oct 2015 07:28:00 GMT"])
async def test_zero_or_a_past_date_still_pauses_a_little(make: Make, upstream: Upstream, value: str) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503, headers=[("Retry-After", value)]), say(200))
    assert (await sidecar.ask("GET", "/api/x")).status == 200
    [wait] = await waits(sidecar)
    assert 0 < wait <= 1.5


@pytest.mark.parametrize(
    "value", ["-1", "+5", "1e3", "5s", "1_000", "0x10", "soon", "1.2.3", "NaN", "inf", "٣", "", "5;5", "9" * 60_000]
)
async def test_garbage_is_ignored_and_backoff_takes_over(make: Make, upstream: Upstream, value: str) -> None:
    sidecar = await make(upstream)
    raw = value.encode().decode("latin-1")
    upstream.script(say(503, headers=[("Retry-After", raw)]), say(200))
    answer = await sidecar.ask("GET", "/api/x")
    if len(value) > 1000:  # a wait that long, or a head that long, ends the exchange; it never stalls it
        assert sum(sidecar.clock.waits) < 1
        return
    assert answer.status == 200
    assert sidecar.clock.waits == pytest.approx([0.1], abs=0.02)


async def test_of_two_different_hints_the_longest_is_kept_to(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503, headers=[("Retry-After", "3"), ("Retry-After", "9")]), say(200))
    await sidecar.ask("GET", "/api/x")
    assert sidecar.clock.waits == pytest.approx([9], abs=0.5)


async def test_two_equal_hints_are_one(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503, headers=[("Retry-After", "3"), ("Retry-After", "3")]), say(200))
    await sidecar.ask("GET", "/api/x")
    assert 3 <= sum(await waits(sidecar)) <= 5


@pytest.mark.parametrize("value", ["121", "3600", "99999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_a_wait_over_the_cap_hands_the_answer_over(make: Make, upstream: Upstream, value: str) -> None:
    sidecar = await make(upstream, "deadline: 1h\nmax_wait: 120s")
    upstream.script(say(503, b"later", headers=[("Retry-After", value)]), say(200))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.body, answer.headers.get("Retry-After")) == (503, b"later", value)
    assert sidecar.clock.waits == []
    assert (await sidecar.record()).reason == "wait_too_long"


async def test_over_max_may_clamp_for_those_who_ask(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "deadline: 1h\nmax_wait: 10s\nover_max: clamp")
    upstream.script(say(503, headers=[("Retry-After", "3600")]), say(200))
    assert (await sidecar.ask("GET", "/api/x")).status == 200
    assert 10 <= sum(await waits(sidecar)) <= 12


async def test_the_first_usable_source_wins(make: Make, upstream: Upstream) -> None:
    policy = """
wait:
  - retry-after
  - {header: x-ratelimit-reset-ms, unit: ms}
  - {body: /retryAfter, unit: s}
  - {constant: 9s}
"""
    sidecar = await make(upstream, policy)
    reset_ms = [("X-RateLimit-Reset-Ms", "2500")]
    upstream.script(
        say(429, b'{"retryAfter": 4}', headers=[("Retry-After", "nonsense"), *reset_ms]),
        say(429, b'{"retryAfter": 4}'),
        say(429, b"not json"),
        say(200),
    )
    assert (await sidecar.ask("GET", "/api/x")).status == 200
    floors = [2.5, 4, 9]
    assert all(floor <= wait < floor + 2 for floor, wait in zip(floors, await waits(sidecar), strict=True))


async def test_a_hint_on_a_post_that_was_not_acted_on_is_obeyed(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(429, headers=[("Retry-After", "2")]), say(201))
    assert (await sidecar.ask("POST", "/api/x", body=b"one")).status == 201
    assert 2 <= sum(await waits(sidecar)) <= 4


async def test_a_field_inside_a_header_can_be_the_source(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "wait: [{header: ratelimit, field: t, unit: s}]")
    upstream.script(say(429, headers=[("RateLimit", '"default";r=0;t=5')]), say(200))
    await sidecar.ask("GET", "/api/x")
    assert 5 <= sum(await waits(sidecar)) <= 7
