"""Handing over a response: the upstream's, live or buffered, or one of our own.

Nothing of it is changed except what belongs to the connection (RFC 9110 section 7.6.1); the ids and the ``Sidecar``
field are added. Counterpart: ``exchange``, which says what to hand over and why.
"""


# Compiled in the wheel.

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sidecar.core.decision.policy import Policy
from sidecar.core.enums import FailureKind
from sidecar.observe.redact import BODY_BYTES
from sidecar.proxy.client.connection import ClientConnection
from sidecar.proxy.exchange.prepare import Prepared
from sidecar.proxy.message.headers import (
    CONNECTION,
    DROP,
    HARMLESS,
    KEEP,
    NO_NAMES,
    careful_fields,
    named_by_connection,
)
from sidecar.proxy.message.own_response import OwnAnswer
from sidecar.proxy.message.peek import first_text, parsed
from sidecar.proxy.message.receipt import Receipt
from sidecar.proxy.routing.destination import CompiledPolicy
from sidecar.upstream.connection import Connection, Sink
from sidecar.wire.chunked import LAST_CHUNK, encode_chunk
from sidecar.wire.heads import RequestMessage, ResponseMessage, status_line

__all__ = [
    "BufferedResponse",
    "Tee",
    "answer_head",
    "answer_whole",
    "count_error_code",
    "give_buffered",
    "give_interim",
    "give_own",
    "give_stream",
    "give_whole",
    "keeps_copies",
    "tee_of",
]


