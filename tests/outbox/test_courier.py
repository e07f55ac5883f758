"""Deliveries that meet trouble: shutdowns, absurd hints, reloads, faults of ours, requests that never succeed."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.config.load import load_deployment
from sidecar.core.enums import FINAL_REASONS, Reason
from sidecar.core.settings.deployment import OutboxRule
from sidecar.outbox.items import Item
from sidecar.outbox.sqlite import SqliteOutbox
from tests.behaviour.conftest import Make
from tests.behaviour.ops.test_surroundings import full_queue
from tests.support.clock import ManualClock
from tests.support.sidecar import Running
from tests.support.upstream import Connection, Live, Step, Upstream, head_bytes, refused_port, say

ALWAYS = "    routes: [{methods: [POST, PUT], policy: test, store: always}]"
ONE = "attempts: 1\ntable: [{status: 5xx, then: retry, processed: false, gate: false}]"


def filled(path: Path, *methods: str) -> str:
    """An outbox with requests of these methods, whose bodies are their numbers from 1; the line that names it."""
    outbox_file, rule = SqliteOutbox.open(str(path)), OutboxRule(str(path))
    items = [
        Item(f"{number:032x}", "api", method, "/x", b"Host: sidecar.test\r\n", b"%d" % number, 4e9)
        for number, method in enumerate(methods, 1)
    ]
    outbox_file.together([lambda item=item: outbox_file.add(item, rule) for item in items])  # type: ignore[misc]
    outbox_file.close()
    return f"outbox: {{file: {path}}}"


def left(path: Path) -> list[Item]:
    outbox_file = SqliteOutbox.open(str(path))
    try:
        return [item for item_id in outbox_file.ids() if (item := outbox_file.find(item_id)) is not None]
    finally:
        outbox_file.close()


async def until(path: Path, holds: Callable[[list[Item]], bool]) -> list[Item]:
    async with asyncio.timeout(60):
        while not holds(items := left(path)):  # noqa: ASYNC110 - a file signals nothing
            await asyncio.sleep(0.005)
    return items


def bodies(upstream: Upstream) -> list[bytes]:
    return [bytes(request.body) for request in upstream.requests]


def answered_at(sidecar: Running, upstream: Upstream, first: Step) -> list[float]:
    """When each request came; the first one is answered so, the others 200."""
    seen: list[float] = []

    def answer(_: Connection) -> Step:
        seen.append(sidecar.clock.monotonic())
        return first if len(seen) == 1 else say(200)

    upstream.otherwise = answer
    return seen


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_shutdown_while_a_delivery_is_struck_off_the_file_does_not_undo_it(
    make: Make, upstream: Upstream, tmp_path: Path, method: str
) -> None:
    path = tmp_path / "shared.db"
    live = Live()
    upstream.script(live)
    sidecar = await make(upstream, top=filled(path, method, method))
    connection = await live.here()
    await connection.read_request()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # the delivery cannot be struck off
    worker = sidecar.sidecar.services.outbox
    assert worker is not None
    counting = asyncio.create_task(worker.counts())
    await sidecar.until(worker._jobs.empty)  # what comes now stands behind that
    await connection.send(head_bytes(200, [("Content-Length", "0")]))
    live.over()
    await sidecar.until(lambda: sidecar.sidecar.metrics.find("api").outbox.delivered == 1)
    draining = asyncio.create_task(sidecar.sidecar.drain(5))
    await sidecar.until(lambda: sidecar.sidecar.services.draining)
    other.execute("ROLLBACK")
    other.close()
    await counting
    await draining
    await sidecar.sidecar.stop()
    assert [(item.body, item.begun, item.dead_at) for item in left(path)] == [(b"2", False, None)]
    assert bodies(upstream) == [b"1"]


async def test_at_whatever_moment_a_shutdown_comes_each_request_is_delivered_once_or_waits(
    make: Make, upstream: Upstream, tmp_path: Path
) -> None:
    for turns in range(12):
        path = tmp_path / f"{turns}.db"
        upstream.requests.clear()
        sidecar = await make(upstream, top=filled(path, *["POST"] * 20))
        for _ in range(turns * 4):
            await asyncio.sleep(0)
        await sidecar.sidecar.drain(5)
        await sidecar.sidecar.stop()
        waiting = left(path)
        assert [item.id for item in waiting if item.begun or item.dead_at is not None] == []
        assert sorted([*bodies(upstream), *(item.body for item in waiting)], key=int) == [
            b"%d" % number for number in range(1, 21)
        ]


async def test_a_stop_at_once_cuts_a_send_of_unknown_end_into_a_dead_letter(
    make: Make, upstream: Upstream, tmp_path: Path
) -> None:
    path = tmp_path / "shared.db"
    live = Live()
    upstream.script(live)
    sidecar = await make(upstream, top=filled(path, "POST", "POST"))
    await (await live.here()).read_request()
    await sidecar.sidecar.stop()
    live.over()
    assert [(item.body, item.dead_reason) for item in left(path)] == [(b"1", "not_safe"), (b"2", "")]


async def test_a_stop_at_once_while_connecting_leaves_what_was_never_sent_waiting(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    with full_queue() as listener:
        sidecar = await make(listener.getsockname()[1], "deadline: 30s", top=filled(path, "POST"), quick="")
        await until(path, lambda items: items[0].begun)
        limiter = sidecar.sidecar.listener.router.destinations["api"].holding.limiter
        await sidecar.until(lambda: bool(limiter.lent))
        await sidecar.sidecar.stop()
    assert [(item.begun, item.dead_reason) for item in left(path)] == [(False, "")]


async def test_an_absurd_hint_for_one_request_does_not_stop_the_others(
    make: Make, upstream: Upstream, tmp_path: Path
) -> None:
    path = tmp_path / "shared.db"
    top = filled(path, "POST", "POST")
    clock = ManualClock()
    seen: list[float] = []

    def answer(_: Connection) -> Step:
        seen.append(clock.monotonic())
        # A date by mistake: 56 years.
        return say(503, headers=[("Retry-After", "1763000000")]) if len(seen) == 1 else say(200)

    upstream.otherwise = answer
    await make(upstream, ONE, top=top, clock=clock)
    await upstream.received(2)
    assert bodies(upstream)[:2] == [b"1", b"2"]
    assert seen[1] - seen[0] < 60


async def test_a_hint_outlives_a_restart(make: Make, upstream: Upstream, tmp_path: Path) -> None:
    top = f"outbox: {{file: {tmp_path / 'shared.db'}}}"
    first = await make(upstream, ONE, more=ALWAYS, top=top)
    seen = answered_at(first, upstream, say(503, headers=[("Retry-After", "200")]))
    first.clock.hold()
    await first.ask("POST", "/api/x", body=b"1")
    await first.clock.sleeping()
    await first.sidecar.stop()
    first.clock.release()
    await make(upstream, ONE, more=ALWAYS, top=top)
    await upstream.received(2)
    assert seen[1] - seen[0] >= 200


async def test_a_hint_outlives_a_restart_in_the_middle_of_a_round(
    make: Make, upstream: Upstream, tmp_path: Path
) -> None:
    """The wait before the next send of the same round is cut short; what the upstream asked for is kept."""
    path = tmp_path / "shared.db"
    upstream.script(say(503, headers=[("Retry-After", "20")]))
    top = f"outbox: {{file: {path}}}"
    sidecar = await make(
        upstream,
        "deadline: 60s\ntable: [{status: 503, then: retry, processed: false, gate: false}]",
        more=ALWAYS,
        top=top,
    )
    sidecar.clock.hold()
    await sidecar.ask("POST", "/api/x", body=b"1")
    await sidecar.clock.sleeping()
    asked_at = sidecar.clock.wall()
    await sidecar.sidecar.drain(5)
    await sidecar.sidecar.stop()
    (item,) = left(path)
    assert (item.begun, item.dead_at) == (False, None)
    assert item.due_at >= asked_at + 19
    assert len(upstream.requests) == 1


async def test_a_hint_outlives_a_kill_in_the_middle_of_a_round(make: Make, upstream: Upstream, tmp_path: Path) -> None:
    """What a killed process leaves is the files as they are in that moment."""
    path, after = tmp_path / "shared.db", tmp_path / "after.db"
    policy = "deadline: 60s\ntable: [{status: 503, then: retry, processed: false, gate: false}]"
    upstream.script(say(503, headers=[("Retry-After", "20")]))
    clock = ManualClock()
    clock.hold()
    await make(upstream, policy, top=filled(path, "PUT"), clock=clock)
    await clock.sleeping()
    hinted_at = clock.monotonic()
    await until(path, lambda items: items[0].due_at > 0)
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{path}{suffix}", f"{after}{suffix}")
    seen: list[float] = []

    def answer(_: Connection) -> Step:
        seen.append(second.monotonic())
        return say(200)

    upstream.otherwise = answer
    second = ManualClock()
    await make(upstream, policy, top=f"outbox: {{file: {after}}}", clock=second)
    await upstream.received(2)
    assert seen[0] - hinted_at >= 19


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_is_set_changes_no_wait(make: Make, upstream: Upstream, tmp_path: Path, hours: int) -> None:
    path = tmp_path / "shared.db"
    sidecar = await make(upstream, ONE, more=ALWAYS, top=f"outbox: {{file: {path}}}")
    seen = answered_at(sidecar, upstream, say(503, headers=[("Retry-After", "20")]))
    sidecar.clock.hold()
    began_at = sidecar.clock.monotonic()
    await sidecar.ask("POST", "/api/x", body=b"1")
    await sidecar.clock.sleeping()
    sidecar.clock.set_wall(hours * 3600)
    sidecar.clock.release()
    await upstream.received(2)
    assert 20 <= seen[1] - began_at < 60


@pytest.mark.parametrize("policy", [ONE, "attempts: 1\ntable: [{status: 5xx, then: store}]"], ids=["retry", "store"])
async def test_a_request_that_never_succeeds_is_set_aside_and_waits_on(
    make: Make, upstream: Upstream, tmp_path: Path, policy: str
) -> None:
    path = tmp_path / "shared.db"
    top = filled(path, "PUT", "PUT", "PUT")

    async def answer(connection: Connection) -> None:
        request = await connection.read_request()
        await connection.send(head_bytes(500 if request.body == b"1" else 200, [("Content-Length", "0")]))

    upstream.otherwise = lambda _: answer
    sidecar = await make(upstream, policy, top=top)
    (poison,) = await until(path, lambda items: len(items) == 1)
    sidecar.clock.hold()
    assert (poison.body, poison.aside, poison.dead_at) == (b"1", True, None)
    assert [body for body in bodies(upstream) if body != b"1"] == [b"2", b"3"]
    assert bodies(upstream).index(b"2") == 8
    assert "outbox_aside" in sidecar.log.getvalue()


async def test_an_upstream_that_cannot_be_reached_sets_nothing_aside(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    sidecar = await make(refused_port(), "attempts: 1", top=filled(path, "POST", "POST"))
    await sidecar.until(lambda: len(sidecar.clock.waits) > 30)
    sidecar.clock.hold()
    assert [(item.aside, item.tries) for item in left(path)] == [(False, 0)] * 2


async def test_a_reload_that_takes_the_upstream_away_lets_its_requests_rest(
    make: Make, upstream: Upstream, tmp_path: Path
) -> None:
    path = tmp_path / "shared.db"
    upstream.otherwise = lambda _: say(503)
    sidecar = await make(upstream, ONE, top=filled(path, "POST"))
    delivery = sidecar.sidecar._delivery
    assert delivery is not None
    await upstream.received(1)
    before = sidecar.sidecar.deployment
    text = sidecar.path.read_text(encoding="utf-8").replace("name: api", "name: renamed")
    sidecar.path.write_text(text, encoding="utf-8")
    sidecar.sidecar.apply(load_deployment(sidecar.path, environ={}).deployment)
    await sidecar.until(lambda: not delivery._lanes)
    tries, sends = left(path)[0].tries, len(upstream.requests)
    for _ in range(50):
        await asyncio.sleep(0)
    assert (left(path)[0].tries, len(upstream.requests)) == (tries, sends)
    upstream.otherwise = lambda _: say(200)
    sidecar.sidecar.apply(before)
    delivery.wake("api")
    await until(path, lambda items: not items)


async def test_a_fault_of_ours_in_the_midst_of_a_send_does_not_repeat_it(
    make: Make, upstream: Upstream, tmp_path: Path
) -> None:
    path = tmp_path / "shared.db"
    upstream.otherwise = lambda _: say(503)
    table = "attempts: 3\ntable: [{status: 503, then: retry, processed: false}]"
    live = Live()
    upstream.script(live)
    sidecar = await make(upstream, table, top=filled(path, "POST", "PUT"))
    connection = await live.here()
    await connection.read_request()
    services = sidecar.sidecar.services

    def broken() -> float:
        services.chance = lambda: 0.5
        raise RuntimeError

    services.chance = broken
    await connection.send(head_bytes(503, [("Content-Length", "0")]))
    live.over()
    items = await until(path, lambda items: items[0].dead_at is not None)
    assert (items[0].dead_reason, items[0].begun) == ("not_safe", True)
    assert "internal_error" in sidecar.log.getvalue()
    assert bodies(upstream).count(b"1") == 1


def test_only_what_no_waiting_can_change_is_a_dead_letter() -> None:
    """Whatever word joins the closed list is for later, until somebody says here that it is not."""
    final = "not_retryable not_safe body_too_large body_consumed response_started server_says_no spool_failed"
    assert {str(reason) for reason in FINAL_REASONS} == {str(reason) for reason in Reason} & set(final.split())


async def test_a_lane_that_is_cancelled_before_its_first_step_is_not_kept(
    make: Make, upstream: Upstream, tmp_path: Path
) -> None:
    sidecar = await make(upstream, top=filled(tmp_path / "shared.db"))
    delivery = sidecar.sidecar._delivery
    assert delivery is not None
    delivery.wake("api")
    task = delivery._lanes["api"].task
    assert task is not None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0)
    assert delivery._lanes == {}
