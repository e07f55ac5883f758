"""``Upgrade`` (WebSocket and others): the handshake is an exchange, retried by the table; after a 101, a relay.

Only a 101 to an upgrade that we asked for in this very request switches (RFC 9110 section 7.8); any other answer is
framed and handed over as usual, and the connection then ends: what the app sends behind a handshake that was declined
must never be read as its next request. For the same reason such a request has no body.
"""

# Compiled in the wheel.

from __future__ import annotations

from typing import Final

from aiohttp import hdrs

from sidecar.core.enums import Outcome
from sidecar.proxy.exchange.prepare import Prepared, prepare
from sidecar.proxy.exchange.send import Send
from sidecar.proxy.message.errors import Refused
from sidecar.proxy.message.headers import careful_fields, named_by_connection
from sidecar.proxy.message.own_response import sidecar_field
from sidecar.proxy.routing.access import admit
from sidecar.proxy.routing.router import Router
from sidecar.proxy.tunnel.relay import End
from sidecar.proxy.tunnel.switch import Switching
from sidecar.upstream.connection import Connection
from sidecar.wire.heads import RequestMessage, ResponseMessage, status_line

__all__ = ["Upgrade", "wanted_protocols"]

_NOTHING: Final[frozenset[str]] = frozenset()
_NO_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


class _Handshake(Send):
    """Sends the handshake on connections that may then switch."""

    may_hedge = False
    wanted: frozenset[str] = _NOTHING

    def _write(self, connection: Connection, number: int, left_seconds: float) -> bool:
        if not super()._write(connection, number, left_seconds):
            return False
        connection.may_switch_to = self.wanted
        return True

    def let_go(self) -> None:
        if self.connection is not None:
            self.connection.may_switch_to = frozenset()
        super().let_go()


class Upgrade(Switching):
    """One request that asks for another protocol."""

    _sender = _Handshake
    _idle_seconds = 0.0

    def start(self, router: Router) -> None:
        message, app = self.message, self.app
        app.keep_alive = False
        wanted = wanted_protocols(message)
        try:
            if router.credential is not None and not self.app.is_inside:
                admit(message, router.credential)
            if app.reader.length:
                raise Refused(400, "framing", "a request that asks for an upgrade cannot carry a body here")
            prepared = self.prepared = prepare(message, router, 0)
        except Refused as refused:
            self._reject(refused, router.default)
            self.finish(cut=False)
            return
        prepared.prefix += f"Connection: Upgrade\r\nUpgrade: {', '.join(wanted)}\r\n".encode("latin-1")
        prepared.destination.budget.requests += 1
        self._idle_seconds = router.deployment.tunnels.idle_seconds
        self._go_on(prepared)
        if isinstance(self._sending, _Handshake):
            self._sending.wanted = frozenset(each.lower() for each in wanted)

    async def pass_on(self, prepared: Prepared, sending: Send, number: int) -> None:
        message = sending.message
        if message is not None and message.code == 101:
            self._switch(prepared, sending, message, number)
        else:
            await super().pass_on(prepared, sending, number)

    async def _give_live(self, prepared: Prepared, sending: Send, message: ResponseMessage, line: bytes) -> None:
        if message.code == 101:
            self._switch(prepared, sending, message, len(self.attempts))
        else:
            await super()._give_live(prepared, sending, message, line)

    def _switch(self, prepared: Prepared, sending: Send, message: ResponseMessage, number: int) -> None:
        connection, sending.connection = sending.connection, None
        if connection is None:
            return
        self._took(message, b"")
        line = sidecar_field(Outcome.TUNNELLED, number, self.waited_seconds, None)
        dropped = named_by_connection(message) | _NO_FRAMING
        parts = [status_line(101, message.reason), *careful_fields(message, prepared.compiled.response_rules, dropped)]
        names = {name.lower() for name, _ in message.raw_headers}
        ids = prepared.id_lines.split(b"\r\n")[:-1]
        parts += [each + b"\r\n" for each in ids if each.partition(b":")[0].lower() not in names]
        upgrade = ", ".join(message.headers.getall(hdrs.UPGRADE)).encode("latin-1", "replace")
        head = b"".join((*parts, line, b"Connection: Upgrade\r\nUpgrade: ", upgrade, b"\r\n\r\n"))
        end = End()
        connection.hand_on(end)
        self.switch(head, end, self._idle_seconds)


def wanted_protocols(message: RequestMessage) -> list[str]:
    """What the app asks for, without HTTP/2 in the clear (RFC 9113 section 3.1 has dropped it); empty: nothing."""
    if message.version[1] == 0:
        return []  # RFC 9110 section 7.8
    asked = ",".join(message.headers.getall(hdrs.UPGRADE, ())).split(",")
    tokens = [token.strip() for token in asked]
    return [token for token in tokens if token and token.lower() not in ("h2c", "h2") and token.isascii()]
