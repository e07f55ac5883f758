"""What an operator is told once: how the requests inside of tunnels to a host could be retried.

Bounded in hosts; never a credential, never a path. The counterpart is ``tunnel``.
"""

from __future__ import annotations

from typing import Final

from sidecar.observe.log import EventLog

__all__ = ["Notices"]

TOLD_HOSTS: Final = 1000


class Notices:
    """Lines that are written at most once per host."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._told: set[tuple[str, int]] = set()

    def tunnel(self, host: str, port: int, upstream: str | None) -> None:
        """A tunnel to this host was opened; ``upstream``: whose host it is, if one is configured for it."""
        if (host, port) in self._told or len(self._told) >= TOLD_HOSTS:
            return
        self._told.add((host, port))
        self._events.event(
            "tunnel",
            host=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            message=f"what is inside a tunnel cannot be retried; for retries {_advice(host, port, upstream)}",
        )


def _advice(host: str, port: int, upstream: str | None) -> str:
    name = f"[{host}]" if ":" in host else host
    call = f"call http://{name}/… through this proxy, or use the upstream's mount as base URL"
    if upstream is not None:
        return f"{call} (upstream {upstream})"
    origin = f"https://{name}" if port == 443 else f"https://{name}:{port}"
    return f"add an upstream with `hosts: [{name}]` and `origin: {origin}`, and {call}"
