"""Past the deadline a body is judged by what came within a window, on a loop whose time is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from sidecar.core.enums import FailureKind
from sidecar.proxy.exchange.stream import TRICKLE_BYTES_PER_SECOND, WINDOW_SECONDS, MinimumBodyRate
from sidecar.upstream.connection import Connection

ENOUGH = int(TRICKLE_BYTES_PER_SECOND * WINDOW_SECONDS)


class HandMovedLoop(asyncio.SelectorEventLoop):
    now = 100.0

    def time(self) -> float:
        return self.now

    def move_to(self, at: float) -> None:
        """What is due until then happens, a tenth of a second at a time."""
        while self.now < at:
            self.now = min(at, self.now + 0.1)
            self.run_until_complete(asyncio.sleep(0))


class Wire(asyncio.Transport):
    """A socket's end that takes everything."""

    def write(self, data: Any) -> None: ...
    def abort(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def is_closing(self) -> bool:
        return False


@dataclass
class Owner:
    gone_ones: list[Connection] = field(default_factory=list)

    def put(self, connection: Connection) -> None: ...
    def gone(self, connection: Connection) -> None:
        self.gone_ones.append(connection)


class Sink:
    def take(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def broke(self, kind: FailureKind) -> None: ...


class Answer:
    """A body of 1 MiB that begins at 100.0."""

    def __init__(self, loop: HandMovedLoop, deadline_at: float) -> None:
        self.loop = loop
        self.connection = Connection(loop, Owner())
        self.connection.connection_made(Wire())
        assert self.connection.send(b"GET / HTTP/1.1\r\n\r\n", "GET", whole=True)
        self.connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n")
        self.connection.relay(Sink(), 0)
        clock: Any = SimpleNamespace(loop=loop, clock=SimpleNamespace(monotonic=loop.time))
        self.trickle = MinimumBodyRate(clock, self.connection, deadline_at)

    def comes(self, until: float, bytes_per_second: float) -> None:
        """The body at this rate until then, in a piece a second."""
        while self.loop.now < until:
            self.connection.data_received(b"x" * int(bytes_per_second))
            self.loop.move_to(min(until, self.loop.now + 1.0))

    @property
    def is_cut(self) -> bool:
        return self.connection.failure is FailureKind.BODY_CUT


@contextmanager
def answered(deadline_at: float) -> Iterator[Answer]:
    loop = HandMovedLoop()
    try:
        answer = Answer(loop, deadline_at)
        yield answer
        answer.trickle.stop()
    finally:
        loop.close()


@pytest.mark.parametrize("age", [0.0, 0.1, 2.0, 4.0])
def test_a_body_that_is_young_at_the_deadline_has_a_window_of_its_own(age: float) -> None:
    with answered(100.0 + age) as answer:
        answer.loop.move_to(100.0 + WINDOW_SECONDS - 0.2)
        assert not answer.is_cut
        answer.connection.data_received(b"x" * ENOUGH)
        answer.loop.move_to(100.0 + WINDOW_SECONDS + 0.2)
        assert not answer.is_cut


def test_one_that_brings_nothing_in_its_first_window_is_cut() -> None:
    with answered(100.0) as answer:
        answer.loop.move_to(100.0 + WINDOW_SECONDS + 0.2)
        assert answer.is_cut


def test_a_trickle_is_cut_at_the_deadline_whatever_came_long_before() -> None:
    with answered(160.0) as answer:
        answer.connection.data_received(b"x" * 200_000)
        answer.comes(159.9, 10)
        assert not answer.is_cut
        answer.comes(160.3, 10)
        assert answer.is_cut


def test_one_that_flows_is_let_through_however_long_it_takes() -> None:
    with answered(130.0) as answer:
        answer.comes(125.0, 1)
        answer.comes(300.0, 2 * TRICKLE_BYTES_PER_SECOND)
        assert not answer.is_cut
        answer.comes(310.5, 10)
        assert answer.is_cut


def test_an_app_that_is_slow_is_not_the_upstreams_fault() -> None:
    with answered(100.0) as answer:
        answer.connection.pause_reading()
        answer.loop.move_to(100.0 + WINDOW_SECONDS + 0.2)
        assert not answer.is_cut
        answer.connection.resume_reading()
        answer.loop.move_to(100.0 + 2 * WINDOW_SECONDS + 0.4)
        assert not answer.is_cut
        answer.loop.move_to(100.0 + 3 * WINDOW_SECONDS + 0.6)
        assert answer.is_cut
