"""The seam between a CONNECT and whoever opens it: tunnels that do not stay opaque.

``tunnel`` asks; nobody answers unless interception is configured.
"""

from __future__ import annotations

from typing import Protocol

from sidecar.proxy.front import AppConnection

__all__ = ["Interceptor", "TakenTunnel"]


class TakenTunnel(Protocol):
    """A CONNECT that was allowed and has not been answered yet."""

    app: AppConnection

    def accepted(self, attempts: int = 1) -> bytes:
        """The 200 for the app."""

    def left(self) -> None:
        """To be called once the app's transport has another protocol: the CONNECT is over, and recorded."""


class Interceptor(Protocol):
    """Takes tunnels over: the app's TLS ends here, and what is inside becomes requests."""

    def opens(self, host: str, port: int) -> str | None:
        """The scheme of what is inside a tunnel to this host, if it is to be taken over: ``http`` or ``https``.

        Called for each CONNECT; cheap. It then leads where ``scheme://host:port/`` would, and is allowed as that is.
        """

    def take(self, tunnel: TakenTunnel, scheme: str, host: str, port: int) -> None:
        """Answer, and go on with ``tunnel.app.transport``; what the app has sent ahead is in ``app.intake.behind``."""
