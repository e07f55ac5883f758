"""Attacks on what the exchange promises: each of these has once found a hole.

What is counted here is what a hostile app, a hostile upstream or an unlucky moment costs everybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from sidecar.proxy.client.connection import ClientConnection
from sidecar.upstream.connection import HEAD, Connection
from sidecar.wire import heads
from tests.behaviour.conftest import Make
from tests.support.client import Client, connect, request_bytes
from tests.support.process import Processes
from tests.support.sidecar import Running, write_files, yaml_for
from tests.support.upstream import Live, Upstream, free_port, hang, head_bytes, say, say_raw, tls_server
from tests.support.wire import Gone

ROOT = str(Path(__file__).resolve().parents[3])
PATIENT = "attempt: {connect: 5s, head: 5s, idle: 5s}\nbackoff: {base: 100ms, jitter: none}"


def app_of(sidecar: Running) -> ClientConnection:
    """The one connection that is open."""
    (app,) = sidecar.sidecar.listener._connections
    return app


@contextlib.asynccontextmanager
async def sending(client: Client, data: bytes) -> AsyncIterator[asyncio.Task[None]]:
    """Sends in the background, for as long as it takes."""
    task = asyncio.create_task(client.channel.send(data))
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Gone):
            await task


async def happens(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


# -- a timer, a turn, a connection that belongs to somebody else ---------------------------------------------


async def test_the_timer_of_an_upload_never_ends_the_next_exchange_on_its_connection(
    make: Make, upstream: Upstream
) -> None:
    """An answer came before the upload was whole; the timer that the upload's end starts must go with it."""
    more = "    routes: [{path: /slow, policy: patient}]\n"
    sidecar = await make(upstream, more=more, policies={"patient": f"extends: default\n{PATIENT}"})
    first, second = Live(), Live()
    upstream.script(first, second)
    async with sidecar.client() as client:
        await client.send(request_bytes("PUT", "/api/x", [("Content-Length", "10")]) + b"12345")
        connection = await first.here()
        await connection.read_head()
        await connection.send(head_bytes(200, [("Content-Length", "2")]) + b"o")
        await client.head("PUT")
        await client.send(b"67890")
        await connection.read_body()
        await connection.send(b"k")
        assert await client.rest_of_body() == b"ok"
        first.over()
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/slow"))
        connection = await second.here()
        request = await connection.read_request()
        assert len(upstream.connections) == 1
        gone = asyncio.create_task(connection.until_gone())
        assert not await happens(request.gone, 0.4)
        gone.cancel()
        await connection.send(head_bytes(200, [("Content-Length", "2")]) + b"ok")
        assert (await client.answer()).body == b"ok"
        second.over()


async def test_a_connection_that_comes_back_goes_to_whoever_waits_first(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, quick=PATIENT, more="    connections: 1")
    assert (await sidecar.ask("GET", "/api/warm")).status == 200
    pool = sidecar.sidecar.listener.router.destinations["api"].pool
    taken = pool.take_idle(careful=False)
    assert taken is not None
    waiting = asyncio.create_task(pool.connect(1.0))
    await sidecar.until(lambda: pool.waiting == 1)
    pool.put(taken)
    assert pool.take_idle(careful=False) is None  # somebody else, before the one who waits has had its turn
    assert await waiting is taken
    pool.put(taken)
    assert (await sidecar.ask("GET", "/api/next")).status == 200


async def test_who_gives_up_waiting_for_a_connection_loses_none(make: Make, upstream: Upstream) -> None:
    """The turn and the end of the patience may come in the same moment, in either order."""
    sidecar = await make(upstream, quick=PATIENT, more="    connections: 1")
    assert (await sidecar.ask("GET", "/api/warm")).status == 200
    pool = sidecar.sidecar.listener.router.destinations["api"].pool
    for cancel_first in (True, False):
        taken = pool.take_idle(careful=False)
        assert taken is not None
        waiting = asyncio.create_task(pool.connect(1.0))
        await sidecar.until(lambda: pool.waiting == 1)
        if cancel_first:
            waiting.cancel()
            pool.put(taken)
        else:
            pool.put(taken)
            waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await sidecar.ask("GET", "/api/next")).status == 200
    assert len(upstream.connections) == 1


# -- deadlines -----------------------------------------------------------------------------------------------


