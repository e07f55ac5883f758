"""One request body: from memory to disk to streaming, replayed byte for byte, and every byte accounted for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.core.decision.policy import BodyLimits
from sidecar.proxy.client.body import AHEAD_BYTES, Body
from sidecar.proxy.client.spool import Spool
from sidecar.wire.chunked import ChunkedDecoder
from sidecar.wire.framing import CHUNKED
from tests.core.making import steady

SMALL = BodyLimits(memory_bytes=10, disk_bytes=40)


class Socket:
    """An upstream's connection, as far as a body needs one; it takes bytes until its buffer is full."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.writing_paused = False
        self.request_sent = False
        self.on_writable: Callable[[], None] | None = None
        self.written = b""
        self.room = room
        self.sent_calls = 0

    def write(self, data: bytes) -> None:
        assert not self.request_sent, "written behind the end"
        self.written += data
        self.room -= len(data)
        self.writing_paused = self.room <= 0

    def drain(self, room: int = 1 << 30) -> None:
        self.room, self.writing_paused = room, False
        if self.on_writable is not None:
            self.on_writable()

    def on_sent(self) -> None:
        self.sent_calls += 1

    def body(self, *, chunked: bool) -> bytes:
        if not chunked:
            return self.written
        decoder = ChunkedDecoder()
        found = b"".join(decoder.feed(self.written))
        assert decoder.done is self.request_sent
        assert decoder.rest == b""
        return found


class Held:
    """A body, what it costs, and whether the app is being read."""

    def __init__(self, length: int, limits: BodyLimits, spool: Spool) -> None:
        self.cost = 0
        self.reading: list[bool] = []
        self.body = Body(length, limits, spool, self.reading.append, self._account)

    def _account(self, change: int) -> None:
        self.cost += change
        assert self.cost >= 0

    def send(self, room: int = 1 << 30) -> Socket:
        socket = Socket(room)
        self.body.attach(socket, socket.on_sent)
        return socket


@pytest.fixture
def spool() -> Iterator[Spool]:
    made = Spool()
    yield made
    made.close()


@pytest.mark.parametrize("size", [1, 10, 11, 40])
@pytest.mark.parametrize("length", ["declared", "chunked"])
def test_what_is_within_the_limits_is_sent_again_byte_for_byte(spool: Spool, size: int, length: str) -> None:
    data = bytes(range(100, 100 + size))
    chunked = length == "chunked"
    held = Held(CHUNKED if chunked else size, SMALL, spool)
    for at in range(0, size, 7):
        held.body.append(data[at : at + 7])
    held.body.finish()
    assert held.cost == (size if size <= 10 else held.body._tail_bytes)
    assert held.cost <= 10
    for _ in range(3):
        assert held.body.can_be_sent
        socket = held.send()
        assert (socket.body(chunked=chunked), socket.request_sent, socket.sent_calls) == (data, True, 1)
        held.body.detach()
    assert held.body.copy(40) == data
    held.body.close()
    assert held.cost == 0


def test_past_the_limits_it_is_streamed_once(spool: Spool) -> None:
    held = Held(CHUNKED, SMALL, spool)
    data = bytes(range(60))
    for at in range(0, 60, 6):
        held.body.append(data[at : at + 6])
    held.body.finish()
    assert (held.body.held, held.body.can_be_sent) == (False, True)
    assert held.body.copy(1000) == b""
    socket = held.send()
    assert socket.body(chunked=True) == data
    held.body.detach()
    assert (held.body.can_be_sent, held.body.consumed) == (False, True)
    assert held.cost == 0
    held.body.close()
    assert held.cost == 0


def test_a_declared_length_past_the_limits_is_never_held(spool: Spool) -> None:
    held = Held(41, SMALL, spool)
    assert held.body.held is False
    socket = held.send()
    held.body.append(b"a" * 20)
    assert (held.cost, held.body.can_be_sent) == (0, False)
    held.body.append(b"b" * 21)
    held.body.finish()
    assert socket.written == b"a" * 20 + b"b" * 21
    assert socket.request_sent


def test_a_disk_that_refuses_ends_the_holding_and_loses_nothing() -> None:
    class Refusing(Spool):
        def take(self) -> int:
            raise OSError(28, "No space left on device")

    held = Held(30, SMALL, Refusing())
    data = bytes(range(30))
    held.body.append(data[:20])
    held.body.append(data[20:])
    held.body.finish()
    assert held.body.held is False
    assert held.send().written == data
    held.body.close()
    assert held.cost == 0


def test_a_full_disk_that_writes_less_ends_the_holding_and_loses_nothing(spool: Spool) -> None:
    held = Held(30, SMALL, spool)
    data = bytes(range(30))
    file = os.open("/dev/full", os.O_RDWR)
    spool.give_back(file)
    held.body.append(data)
    held.body.finish()
    assert held.body.held is False
    assert held.send().written == data
    held.body.close()
    assert held.cost == 0


