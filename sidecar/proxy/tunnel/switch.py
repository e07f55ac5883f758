"""An exchange that may end as a relay: what tunnels (``connect``) and upgraded connections (``upgrade``) have in
common.

Until both sides are joined it is an exchange like any other, with its attempts and its record. From then on nothing is
read, nothing is retried, and no task runs; the record is made when both connections are gone.
"""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
from typing import Final

from sidecar.core.enums import Outcome
from sidecar.proxy.exchange.exchange import Exchange
from sidecar.proxy.exchange.state import RELAY
from sidecar.proxy.tunnel.relay import End, Relay

__all__ = ["Switching"]

NO_MORE: Final = b""


class Switching(Exchange):
    """``switch`` joins the app to an upstream's transport; the exchange is over when the relay is."""

    relay: Relay | None = None
    _switched_at = 0.0

    def switch(self, head: bytes, upstream: End, idle_seconds: float) -> None:
        """Give the app ``head``, then relay: first what it has sent ahead, and what the upstream has said already."""
        app = self.app
        transport = app.transport
        if transport is None:
            upstream.reset()
            raise asyncio.CancelledError
        app.respond(head, 0)
        app.write_out()
        app.keep_alive = False
        stalled, app.stalled_since = bool(app.stalled_since), 0.0
        app.set_reading(True)
        end = End()
        end.transport = transport
        end.has_ended = app.is_leaving
        ahead, app.reader.behind = app.reader.behind, NO_MORE
        if ahead:
            end.early.append(ahead)
            end.received_bytes = len(ahead)
        self.outcome, self.reason = Outcome.TUNNELLED, None
        metrics = self._services.metrics
        metrics.tunnels += 1
        metrics.open_tunnels += 1
        self._switched_at = self._services.monotonic()
        transport.set_protocol(end)
        self.state = RELAY
        self.relay = Relay(self._services.loop, end, upstream, idle_seconds, self._relayed)
        if stalled:
            # An earlier response is still unread: the transport has said so, and will not say it again.
            end.pause_writing()

    def _relayed(self) -> None:
        """Both connections are gone."""
        relay, app = self.relay, self.app
        self._services.metrics.open_tunnels -= 1
        # The time of the relay is none of our own.
        self.upstream_seconds += self._services.monotonic() - self._switched_at
        if relay is not None:
            app.response_bytes = relay.bytes_down
        self.finish(cut=False)
        app.connection_lost(None)

    @property
    def request_bytes(self) -> int:
        return self.relay.bytes_up if self.relay is not None else super().request_bytes

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self.relay is None:
            # Refused or failed: what the app sends next was meant for the other side.
            self.app.keep_alive = False
            super()._ended(task)
            return
        attempts, self._attempts = self._attempts, None
        self._task = self._sending = None
        if attempts is not None:
            attempts.close()
        if not task.cancelled() and isinstance(fault := task.exception(), Exception):
            self._services.crashed(fault)
            self.relay.reset()
