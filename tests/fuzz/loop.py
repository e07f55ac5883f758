"""An event loop on a virtual clock, with a network inside the process: the data plane runs on it as it is.

Time moves only when nothing is ready: the loop jumps to the next timer. Connections are pairs of Unix sockets, which
deliver in the call that writes, so that no byte is under way while time moves. What becomes ready in the same turn is
handled in an order that the seed decides. A run is a function of its seed, whatever the machine does meanwhile.

What it does not have: packets, delays of the network, a full accept queue; the order of callbacks is asyncio's, not
uvloop's. Those are for the runs over real sockets (``process``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import selectors
import socket
import struct
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

__all__ = ["STARTS_AT", "CountedQueue", "Network", "Spinning", "Stalled", "VirtualClock", "VirtualLoop", "reset"]

STARTS_AT = 1_000.0
"""Loop time, in seconds: some rooms take 0 for "never"."""
WALL_AT_ZERO = 1_750_000_000.0
"""Unix seconds at loop time 0."""
TURN_SECONDS = 1e-5
"""What a turn of the loop takes that had something to do: so that a timer can become due while bytes are read."""
MOST_TURNS = 20_000
"""Of the loop one after the other, without a pause: more is a spin."""
HELD_SECONDS = 0.002
"""Real time in which a thread that has taken something up is surely at it."""
_LINGER = struct.Struct("ii")


class Spinning(AssertionError):
    """The loop has gone round and round without time moving."""


class Stalled(AssertionError):
    """Nothing is ready, nothing is scheduled, and the run is not over: somebody waits for ever."""


class _Selector(selectors.BaseSelector):
    """The real one, asked without waiting; where it has nothing, the clock moves in place of waiting."""

    def __init__(self) -> None:
        self._real = selectors.EpollSelector()
        self._order: dict[int, int] = {}
        self._count = 0
        self.loop: VirtualLoop

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self._real.register(fileobj, events, data)
        self._count += 1
        self._order[key.fd] = self._count
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Any:
        return self._real.get_map()

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.get_key(fileobj)

    def close(self) -> None:
        self._real.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop = self.loop
        for queue in loop.queues:
            queue.settle()
        ready = self._real.select(0)
        if loop.hear() or ready or timeout == 0:
            loop.write_batch()
            ready.sort(key=lambda each: self._order[each[0].fd])
            loop.random.shuffle(ready)
            return ready
        if timeout is None:
            raise Stalled("nothing is ready and nothing is scheduled")
        loop.jump(timeout)
        return []


class CountedQueue(SimpleQueue[Any]):
    """The queue of a thread whose work the loop waits for before it goes on.

    While it is ``held`` (its disk is slow) time moves on beside the work that has begun.
    """

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._put = 0
        self._taken = 0
        self._done = 0
        self._is_asked = False
        self.is_held = False

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        with self._changed:
            self._put += 1
        super().put(item, block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        with self._changed:
            # Asking for more, it has told of all that it took before.
            self._done = self._taken
            self._is_asked = True
            self._changed.notify_all()
        return self._took(super().get(block, timeout))

    def get_nowait(self) -> Any:
        return self._took(super().get(False))

    def _took(self, item: Any) -> Any:
        with self._changed:
            self._taken += 1
            if item is None:
                self._done = self._taken  # its last: it does not ask again
            self._changed.notify_all()
        return item

    def settle(self) -> None:
        """Wait, in real time, until nothing that was put is undone; or, while it is held, until the thread is busy."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._is_asked, 30):
                raise Stalled("a thread has not begun in 30 s")
            if self.is_held:
                begun = self._taken == self._done and self._changed.wait_for(lambda: self._taken >= self._put, 30)
            elif not self._changed.wait_for(lambda: self._done >= self._put, 30):
                raise Stalled("a thread has not come to an end of its work in 30 s")
            else:
                begun = False
        if begun and self._taken > self._done:
            time.sleep(HELD_SECONDS)


class VirtualLoop(asyncio.SelectorEventLoop):
    """See above. ``network`` is where its connections go."""

    def __init__(self, seed: int) -> None:
        self._now = STARTS_AT
        self._turns = 0
        self._told: deque[asyncio.Handle] = deque()
        self.random = random.Random(seed)
        self.queues: list[CountedQueue] = []
        self.turns = 0
        self.network = Network(self)
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._turns = 0
        self.turns += 1
        self._now += seconds

    def write_batch(self) -> None:
        self.turns += 1
        self._now += TURN_SECONDS
        self._turns += 1
        if self._turns > MOST_TURNS:
            self._turns = 0
            raise Spinning(f"{MOST_TURNS} turns of the loop without a pause, at {self._now - STARTS_AT:.3f} s")

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        """What another thread tells is heard once it has come to an end of its work: always at the same turn."""
        handle = asyncio.Handle(callback, args, self, context)
        self._told.append(handle)
        return handle

    def hear(self) -> bool:
        """Whether another thread has told anything."""
        told = bool(self._told)
        while self._told:
            self._ready.append(self._told.popleft())  # type: ignore[attr-defined]
        return told

    def close(self) -> None:
        """With every connection that a run has left."""
        if not self.is_closed() and not self.is_running():
            for transport in list(self._transports.values()):  # type: ignore[attr-defined]
                transport.abort()
            with contextlib.suppress(Spinning, Stalled):
                self.run_until_complete(asyncio.sleep(0.1))
            self.network.close()
        super().close()

    def timers(self) -> list[float]:
        """When the next things are due, soonest first."""
        scheduled = self._scheduled  # type: ignore[attr-defined]
        return sorted({handle.when() for handle in scheduled if not handle.cancelled() and handle.when() > self._now})

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """At once: a thread would make the order of things depend on the machine."""
        future = self.create_future()
        try:
            result = func(*args)
        except Exception as exc:
            future.set_exception(exc)
        else:
            future.set_result(result)
        return future

    # -- the network -------------------------------------------------------------------------------------

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        return self.network.listen(str(host), int(port), lambda sock: self.adopt(sock, protocol_factory()))

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        await self.network.connect(sock, (address[0], address[1]))

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        return self.network.look_up(str(host), int(port))

    def _make_socket_transport(self, sock: socket.socket, *args: Any, **kwargs: Any) -> Any:
        return super()._make_socket_transport(self.network.end_of(sock), *args, **kwargs)  # type: ignore[misc]

    def adopt(self, sock: socket.socket, protocol: asyncio.Protocol) -> asyncio.Transport:
        """A transport for one end of a pair."""
        transport: asyncio.Transport = self._make_socket_transport(sock, protocol)
        return transport


