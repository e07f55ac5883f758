"""Handing over: the upstream's answer as it came, live or kept, or one of our own.

Nothing of an answer is changed but what belongs to the connection (RFC 9110 section 7.6.1); the ids and the
``Sidecar`` field are added. The counterpart is ``exchange``, which says what to hand over and why.
"""

# Compiled in the wheel.

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sidecar.proxy.front import AppConnection
from sidecar.proxy.headers import (
    CONNECTION,
    DROP,
    HARMLESS,
    KEEP,
    NO_NAMES,
    careful_fields,
    named_by_connection,
    status_line,
)
from sidecar.proxy.preparation import Prepared
from sidecar.proxy.receipts import Receipt
from sidecar.proxy.replies import OwnAnswer
from sidecar.upstream.connection import Connection, Sink
from sidecar.wire.chunked import LAST_CHUNK, encode_chunk
from sidecar.wire.heads import RequestMessage, ResponseMessage

__all__ = ["Kept", "answer_head", "answer_whole", "give_kept", "give_own", "give_stream", "give_whole"]

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
    pieces, chunked = _head(app, request, prepared, message, length, line)
    return b"".join(pieces), chunked


def answer_whole(
    app: AppConnection,
    request: RequestMessage,
    prepared: Prepared,
    message: ResponseMessage,
    connection: Connection,
    line: bytes,
) -> None:
    """``answer_head`` and ``give_whole`` in one: head and body are joined once, and go out at the end of the turn."""
    pieces, chunked = _head(app, request, prepared, message, connection.length, line)
    held = connection.held
    body = held[0] if len(held) == 1 else b"".join(held)
    pieces.append(_in_one_chunk(body) if chunked else body)
    app.respond(b"".join(pieces), len(body))


def _head(
    app: AppConnection, request: RequestMessage, prepared: Prepared, message: ResponseMessage, length: int, line: bytes
) -> tuple[list[bytes], bool]:
    """``answer_head``, in pieces."""
    code = message.code
    bound = prepared.bound
    rules = bound.response_rules
    memory = rules.memory
    parts = [status_line(code, message.reason)]
    for name, value in message.raw_headers:
        verdict = memory.get(name)
        if verdict is None:
            verdict = rules.judge(name)
        if verdict == KEEP:
            parts += (name, b": ", value, b"\r\n")
        elif verdict > DROP and not (verdict == CONNECTION and value in HARMLESS):
            parts = _careful_head(prepared, message)
            break
    else:
        if code == 204:
            parts = _careful_head(prepared, message)
        else:
            parts.append(prepared.id_lines)
    if prepared.key_line:
        parts.append(prepared.key_line)
    parts.append(line)
    old = request.version[1] == 0
    chunked = False
    if length < 0:
        # CHUNKED or UNTIL_CLOSE.
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
    return parts, chunked


def _careful_head(prepared: Prepared, message: ResponseMessage) -> list[bytes]:
    """Of an answer with ids of its own, an unusual Connection, or no content."""
    bound = prepared.bound
    dropped = named_by_connection(message) | (NO_LENGTH if message.code == 204 else NO_NAMES)
    parts = [status_line(message.code, message.reason), *careful_fields(message, bound.response_rules, dropped)]
    if message.headers.get(bound.request_id) is None:
        parts.append(bound.request_id_line + prepared.request_id.encode("ascii") + b"\r\n")
    if message.headers.get(bound.correlation_id) is None:
        parts.append(bound.correlation_line + prepared.correlation_id.encode("ascii") + b"\r\n")
    return parts


def give_whole(app: AppConnection, connection: Connection, head: bytes, *, chunked: bool) -> None:
    """The answer of a live connection that has come to its end already."""
    held = connection.held
    body = held[0] if len(held) == 1 else b"".join(held)
    app.respond(head + (_in_one_chunk(body) if chunked else body), len(body))


def _in_one_chunk(body: bytes) -> bytes:
    return encode_chunk(body) + LAST_CHUNK if body else LAST_CHUNK


async def give_stream(
    app: AppConnection,
    connection: Connection,
    head: bytes,
    *,
    chunked: bool,
    idle_seconds: float,
    sink: Sink | None = None,
) -> None:
    """The answer of a live connection, as it comes; through ``sink``, if there is one."""
    app.start_response(head, connection, chunked=chunked)
    connection.relay(app if sink is None else sink, idle_seconds)
    await app.response_done()


def give_kept(app: AppConnection, kept: Kept, head: bytes, *, chunked: bool) -> None:
    """An answer that was let go before a wait, and is the last one after all."""
    app.respond(head + (_in_one_chunk(kept.body) if chunked else kept.body), len(kept.body))


def give_own(
    app: AppConnection,
    request: RequestMessage | None,
    prepared: Prepared | None,
    answer: OwnAnswer | Receipt,
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