async def test_the_wait_for_a_connection_counts_against_the_deadline(make: Make, upstream: Upstream) -> None:
    policy = "attempts: 1\ndeadline: 600ms\nattempt: {connect: 600ms, head: 600ms, idle: 600ms}"
    sidecar = await make(upstream, policy, quick="", more="    connections: 1")
    first = Live()
    upstream.script(first, hang())
    loop = asyncio.get_running_loop()
    begun = loop.time()
    holder = asyncio.create_task(sidecar.ask("GET", "/api/holder"))
    connection = await first.here()
    await connection.read_request()
    behind = asyncio.create_task(sidecar.ask("GET", "/api/behind"))
    pool = sidecar.sidecar.listener.router.destinations["api"].pool
    await sidecar.until(lambda: pool.waiting == 1)
    await sidecar.until(lambda: loop.time() - begun > 0.45)
    await connection.send(head_bytes(200, [("Content-Length", "2")]) + b"ok")
    first.over()
    assert (await holder).status == 200
    assert (await behind).status == 504
    assert loop.time() - begun < 0.9


async def test_a_losing_answer_that_dawdles_does_not_push_the_wait_past_the_deadline(
    make: Make, upstream: Upstream
) -> None:
    """The wait counts from the judgement, not from when the losing answer was let go."""
    sidecar = await make(upstream, "deadline: 2s\nwait: [{constant: 600ms}]")
    stuck = head_bytes(503, [("Content-Length", "10")]) + b"half"
    upstream.script(say_raw(stuck, wait=True), say(200, b"fine"))
    answer = await sidecar.ask("GET", "/api/x")
    assert answer.status == 200
    (waited,) = sidecar.clock.waits
    assert waited <= 0.6 - 0.4  # half a second of it went by while the rest of the body was given a chance