def test_whoever_is_too_far_ahead_waits(spool: Spool) -> None:
    held = Held(CHUNKED, BodyLimits(memory_bytes=8 * AHEAD_BYTES, disk_bytes=0), spool)
    socket = held.send(room=1)
    for _ in range(5):
        held.body.append(b"a" * (AHEAD_BYTES // 4))
    assert held.reading == []
    held.body.append(b"a" * (AHEAD_BYTES // 4))
    assert held.reading == [False]
    socket.drain()
    assert held.reading == [False, True]


def test_the_file_is_given_back_once_it_is_not_needed(spool: Spool) -> None:
    held = Held(30, SMALL, spool)
    held.body.append(b"a" * 30)
    assert spool._free == []
    held.body.close()
    assert len(spool._free) == 1
    held.body.close()
    assert len(spool._free) == 1


def test_let_go_frees_what_has_been_sent_and_sends_the_rest(spool: Spool) -> None:
    held = Held(CHUNKED, BodyLimits(memory_bytes=1000, disk_bytes=0), spool)
    socket = held.send(room=10)
    for _ in range(4):
        held.body.append(b"abcde")
    assert held.cost == 20
    held.body.let_go()
    assert (held.cost, held.body.can_be_sent) == (15, False)
    held.body.finish()
    socket.drain()
    assert socket.body(chunked=True) == b"abcde" * 4
    assert held.cost == 0


def test_after_close_nothing_is_kept_and_the_app_is_left_alone(spool: Spool) -> None:
    """The app's connection may serve another request by the time that the upstream's is lost."""
    held = Held(CHUNKED, BodyLimits(memory_bytes=0, disk_bytes=0), spool)
    socket = held.send()
    for _ in range(3):
        held.body.append(b"a" * AHEAD_BYTES)
    held.body.close()
    assert (held.cost, held.reading) == (0, [])
    socket.drain()
    held.body.append(b"late")
    held.body.let_go()
    held.body.detach()
    held.body.finish()
    assert (held.cost, held.reading) == (0, [])


class AnyOrder(RuleBasedStateMachine):
    """The app sends, attempts come and go, the upstream takes what it likes: the bytes and the account stay right."""

    @initialize(
        chunked=st.booleans(),
        memory=st.sampled_from([0, 5, 20]),
        disk=st.sampled_from([0, 15, 60]),
        total=st.integers(min_value=1, max_value=90),
    )
    def begin(self, chunked: bool, memory: int, disk: int, total: int) -> None:
        self.spool = Spool()
        self.chunked = chunked
        self.total = total
        self.held = Held(CHUNKED if chunked else total, BodyLimits(memory, disk), self.spool)
        self.received = b""
        self.socket: Socket | None = None
        self.closed = False

    @precondition(lambda self: len(self.received) < self.total and not self.held.body.complete)
    @rule(size=st.integers(min_value=1, max_value=30))
    def append(self, size: int) -> None:
        size = min(size, self.total - len(self.received))
        data = bytes((len(self.received) + at) % 251 for at in range(size))
        self.received += data
        self.held.body.append(data)
        if len(self.received) == self.total:
            self.held.body.finish()

    @precondition(lambda self: not self.closed and self.socket is None and self.held.body.can_be_sent)
    @rule(room=st.sampled_from([1, 5, 25, 1000]))
    def attach(self, room: int) -> None:
        self.socket = self.held.send(room)

    @precondition(lambda self: self.socket is not None)
    @rule(room=st.sampled_from([1, 8, 1000]))
    def drain(self, room: int) -> None:
        assert self.socket is not None
        self.socket.drain(room)

    @rule()
    def detach(self) -> None:
        self.held.body.detach()
        if self.socket is not None:
            self.socket.drain()  # a connection that is lost after its attempt still calls
        self.socket = None

    @precondition(lambda self: self.socket is not None)
    @rule()
    def let_go(self) -> None:
        self.held.body.let_go()

    @rule()
    def close(self) -> None:
        self.held.body.close()
        self.closed = True
        self.socket = None

    @invariant()
    def what_was_sent_is_a_beginning_of_what_came(self) -> None:
        socket = getattr(self, "socket", None)
        if socket is None:
            return
        sent = socket.body(chunked=self.chunked)
        assert self.received.startswith(sent)
        if not socket.writing_paused:
            assert sent == self.received
        assert socket.request_sent is (self.held.body.complete and len(sent) == self.total and not self._owes(socket))
        assert socket.sent_calls == int(socket.request_sent)

    def _owes(self, socket: Socket) -> bool:
        return self.held.body._offset < self.total

    @invariant()
    def what_is_held_can_be_replayed(self) -> None:
        held = getattr(self, "held", None)
        if held is not None and held.body.held and held.body.complete and not self.closed:
            assert held.body.copy(1000) == self.received

    @invariant()
    def the_account_is_what_is_in_memory(self) -> None:
        held = getattr(self, "held", None)
        if held is not None:
            assert held.cost == sum(map(len, held.body._tail)) == held.body._tail_bytes
            assert not self.closed or held.cost == 0

    def teardown(self) -> None:
        if hasattr(self, "held"):
            self.held.body.close()
            assert self.held.cost == 0
            self.spool.close()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(deadline=None, derandomize=True, max_examples=150, stateful_step_count=30)


@steady
@given(
    st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=8),
    st.sampled_from([0, 5, 50]),
    st.sampled_from([0, 30, 500]),
    st.booleans(),
)
def test_a_replay_is_identical_for_any_pieces_and_limits(
    pieces: list[bytes], memory: int, disk: int, chunked: bool
) -> None:
    data = b"".join(pieces)
    spool = Spool()
    held = Held(CHUNKED if chunked else len(data), BodyLimits(memory, disk), spool)
    first = held.send()
    for piece in pieces:
        held.body.append(piece)
    held.body.finish()
    held.body.detach()
    assert first.body(chunked=chunked) == data
    assert held.body.held is (len(data) <= max(memory, disk))
    if held.body.can_be_sent:
        assert held.send().body(chunked=chunked) == data
    held.body.close()
    assert held.cost == 0
    spool.close()
