"""TLS toward an upstream: a transport on top of a TCP transport, with session resumption, which halves the next
handshake.

One ``SSLObject`` between two memory BIOs, driven by our own protocol: asyncio and uvloop take no session, decode each
certificate, and run a handshake whenever its bytes come. Here the last session of an origin is offered again (RFC 8446
section 2.2, RFC 5077), and many handshakes at once are spread over iterations of the loop. OpenSSL verifies the
certificate in each full handshake; early data is never sent, and renegotiation is refused. It knows nothing of HTTP.
Counterparts: ``pool``, which dials, and the connection whose transport this is.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from functools import lru_cache
from typing import Any, Final

__all__ = ["Handshakes", "Resumption", "TlsTransport", "tls_context"]

READ_BYTES: Final = 256 << 10
"""Bytes of ciphertext read from the kernel at once."""
RECORD_BYTES: Final = 16 << 10
"""Bytes of plaintext in one record (RFC 8446 section 5.1); OpenSSL returns no more at a time."""
STEPS_PER_TURN: Final = 2
"""Handshake steps in one iteration of the loop. The second step of a full handshake takes 0.5 to 1 ms; a request takes
about four iterations.
"""
KEEP_SECONDS: Final = 600.0
"""Seconds for which a session is offered. A resumed handshake does not verify the certificate again, so a withdrawn one
is noticed only after this time; one full handshake in ten minutes costs little.
"""
DECLINED_IN_A_ROW: Final = 3
"""Declined sessions in a row after which none is offered: the upstream's servers do not share their ticket keys."""
LINGER_SECONDS: Final = 30.0
"""Seconds for the upstream to end its side of TLS after ours."""


@lru_cache(maxsize=64)
def tls_context(trust: str | None) -> ssl.SSLContext:
    """Verified TLS, always; HTTP/1.1 only. ``trust`` (PEM) replaces the system's."""
    context = ssl.create_default_context(cadata=trust)
    context.set_alpn_protocols(["http/1.1"])
    # Only close_notify ends a body: with this option a cut connection would look the same.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


