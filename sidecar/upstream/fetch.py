"""One small request of our own, and its whole response: for a login, and for a reread.

Bounded in time and in size; a redirect is never followed. It decides nothing, and neither the request nor the response
is ever logged. Counterpart for the app's requests: ``proxy.exchange.send``.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from sidecar.upstream.connection import Connection
from sidecar.upstream.errors import NotConnected
from sidecar.upstream.pool import Pool
from sidecar.wire.heads import ResponseMessage

__all__ = ["ANSWER_BYTES", "FetchFailed", "Fetched", "ask"]

ANSWER_BYTES: Final = 64 << 10
"""Bytes of the largest response that is read."""


class FetchFailed(Exception):
    """There is no usable response; the text says why, in our own words."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A response that came whole."""

    message: ResponseMessage
    body: bytes
    length: int
    """Body length as framed by the upstream."""


async def ask(pool: Pool, request: bytes, method: str, *, seconds: float, reuse: bool) -> Fetched:
    """Send ``request`` (head and body) and read the response to its end. Raises ``FetchFailed``.

    ``reuse``: a pooled connection may be used; if it closes without a response the request is sent once more on a new
    one, so only for methods that may be repeated.
    """
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            pooled = pool.take_idle(careful=True) if reuse else None
            if pooled is not None:
                answer = await _converse(pooled, request, method)
                if answer is not None:
                    return answer
            fresh = await pool.connect(seconds)
            answer = await _converse(fresh, request, method)
    except TimeoutError:
        raise FetchFailed("no answer in time") from None
    except NotConnected as exc:
        raise FetchFailed(exc.detail) from None
    if answer is None:
        raise FetchFailed("the connection ended without an answer")
    return answer


async def _converse(connection: Connection, request: bytes, method: str) -> Fetched | None:
    """The response; None if the connection ended without a response head."""
    try:
        if not connection.send(request, method, whole=True):
            return None
        message = await connection.head()
        if message is None:
            return None
        if not await connection.whole(ANSWER_BYTES) or connection.held_bytes > ANSWER_BYTES:
            raise FetchFailed(
                "the answer is cut" if connection.failure else f"the answer is above {ANSWER_BYTES} bytes"
            )
        return Fetched(message, b"".join(connection.held), connection.length)
    finally:
        connection.release()
