"""Handing over: the upstream's answer as it came, live or kept, or one of our own.

Nothing of an answer is changed but what belongs to the connection (RFC 9110 section 7.6.1); the ids and the
``Sidecar`` field are added. The counterpart is ``exchange``, which says what to hand over and why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sidecar.proxy.front import AppConnection
from sidecar.proxy.headers import NO_NAMES, response_fields, status_line
from sidecar.proxy.preparation import Prepared
from sidecar.proxy.replies import OwnAnswer
from sidecar.upstream.connection import Connection
from sidecar.wire.chunked import LAST_CHUNK, encode_chunk
from sidecar.wire.framing import CHUNKED, UNTIL_CLOSE
from sidecar.wire.heads import RequestMessage, ResponseMessage

__all__ = ["Kept", "answer_head", "give_kept", "give_live", "give_own"]

_CLOSE: Final = b"Connection: close\r\n"
_KEEP: Final = b"Connection: keep-alive\r\n"
_CHUNKED_LINE: Final = b"Transfer-Encoding: chunked\r\n"


NO_LENGTH: Final = frozenset({b"content-length"})
"""A 204 has none (RFC 9110 section 8.6), whatever the upstream says."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A losing response: let go on the wire, still whole in memory."""

    message: ResponseMessage
    body: bytes
    length: int
    """As framed by the upstream."""


def answer_head(
    app: AppConnection, request: RequestMessage, prepared: Prepared, message: ResponseMessage, length: int, line: bytes
) -> tuple[bytes, bool]:
    """The head for the app, and whether its body is to be chunked. ``line`` is the ``Sidecar`` field."""
    parts = [status_line(message.code, message.reason)]
    parts += response_fields(message, NO_LENGTH if message.code == 204 else NO_NAMES)
    headers = message.headers
    bound = prepared.bound
    if headers.get(bound.request_id) is None:
        parts.append(prepared.id_line)
    if headers.get(bound.correlation_id) is None:
        parts.append(prepared.correlation_line)
    if prepared.key_line:
        parts.append(prepared.key_line)
    parts.append(line)
    old = request.version[1] == 0
    chunked = False
    if length in (CHUNKED, UNTIL_CLOSE):
        if old:
            app.keep_alive = False
            app.until_close = True
        else:
            chunked = True
            parts.append(_CHUNKED_LINE)
    if app.intake.is_receiving:
        # The rest of the request body is not read: what follows it could not be told from it.
        app.keep_alive = False
    if not app.keep_alive:
        parts.append(_CLOSE)
    elif old:
        parts.append(_KEEP)
    parts.append(b"\r\n")
    return b"".join(parts), chunked


async def give_live(
    app: AppConnection, connection: Connection, head: bytes, *, chunked: bool, idle_seconds: float
) -> None:
    """The answer of a live connection: at once if it is whole already, else as it comes."""
    if connection.complete:
        held = connection.held
        body = held[0] if len(held) == 1 else b"".join(held)
        if chunked:
            body_bytes = len(body)
            body = encode_chunk(body) + LAST_CHUNK if body else LAST_CHUNK
            app.respond(head + body, body_bytes)
        else:
            app.respond(head + body, len(body))
        return
    app.start_response(head, connection, chunked=chunked)
    connection.relay(app, idle_seconds)
    await app.response_done()


def give_kept(app: AppConnection, kept: Kept, head: bytes, *, chunked: bool) -> None:
    """An answer that was let go before a wait, and is the last one after all."""
    body = kept.body
    if chunked:
        body = encode_chunk(body) + LAST_CHUNK if body else LAST_CHUNK
    app.respond(head + body, len(kept.body))


def give_own(
    app: AppConnection,
    request: RequestMessage | None,
    prepared: Prepared | None,
    answer: OwnAnswer,
    id_lines: bytes,
    wall: float,
) -> None:
    """An answer of our own. It ends the connection where the request was not read to its end."""
    head, body = answer.render(prepared.bound.policy if prepared is not None else None, id_lines, wall)
    if request is None or app.intake.is_receiving:
        app.keep_alive = False
    if not app.keep_alive:
        head += _CLOSE
    elif request is not None and request.version[1] == 0:
        head += _KEEP
    if request is not None and request.method == "HEAD":
        app.respond(head + b"\r\n", 0)
    else:
        app.respond(head + b"\r\n" + body, len(body))
