"""The apps and the upstream of a run: they do exactly what the plan says, and note what they see.

Nothing of them is shared with the sidecar.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tests.fuzz.loop import STARTS_AT, VirtualLoop, reset
from tests.fuzz.plans import Plan, Request, Talk
from tests.fuzz.reader import Malformed, Message, Reader
from tests.fuzz.site import ELSEWHERE, PORT

__all__ = ["App", "Arrival", "Fetched", "Script", "Upstream", "answer_to", "body_of"]

KEYED = frozenset({"POST", "PUT", "PATCH", "DELETE"})
HALF_CLOSED_SECONDS = 500.0
"""How long an app that has sent its FIN reads on."""

Script = Generator[float, None, None]


class Stage(Protocol):
    """The world, as its peers see it."""

    loop: VirtualLoop
    requests: dict[str, Request]
    arrivals: dict[str, list[Arrival]]
    asked: dict[str, Fetched]
    upstreams: set[Upstream]

    def fault(self, text: str) -> None: ...
    def drive(self, script: Script) -> Callable[[], None]: ...


@dataclass(eq=False)
class Arrival:
    """One send, as the upstream saw it."""

    token: str
    number: int
    at: float
    message: Message
    plan: Plan
    whole_at: float | None = None
    answered_at: float | None = None
    """When the whole head of the answer was written."""
    finished_at: float | None = None
    """When the whole answer was written."""
    gone_at: float | None = None
    """When the sidecar left."""

    @property
    def has_answered(self) -> bool:
        return self.answered_at is not None

    def __str__(self) -> str:
        return f"arrival {self.number} of {self.token} at {self.at - STARTS_AT:.3f} s"


@dataclass(eq=False)
class Fetched:
    """One request, as the app saw it."""

    request: Request
    talk: Talk
    sent_at: float = 0.0
    """When its head was whole."""
    whole_at: float | None = None
    answer: Message | None = None
    answered_at: float | None = None
    ended_at: float | None = None
    was_cut: bool = False
    """Its answer broke off."""
    dropped: bool = False
    """The connection ended before its answer began."""

    @property
    def status(self) -> int:
        return int(self.answer.start[0]) if self.answer is not None else 0

    @property
    def source(self) -> int:
        """Which arrival's answer it got; 0: the sidecar's own."""
        value = self.answer.get("x-answer") if self.answer is not None else None
        return int(value.rpartition("/")[2]) if value else 0

    @property
    def sidecar(self) -> str:
        return (self.answer.get("sidecar") or "") if self.answer is not None else ""


class Upstream(asyncio.Protocol):
    """One connection, at the upstream."""

    def __init__(self, world: Stage) -> None:
        self._world = world
        self._reader = Reader(answers=False)
        self._current: Arrival | None = None
        self._stop: Callable[[], None] | None = None
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._world.upstreams.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._world.upstreams.discard(self)
        if self._current is not None and self._current.gone_at is None:
            self._current.gone_at = self._world.loop.time()
        if self._stop is not None:
            self._stop()

    def eof_received(self) -> bool:
        if self._current is not None:
            self._current.gone_at = self._world.loop.time()
        return False

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
        except Malformed as exc:
            self._world.fault(f"the upstream was sent what is no HTTP: {exc}")
            self.leave(resets=False)
            return
        self._look()

    def _look(self) -> None:
        reader = self._reader
        message = reader.done[0] if reader.done else reader.message
        if self._current is None and message is not None:
            self._arrive(message)
        current = self._current
        if current is None or not reader.done or current.whole_at is not None:
            return
        reader.done.pop(0)
        current.whole_at = self._world.loop.time()
        if not (current.plan.early or (current.plan.does == "cut" and current.plan.where == "head")):
            self._answer(current)

    def _arrive(self, message: Message) -> None:
        world = self._world
        token = message.start[1].partition("?")[0].rpartition("/")[2]
        request = world.requests.get(token)
        if request is None:
            world.fault(f"the upstream was sent what nobody asked: {message.start}")
            self.leave(resets=False)
            return
        known = world.arrivals.setdefault(token, [])
        plan = request.plans[min(len(known), len(request.plans) - 1)]
        arrival = Arrival(token, len(known) + 1, world.loop.time(), message, plan)
        known.append(arrival)
        self._current = arrival
        if plan.early or (plan.does == "cut" and plan.where == "head"):
            self._answer(arrival)

    def _answer(self, arrival: Arrival) -> None:
        self._stop = self._world.drive(self._script(arrival))

    def _script(self, arrival: Arrival) -> Script:
        plan, transport, loop = arrival.plan, self._transport, self._world.loop
        yield plan.after
        if plan.does == "hang":
            return
        if plan.does == "cut" and plan.where in ("head", "request"):
            self.leave(resets=plan.resets)
            return
        for _ in range(plan.interim):
            transport.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        if plan.does == "lie":
            yield from self._lie(arrival)
            return
        head, body = answer_to(arrival)
        if plan.does == "cut" and plan.where == "answer-head":
            transport.write(head[: len(head) // 2])
            self.leave(resets=plan.resets)
            return
        pieces = _split(body, plan.pieces)
        if not plan.gap:
            # At once, in one write, as servers do with small answers.
            transport.write(head if plan.does == "cut" else head + _framed(plan, body, pieces))
            arrival.answered_at = loop.time()
        else:
            transport.write(head)
            arrival.answered_at = loop.time()
            for piece in pieces:
                yield plan.gap
                if plan.does == "cut":
                    break
                transport.write(_framed(plan, piece, [piece], last=False))
            if plan.does == "answer" and plan.framing == "chunked" and _has_body(arrival):
                transport.write(b"0\r\n\r\n")
        if plan.does == "cut":
            # A FIN would be the proper end of a body that lasts until the connection closes.
            self.leave(resets=plan.resets or plan.framing == "close")
            return
        arrival.finished_at = loop.time()
        self._current = None
        self._stop = None
        if not plan.keeps or plan.framing == "close" or arrival.whole_at is None:
            self.leave(resets=False)
            return
        self._look()

    def _lie(self, arrival: Arrival) -> Script:
        transport = self._transport
        arrival.plan = replace(arrival.plan, framing="length")
        lies = (
            b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
            b"".join(answer_to(arrival))
            + b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX-Answer: nobody/9\r\n\r\nforgotten",
        )
        which = zlib.crc32(arrival.token.encode()) % len(lies)
        if which == len(lies) - 1:
            arrival.answered_at = self._world.loop.time()
        transport.write(lies[which])
        yield 1.0
        self.leave(resets=False)

    def leave(self, *, resets: bool) -> None:
        if self._stop is not None:
            self._stop()
        if resets:
            reset(self._transport)
        else:
            self._transport.close()


def _has_body(arrival: Arrival) -> bool:
    return arrival.message.start[0] != "HEAD" and arrival.plan.status not in (204, 304)


def answer_to(arrival: Arrival) -> tuple[bytes, bytes]:
    """Head and body (as it is before it is framed) of what the plan says."""
    plan = arrival.plan
    name = f"{arrival.token}/{arrival.number}"
    body = (f"{name} " * (plan.size_bytes // (len(name) + 1) + 1)).encode()[: plan.size_bytes]
    lines = [f"HTTP/1.1 {plan.status} Said", f"X-Answer: {name}"]
    if plan.hint is not None:
        lines.append(f"Retry-After: {plan.hint}")
    if plan.status != 204 and not (plan.status == 304 and plan.framing != "length"):
        lines += {
            "length": [f"Content-Length: {len(body)}"],
            "chunked": ["Transfer-Encoding: chunked"],
            "close": ["Connection: close"],
        }[plan.framing]
    if not _has_body(arrival):
        body = b""
    return "\r\n".join([*lines, "", ""]).encode(), body


def _split(body: bytes, count: int) -> list[bytes]:
    size = max(1, -(-len(body) // count))
    return [body[at : at + size] for at in range(0, len(body), size)]


def _framed(plan: Plan, body: bytes, pieces: list[bytes], *, last: bool = True) -> bytes:
    if plan.framing != "chunked" or plan.status in (204, 304):
        return body
    data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return data + b"0\r\n\r\n" if last and (body or plan.size_bytes == 0) else data


class App(asyncio.Protocol):
    """One connection of an app: sends what its talk says, and notes what comes back."""

    def __init__(self, world: Stage, talk: Talk) -> None:
        self._world = world
        self.talk = talk
        self._reader = Reader(answers=True)
        self._transport: Any = None
        self._tunnel = any(request.way == "tunnel" for request in talk.requests)
        self._pending: list[Fetched] = []
        """Sent, and not yet answered whole."""
        self._joined = not self._tunnel
        self._is_sending = True
        self.left_at: float | None = None
        """When the app itself ended the connection."""
        self.closed_at: float | None = None
        self.closed_by_us = False
        self.is_over = False
        self.answers: list[str] = []
        self._stop = world.drive(self._script())

    def _script(self) -> Script:
        world, talk = self._world, self.talk
        yield talk.at
        transport = world.loop.network.dial(("127.0.0.1", PORT), self)
        if transport is None:
            self.is_over = True
            return
        self._transport = transport
        if talk.stalls:
            transport.pause_reading()
            world.loop.call_later(talk.stalls, self._resume)
        if self._tunnel:
            self._reader.methods.append("CONNECT")
            transport.write(b"CONNECT up.example:80 HTTP/1.1\r\nHost: up.example:80\r\n\r\n")
            for _ in range(40):
                if self._joined or self._transport is None:
                    break
                yield 0.1
            if not self._joined:
                self._leave()
                return
        for request in talk.requests:
            if request.after:
                yield request.after
            if self._transport is None or self._transport.is_closing():
                break
            yield from self._ask(request)
        self._is_sending = False
        if talk.ends == "waits":
            self._done()
            return
        yield talk.ends_after
        self._leave()

    def _ask(self, request: Request) -> Script:
        loop, transport = self._world.loop, self._transport
        asked = self._world.asked[request.token] = Fetched(request, self.talk, sent_at=loop.time())
        self._pending.append(asked)
        self._reader.methods.append(request.method)
        head, body = request_bytes(request, inside=self._tunnel)
        if not body or not request.pause:
            transport.write(head + body)
        else:
            transport.write(head + body[: len(body) // 2])
            yield request.pause
            if transport.is_closing():
                return
            transport.write(body[len(body) // 2 :])
        asked.whole_at = loop.time()

    def _resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _leave(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self.left_at = self._world.loop.time()
        if self.talk.ends == "reset":
            reset(transport)
        elif self.talk.ends == "half":
            transport.write_eof()
            self._world.loop.call_later(HALF_CLOSED_SECONDS, transport.abort)
        else:
            transport.close()

    def _done(self) -> None:
        """All that was asked is answered: keep the connection a little, then close."""
        waits = not self._is_sending and not self._pending and self.talk.ends == "waits"
        if waits and self._transport is not None:
            self.left_at = self._world.loop.time()
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        try:
            reader.feed(data)
        except Malformed as exc:
            self._world.fault(f"the app of {self.name} was sent what is no HTTP: {exc}")
            reset(self._transport)
            return
        self._look()

    @property
    def name(self) -> str:
        return "+".join(request.token for request in self.talk.requests)

    def _look(self) -> None:
        reader, now = self._reader, self._world.loop.time()
        while reader.done:
            message = reader.done.pop(0)
            if not self._joined:
                self._joined = message.start[0].startswith("2")
                if not self._joined:
                    self.closed_by_us = True
                    self._transport.close()
                continue
            if not self._pending:
                self._world.fault(f"the app of {self.name} got one answer too many: {message.start} {message.fields}")
                return
            asked = self._pending.pop(0)
            self._begin(asked, message, now)
            asked.ended_at = now
        if reader.message is not None and self._pending and self._pending[0].answer is None:
            self._begin(self._pending[0], reader.message, now)
        self._done()

    def _begin(self, asked: Fetched, message: Message, now: float) -> None:
        if asked.answer is None:
            asked.answer, asked.answered_at = message, now
        name = message.get("x-request-id")
        if name is not None and name != asked.request.token and asked.request.token.startswith("t"):
            self._world.fault(f"{asked.request.token} got an answer with another X-Request-Id: {message.start}")

    def eof_received(self) -> bool:
        self._reader.eof()
        self._look()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True
        self.closed_at = self._world.loop.time()
        self._stop()
        for asked in self._pending:
            if asked.answer is not None:
                asked.was_cut = not asked.answer.is_whole
            else:
                asked.dropped = True
        self._transport = None


def request_bytes(request: Request, *, inside: bool) -> tuple[bytes, bytes]:
    """Head and framed body."""
    path = f"/{'s' if request.way == 'store' else 'x'}/{request.token}"
    target, host = {
        "mount": (f"/up{path}", "sidecar.test"),
        "store": (f"/up{path}", "sidecar.test"),
        "host": (f"http://up.example{path}", "up.example"),
        "unknown": (f"http://{ELSEWHERE[0]}{path}", ELSEWHERE[0]),
        "tunnel": (path, "up.example"),
    }[request.way]
    if inside:
        target, host = path, "up.example"
    lines = [f"{request.method} {target} HTTP/1.1", f"Host: {host}", f"X-Request-Id: {request.token}"]
    if request.keyed:
        lines.append(f"Idempotency-Key: key-{request.token}")
    if request.timeout is not None:
        lines.append(f"Sidecar-Timeout: {request.timeout}s")
    if request.expects:
        lines.append("Expect: 100-continue")
    body = body_of(request)
    if request.chunked:
        lines.append("Transfer-Encoding: chunked")
        body = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in _split(body, 3)) + b"0\r\n\r\n"
    elif body or request.method in KEYED:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode(), body


def body_of(request: Request) -> bytes:
    """What is asked, before it is framed."""
    return (f"body of {request.token} " * (request.size_bytes // 8 + 1)).encode()[: request.size_bytes]
