"""The fuzz over real sockets, against ``sidecar serve`` in a process of its own: ``python -m tests.fuzz.process``.

Apps ask, pipeline, half-close and leave; the upstream answers, refuses, cuts and dawdles; the operator reloads good and
bad files, stops and kills the process and starts it again, and keeps the outbox's disk busy. What happens is rolled
from the seed; when it happens is the machine's affair, so that a run cannot be repeated exactly. ``FUZZ_SIDECAR`` names
an installed ``sidecar`` (a compiled one) to run in place of the source tree.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.support.client import Client, request_bytes
from tests.support.process import Process, Processes
from tests.support.sidecar import write_files, yaml_for
from tests.support.soak import say
from tests.support.upstream import Connection, Upstream, head_bytes
from tests.support.wire import Gone, Malformed

__all__ = ["Fuzz", "fuzz"]

POLICY = """\
extends: default
deadline: 3s
attempts: {attempts}
attempt: {{connect: 1s, head: 700ms, idle: 700ms}}
backoff: {{base: 3ms, cap: 20ms}}
budget: {{ratio: 1, min_per_second: 10000}}
breaker: {{min_requests: 100000}}
table:
  - {{status: 503, then: retry, processed: false, gate: false}}
  - {{failure: any, then: retry}}
"""
TOP = "outbox: {file: outbox.db}\nlimits: {drain: 5s}\nlog: {format: json}"
ALWAYS = "    routes: [{methods: [POST], path: /s/**, policy: test, store: always}]"
APPS = 5
SETTLE_SECONDS = 30.0
METHODS = ("GET", "GET", "PUT", "POST", "POST", "DELETE")


class Fuzz:
    """One run: what was asked, what the upstream took, and what must not have been."""

    def __init__(self, seed: int, upstream: Upstream, processes: Processes, path: Path) -> None:
        self.dice = random.Random(seed)
        self.upstream = upstream
        self.path = path
        self.processes = processes
        self.process: Process | None = None
        self.faults: list[str] = []
        self.said: Counter[str] = Counter()
        self.applied: Counter[str] = Counter()
        """How often the upstream acted on each target."""
        self.stored: set[str] = set()
        self._number = 0
        upstream.otherwise = lambda _: self._step

    def fault(self, text: str) -> None:
        self.faults.append(text)

    # -- the upstream ------------------------------------------------------------------------------------

    async def _step(self, connection: Connection) -> None:
        chance = self.dice.random()
        if chance < 0.03:
            connection.reset()
            return
        request = await connection.read_request()
        target = request.target
        if chance < 0.12:
            await connection.send(head_bytes(503, [("Content-Length", "0"), ("X-For", target)]))
            return
        # From here on it has acted, whatever becomes of the answer.
        self.applied[target] += 1
        body = b"" if request.method == "HEAD" else target.encode() * self.dice.choice((1, 1, 1, 3000))
        answer = head_bytes(200, [("Content-Length", str(len(body))), ("X-For", target)]) + body
        if chance < 0.17:
            connection.reset()
        elif chance < 0.21:
            connection.close()
        elif chance < 0.25:
            await connection.send(answer[: self.dice.randrange(1, len(answer))])
            connection.close()
        elif chance < 0.27:
            await connection.until_gone()
        else:
            if chance < 0.35:
                await asyncio.sleep(self.dice.uniform(0, 0.2))  # a slow upstream
            await connection.send(answer)
            if chance > 0.95:
                connection.close()

    # -- the apps ----------------------------------------------------------------------------------------

    async def app(self, until: float) -> None:
        while time.monotonic() < until:
            process = self.process
            if process is None or process.child.returncode is not None:
                await asyncio.sleep(0.02)  # nobody listens
                continue
            try:
                async with process.client() as client:
                    await self._talk(client, until)
            except Malformed as exc:
                self.fault(f"an app was sent what is no HTTP: {exc}")
            except (Gone, OSError):
                self.said["ended"] += 1
                await asyncio.sleep(0.02)  # before it comes again

    async def _talk(self, client: Client, until: float) -> None:
        while time.monotonic() < until:
            asked = [self._ask() for _ in range(self.dice.choice((1, 1, 1, 2, 3)))]
            await client.send(b"".join(raw for _, _, raw in asked))
            leaves = self.dice.random()
            if leaves < 0.05:
                await asyncio.sleep(self.dice.uniform(0, 0.02))  # in the middle of it
                client.reset()
                return
            if leaves < 0.1:
                client.end_sending()
            for method, target, _ in asked:
                answer = await client.answer(method)
                self.said[f"{method} {answer.status}"] += 1
                if answer.status == 202 and "outcome=stored" in str(answer.headers.get("Sidecar")):
                    self.stored.add(target)
                elif answer.headers.get("Proxy-Status") is None and answer.headers.get("X-For") != target:
                    self.fault(f"{target} got the answer of {answer.headers.get('X-For')}")
                if answer.cut is not None or (answer.headers.get("Connection") or "").lower() == "close":
                    return
            if leaves < 0.1:
                return

    def _ask(self) -> tuple[str, str, bytes]:
        self._number += 1
        method = self.dice.choice(METHODS)
        way = "s" if method == "POST" and self.dice.random() < 0.5 else "x"
        target = f"/{way}/{method.lower()}{self._number}"
        body = b"b" * self.dice.choice((0, 10, 70_000)) if method in ("PUT", "POST") else None
        return method, target, request_bytes(method, f"/api{target}", body=body)

    # -- the operator ------------------------------------------------------------------------------------

    async def start(self) -> None:
        self.process = await self.processes.serve(self.path)

    async def operate(self, until: float) -> None:
        while time.monotonic() < until:
            await asyncio.sleep(self.dice.uniform(0.1, 0.7))  # between two acts
            act = self.dice.choice(("reload", "reload", "broken", "disk", "stop", "kill"))
            self.said[act] += 1
            process = self.process
            assert process is not None
            if act in ("reload", "broken"):
                text = POLICY.format(attempts=self.dice.randint(1, 4)) if act == "reload" else "no: policy\n"
                (self.path.parent / "policies" / "test.yaml").write_text(text, encoding="utf-8")
                process.signal(signal.SIGHUP)
            elif act == "disk":
                await self._keep_disk_busy(self.dice.uniform(0, 0.5))
            else:
                (self.path.parent / "policies" / "test.yaml").write_text(POLICY.format(attempts=3), encoding="utf-8")
                await self.stop(signal.SIGTERM if act == "stop" else signal.SIGKILL)
                await self.start()

    async def stop(self, how: signal.Signals) -> None:
        process = self.process
        assert process is not None
        process.signal(how)
        end = await process.exit()
        if how is signal.SIGTERM and end.code != 0:
            self.fault(f"SIGTERM ended it with {end.code}: {end.said[-500:]}")
        if "Traceback" in end.said or "internal_error" in end.said:
            self.fault(f"it said: {end.said[-1000:]}")

    async def _keep_disk_busy(self, seconds: float) -> None:
        file = self.path.parent / "outbox.db"
        if file.exists():
            other = sqlite3.connect(file, isolation_level=None)
            with contextlib.closing(other), contextlib.suppress(sqlite3.OperationalError):
                other.execute("BEGIN IMMEDIATE")
                await asyncio.sleep(seconds)  # somebody else writes
                other.execute("ROLLBACK")

    # -- what must hold ----------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Everything stored arrives, or is a dead letter with a reason; nothing is held or under way at rest."""
        process, until = self.process, time.monotonic() + SETTLE_SECONDS
        assert process is not None
        while any(dead is None for _, dead in self.items()) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # it is another process that moves
        items = dict(self.items())
        for target in self.stored:
            if not self.applied[target] and target not in items:
                self.fault(f"{target} was stored, and is neither delivered nor in the outbox")
            elif items.get(target, "") is None:
                self.fault(f"{target} was stored, and still waits")
            elif items.get(target) and items[target] != "not_safe":
                # Whatever else befalls a send here, waiting may mend; a reset or a kill in the midst of it may not.
                self.fault(f"{target} is a dead letter ({items[target]})")
        for target, count in self.applied.items():
            if count > 1 and "/post" in target:
                self.fault(f"{target} was acted upon {count} times")
        for name in ("sidecar_inflight_requests", "sidecar_buffered_bytes"):
            if await process.metric(name):
                self.fault(f"at rest {name} is {await process.metric(name)}")

    def items(self) -> list[tuple[str, str | None]]:
        """Targets in the outbox, each with the reason for which it is dead."""
        file = self.path.parent / "outbox.db"
        if not file.exists():
            return []
        with contextlib.closing(sqlite3.connect(file)) as outbox:
            rows = outbox.execute("SELECT target, dead_at, dead_reason FROM item").fetchall()
        return [(bytes(target).decode(), None if dead_at is None else reason) for target, dead_at, reason in rows]


