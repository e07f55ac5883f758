"""Whatever the mixture of faults: one whole answer or a visible cut per request, nobody else's bytes, nothing left."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.proxy.client.spool import KEPT_FILES
from tests.behaviour.conftest import Make
from tests.support.client import Answer, Client, request_bytes
from tests.support.process import Processes
from tests.support.sidecar import write_files, yaml_for
from tests.support.upstream import Connection, Received, Step, Upstream, head_bytes
from tests.support.wire import Gone, Malformed

POLICY = """
extends: default
deadline: 20s
attempts: 4
attempt: {connect: 5s, head: 5s, idle: 5s}
backoff: {base: 1ms, factor: 1, cap: 2ms, jitter: full}
budget: {ratio: 1, min_per_second: 100000}
body: {memory: 16KiB, disk: 64KiB}
"""
SIZES = (0, 1, 100, 5000, 65_535, 65_537, 200_000)


def answer_of(request: Received, dice: random.Random) -> bytes:
    """A whole answer that names its request, in one of the framings there are."""
    body = request.target.encode() + b"|" + bytes(request.body[:10]) + b"|" + b"x" * dice.choice(SIZES)
    marks = [("X-For", request.target)]
    kind = dice.randrange(4)
    if request.method == "HEAD":
        return head_bytes(200, [*marks, ("Content-Length", str(len(body)))])
    if kind == 0:
        half = len(body) // 2
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part)
        return head_bytes(200, [*marks, ("Transfer-Encoding", "chunked")]) + chunks + b"0\r\n\r\n"
    if kind == 1:
        return (
            head_bytes(103, [("Link", "</a>")]) + head_bytes(200, [*marks, ("Content-Length", str(len(body)))]) + body
        )
    if kind == 2 and not body:
        return head_bytes(204, marks)
    return head_bytes(200, [*marks, ("Content-Length", str(len(body)))]) + body


def chaotic(seed: int) -> Callable[[Connection], Step]:
    """A step that does what the dice say; half of the time it simply answers."""
    dice = random.Random(seed)

    async def step(connection: Connection) -> None:
        fault = dice.random()
        if fault < 0.04:
            connection.reset()
            return
        request = await connection.read_head()
        if fault < 0.08:
            connection.close()
            return
        await connection.read_body()
        answer = answer_of(request, dice)
        if fault < 0.14:
            connection.reset()
        elif fault < 0.20:
            connection.close()
        elif fault < 0.26:
            await connection.send(answer[: dice.randrange(1, len(answer))])
            connection.close()
        elif fault < 0.30:
            await connection.send(b"nonsense\r\n\r\n")
            connection.close()
        elif fault < 0.45:
            size = dice.choice(SIZES)
            await connection.send(
                head_bytes(503, [("X-For", request.target), ("Content-Length", str(size))]) + bytes(size)
            )
        elif fault < 0.50:
            await connection.send(answer)
            connection.close()
        elif fault < 0.56:
            await connection.send(answer + b"HTTP/1.1 200 OK\r\nX-For: evil\r\nContent-Length: 4\r\n\r\nevil")
        elif fault < 0.64:
            for at in range(0, len(answer), len(answer) // 5 + 1):
                await connection.send(answer[at : at + len(answer) // 5 + 1])
                await asyncio.sleep(0)
        else:
            await connection.send(answer)

    return lambda _: step


def verify(answer: Answer, target: str) -> None:
    own = answer.headers.get("Proxy-Status") is not None
    if not own:
        assert answer.headers.get("X-For") == target
    if answer.status == 200 and answer.body:
        assert (target.encode() + b"|").startswith(answer.body[: len(target) + 1])
    assert answer.status in (200, 204, 502, 503, 504)
    assert answer.headers.get("Sidecar")


async def one(client: Client, dice: random.Random, target: str) -> bool:
    """One exchange; whether the connection can be used again."""
    method = dice.choice(["GET", "GET", "PUT", "POST", "HEAD", "DELETE"])
    size = dice.choice(SIZES) if method in ("PUT", "POST") else None
    body = None if size is None else target.encode().ljust(size, b".")[:size]
    chunks = None
    if body and dice.random() < 0.3:
        chunks, body = [body[:1000], body[1000:] or b"."], None
    if dice.random() < 0.05:
        await client.send(request_bytes(method, f"/api{target}", body=body, chunks=chunks))
        client.reset()
        return False
    answer = await client.ask(method, f"/api{target}", body=body, chunks=chunks)
    verify(answer, target)
    return answer.cut is None and (answer.headers.get("Connection") or "").lower() != "close"


async def app(connect: Callable[[], object], seed: int, count: int) -> None:
    dice = random.Random(seed)
    number = 0
    while number < count:
        async with connect() as client:  # type: ignore[attr-defined]
            usable = True
            while usable and number < count:
                number += 1
                try:
                    usable = await one(client, dice, f"/{seed}/{number}")
                except Malformed:
                    raise
                except (Gone, OSError):
                    usable = False


def effects_are_single(upstream: Upstream) -> None:
    posts = [request.target for request in upstream.requests if request.method == "POST" and request.complete]
    answered_503 = len(posts) - len(set(posts))
    assert answered_503 == 0, "an unkeyed POST was applied twice"


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_mixture_of_faults_in_process(make: Make, upstream: Upstream, seed: int) -> None:
    sidecar = await make(upstream, quick=POLICY.replace("extends: default", ""))
    upstream.otherwise = chaotic(seed)
    await sidecar.ask("GET", "/api/warm")
    tasks, descriptors = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
    await asyncio.gather(*[app(sidecar.client, seed * 100 + number, 40) for number in range(8)])
    effects_are_single(upstream)
    await sidecar.until(lambda: len(asyncio.all_tasks()) <= tasks + upstream.open_connections + 1)
    assert await sidecar.metric("sidecar_inflight_requests") == 0
    assert await sidecar.metric("sidecar_buffered_bytes") == 0
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2 * upstream.open_connections + 2 + KEPT_FILES
    assert "Traceback" not in sidecar.log.getvalue()
    assert all(record.attempts or record.outcome == "client_gone" for record in sidecar.records)


async def test_a_mixture_of_faults_against_the_process(
    upstream: Upstream, processes: Processes, tmp_path: Path
) -> None:
    process = await processes.serve(write_files(tmp_path, yaml_for(upstream), {"test": POLICY}))
    upstream.otherwise = chaotic(9)
    await asyncio.gather(*[app(process.client, number, 40) for number in range(8)])
    effects_are_single(upstream)
    upstream.otherwise = lambda _: chaotic_free()
    assert (await process.ask("GET", "/api/after")).status == 200
    assert await process.metric("sidecar_inflight_requests") == 0
    assert await process.metric("sidecar_buffered_bytes") == 0
    assert "Traceback" not in process.said
    assert process.child.returncode is None


def chaotic_free() -> Step:
    async def step(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(head_bytes(200, [("Content-Length", "2")]) + b"ok")

    return step
