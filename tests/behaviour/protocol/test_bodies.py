"""Bodies arrive whole or visibly broken; they are held for replay up to the limits, and memory stays flat."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.proxy.client.spool import KEPT_FILES
from tests.behaviour.conftest import Make
from tests.support.client import request_bytes
from tests.support.process import Processes
from tests.support.sidecar import write_files, yaml_for
from tests.support.upstream import Connection, Live, Upstream, early, head_bytes, reset, say
from tests.support.wire import Gone

MIB = 1 << 20
SMALL = "body: {memory: 16KiB, disk: 64KiB}"


def noise(count: int, seed: int = 7) -> bytes:
    return random.Random(seed).randbytes(count)


async def settled(look: Callable[[], int]) -> int:
    """The value, once it has stopped moving."""
    async with asyncio.timeout(60):
        last, same = look(), 0
        while same < 15:
            await asyncio.sleep(0.004)
            now = look()
            last, same = now, same + 1 if now == last else 0
        return last


@pytest.mark.parametrize("size", [0, 1, 1000, 65_535, 65_536, 65_537, MIB])
async def test_bodies_of_all_sizes_come_through_both_ways(make: Make, upstream: Upstream, size: int) -> None:
    sidecar = await make(upstream)
    up, down = noise(size, 1), noise(size, 2)
    upstream.script(say(200, down), say(200, chunks=[down[at : at + 8000] for at in range(0, size, 8000)]))
    async with sidecar.client() as client:
        sized = await client.ask("POST", "/api/x", body=up)
        chunked = await client.ask("POST", "/api/x", chunks=[up[at : at + 7000] for at in range(0, size, 7000)])
    assert (sized.body, sized.cut) == (down, None)
    assert (chunked.body, chunked.cut) == (down, None)
    assert [bytes(request.body) for request in upstream.requests] == [up, up]
    assert all(request.complete for request in upstream.requests)


async def test_10_mib_go_up_and_down(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    up, down = noise(10 * MIB, 1), noise(10 * MIB, 2)
    upstream.script(say(200, down))
    answer = await sidecar.ask("PUT", "/api/x", body=up)
    assert answer.body == down
    assert bytes(upstream.requests[0].body) == up


@pytest.mark.parametrize("size", [1000, 16 * 1024, 40_000, 64 * 1024])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_held_body_is_replayed_to_the_byte(make: Make, upstream: Upstream, size: int, chunked: bool) -> None:
    sidecar = await make(upstream, SMALL)
    upstream.script(reset(), say(503), say(200, b"yes"))
    body = noise(size)
    pieces = [body[at : at + 5000] for at in range(0, size, 5000)] if chunked else None
    answer = await sidecar.ask("PUT", "/api/x", body=None if chunked else body, chunks=pieces)
    assert (answer.status, answer.body) == (200, b"yes")
    assert [bytes(request.body) for request in upstream.requests] == [body] * 3


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_beyond_the_limits_is_streamed_once(make: Make, upstream: Upstream, chunked: bool) -> None:
    sidecar = await make(upstream, SMALL)
    upstream.script(say(503, b"sorry"), say(200))
    body = noise(300_000)
    pieces = [body[at : at + 5000] for at in range(0, len(body), 5000)] if chunked else None
    answer = await sidecar.ask("PUT", "/api/x", body=None if chunked else body, chunks=pieces)
    assert (answer.status, answer.body) == (503, b"sorry")
    assert [bytes(request.body) for request in upstream.requests] == [body]
    record = await sidecar.record()
    assert (record.outcome, record.reason) == ("exhausted", "body_too_large")


async def test_a_body_beyond_the_limits_that_fails_gets_502(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, SMALL)
    upstream.script(reset(), say(200))
    answer = await sidecar.ask("PUT", "/api/x", body=noise(300_000))
    assert answer.status == 502
    assert (await sidecar.record()).reason == "body_too_large"
    assert len(upstream.requests) == 1


async def test_a_body_that_the_disk_refuses_is_sent_once_and_that_is_told(
    make: Make, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, pieces: object, offset: int) -> int:
        raise OSError(errno.ENOSPC, "the disk is full")

    sidecar = await make(upstream, "body: {memory: 64KiB, disk: 64MiB}")
    upstream.script(say(503, b"sorry"), say(200))
    monkeypatch.setattr(os, "pwritev", full)
    body = noise(700_000)
    answer = await sidecar.ask("PUT", "/api/x", body=body)
    assert (answer.status, answer.body) == (503, b"sorry")
    assert [bytes(request.body) for request in upstream.requests] == [body]
    assert (await sidecar.record()).reason == "spool_failed"


async def test_nothing_is_held_when_the_exchange_is_over(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "body: {memory: 64KiB, disk: 64KiB}")
    live = Live()
    upstream.script(live)
    async with sidecar.client() as client:
        await client.send(request_bytes("PUT", "/api/x", [("Content-Length", "40000")]))
        connection = await live.here()
        await connection.read_head()
        await client.send(noise(40_000))
        await connection.read_body()
        assert 40_000 <= await sidecar.metric("sidecar_buffered_bytes") <= 80_000
        await connection.send(head_bytes(200, [("Content-Length", "0")]))
        live.over()
        assert (await client.answer()).status == 200
    assert await sidecar.metric("sidecar_buffered_bytes") == 0


async def test_an_upload_is_streamed_while_it_arrives(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, SMALL)
    live = Live()
    upstream.script(live)
    async with sidecar.client() as client:
        await client.send(request_bytes("PUT", "/api/x", [("Content-Length", "100000")]))
        await client.send(noise(90_000))
        connection = await live.here()
        request = await connection.read_head()
        while request.body_bytes < 90_000:
            await connection.read_piece()
        await client.send(noise(10_000))
        await connection.read_body()
        assert request.body_bytes == 100_000
        await connection.send(head_bytes(200, [("Content-Length", "0")]))
        live.over()
        assert (await client.answer()).status == 200


async def test_an_answer_to_a_later_attempt_ends_an_unfinished_upload(make: Make, upstream: Upstream) -> None:
    """A reset in the middle of the upload allows a retry; an answer in the middle of it ends the exchange."""
    sidecar = await make(upstream)
    upstream.script(reset("head"), early(503, b"early"))
    async with sidecar.client() as client:
        await client.send(request_bytes("PUT", "/api/x", [("Content-Length", "100000")]) + noise(50_000))
        answer = await client.answer("PUT")
    assert (answer.status, answer.body) == (503, b"early")
    assert len(upstream.requests) == 2
    assert (await sidecar.record()).reason == "body_consumed"


async def test_an_upload_survives_a_reset_in_its_middle(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, SMALL)
    body = noise(60_000)

    async def reset_half_way(connection: Connection) -> None:
        request = await connection.read_head()
        while request.body_bytes < 30_000:
            await connection.read_piece()
        connection.reset()

    upstream.script(reset_half_way, reset_half_way, say(200, b"yes"))
    async with sidecar.client() as client:
        await client.send(request_bytes("PUT", "/api/x", [("Content-Length", "60000")]) + body[:30_000])
        await upstream.received(3)
        await client.send(body[30_000:])
        assert (await client.answer("PUT")).body == b"yes"
    assert bytes(upstream.requests[2].body) == body


async def test_a_post_reset_in_the_middle_of_its_upload_is_over(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(reset("head"))
    smuggled = request_bytes("GET", "/api/smuggled")
    async with sidecar.client() as client:
        await client.send(request_bytes("POST", "/api/x", [("Content-Length", str(2 * len(smuggled)))]) + smuggled)
        assert (await client.answer("POST")).status == 502
        with contextlib.suppress(Gone):
            await client.send(smuggled)
        data, _ = await client.everything()
        assert data == b""
    assert [request.target for request in upstream.requests] == ["/x"]


async def test_a_slow_app_slows_the_upstream(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempt: {idle: 30s}", quick="")
    size, sent = 48 * MIB, 0

    async def pour(connection: Connection) -> None:
        nonlocal sent
        await connection.read_request()
        await connection.send(head_bytes(200, [("Content-Length", str(size))]))
        while sent < size:
            await connection.send(bytes(MIB // 4))
            sent += MIB // 4

    upstream.script(pour)
    async with sidecar.client(receive_buffer_bytes=65536) as client:
        await client.send(request_bytes("GET", "/api/x"))
        assert (await client.head()).status == 200
        assert await settled(lambda: sent) < 24 * MIB  # what the kernel's buffers take; the sidecar adds little
        got = len(await client.rest_of_body())
    assert got == size


async def test_a_slow_upstream_slows_the_app(make: Make) -> None:
    async with Upstream.start(receive_buffer_bytes=65536) as upstream:
        sidecar = await make(upstream, "body: {memory: 16KiB, disk: 64KiB}\nattempt: {idle: 30s}", quick="")
        live = Live()
        upstream.script(live)
        upstream.keep_bodies = False
        size, sent = 48 * MIB, 0
        async with sidecar.client() as client:

            async def push() -> None:
                nonlocal sent
                await client.channel.send(request_bytes("PUT", "/api/x", [("Content-Length", str(size))]))
                while sent < size:
                    await client.channel.send(bytes(MIB // 4))
                    sent += MIB // 4

            pushing = asyncio.create_task(push())
            connection = await live.here()
            request = await connection.read_head()
            assert await settled(lambda: sent) < 24 * MIB
            await connection.read_body()
            await pushing
            assert request.body_bytes == size
            await connection.send(head_bytes(200, [("Content-Length", "0")]))
            live.over()
            assert (await client.answer()).status == 200


async def test_the_memory_of_the_process_stays_flat(upstream: Upstream, processes: Processes, tmp_path: Path) -> None:
    """40 MiB down to a slow reader and 40 MiB up, against the peak of resident memory."""
    policy = "extends: default\nbody: {memory: 64KiB, disk: 1MiB}\n"
    process = await processes.serve(write_files(tmp_path, yaml_for(upstream), {"test": policy}))
    upstream.keep_bodies = False
    size = 40 * MIB
    for _ in range(20):
        await process.ask("POST", "/api/warm", body=bytes(100_000))
    before = process.resident_bytes()
    payload = bytes(size)
    upstream.script(say(200, payload), say(200))
    async with process.client() as client:
        await client.send(request_bytes("GET", "/api/down"))
        await client.head()
        await client.take(1000)
        received = hashlib.sha256()
        total = 1000
        while data := await client.piece():
            received.update(data)
            total += len(data)
        assert total >= size - 65536
        assert (await client.ask("PUT", "/api/up", body=payload)).status == 200
    assert upstream.requests[-1].body_bytes == size
    assert process.resident_bytes() - before < 10 * MIB


async def test_a_body_held_on_disk_is_replayed_and_leaves_nothing(
    upstream: Upstream, processes: Processes, tmp_path: Path
) -> None:
    policy = "extends: default\nbody: {memory: 64KiB, disk: 64MiB}\nbackoff: {base: 1ms, jitter: none}\n"
    process = await processes.serve(write_files(tmp_path, yaml_for(upstream), {"test": policy}))
    upstream.keep_bodies = False
    for _ in range(20):
        await process.ask("PUT", "/api/warm", body=bytes(100_000))
    before, descriptors = process.resident_bytes(), process.descriptors()
    payload = noise(MIB) * 40
    upstream.script(say(503), reset(), say(200, b"yes"))
    answer = await process.ask("PUT", "/api/up", body=payload)
    assert (answer.status, answer.body) == (200, b"yes")
    sent = hashlib.sha256(payload).hexdigest()
    assert [request.digest for request in upstream.requests if request.target == "/up"] == [sent] * 3
    assert process.resident_bytes() - before < 10 * MIB
    assert len([name for name in process.descriptors() if "deleted" in name]) <= KEPT_FILES
    assert len(process.descriptors()) <= len(descriptors) + 2 + KEPT_FILES


async def test_a_short_upload_is_never_passed_off_as_whole(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    for head in (
        request_bytes("PUT", "/api/x", [("Content-Length", "10")]) + b"12345",
        request_bytes("PUT", "/api/x", [("Transfer-Encoding", "chunked")]) + b"5\r\n12345\r\n",
    ):
        async with sidecar.client() as client:
            await client.send(head)
            client.end_sending()
            data, _ = await client.everything()
            assert data == b"" or b" 400 " in data.split(b"\r\n")[0]
    await upstream.until(lambda: upstream.open_connections == 0 or not upstream.requests)
    assert not any(request.complete for request in upstream.requests)
    assert all("x" not in target for target in upstream.effects)


async def test_an_endless_answer_without_a_length_ends_with_the_connection(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)

    async def until_close(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\n" + b"part one, ")
        await connection.send(b"part two")
        connection.close()

    upstream.script(until_close)
    async with sidecar.client() as client:
        answer = await client.ask("GET", "/api/x")
        assert (answer.body, answer.cut) == (b"part one, part two", None)
        assert answer.framing in ("chunked", "close")


@pytest.mark.parametrize("keep", [False, True])
async def test_an_http_10_app_gets_chunks_as_plain_bytes(make: Make, upstream: Upstream, keep: bool) -> None:
    """Without a length the end of the connection is the end of the body, whatever was agreed."""
    sidecar = await make(upstream)
    upstream.script(say(200, chunks=[b"one, ", b"two"]))
    wish = b"Connection: keep-alive\r\n" if keep else b""
    async with sidecar.client() as client:
        await client.send(b"GET /api/x HTTP/1.0\r\nHost: sidecar.test\r\n" + wish + b"\r\n")
        answer = await client.answer()
        assert (answer.body, answer.framing, answer.cut) == (b"one, two", "close", None)
        assert "Transfer-Encoding" not in answer.headers


async def test_a_head_answer_after_retries_has_its_length_and_no_body(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "attempts: 2")
    busy = [("Content-Length", "777")]
    upstream.script(say(503, headers=busy), say(503, headers=busy), say(200, b"next"))
    async with sidecar.client() as client:
        answer = await client.ask("HEAD", "/api/x")
        assert (answer.status, answer.headers.get("Content-Length"), answer.body) == (503, "777", b"")
        assert (await client.ask("GET", "/api/y")).body == b"next"
