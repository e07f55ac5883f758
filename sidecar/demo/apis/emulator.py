"""What all emulated APIs have in common: a port, a plan of errors, a memory of calls and of effects.

A request names its own errors: ``X-Emulate: INTERNAL_ERROR RATE_LIMITED;2 reset`` is for its first, second and third
send; after that, and without it, the API does what its documentation says. ``after:NAME`` acts first and fails then,
which makes a retry dangerous. Time is an argument. It never waits, and knows nothing of the sidecar.
"""

from __future__ import annotations

import json
import socket
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

from aiohttp import web

__all__ = ["PLAN", "Answer", "Call", "Emulator", "Trouble"]

PLAN = "X-Emulate"
REQUEST_ID = "X-Request-Id"
RESET = "reset"
AFTER = "after:"
HINT_SECONDS = 2.0
KEPT_SECONDS = 24 * 3600.0
"""Seconds for which a key returns the original response."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One documented error."""

    status: int
    code: str
    message: str
    hint: bool = False
    """It carries ``Retry-After``; ``NAME;5`` in a plan says how many seconds."""


@dataclass(slots=True)
class Answer:
    status: int
    document: object = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """One request as it came, and what was answered."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    """Seconds on the clock that was handed in."""
    status: int | None = None
    """None: the connection was reset."""
    hint_seconds: float | None = None
    answered: bytes = b""
    """The body of the answer."""

    @property
    def request_id(self) -> str:
        return self.headers.get(REQUEST_ID, "")

    @property
    def segments(self) -> list[str]:
        return self.path.strip("/").split("/")

    def document(self) -> dict[str, object]:
        """The JSON object of the body; empty if it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


class Emulator:
    """One API on a free port of loopback. A subclass has its troubles, its envelope and its resources."""

    troubles: ClassVar[Mapping[str, Trouble]] = {}
    key_header = ""
    """The header in which it honours an idempotency key; empty: it honours none."""

    def __init__(self, now: Callable[[], float], secret: str) -> None:
        self.now = now
        self.secret = secret
        self.port = 0
        self.calls: list[Call] = []
        self.logins = 0
        self.applied: Counter[str] = Counter()
        """Effects by request id: more than one means that something was done twice."""
        self._sends: Counter[tuple[str, str]] = Counter()
        self._methods: dict[str, str] = {}
        self._keys: dict[str, tuple[float, bytes, Answer]] = {}
        self._runner: web.ServerRunner | None = None

    async def start(self) -> None:
        """Raises ``OSError`` if loopback cannot be listened on."""
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, backlog=512).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def calls_of(self, request_id: str) -> list[Call]:
        return [call for call in self.calls if call.request_id == request_id]

    def came_too_soon(self) -> list[str]:
        """Requests that were sent again before the time that their last response had asked for."""
        by_id: defaultdict[tuple[str, str], list[Call]] = defaultdict(list)
        for call in self.calls:
            by_id[call.request_id, call.method].append(call)
        pairs = [pair for calls in by_id.values() for pair in pairwise(calls)]
        return [
            f"{later.method} {later.path}: {later.at - earlier.at:.3f} s after being told {earlier.hint_seconds} s"
            for earlier, later in pairs
            if earlier.hint_seconds is not None and later.at - earlier.at < earlier.hint_seconds
        ]

    # -- one call ----------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        call = Call(request.method, request.path, request.headers, await request.read(), self.now())
        self.calls.append(call)
        answer = self._fate(call)
        if answer is None:
            _reset(request)
            return web.Response()
        call.status = answer.status
        headers = {**answer.headers, **self.always(call)}
        if answer.status == 204 or answer.document is None:
            return web.Response(status=answer.status, headers=headers)
        call.answered = json.dumps(answer.document).encode()
        headers["Content-Type"] = "application/json"
        return web.Response(body=call.answered, status=answer.status, headers=headers)

    def _fate(self, call: Call) -> Answer | None:
        """By plan, else by documentation; None: the connection is reset."""
        plan = call.headers.get(PLAN, "").split()
        asked = call.request_id, call.method  # a look at the state (GET) is not one of the planned sends
        number = self._sends[asked]
        self._sends[asked] += 1
        is_planned = call.method == self._methods.setdefault(call.request_id, call.method)
        step = plan[number] if is_planned and number < len(plan) else ""
        if step.startswith(AFTER):
            self.serve(call)
            step = step.removeprefix(AFTER)
        if step == RESET:
            return None
        name, _, seconds = step.partition(";")
        if not name:
            return self.serve(call)
        trouble = self.troubles[name]
        answer = self.refuse(trouble.status, trouble.code, trouble.message)
        if trouble.hint:
            call.hint_seconds = float(seconds or HINT_SECONDS)
            answer.headers["Retry-After"] = f"{call.hint_seconds:g}"
        return answer

    def apply(self, call: Call) -> None:
        """Count an effect that must not happen twice."""
        self.applied[call.request_id] += 1

    def once(self, call: Call, act: Callable[[], Answer]) -> Answer:
        """``act``, or the original response if this key has been used within a day; 409 if it was for other data."""
        key = call.headers.get(self.key_header, "") if self.key_header else ""
        if not key:
            return act()
        known = self._keys.get(key)
        if known is not None and self.now() - known[0] < KEPT_SECONDS:
            return known[2] if known[1] == call.body else self.conflicting_key()
        answer = act()
        if answer.status < 500:
            self._keys[key] = (self.now(), call.body, answer)
        return answer

    # -- what each API says for itself -------------------------------------------------------------------

    def serve(self, call: Call) -> Answer:
        """As documented."""
        raise NotImplementedError

    def refuse(self, status: int, code: str, message: str) -> Answer:
        """An error in its envelope."""
        raise NotImplementedError

    def conflicting_key(self) -> Answer:
        raise NotImplementedError

    def always(self, call: Call) -> dict[str, str]:
        """Headers of every response."""
        return {}


def _reset(request: web.BaseRequest) -> None:
    """RST rather than FIN: a linger time of zero."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
