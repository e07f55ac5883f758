"""Trouble around the sidecar: networks that swallow packets, resolvers that hang, a loop that stood, odd machines.

Each is a row of ``docs/faults.md``.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.upstream.resolver import AddressInfo
from tests.behaviour.conftest import Make
from tests.support.client import request_bytes
from tests.support.process import Processes
from tests.support.sidecar import QUICK, write_files, yaml_for
from tests.support.upstream import Live, Upstream, free_port, head_bytes, say

IMPATIENT = QUICK.replace("connect: 2s", "connect: 100ms")


@contextlib.contextmanager
def full_queue() -> Iterator[socket.socket]:
    """A listener whose accept queue is full: the kernel drops every further SYN."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _ in range(2):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
        waiting.append(sock)
    try:
        yield listener
    finally:
        for sock in (*waiting, listener):
            sock.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_black_hole_is_a_connect_timeout_and_was_never_sent(make: Make, method: str) -> None:
    with full_queue() as listener:
        sidecar = await make(listener.getsockname()[1], "attempts: 3", quick=IMPATIENT)
        answer = await sidecar.ask(method, "/api/x", body=b"one")
    assert answer.status == 504
    record = await sidecar.record()
    assert [(str(each.failure), each.written) for each in record.attempts] == [("connect_timeout", False)] * 3


async def test_a_listener_that_gets_room_again_is_reached_by_a_retry(make: Make) -> None:
    with full_queue() as listener:
        sidecar = await make(listener.getsockname()[1], "attempts: 3", quick=IMPATIENT)
        sidecar.clock.hold()
        asking = asyncio.create_task(sidecar.ask("POST", "/api/x", body=b"one"))
        await sidecar.clock.sleeping()
        for _ in range(2):
            listener.accept()[0].close()
        sidecar.clock.release()
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listener)
            if data := await loop.sock_recv(sock, 65536):
                break
            sock.close()
        await loop.sock_sendall(sock, head_bytes(201, [("Content-Length", "0")]))
        answer = await asking
        sock.close()
    assert (answer.status, data[:7]) == (201, b"POST /x")
    assert "outcome=recovered" in str(answer.headers.get("Sidecar"))


async def test_a_resolver_that_hangs_is_given_up_after_the_connect_timeout(make: Make, upstream: Upstream) -> None:
    async def hanging(host: str, port: int) -> list[AddressInfo]:
        found: list[AddressInfo] = await asyncio.get_running_loop().create_future()
        return found

    sidecar = await make(
        upstream,
        policies={"default": f"attempts: 2\ntable: [{{failure: any, then: retry}}]\n{IMPATIENT}"},
        lookup=hanging,
    )
    answer = await sidecar.ask("POST", "http://slow.test/x", host="slow.test", body=b"one")
    assert answer.status == 504
    record = await sidecar.record()
    assert [(str(each.failure), each.written) for each in record.attempts] == [("connect_timeout", False)] * 2


async def test_a_loop_that_stood_still_blames_no_upstream(make: Make, upstream: Upstream) -> None:
    """Answers that lie in the kernel are read before the timeouts that became due meanwhile are looked at."""
    sidecar = await make(upstream, "attempts: 1")
    lives = [Live() for _ in range(8)]
    upstream.script(*lives)
    asking = [asyncio.create_task(sidecar.ask("GET", f"/api/{number}")) for number in range(8)]
    connections = [await live.here() for live in lives]
    for connection in connections:
        await connection.read_request()
    for connection in connections:
        await connection.send(head_bytes(200, [("Content-Length", "2")]) + b"ok")
    time.sleep(0.6)  # noqa: ASYNC251 - the loop stands still for longer than `attempt.head`
    for live in lives:
        live.over()
    assert [(await each).status for each in asking] == [200] * 8
    assert all(not record.attempts[0].failure for record in sidecar.records)


async def test_bytes_beyond_the_announced_length_are_no_request(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    async with sidecar.client() as client:
        await client.send(request_bytes("POST", "/api/x", body=b"0123456789") + b"abcde\r\n\r\n")
        assert (await client.answer("POST")).status == 200
        assert (await client.answer()).status == 400
        assert await client.ended() == "closed"
    assert [bytes(request.body) for request in upstream.requests] == [b"0123456789"]


async def test_what_an_app_has_pipelined_is_dropped_when_it_leaves(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    live = Live()
    upstream.script(say(200), say(200), live)
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", "/api/x") * 100)
        await client.answer()
        await client.answer()
        connection = await live.here()
        await connection.read_request()
        client.reset()
    await connection.until_gone()
    live.over()
    await sidecar.record(3)
    assert len(upstream.requests) == 3
    assert await sidecar.metric("sidecar_inflight_requests") == 0


async def test_the_same_request_twice_at_once_is_two_exchanges(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503), say(503))
    fields = [("X-Request-Id", "twice")]
    asking = [asyncio.create_task(sidecar.ask("PUT", "/api/x", fields, b"one")) for _ in range(2)]
    assert [(await each).status for each in asking] == [200, 200]
    await sidecar.record(2)
    assert sum(len(record.attempts) for record in sidecar.records) == len(upstream.requests) == 4


async def test_a_machine_with_nothing_usual_is_good_enough(
    upstream: Upstream, processes: Processes, tmp_path: Path
) -> None:
    """No HOME, locale C, a zone that is none, a directory that cannot be written, a user without a name."""
    path = write_files(tmp_path, yaml_for(upstream), {"test": "extends: default"})
    odd = {"HOME": "", "LANG": "C", "LC_ALL": "C", "TZ": "No/Where", "USER": "", "LOGNAME": ""}
    for each in (path, path.parent / "policies" / "test.yaml"):
        each.chmod(0o444)
    for each in (tmp_path / "policies", tmp_path):
        each.chmod(0o555)
    try:
        process = await processes.serve(path, environ=odd)
        assert (await process.ask("GET", "/api/x")).status == 200
        process.signal(signal.SIGTERM)
        assert (await process.exit()).code == 0
    finally:
        for each in (tmp_path, tmp_path / "policies"):
            each.chmod(0o755)


async def test_after_a_kill_the_next_process_binds_the_same_port_at_once(
    upstream: Upstream, processes: Processes, tmp_path: Path
) -> None:
    port = free_port()
    text = yaml_for(upstream).replace("listen: 127.0.0.1:0", f"listen: 127.0.0.1:{port}")
    path = write_files(tmp_path, text, {"test": "extends: default\nattempt: {head: 30s}"})
    process = await processes.serve(path)
    live = Live()
    upstream.script(live)
    async with process.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        await (await live.here()).read_request()
        process.signal(signal.SIGKILL)
        data, how = await client.everything()
        assert (data, how in ("closed", "reset")) == (b"", True)
    live.over()
    await process.exit()
    again = await processes.serve(path)
    assert again.port == port
    assert (await again.ask("GET", "/api/x")).status == 200


@pytest.mark.parametrize("listen", ["192.0.2.1:8080", "no-such-host.invalid:8080"])
async def test_an_address_that_is_not_there_is_one_clear_line(
    upstream: Upstream, processes: Processes, tmp_path: Path, listen: str
) -> None:
    text = yaml_for(upstream, top="unknown_hosts: refuse").replace("listen: 127.0.0.1:0", f"listen: {listen}")
    process = await processes.start("serve", "-c", str(write_files(tmp_path, text, {"test": "extends: default"})))
    end = await process.exit()
    assert end.code == 1
    (line,) = [line for line in end.said.splitlines() if line.strip()]
    assert listen in line
    assert "Traceback" not in line