class End(socket.socket):
    """One end of a pair. With SO_LINGER of 0 s its end is a reset, as of TCP.

    Unix sockets reset the other end where the closing one has left bytes unread: so it gets one that nobody reads.
    """

    far: End | None = None
    _resets = False

    def setsockopt(self, *args: Any) -> None:
        if args[:2] == (socket.SOL_SOCKET, socket.SO_LINGER):
            self._resets = _LINGER.unpack(args[2]) == (1, 0)
        elif args[0] != socket.IPPROTO_TCP:
            super().setsockopt(*args)

    def close(self) -> None:
        far, self.far = self.far, None
        if self._resets and far is not None and far.fileno() >= 0:
            with contextlib.suppress(OSError):
                far.send(b"\0")
        super().close()


def reset(transport: asyncio.Transport | None) -> None:
    """RST."""
    if transport is not None and not transport.is_closing():
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.pack(1, 0))
        transport.abort()


class _Server:
    """What ``create_server`` returns."""

    def __init__(self, network: Network, address: tuple[str, int]) -> None:
        self._network = network
        self._address = address
        self.sockets = [self]

    def getsockname(self) -> tuple[str, int]:
        return self._address

    def is_serving(self) -> bool:
        return self._address in self._network.servers

    def close(self) -> None:
        self._network.servers.pop(self._address, None)

    async def wait_closed(self) -> None: ...


class Network:
    """Who listens where, and what happens to whoever dials."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._last_port = 20_000
        self.servers: dict[tuple[str, int], Callable[[socket.socket], Any]] = {}
        self.names: dict[str, list[str]] = {}
        self.fate: Callable[[tuple[str, int]], tuple[str, float]] = lambda _: ("", 0.0)
        """``""`` (connects), ``refused``, ``reset`` or ``hole``, after so many seconds."""
        self.dialled = 0
        self._dialled: dict[int, End] = {}
        """The other end of what was dialled, by inode, until it gets its transport."""
        self._ends: weakref.WeakSet[End] = weakref.WeakSet()

    def close(self) -> None:
        for end in list(self._ends):
            end.close()

    def listen(self, host: str, port: int, accept: Callable[[socket.socket], Any]) -> _Server:
        if not port:
            self._last_port += 1
            port = self._last_port
        if (host, port) in self.servers:
            raise OSError(98, "Address already in use")
        self.servers[host, port] = accept
        return _Server(self, (host, port))

    def look_up(self, host: str, port: int) -> list[Any]:
        found = self.names.get(host)
        if found is None:
            found = [host] if host.replace(".", "").isdigit() else []
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (each, port)) for each in found]

    async def connect(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """Join ``sock`` to whoever listens there."""
        self.dialled += 1
        fate, seconds = self.fate(address)
        if fate == "hole":
            await self._loop.create_future()
        if seconds:
            await asyncio.sleep(seconds)
        accept = self.servers.get(address)
        if fate == "refused" or accept is None:
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = socket.socketpair()
        os.dup2(ours.fileno(), sock.fileno(), inheritable=False)
        ours.close()
        os.set_blocking(sock.fileno(), False)
        if fate == "reset":
            theirs.close()
            return
        end = self._dialled[os.fstat(sock.fileno()).st_ino] = self.end_of(theirs)
        accept(end)

    def dial(self, address: tuple[str, int], protocol: asyncio.Protocol) -> asyncio.Transport | None:
        """A connection of a scripted app; None: nobody listens."""
        accept = self.servers.get(address)
        if accept is None:
            return None
        ours, theirs = map(self.end_of, socket.socketpair())
        ours.far, theirs.far = theirs, ours
        transport = self._loop.adopt(ours, protocol)
        accept(theirs)
        return transport

    def end_of(self, sock: socket.socket) -> End:
        """``sock`` as an end, read anew: what was made for TCP has been joined to a pair since."""
        if isinstance(sock, End):
            return sock
        end = End(fileno=sock.detach())
        end.setblocking(False)
        self._ends.add(end)
        far = self._dialled.pop(os.fstat(end.fileno()).st_ino, None)
        if far is not None and far.fileno() >= 0:
            end.far, far.far = far, end
        return end


class VirtualClock:
    """The sidecar's clock: the loop's time; the wall can be set, as NTP would."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.monotonic = loop.time
        self.sleep = asyncio.sleep
        self.wall_offset_seconds = 0.0

    def wall(self) -> float:
        return WALL_AT_ZERO + self._loop.time() + self.wall_offset_seconds
