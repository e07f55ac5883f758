"""A bystander while a hundred requests come at once, each of which needs a new TLS connection to the upstream.

The bystander asks for ``/small``, which needs none, every 5 ms; its latency counts from when a request was due. Ten
such crowds, one after the other. ``python -m benchmarks.newcomers PORT PATH`` prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import time

import uvloop

from benchmarks.http1 import request_bytes, take_answer
from benchmarks.steady import Result

CROWDS = 10
EVERY_SECONDS = 0.005
PAUSE_SECONDS = 0.1
"""Between crowds, and for the connections of the last to go."""
ANSWER_SECONDS = 20.0


class _Asker:
    """One connection to the proxy."""

    def __init__(self, port: int, path: str) -> None:
        self.port = port
        self.request = request_bytes(path, port)
        self.buffer = bytearray()

    async def open(self) -> _Asker:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def ask(self) -> int:
        self.writer.write(self.request)
        while (answer := take_answer(self.buffer)) is None:
            chunk = await self.reader.read(65536)
            if not chunk:
                raise ConnectionError("closed before the answer was whole")
            self.buffer += chunk
        return answer.status


async def run(port: int, path: str, count: int) -> Result:
    """``count`` newcomers in each crowd. What is counted is the bystander's; a newcomer's bad answer counts too."""
    result = Result()
    began = time.perf_counter()
    bystander = await _Asker(port, "/small").open()
    crowd = [await _Asker(port, path).open() for _ in range(count)]
    for _ in range(CROWDS):
        await asyncio.sleep(PAUSE_SECONDS)
        newcomers = asyncio.gather(*[asyncio.wait_for(asker.ask(), ANSWER_SECONDS) for asker in crowd])
        due_at = time.perf_counter()
        while not newcomers.done():
            await asyncio.sleep(max(0.0, due_at - time.perf_counter()))
            result.bad_status += await bystander.ask() >= 400
            result.latencies.append(time.perf_counter() - due_at)
            due_at += EVERY_SECONDS
        result.bad_status += sum(status >= 400 for status in await newcomers)
    result.seconds = time.perf_counter() - began
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("--connections", type=int, default=100)
    given = parser.parse_args()
    print(uvloop.run(run(given.port, given.path, given.connections)).line())


if __name__ == "__main__":
    main()