class Handshakes:
    """The handshakes of one event loop. Each step waits for its turn, in order; none waits for another's network.

    It also owns the buffer that all TLS connections read into, which is empty again before any other callback runs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: deque[TlsTransport] = deque()
        self._is_running = False
        self.buffer = memoryview(bytearray(READ_BYTES))

    def add(self, transport: TlsTransport) -> None:
        """Queue ``transport`` for one more step."""
        self._due.append(transport)
        if not self._is_running:
            self._is_running = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        due = self._due
        now_due = min(STEPS_PER_TURN, len(due))
        self._is_running = now_due < len(due)
        if self._is_running:
            self._loop.call_soon(self._run)
        for _ in range(now_due):
            due.popleft().step()


class Resumption:
    """The TLS session of one origin and trust: what the next handshake offers.

    One is kept, and offered as often as the upstream takes it (RFC 8446 appendix C.4 advises against it where an
    observer must not link connections; all of ours come from one address). Taking one out of OpenSSL costs a third of
    a full handshake.
    """

    __slots__ = ("_declined", "_quiet_until", "_session", "_until")

    def __init__(self) -> None:
        self._session: ssl.SSLSession | None = None
        self._until = 0.0
        self._quiet_until = 0.0
        self._declined = 0

    def offer(self, now: float) -> ssl.SSLSession | None:
        """The session for a handshake at ``now`` (monotonic seconds), if there is one."""
        if self._session is not None and now >= self._until:
            self._session = None
        return self._session

    def wants(self, now: float) -> bool:
        """Whether a new session would be kept."""
        return self._session is None and now >= self._quiet_until

    def taken(self) -> None:
        """Note that the upstream has resumed the session."""
        self._declined = 0

    def declined(self, session: ssl.SSLSession, now: float) -> None:
        """Note that the upstream has not resumed it, or the handshake has failed."""
        if session is not self._session:
            return  # offered by several at once, and dropped already
        self._session = None
        self._declined += 1
        if self._declined >= DECLINED_IN_A_ROW:
            self._declined = 0
            self._quiet_until = now + KEEP_SECONDS

    def keep(self, tls: ssl.SSLObject, now: float) -> bool:
        """Keep the session of a connection after a full handshake; False if it can not be resumed (yet)."""
        session = tls.session
        if session is None or not (session.has_ticket or (session.id and tls.version() != "TLSv1.3")):
            return False
        certificate = tls.getpeercert() or {}
        left = ssl.cert_time_to_seconds(str(certificate["notAfter"])) - session.time
        self._session = session
        self._until = now + min(KEEP_SECONDS, left)
        return True


class TlsTransport(asyncio.Transport, asyncio.BufferedProtocol):
    """TLS of one connection: the protocol of a TCP transport, and the transport of ``inner``.

    ``inner`` gets its connection when the handshake is done; the dialling task waits for that in ``handshake``.
    """

    __slots__ = (
        "_context",
        "_due",
        "_handshakes",
        "_has_ended",
        "_incoming",
        "_inner",
        "_is_closing",
        "_is_paused",
        "_is_ready",
        "_linger",
        "_loop",
        "_offered",
        "_outgoing",
        "_ready",
        "_resumption",
        "_tcp",
        "_tls",
        "_tries",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handshakes: Handshakes,
        resumption: Resumption,
        context: ssl.SSLContext,
        host: str,
        inner: asyncio.Protocol,
    ) -> None:
        self._loop = loop
        self._handshakes = handshakes
        self._resumption = resumption
        self._context = context
        self._inner: Any = inner
        self._tcp: asyncio.Transport | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._offered = resumption.offer(loop.time())
        self._tls = context.wrap_bio(self._incoming, self._outgoing, False, host, self._offered)
        self._ready: asyncio.Future[None] = loop.create_future()
        self._is_ready = False
        self._due = False
        """Whether a step of the handshake is queued."""
        self._has_ended = False
        """Whether the upstream has sent close_notify."""
        self._is_closing = False
        self._is_paused = False
        self._linger: asyncio.TimerHandle | None = None
        self._tries = 0
        """Further reads after which to look for a session to keep."""

    # -- the handshake -----------------------------------------------------------------------------------

    async def handshake(self) -> None:
        """Wait until ``inner`` has its connection. Raises ``ssl.SSLError`` or ``ConnectionError``; the caller bounds
        it.
        """
        await self._ready

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = transport  # type: ignore[assignment]  # a stream transport, always
        self._go_on()

    def _go_on(self) -> None:
        if not self._due:
            self._due = True
            self._handshakes.add(self)

    def step(self) -> None:
        """One step of the handshake, with the bytes so far."""
        self._due = False
        tcp = self._tcp
        if tcp is None or self._is_ready:
            return
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as exc:
            self._flush()  # the alert
            if self._offered is not None:
                self._resumption.declined(self._offered, self._loop.time())
            self._refuse(exc)
            tcp.close()
        else:
            self._is_ready = True
            self._judge_resumption()
            self._inner.connection_made(self)
            if not self._ready.done():
                self._ready.set_result(None)
            # The task that waits for the handshake runs first, and writes: our Finished then goes out with the request.
            self._loop.call_soon(self._flush)
            if self._incoming.pending:
                self._read()

    def _judge_resumption(self) -> None:
        if self._tls.session_reused:
            self._resumption.taken()
            return
        now = self._loop.time()
        if self._offered is not None:
            self._resumption.declined(self._offered, now)
        if self._resumption.wants(now):
            self._tries = 2

    def _refuse(self, exc: Exception) -> None:
        if not self._ready.done():
            self._ready.set_exception(exc)

    # -- the protocol of the TCP transport ---------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._handshakes.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._is_closing:
            return
        self._incoming.write(self._handshakes.buffer[:nbytes])
        if self._is_ready:
            self._read()
        else:
            self._go_on()

    def _read(self) -> None:
        """Decrypt everything that has come, record by record, unless ``inner`` has paused."""
        incoming, tls = self._incoming, self._tls
        size = 0
        try:
            while not (self._is_paused or self._is_closing or self._has_ended):
                # A full record is mostly followed by another; after a shorter one we check first, since a read without
                # data is costly.
                if size < RECORD_BYTES and not (incoming.pending or incoming.eof or tls.pending()):
                    break
                data = tls.read(RECORD_BYTES)
                size = len(data)
                if not size:
                    self._end()
                    return
                self._inner.data_received(data)
                if self._tries:
                    self._keep_session()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as exc:
            # Also an end without close_notify, which anyone on the path can cause.
            self._flush()
            self._break(exc)
            return
        if self._outgoing.pending:
            self._flush()  # the answer to a KeyUpdate, or to the wish for a renegotiation

    def _keep_session(self) -> None:
        """Tickets of TLS 1.3 come after the handshake, mostly right before the first answer."""
        self._tries -= 1
        now = self._loop.time()
        if not self._resumption.wants(now) or self._resumption.keep(self._tls, now):
            self._tries = 0

    def _end(self) -> None:
        """The upstream has sent close_notify (RFC 8446 section 6.1)."""
        self._has_ended = True
        if not self._inner.eof_received():
            self.close()

    def _break(self, exc: Exception) -> None:
        tcp, self._tcp = self._tcp, None
        if tcp is not None:
            self._is_closing = True
            tcp.abort()
            self._inner.connection_lost(exc)

    def eof_received(self) -> bool:
        if not self._is_ready:
            self._refuse(ConnectionResetError("closed in the handshake"))
        elif not self._is_closing:
            self._incoming.write_eof()
            self._read()
            return not self._is_closing
        return False

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        tcp, self._tcp = self._tcp, None
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if not self._is_ready:
            self._refuse(exc if isinstance(exc, ConnectionError) else ConnectionResetError("closed in the handshake"))
        elif tcp is not None:
            self._is_closing = True
            self._inner.connection_lost(exc)

    # -- the transport of the connection -----------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._tcp is None or self._is_closing or not data:
            return
        try:
            self._tls.write(data)
        except ssl.SSLError as exc:
            self._loop.call_soon(self._break, exc)
            return
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending and self._tcp is not None:
            self._tcp.write(self._outgoing.read())

    def close(self) -> None:
        """Send close_notify once everything is written; what the upstream still sends is read and dropped."""
        tcp = self._tcp
        if tcp is None or self._is_closing:
            return
        self._is_closing = True
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()  # which wants the upstream's close_notify, and has sent ours
        self._flush()
        if self._has_ended:
            tcp.close()
            return
        tcp.write_eof()
        self._linger = self._loop.call_later(LINGER_SECONDS, tcp.abort)
        if self._is_paused:
            tcp.resume_reading()

    def abort(self) -> None:
        self._is_closing = True
        self._ready.cancel()
        if self._tcp is not None:
            self._tcp.abort()

    def is_closing(self) -> bool:
        return self._is_closing or self._tcp is None or self._tcp.is_closing()

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            if self._tcp is not None:
                self._tcp.pause_reading()

    def resume_reading(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        """Deliver first what was read from the kernel before the pause."""
        if self._is_paused or self._is_closing or self._tcp is None:
            return
        self._read()
        if not self._is_paused and self._tcp is not None and not self._is_closing:
            self._tcp.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._inner = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        found: asyncio.BaseProtocol = self._inner
        return found

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._tls
        if name == "sslcontext":
            return self._context
        return default if self._tcp is None else self._tcp.get_extra_info(name, default)
