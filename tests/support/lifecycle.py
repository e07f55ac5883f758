"""``python -m tests.support.lifecycle``: shutdowns and reloads of one sidecar process under 500 requests a second.

Twenty times SIGTERM while waits are pending: every request that was written before the signal has its answer, whole,
and the exit code is 0 within the grace period. Fifty reloads, good and bad in turns: no request fails for them. Exit
code 0 if all of that held. It runs the source tree in the current directory, else what is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.support.process import Process, Processes
from tests.support.wire import Gone

SITE = """\
listen: 127.0.0.1:0
admin: 127.0.0.1:0
limits: {{drain: {grace}s}}
upstreams: [{{name: api, origin: "http://127.0.0.1:{port}", mount: /api, policy: load}}]
"""
POLICY = """\
attempts: 10
deadline: {deadline}s
table:
  - {{status: 503, then: retry, processed: false, wait: [{{constant: 1s}}], gate: false}}
"""
APPS = 100
EACH_SECONDS = 0.1
"""An app asks ten times a second; with a second's wait in every tenth request that is five, and 500 of all apps."""
GRACE_SECONDS = 10
WARM_SECONDS = 2.0
"""Before the signal: after it, some fifty waits are pending at any time."""
BETWEEN_RELOADS_SECONDS = 0.4
"""Fifty of them spread over twenty seconds of the load."""
LAST_SECONDS = 1.0
"""After the last reload: time for the requests that it met, and for it to be taken over."""


class Api:
    """503 to every tenth request, so that some fifty exchanges stand in a wait of a second at any time."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                self.asked += 1
                line = b"503 Later" if self.asked % 10 == 0 else b"200 OK"
                writer.write(b"HTTP/1.1 " + line + b"\r\nContent-Length: 512\r\n\r\n" + b"x" * 512)
        writer.close()


class Load:
    """What the apps saw."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.seen: Counter[str] = Counter()
        self.ended_at = 0.0
        """When the signal was sent: what is written later may find a closed connection."""
        self.over = False

    async def app(self, number: int) -> None:
        await asyncio.sleep(EACH_SECONDS * number / APPS)
        while not self.over and not self.ended_at:
            with contextlib.suppress(OSError):
                async with self.process.client() as client:
                    while not self.over:
                        written_at = time.monotonic()
                        try:
                            answer = await client.ask("GET", "/api/x")
                        except Gone:
                            self.seen["late" if self.ended_at and written_at >= self.ended_at - 0.001 else "lost"] += 1
                            break
                        self.seen["cut" if answer.cut else str(answer.status)] += 1
                        await asyncio.sleep(max(0.0, written_at + EACH_SECONDS - time.monotonic()))


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def shutdown(processes: Processes, site: Path) -> bool:
    process = await processes.serve(site)
    load = Load(process)
    apps = [asyncio.create_task(load.app(number)) for number in range(APPS)]
    await asyncio.sleep(WARM_SECONDS)
    load.ended_at = time.monotonic()
    process.signal(signal.SIGTERM)
    end = await process.exit()
    seconds = time.monotonic() - load.ended_at
    await asyncio.gather(*apps)
    held = (
        end.code == 0
        and load.seen["503"] > 0
        and seconds < GRACE_SECONDS
        and not load.seen["lost"]
        and not load.seen["cut"]
    )
    waited = load.seen["503"]
    say(f"SIGTERM, {waited} waits cut short: exit {end.code} after {seconds:.2f} s, {dict(load.seen)}")
    return held


async def reloads(processes: Processes, site: Path, write: Callable[[str], object], count: int) -> bool:
    process = await processes.serve(site)
    load = Load(process)
    apps = [asyncio.create_task(load.app(number)) for number in range(APPS)]
    for number in range(count):
        await asyncio.sleep(BETWEEN_RELOADS_SECONDS)  # a load, no test: the pace is what is asked for
        write(POLICY.format(deadline=10 + number) if number % 2 else "no: policy\n")
        process.signal(signal.SIGHUP)
    await asyncio.sleep(LAST_SECONDS)
    load.over = True
    await asyncio.gather(*apps)
    taken = await process.metric("sidecar_config_last_reload_successful")
    say(f"{count} reloads: {dict(load.seen)}; the last one was good: {taken == 1}")
    return set(load.seen) <= {"200"}


async def main(times: int, count: int) -> int:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sidecar-lifecycle-")))
        server = await asyncio.start_server(Api(), "127.0.0.1", 0)
        (folder / "policies").mkdir()
        policy = folder / "policies" / "load.yaml"
        policy.write_text(POLICY.format(deadline=20))
        site = folder / "sidecar.yaml"
        site.write_text(SITE.format(port=server.sockets[0].getsockname()[1], grace=GRACE_SECONDS))
        processes = Processes(stack, folder)
        held = [await shutdown(processes, site) for _ in range(times)]
        say(f"{sum(held)} of {times} shutdowns held")
        whole = await reloads(processes, site, policy.write_text, count)
        server.close()
    return 0 if all(held) and whole else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.support.lifecycle", description=__doc__)
    parser.add_argument("--shutdowns", type=int, default=20)
    parser.add_argument("--reloads", type=int, default=50)
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main(arguments.shutdowns, arguments.reloads)))
