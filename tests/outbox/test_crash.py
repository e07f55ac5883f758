"""``kill -9`` at random moments under load: nothing that was accepted is lost, nothing comes twice under two keys.

``OUTBOX_KILLS`` says how often (``make crash``: 100).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

from sidecar.outbox.sqlite import SqliteOutbox
from tests.support.client import connect
from tests.support.sidecar import write_files
from tests.support.upstream import Connection, Step, Upstream, head_bytes
from tests.support.wire import Gone

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("OUTBOX_KILLS", "25"))
CLIENTS = 4
POLICY = """
extends: default
attempts: 2
attempt: {connect: 1s, head: 2s}
backoff: {base: 2ms, cap: 10ms}
table: [{status: 503, then: retry, processed: false}]
"""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]


class Lives:
    """The sidecar that is killed and started again, always on the same port."""

    def __init__(self, forking: asyncio.subprocess.Process, port: int) -> None:
        self._forking = forking
        self.port = port
        self.pid = 0

    async def start(self) -> None:
        assert self._forking.stdin is not None
        assert self._forking.stdout is not None
        self._forking.stdin.write(b"\n")
        async with asyncio.timeout(20):
            self.pid = int(await self._forking.stdout.readline())

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def lives(path: Path, port: int) -> AsyncIterator[Lives]:
    said = (path.parent / "said.txt").open("wb")
    forking = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.lives",
        str(path),
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith("SIDECAR_")},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=said,
    )
    said.close()
    life = Lives(forking, port)
    try:
        yield life
    except TimeoutError:
        raise AssertionError((path.parent / "said.txt").read_text(encoding="utf-8")[-2000:]) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            life.kill()
        assert forking.stdin is not None
        forking.stdin.close()  # its end is the end of the forking process
        with contextlib.suppress(ConnectionError):
            await forking.stdin.wait_closed()
        assert forking.stdout is not None
        async with asyncio.timeout(20):
            await forking.wait()
            await forking.stdout.read()  # to its end, so that the pipe is closed here too


class Load:
    """Clients that post numbers, one after the other, and remember what was accepted under which key."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.accepted: dict[str, str] = {}
        self.more = asyncio.Event()

    async def run(self, client: int) -> None:
        number = 0
        while True:
            with contextlib.suppress(OSError, Gone):
                async with connect("127.0.0.1", self.port) as connection:
                    while True:
                        number += 1
                        name = f"{client}-{number:06}"
                        answer = await connection.ask("POST", "/api/x", body=name.encode())
                        assert answer.status == 202, answer
                        self.accepted[name] = answer.headers.get("X-Idempotency-Key") or ""
                        self.more.set()
            await asyncio.sleep(0.005)

    async def grown_by(self, count: int) -> None:
        goal = len(self.accepted) + count
        async with asyncio.timeout(60):
            while len(self.accepted) < goal:
                self.more.clear()
                await self.more.wait()


class Effects:
    """An upstream that now and then refuses before it acts, and counts what it has applied."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.applied: list[tuple[str, str | None]] = []
        """Body and idempotency key, in order."""

    def step(self, _: Connection) -> Step:
        return self._answer

    async def _answer(self, connection: Connection) -> None:
        request = await connection.read_request()
        refuses = self._chance.random() < 0.1
        if not refuses:
            self.applied.append((request.body.decode(), request.headers.get("X-Idempotency-Key")))
        await connection.send(head_bytes(503 if refuses else 200, [("Content-Length", "0")]))


async def until_delivered(path: Path) -> set[str]:
    """Returns when nothing waits any more: the bodies of the dead letters."""
    async with asyncio.timeout(60):
        while True:
            outbox_file = SqliteOutbox.open(str(path), create=False)
            waiting = sum(count.waiting for count in outbox_file.counts())
            dead = [outbox_file.find(item_id) for item_id in outbox_file.ids(dead=True)] if not waiting else []
            outbox_file.close()
            if not waiting:
                assert {item.dead_reason for item in dead if item is not None} <= {"not_safe"}
                return {item.body.decode() for item in dead if item is not None}
            await asyncio.sleep(0.02)


async def lived_through(kills: int, chance: random.Random, path: Path, port: int) -> tuple[Load, set[str]]:
    """What was accepted in so many lives, and what became a dead letter."""
    load = Load(port)
    async with lives(path, port) as life:
        await life.start()
        clients = [asyncio.create_task(load.run(client)) for client in range(CLIENTS)]
        try:
            for _ in range(kills):
                await load.grown_by(chance.randrange(1, 25))
                for _ in range(chance.randrange(40)):
                    await asyncio.sleep(0)
                life.kill()
                await life.start()
            await load.grown_by(5)
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
        return load, await until_delivered(path.parent / "outbox.db")


def laid(folder: Path, upstream: Upstream, policy: str) -> tuple[Path, int]:
    port, admin = free_ports(2)
    site = f"""
listen: 127.0.0.1:{port}
admin: 127.0.0.1:{admin}
outbox: {{file: outbox.db}}
upstreams:
  - name: api
    origin: http://{upstream.authority}
    mount: /api
    policy: test
    routes: [{{methods: [POST], policy: test, store: always}}]
"""
    return write_files(folder, site, {"test": policy}), port


async def test_a_killed_sidecar_loses_nothing_and_repeats_only_with_the_same_key(
    upstream: Upstream, tmp_path: Path
) -> None:
    chance = random.Random(20)
    effects = Effects(chance)
    upstream.otherwise = effects.step
    path, port = laid(tmp_path, upstream, f"{POLICY}idempotency: {{header: X-Idempotency-Key}}\n")
    load, dead = await lived_through(KILLS, chance, path, port)
    keys: dict[str, set[str | None]] = defaultdict(set)
    first_seen: dict[str, list[str]] = defaultdict(list)
    for name, key in effects.applied:
        if name not in keys:
            first_seen[name.partition("-")[0]].append(name)
        keys[name].add(key)
    assert dead == set()
    assert [name for name in load.accepted if name not in keys] == []
    assert {name: found for name, found in keys.items() if len(found) != 1 or None in found} == {}
    assert {name for name, key in load.accepted.items() if keys[name] != {key}} == set()
    for names in first_seen.values():
        assert names == sorted(names)  # each client's requests arrive in the order in which they were accepted


async def test_without_a_key_nothing_comes_twice_and_what_is_unsure_is_a_dead_letter(
    upstream: Upstream, tmp_path: Path
) -> None:
    chance = random.Random(21)
    effects = Effects(chance)
    upstream.otherwise = effects.step
    path, port = laid(tmp_path, upstream, POLICY)
    load, dead = await lived_through(max(1, KILLS // 5), chance, path, port)
    names = [name for name, _ in effects.applied]
    assert len(names) == len(set(names))
    assert set(load.accepted) - set(names) - dead == set()