async def fuzz(seed: int, seconds: float, folder: Path, installed: str = "") -> Fuzz:
    """One run of so many seconds; ``faults`` has what was found."""
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream.start())
        path = write_files(folder, yaml_for(upstream, top=TOP, more=ALWAYS), {"test": POLICY.format(attempts=3)})
        run = Fuzz(seed, upstream, Processes(stack, folder, installed), path)
        await run.start()
        until = time.monotonic() + seconds
        await asyncio.gather(run.operate(until), *(run.app(until) for _ in range(APPS)))
        await run.settle()
        await run.stop(signal.SIGTERM)
    return run


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.process", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--each", type=float, default=20.0, help="seconds of a run")
    parser.add_argument("--seed", type=int, help="of the first run; random without it")
    return parser.parse_args()


def main() -> int:
    options, installed = _parsed(), os.environ.get("FUZZ_SIDECAR", "")
    seed = options.seed if options.seed is not None else random.randrange(1 << 40)
    begun, total, runs = time.monotonic(), Counter[str](), 0
    while time.monotonic() - begun < options.seconds:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            run = asyncio.run(fuzz(seed, min(options.each, options.seconds), Path(folder), installed))
        runs += 1
        total += run.said
        if run.faults:
            say(f"seed {seed} fails:\n  " + "\n  ".join(run.faults[:10]))
            break
        seed += 1
    say(f"process fuzz: {runs} runs in {time.monotonic() - begun:.0f} s: {dict(sorted(total.items()))}")
    return 1 if run.faults else 0


if __name__ == "__main__":
    sys.exit(main())
