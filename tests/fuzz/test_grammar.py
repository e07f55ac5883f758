"""What the sidecar sends on, either way, is what a second reader (h11) reads in the same bytes."""

from __future__ import annotations

import asyncio
import io
import re
from pathlib import Path

import pytest

from tests.fuzz.grammar import Speaker, Taker, answer, read_all, request
from tests.fuzz.inside import made
from tests.fuzz.loop import VirtualClock, VirtualLoop, reset
from tests.fuzz.plans import Site
from tests.fuzz.reader import Malformed, Reader
from tests.fuzz.site import PORT, UPSTREAM, deployment

MESSAGES = 500


def read_by_app(data: bytes) -> Reader:
    """Strictly. Raises ``Malformed``."""
    reader = Reader(answers=True)
    reader.feed(data)
    return reader


def path_of(target: bytes) -> bytes:
    """As the upstream is to see it."""
    return re.sub(rb"^(http://up\.example|/up)", b"", target)


@pytest.mark.parametrize("first", [0, MESSAGES])
def test_no_request_is_read_in_two_ways(first: int, tmp_path: Path) -> None:
    loop = VirtualLoop(1)
    faults: list[str] = []
    passed = 0

    async def talk() -> None:
        nonlocal passed
        taken: list[tuple[bytes, bytes, bytes]] = []
        loop.network.listen(*UPSTREAM, lambda sock: loop.adopt(sock, Taker(taken, faults)))
        sidecar = made(deployment(tmp_path, Site(attempts=1), "same"), loop, VirtualClock(loop), io.StringIO())
        await sidecar.start()
        for seed in range(first, first + MESSAGES):
            data = request(seed)
            taken.clear()
            app = Speaker(data)
            transport = loop.network.dial(("127.0.0.1", PORT), app)
            await asyncio.sleep(1)  # virtual time
            reset(transport)
            await asyncio.sleep(0.01)
            passed += len(taken)
            expected = [
                (method, path_of(target), body) for method, target, body in read_all(data, answers=False).messages
            ]
            if taken != expected[: len(taken)]:
                faults.append(f"seed {seed}: {data!r} was sent on as {taken}, and h11 reads {expected}")
            try:
                read_by_app(app.came)
            except Malformed as exc:
                faults.append(f"seed {seed}: {data!r} was answered with what is no HTTP: {exc}")
        await sidecar.stop()

    loop.run_until_complete(talk())
    loop.close()
    assert not faults, "\n".join(faults[:10])
    assert passed > MESSAGES / 10


@pytest.mark.parametrize("first", [0, MESSAGES])
def test_no_answer_is_read_in_two_ways(first: int, tmp_path: Path) -> None:
    loop = VirtualLoop(1)
    faults: list[str] = []
    passed = 0

    async def talk() -> None:
        nonlocal passed
        says = b""
        loop.network.listen(*UPSTREAM, lambda sock: loop.adopt(sock, Taker([], faults, says)))
        sidecar = made(deployment(tmp_path, Site(attempts=1), "same"), loop, VirtualClock(loop), io.StringIO())
        await sidecar.start()
        for seed in range(first, first + MESSAGES):
            says = answer(seed)
            app = Speaker(b"GET /up/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            transport = loop.network.dial(("127.0.0.1", PORT), app)
            await asyncio.sleep(20)  # virtual time
            if not app.is_over:
                faults.append(f"seed {seed}: {says!r}: the app still waits")
                reset(transport)
            reader = Reader(answers=True)
            try:
                reader.feed(app.came)
            except Malformed as exc:
                faults.append(f"seed {seed}: {says!r} went to the app as what is no HTTP: {exc}")
                continue
            if not app.was_reset:
                reader.eof()
            whole = [each for each in reader.done if each.get("proxy-status") is None]
            if not whole:
                continue
            passed += 1
            second = read_all(says, answers=True)
            got = (whole[0].start[0].encode(), b"", bytes(whole[0].body))
            # These two end with their head, whatever it says of a body (RFC 9112 section 6.3).
            if got not in second.messages and got[0] not in (b"204", b"304"):
                faults.append(f"seed {seed}: {says!r} went on as {got}, and h11 reads {second}")
        await sidecar.stop()

    loop.run_until_complete(talk())
    loop.close()
    assert not faults, "\n".join(faults[:10])
    assert passed > MESSAGES / 20
