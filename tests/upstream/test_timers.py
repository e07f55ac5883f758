"""Many timeouts of one length on one timer: each ends once, in order, unless it was stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from sidecar.upstream.timeouts import Timers
from tests.core.making import steady

SECONDS = 10.0


class Handle:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class HandMovedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is moved by hand; it never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.calls: list[tuple[float, Callable[[], object], Handle]] = []
        self.armed = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., object], *_args: object, **_more: object) -> Handle:  # type: ignore[override]
        handle = Handle()
        self.armed += 1
        self.calls.append((when, callback, handle))
        return handle

    @property
    def pending(self) -> int:
        return sum(not handle.cancelled for _, _, handle in self.calls)

    def advance(self, seconds: float) -> None:
        target = self.now + seconds
        while True:
            due = [call for call in self.calls if call[0] <= target and not call[2].cancelled]
            if not due:
                break
            call = min(due, key=lambda each: each[0])
            self.calls.remove(call)
            self.now = max(self.now, call[0])
            call[1]()
        self.now = target


class Item:
    def __init__(self, name: str, ended: list[tuple[str, float]], loop: HandMovedLoop) -> None:
        self.name = name
        self._ended = ended
        self._loop = loop

    def timed_out(self) -> None:
        self._ended.append((self.name, self._loop.now))


class SqliteOutbox:
    def __init__(self) -> None:
        self.loop = HandMovedLoop()
        self.ended: list[tuple[str, float]] = []
        self.timers = Timers(self.loop, SECONDS)

    def __enter__(self) -> SqliteOutbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.close()

    def item(self, name: str) -> Item:
        return Item(name, self.ended, self.loop)


def test_they_end_in_order_each_at_its_time() -> None:
    with SqliteOutbox() as shelf:
        for name in "abc":
            shelf.timers.start(shelf.item(name))
            shelf.loop.advance(1)
        shelf.loop.advance(30)
        assert shelf.ended == [("a", 110.0), ("b", 111.0), ("c", 112.0)]
        assert shelf.loop.pending == 0


def test_however_many_there_are_one_timer_is_armed() -> None:
    with SqliteOutbox() as shelf:
        for number in range(1000):
            item = shelf.item(str(number))
            shelf.timers.start(item)
            if number % 2:
                shelf.timers.stop(item)
        assert (shelf.loop.armed, shelf.loop.pending) == (1, 1)
        shelf.loop.advance(SECONDS)
        assert [name for name, _ in shelf.ended] == [str(number) for number in range(0, 1000, 2)]


def test_one_that_is_stopped_does_not_end() -> None:
    with SqliteOutbox() as shelf:
        first, second = shelf.item("first"), shelf.item("second")
        shelf.timers.start(first)
        shelf.loop.advance(4)
        shelf.timers.start(second)
        shelf.timers.stop(first)
        shelf.timers.stop(first)
        shelf.loop.advance(30)
        assert shelf.ended == [("second", 114.0)]


def test_stopping_what_was_never_started_is_nothing() -> None:
    with SqliteOutbox() as shelf:
        shelf.timers.stop(shelf.item("never"))
        assert shelf.loop.armed == 0


def test_after_the_last_one_ended_the_next_start_arms_again() -> None:
    with SqliteOutbox() as shelf:
        item = shelf.item("again")
        for _ in range(3):
            shelf.timers.start(item)
            shelf.loop.advance(SECONDS)
        assert shelf.ended == [("again", 110.0), ("again", 120.0), ("again", 130.0)]


def test_the_same_item_started_again_after_a_stop_has_its_whole_time() -> None:
    with SqliteOutbox() as shelf:
        item, other = shelf.item("item"), shelf.item("other")
        shelf.timers.start(item)
        shelf.loop.advance(5)
        shelf.timers.start(other)
        shelf.timers.stop(item)
        shelf.loop.advance(1)
        shelf.timers.start(item)
        shelf.loop.advance(30)
        assert shelf.ended == [("other", 115.0), ("item", 116.0)]


def test_the_same_item_started_twice_ends_once() -> None:
    with SqliteOutbox() as shelf:
        item = shelf.item("twice")
        shelf.timers.start(item)
        shelf.loop.advance(3)
        shelf.timers.start(item)
        shelf.loop.advance(30)
        assert shelf.ended == [("twice", 113.0)]


def test_one_that_ends_may_start_itself_again() -> None:
    with SqliteOutbox() as shelf:

        class Restarting(Item):
            def timed_out(self) -> None:
                super().timed_out()
                if len(shelf.ended) < 3:
                    shelf.timers.start(self)

        shelf.timers.start(Restarting("self", shelf.ended, shelf.loop))
        shelf.loop.advance(100)
        assert [at for _, at in shelf.ended] == [110.0, 120.0, 130.0]


def test_after_close_nothing_ends() -> None:
    with SqliteOutbox() as shelf:
        shelf.timers.start(shelf.item("lost"))
        shelf.timers.close()
        shelf.timers.close()
        shelf.loop.advance(100)
        assert (shelf.ended, shelf.loop.pending) == ([], 0)


STEPS = st.lists(
    st.tuples(st.sampled_from(["start", "stop", "wait"]), st.integers(min_value=0, max_value=4)), max_size=40
)


@steady
@given(STEPS)
def test_any_order_of_starts_and_stops_ends_each_at_its_time(steps: list[tuple[str, int]]) -> None:
    with SqliteOutbox() as shelf:
        items = [shelf.item(str(number)) for number in range(5)]
        due: dict[int, float] = {}
        expected: list[tuple[str, float]] = []

        def wait(seconds: float) -> None:
            until = shelf.loop.now + seconds
            shelf.loop.advance(seconds)
            over = sorted((at, number) for number, at in due.items() if at <= until)
            expected.extend((str(number), at) for at, number in over)
            for _, number in over:
                del due[number]

        for step, number in steps:
            if step == "wait":
                wait(number * 1.7)
            elif step == "stop":
                shelf.timers.stop(items[number])
                due.pop(number, None)
            elif number not in due:
                shelf.timers.start(items[number])
                due[number] = shelf.loop.now + SECONDS
        wait(100)
        assert sorted(shelf.ended) == sorted(expected)
        assert [at for _, at in shelf.ended] == sorted(at for _, at in shelf.ended)
        assert shelf.loop.pending == 0


async def test_it_fires_on_a_real_loop() -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()

    class Waking:
        def timed_out(self) -> None:
            over.set()

    timers = Timers(loop, 0.01)
    began = loop.time()
    timers.start(Waking())
    async with asyncio.timeout(60):
        await over.wait()
    assert loop.time() - began >= 0.008
    timers.close()