class Tee:
    """Between a connection and the app: passes on every byte, and keeps the first of them."""

    __slots__ = ("_app", "_pieces", "_size")

    def __init__(self, app: ClientConnection) -> None:
        self._app = app
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def body(self) -> bytes:
        """The whole body; empty if it was too large."""
        return b"".join(self._pieces)

    def take(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= BODY_BYTES:
            self._pieces.append(data)
        else:
            self._pieces.clear()
        self._app.take(data)

    def end(self) -> None:
        self._app.end()

    def broke(self, kind: FailureKind) -> None:
        self._app.broke(kind)


def keeps_copies(policy: Policy, status: int | None) -> bool:
    """Whether the bodies of an exchange with this status are kept for a report."""
    return policy.report is not None and policy.report.bodies and status is not None and status >= 400


def tee_of(app: ClientConnection, policy: Policy, message: ResponseMessage) -> Tee | None:
    """A sink that keeps a copy of this response; None if none is to be kept."""
    return Tee(app) if keeps_copies(policy, message.code) else None


def count_error_code(prepared: Prepared, message: ResponseMessage, body: bytes) -> None:
    """Count the error code in ``body``, the part that has arrived; an empty part counts as an unknown code."""
    errors = prepared.compiled.policy.errors
    if message.code >= 400 and errors.code:
        code = first_text(parsed(message, body), errors.code) if body else None
        prepared.destination.meters.erred(code, errors.known_codes)


_CLOSE: Final = b"Connection: close\r\n"
_KEEP: Final = b"Connection: keep-alive\r\n"
_CHUNKED_LINE: Final = b"Transfer-Encoding: chunked\r\n"


NO_LENGTH: Final = frozenset({b"content-length"})
"""Dropped from a 1xx and a 204, which have no length (RFC 9110 section 8.6), whatever the upstream says."""


@dataclass(frozen=True, slots=True)
class BufferedResponse:
    """A losing response whose connection was released, still whole in memory."""

    message: ResponseMessage
    body: bytes
    length: int
    """Body length as framed by the upstream: bytes, ``CHUNKED`` or ``UNTIL_CLOSE``."""


def answer_head(
    app: ClientConnection,
    request: RequestMessage,
    prepared: Prepared,
    message: ResponseMessage,
    length: int,
    line: bytes,
) -> tuple[bytes, bool]:
    """The head for the app, and whether its body is to be chunked. ``line`` is the ``Sidecar`` field."""
    pieces, chunked = _head(app, request, prepared, message, length, line)
    return b"".join(pieces), chunked


def answer_whole(
    app: ClientConnection,
    request: RequestMessage,
    prepared: Prepared,
    message: ResponseMessage,
    connection: Connection,
    line: bytes,
) -> None:
    """``answer_head`` and ``give_whole`` in one: head and body are joined once, and go out at the end of the loop's
    iteration.
    """
    pieces, chunked = _head(app, request, prepared, message, connection.length, line)
    held = connection.held
    body = held[0] if len(held) == 1 else b"".join(held)
    pieces.append(_in_one_chunk(body) if chunked else body)
    app.respond(b"".join(pieces), len(body))


def _head(
    app: ClientConnection,
    request: RequestMessage,
    prepared: Prepared,
    message: ResponseMessage,
    length: int,
    line: bytes,
) -> tuple[list[bytes], bool]:
    """``answer_head``, as pieces to be joined."""
    code = message.code
    compiled = prepared.compiled
    rules = compiled.response_rules
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
    if app.reader.is_receiving:
        # The rest of the request body is not read, so the next request could not be told from it.
        app.keep_alive = False
    if not app.keep_alive:
        parts.append(_CLOSE)
    elif old:
        parts.append(_KEEP)
    parts.append(b"\r\n")
    return parts, chunked


def _careful_head(prepared: Prepared, message: ResponseMessage) -> list[bytes]:
    """The head of a response with ids of its own, an unusual Connection, or no content."""
    compiled = prepared.compiled
    dropped = named_by_connection(message) | (NO_LENGTH if message.code == 204 else NO_NAMES)
    parts = [status_line(message.code, message.reason), *careful_fields(message, compiled.response_rules, dropped)]
    if message.headers.get(compiled.request_id) is None:
        parts.append(compiled.request_id_line + prepared.request_id.encode("ascii") + b"\r\n")
    if message.headers.get(compiled.correlation_id) is None:
        parts.append(compiled.correlation_line + prepared.correlation_id.encode("ascii") + b"\r\n")
    return parts


def give_interim(app: ClientConnection, compiled: CompiledPolicy, message: ResponseMessage) -> None:
    """Pass on a 1xx response that the app may use: 102, 103 and those to come (RFC 9110 section 15.2).

    It promises nothing, so the request may still be sent again. A 100 answers an ``Expect``, which is ours to watch
    (``Send``). An app of HTTP/1.0 knows no 1xx, and bytes for one that does not read would only pile up.
    """
    request = app.reader.message
    if message.code == 100 or request is None or request.version[1] == 0 or app.stalled_since:
        return
    dropped = named_by_connection(message) | NO_LENGTH
    fields = careful_fields(message, compiled.response_rules, dropped)
    app.interim(b"".join((status_line(message.code, message.reason), *fields, b"\r\n")))


def give_whole(app: ClientConnection, connection: Connection, head: bytes, *, chunked: bool) -> None:
    """Hand over the response of a live connection that has arrived whole."""
    held = connection.held
    body = held[0] if len(held) == 1 else b"".join(held)
    app.respond(head + (_in_one_chunk(body) if chunked else body), len(body))


def _in_one_chunk(body: bytes) -> bytes:
    return encode_chunk(body) + LAST_CHUNK if body else LAST_CHUNK


async def give_stream(
    app: ClientConnection,
    connection: Connection,
    head: bytes,
    *,
    chunked: bool,
    idle_seconds: float,
    sink: Sink | None = None,
) -> None:
    """Hand over the response of a live connection as it arrives; through ``sink``, if there is one."""
    app.start_response(head, connection, chunked=chunked)
    connection.relay(app if sink is None else sink, idle_seconds)
    await app.response_done()


def give_buffered(app: ClientConnection, buffered: BufferedResponse, head: bytes, *, chunked: bool) -> None:
    """Hand over a response that was released before a wait, and turned out to be the last."""
    app.respond(head + (_in_one_chunk(buffered.body) if chunked else buffered.body), len(buffered.body))


def give_own(
    app: ClientConnection,
    request: RequestMessage | None,
    prepared: Prepared | None,
    answer: OwnAnswer | Receipt,
    id_lines: bytes,
    wall: float,
) -> None:
    """Send a response of our own. It ends the connection where the request was not read to its end."""
    head, body = answer.render(prepared.compiled.policy if prepared is not None else None, id_lines, wall)
    if request is None or app.reader.is_receiving:
        app.keep_alive = False
    if not app.keep_alive:
        head += _CLOSE
    elif request is not None and request.version[1] == 0:
        head += _KEEP
    if request is not None and request.method == "HEAD":
        app.respond(head + b"\r\n", 0)
    else:
        app.respond(head + b"\r\n" + body, len(body))