# -- what an app may cost ------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/api/x", "/nowhere"])
async def test_pipelined_requests_are_not_hoarded(make: Make, upstream: Upstream, target: str) -> None:
    sidecar = await make(upstream, quick=PATIENT)
    most = 0
    async with sidecar.client() as client:
        flood = request_bytes("GET", target) * (6_000_000 // len(request_bytes("GET", target)))
        async with sending(client, flood):
            for _ in range(400):
                await client.answer()
                most = max(most, len(app_of(sidecar).reader.behind))
    assert most <= 400_000


async def test_a_long_body_behind_a_long_queue_still_arrives(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, quick=PATIENT)
    flood = request_bytes("GET", "/api/x") * 8000 + request_bytes("PUT", "/api/put", body=bytes(1 << 20))
    async with sidecar.client() as client, sending(client, flood + request_bytes("GET", "/api/last")):
        for _ in range(8002):
            assert (await client.answer()).status == 200
    assert upstream.requests[8000].body_bytes == 1 << 20
    assert upstream.requests[8001].target == "/last"


async def test_answers_that_nobody_reads_are_not_heaped_up(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, quick=PATIENT)
    upstream.otherwise = lambda _: say(200, bytes(60_000))
    flood = request_bytes("GET", "/api/x") * 1000
    async with sidecar.client(receive_buffer_bytes=4096) as client, sending(client, flood):
        await sidecar.until(lambda: app_of(sidecar).stalled_since > 0)
        app = app_of(sidecar)
        await sidecar.until(lambda: app.current is None)
        served = len(upstream.requests)
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(upstream.requests) <= served + 1
        assert app.transport is not None
        assert app.transport.get_write_buffer_size() < 1 << 20
        for _ in range(1000):
            assert len((await client.answer()).body) == 60_000


async def test_one_request_at_a_time_without_reading_heaps_nothing_up_either(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, quick=PATIENT)
    upstream.otherwise = lambda _: say(200, bytes(60_000))
    async with sidecar.client(receive_buffer_bytes=4096) as client:
        count = 0
        while count < 1000 and not (count and app_of(sidecar).stalled_since):
            await client.send(request_bytes("GET", "/api/x"))
            count += 1
            await sidecar.record(count)
        await client.send(request_bytes("GET", "/api/x"))
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(upstream.requests) == count
        for _ in range(count + 1):
            assert len((await client.answer()).body) == 60_000


async def test_an_app_that_never_takes_its_last_bytes_is_let_go(make: Make, upstream: Upstream) -> None:
    """Less than the mark at which writing pauses: no stall is told, and closing waits for the flush."""
    sidecar = await make(upstream, quick=PATIENT, top="limits: {idle: 100ms}")
    sidecar.sidecar.listener.stall_seconds = 0.1
    upstream.otherwise = lambda _: say(200, bytes(30_000))
    async with sidecar.client(receive_buffer_bytes=4096) as client:
        count = 0
        while True:
            await client.send(request_bytes("GET", "/api/x"))
            count += 1
            await sidecar.record(count)
            transport = app_of(sidecar).transport
            if transport is None or transport.get_write_buffer_size() > 0:
                break
        assert not app_of(sidecar).stalled_since
        await sidecar.until(lambda: sidecar.sidecar.listener.connections == 0)


async def test_heads_that_never_end_are_given_up_one_after_the_other(make: Make, upstream: Upstream) -> None:
    """While one of them lingers after its 408, the sweep comes by again."""
    sidecar = await make(upstream, top="limits: {head_timeout: 100ms}")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            client = await stack.enter_async_context(sidecar.client())
            await client.send(b"GET /api/x HTTP/1.1\r\nHost: si")
            assert (await client.answer()).status == 408
    assert (await sidecar.ask("GET", "/api/x")).status == 200


async def test_a_body_that_stalls_is_answered_with_the_ids_of_its_request(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(request_bytes("POST", "/api/x", [("X-Request-Id", "mine")], b"whole")[:-3])
        answer = await client.answer()
    assert (answer.status, answer.headers.get("X-Request-Id")) == (408, "mine")


async def test_an_app_whose_heads_come_in_two_pieces_is_never_too_slow(make: Make, upstream: Upstream) -> None:
    """Whenever the sweep looks there is a part of a head; but never of the same one."""
    sidecar = await make(upstream, quick=PATIENT, top="limits: {head_timeout: 200ms}")
    data = request_bytes("GET", "/api/x")
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with sidecar.client() as client:
        await client.send(data[:20])
        while (now := loop.time()) - begun < 1.0:
            await sidecar.until(lambda: loop.time() - now > 0.06)
            await client.send(data[20:] + data[:20])
            assert (await client.answer()).status == 200


async def test_an_upload_behind_a_slow_answer_is_not_blamed_for_it(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, quick="attempt: {connect: 500ms, head: 5s, idle: 200ms}")
    slow = Live()
    upstream.script(slow)
    loop = asyncio.get_running_loop()
    async with sidecar.client() as client:
        put = request_bytes("PUT", "/api/put", [("Content-Length", "10")])
        await client.send(request_bytes("GET", "/api/slow") + put + b"12345")
        connection = await slow.here()
        await connection.read_request()
        came = loop.time()
        await sidecar.until(lambda: loop.time() - came > 0.3)
        await connection.send(head_bytes(200, [("Content-Length", "2")]) + b"ok")
        slow.over()
        assert (await client.answer()).body == b"ok"
        await upstream.received(2)
        await client.send(b"67890")
        assert (await client.answer()).status == 200
    assert bytes(upstream.requests[1].body) == b"1234567890"


async def test_uploads_leave_no_watchers_behind(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, quick=PATIENT)
    async with sidecar.client() as client:
        await client.ask("GET", "/api/warm")
        app = app_of(sidecar)
        for _ in range(50):
            await client.send(request_bytes("PUT", "/api/put", [("Content-Length", "10")]) + b"12345")
            await sidecar.until(lambda: app.current is not None)
            await client.send(b"67890")
            assert (await client.answer()).status == 200
        kept = [each for each in gc.get_referrers(app) if getattr(each, "__name__", "") == "watch_body"]
        assert len(kept) <= 1


# -- what an upstream may cost -------------------------------------------------------------------------------


async def test_a_long_head_that_comes_byte_by_byte_is_scanned_once() -> None:
    """Not once for every byte: 30 KB of short lines would take the loop twenty seconds, 256 KiB half an hour."""
    data = b"HTTP/1.1 200 OK\r\n" + b"a:b\r\n" * 6000
    connection = Connection(asyncio.get_running_loop(), NullClient())
    connection._state = HEAD
    begun = time.process_time()
    for at in range(len(data)):
        connection.data_received(data[at : at + 1])
    assert connection.failure is None
    assert time.process_time() - begun < 2.0


class NullClient:
    def put(self, connection: Connection) -> None: ...
    def gone(self, connection: Connection) -> None: ...


async def test_an_upstream_cannot_fill_our_memory_with_words(make: Make, upstream: Upstream) -> None:
    """Neither reason phrases nor names of fields are remembered whatever their length."""
    sidecar = await make(upstream)
    for number in range(5):
        long = "x" * 200_000 + str(number)
        upstream.script(say_raw(head_bytes(200, [("Content-Length", "0")], reason=long)))
        assert (await sidecar.ask("GET", "/api/x")).status == 200
        upstream.script(say_raw(head_bytes(200, [(long, "1"), ("Content-Length", "0")])))
        assert (await sidecar.ask("GET", "/api/x")).status == 200
        assert (await sidecar.ask("GET", "/api/x", [(f"X-{number}" * 3000, "1")])).status == 200
    remembered = sum(len(line) for line in heads._status_lines.values())
    compiled = sidecar.sidecar.listener.router.destinations["api"].compiled
    for rules in (compiled.request_rules, compiled.response_rules):
        remembered += sum(len(name) for name in rules.memory)
    assert remembered < 100_000


async def test_chunked_over_http_10_ends_the_upstreams_connection(make: Make, upstream: Upstream) -> None:
    """RFC 9112 section 6.1: its framing is faulty."""
    sidecar = await make(upstream, "attempts: 1")
    head = head_bytes(200, [("Transfer-Encoding", "chunked"), ("Connection", "keep-alive")], version="1.0")
    upstream.script(say_raw(head + b"2\r\nok\r\n0\r\n\r\n"))
    answer = await sidecar.ask("GET", "/api/x")
    assert answer.status in (200, 502)
    assert (await sidecar.ask("GET", "/api/y")).status == 200
    assert len(upstream.connections) == 2


async def test_a_body_until_close_that_ends_without_tls_saying_so_is_not_whole(
    make: Make, authority: trustme.CA, authority_file: str, tmp_path: Path
) -> None:
    """Anybody on the way can send a FIN; only close_notify is the upstream's own end (RFC 8446 section 6.1)."""
    path = tmp_path / "chain.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(path))
    context = tls_server(str(path))
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        raw, _ = server.accept()
        with context.wrap_socket(raw, server_side=True) as tls:
            tls.recv(65536)
            tls.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf")
            os.close(tls.detach())

    serving = asyncio.create_task(asyncio.to_thread(serve))
    more = f"    ca_file: {authority_file}\n"
    port: int = server.getsockname()[1]
    sidecar = await make(port, "attempts: 1", scheme="https", more=more)
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        answer = await client.answer()
    await serving
    server.close()
    assert answer.cut is not None
    assert (await sidecar.record()).body_cut


# -- the target, byte for byte -------------------------------------------------------------------------------


async def test_a_target_that_begins_with_two_slashes_keeps_both(make: Make, upstream: Upstream) -> None:
    text = f"""
listen: 127.0.0.1:0
admin: 127.0.0.1:0
upstreams:
  - {{name: api, origin: "http://127.0.0.1:{upstream.port}", mount: /api, policy: test}}
  - {{name: rest, origin: "http://127.0.0.1:{upstream.port}", mount: /, policy: test}}
"""
    sidecar = await make(upstream, text=text)
    assert (await sidecar.ask("GET", "//evil.example/x")).status == 200
    assert (await sidecar.ask("GET", "/api//x")).status == 200
    assert [request.target for request in upstream.requests] == ["//evil.example/x", "//x"]


# -- the end -------------------------------------------------------------------------------------------------


async def test_an_answer_given_while_shutting_down_says_that_it_is_the_last(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, quick=PATIENT)
    live = Live()
    upstream.script(live)
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        connection = await live.here()
        await connection.read_request()
        sidecar.sidecar.listener.drain()
        await connection.send(head_bytes(200, [("Content-Length", "2")]) + b"ok")
        live.over()
        answer = await client.answer()
        assert (answer.body, answer.headers.get("Connection")) == (b"ok", "close")
        assert await client.ended() == "closed"


async def test_a_request_that_had_come_before_the_shutdown_is_still_answered(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, quick=PATIENT)
    async with sidecar.client() as client, sidecar.client() as idle:
        assert (await client.ask("GET", "/api/x")).status == 200
        assert (await idle.ask("GET", "/api/x")).status == 200
        # Written to the kernel in this very turn of the loop: nobody can have read it.
        client.channel.sock.send(request_bytes("GET", "/api/last"))
        sidecar.sidecar.listener.drain()
        answer = await client.answer()
        assert (answer.status, answer.headers.get("Connection")) == (200, "close")
        assert await client.ended() == "closed"
        assert await idle.ended() == "closed"


async def test_one_id_names_both_whichever_way_the_head_was_read(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    for target, more in (("/api/x", []), ("/api/x", [("Via", "1.1 other")]), ("/nowhere", [])):
        for _ in range(2):
            answer = await sidecar.ask("GET", target, more)
            assert answer.headers.get("X-Request-Id") == answer.headers.get("X-Correlation-Id")


@pytest.mark.parametrize("place", ["path", "header", "reason", "id", "response"])
async def test_bytes_that_are_no_text_break_no_record(make: Make, upstream: Upstream, place: str) -> None:
    """They must not stop the story from being told, nor the exchange from ending."""
    sidecar = await make(
        upstream, "ids: {request: {header: X-Request-Id, from_response: [X-Odd]}}", top="log: {format: json, sample: 1}"
    )
    odd = b"\xff\xfe\xed\xa0\x80"
    extra = b"X-Odd: " + odd + b"\r\n" if place in ("header", "response") else b""
    reason = odd if place == "reason" else b"OK"
    upstream.script(say_raw(b"HTTP/1.1 500 " + reason + b"\r\n" + extra + b"Content-Length: 2\r\n\r\nok"))
    upstream.otherwise = lambda _: say_raw(b"HTTP/1.1 200 OK\r\n" + extra + b"Content-Length: 2\r\n\r\nok")
    target = b"/api/" + (odd if place == "path" else b"x")
    field = {"header": b"X-Odd: " + odd, "id": b"X-Request-Id: " + odd}.get(place, b"X: 1")
    async with sidecar.client() as client:
        await client.send(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n\r\n")
        answer = await client.answer()
        assert answer.status in (200, 400)
        if answer.status == 200:
            assert (await client.ask("GET", "/api/y")).status == 200
    assert "internal_error" not in sidecar.log.getvalue()


# -- the process ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["closed", "full"])
async def test_a_process_without_an_output_serves_and_ends_as_any_other(
    upstream: Upstream, tmp_path: Path, where: str
) -> None:
    """A socket that gets the number of a closed standard stream would abort the process when it is closed."""
    port = free_port()
    text = yaml_for(upstream).replace("listen: 127.0.0.1:0", f"listen: 127.0.0.1:{port}")
    path = write_files(tmp_path, text, {"test": "extends: default"})
    outputs = ">&- 2>&- <&-" if where == "closed" else ">/dev/full 2>/dev/full"
    child = await asyncio.create_subprocess_shell(
        f"exec {sys.executable} -m sidecar serve -c {path} {outputs}",
        env={**os.environ, "PYTHONPATH": ROOT},
    )
    try:
        async with asyncio.timeout(15):
            while not await answers(port):
                assert child.returncode is None
            for _ in range(3):
                assert await answers(port)
            child.terminate()
            assert await child.wait() == 0
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def answers(port: int) -> bool:
    try:
        async with connect("127.0.0.1", port) as client:
            return (await client.ask("GET", "/api/x")).status == 200
    except (OSError, Gone):
        return False


async def test_apps_leave_descriptors_for_the_upstreams(
    upstream: Upstream, processes: Processes, tmp_path: Path
) -> None:
    process = await processes.serve(write_files(tmp_path, yaml_for(upstream), {"test": "extends: default"}))
    resource.prlimit(process.child.pid, resource.RLIMIT_NOFILE, (64, 64))
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(process.client()) for _ in range(10)]
        for client in [*clients, *[await stack.enter_async_context(process.client()) for _ in range(60)]]:
            with contextlib.suppress(OSError, Gone):
                await client.send(request_bytes("GET", "/api/x"))
        for client in clients:
            assert (await client.answer()).status == 200
