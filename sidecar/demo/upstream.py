"""A small JSON API that fails on purpose: 503, 429 with a hint, a reset connection.

The failure of a call depends only on the seed, the name in its path and how often that name was called before, so that
a load meets the same failures with the sidecar and without. It honours idempotency keys and counts what it did. It
imitates no real API. Counterpart: ``load``.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from enum import StrEnum

from aiohttp import web

__all__ = ["SHAKY", "Fate", "SampleUpstream", "fate_of"]

SHAKY = "shaky"
"""The name whose calls fail twice, then succeed, in turn: for a trial with curl."""

UNAVAILABLE_SHARE = 0.12
LIMITED_SHARE = 0.03
RESET_SHARE = 0.05
WORK_SECONDS = (0.004, 0.020)
"""Seconds that a response takes, from … to."""
HINT_MILLISECONDS = 150


class Fate(StrEnum):
    """What befalls one call."""

    ANSWER = "answer"
    UNAVAILABLE = "unavailable"
    LIMITED = "limited"
    RESET = "reset"


def fate_of(seed: int, name: str, call: int) -> Fate:
    """The fate of the ``call``-th call (from 1) of ``name``; always the same for the same arguments."""
    if name == SHAKY:
        return (Fate.UNAVAILABLE, Fate.LIMITED, Fate.ANSWER)[(call - 1) % 3]
    chance = random.Random(f"{seed}/{name}/{call}").random()
    for fate, share in (
        (Fate.UNAVAILABLE, UNAVAILABLE_SHARE),
        (Fate.LIMITED, LIMITED_SHARE),
        (Fate.RESET, RESET_SHARE),
    ):
        if chance < share:
            return fate
        chance -= share
    return Fate.ANSWER


class SampleUpstream:
    """Serves ``GET /v1/quote/NAME`` and ``POST /v1/orders/NAME``."""

    def __init__(self, seed: int = 1) -> None:
        self.calls: Counter[str] = Counter()
        """Calls by path: what the clients, or the sidecar for them, really sent."""
        self.placed: Counter[str] = Counter()
        """Orders by name: more than one means a duplicated effect."""
        self.port = 0
        self._seed = seed
        self._keys: set[str] = set()
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one. Raises ``OSError`` if the address cannot be listened on."""
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        self.calls[request.path] += 1
        _, _, kind, name = [*request.path.split("/", 3), "", "", ""][:4]
        if (request.method, kind) not in {("GET", "quote"), ("POST", "orders")} or not name:
            return _error(404, "not_found", "Try GET /v1/quote/NAME or POST /v1/orders/NAME.")
        fate = fate_of(self._seed, name, self.calls[request.path])
        if fate is Fate.UNAVAILABLE:
            return _error(503, "unavailable", "Some part of me is down, as it is now and then.")
        if fate is Fate.LIMITED:
            return _limited()
        await asyncio.sleep(random.Random(name).uniform(*WORK_SECONDS))
        if kind == "orders":
            self._place(name, request.headers.get("Idempotency-Key"))
        if fate is Fate.RESET:
            _reset(request)
        return _found(kind, name)

    def _place(self, name: str, key: str | None) -> None:
        """Place an order, unless one with the same key was placed before."""
        if key is not None and key in self._keys:
            return
        if key is not None:
            self._keys.add(key)
        self.placed[name] += 1


def _found(kind: str, name: str) -> web.Response:
    price = random.Random(name).randrange(1_000, 90_000) / 100
    return web.json_response({"placed": name} if kind == "orders" else {"quote": name, "price": price})


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=status)


def _limited() -> web.Response:
    answer = _error(429, "rate_limited", "Too many requests.")
    answer.headers["Retry-After-Ms"] = str(HINT_MILLISECONDS)
    answer.headers["Retry-After"] = "1"
    return answer


def _reset(request: web.BaseRequest) -> None:
    """Ends the connection with RST rather than FIN: a linger time of zero."""
    if request.transport is None:
        return
    connection = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
