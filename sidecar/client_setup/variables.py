"""The variables by which a runtime finds a proxy, and the hosts that must never go through one.

Facts about other software, used by ``sidecar env`` (which writes them) and ``sidecar doctor`` (which checks them). It
reads no environment. Counterpart: ``proxy.routing``.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["DIRECT", "IN_CLUSTER", "METADATA", "bypasses", "entries", "proxy_variables"]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
METADATA = ("169.254.169.254", "169.254.170.2", "metadata.google.internal")
"""Hosts where clouds give out credentials (AWS and Azure, ECS tasks, Google): link-local, which the sidecar refuses."""
DIRECT = (*LOOPBACK, *METADATA)
"""Hosts that an app must reach directly."""
IN_CLUSTER = (".svc", ".cluster.local", "$(KUBERNETES_SERVICE_HOST)")
"""Services of a Kubernetes cluster and its API server."""


def proxy_variables(proxy: str, *, https: bool, direct: Iterable[str] = DIRECT) -> dict[str, str]:
    """Both cases of each name: curl, wget and Ruby read only ``http_proxy``, others only ``HTTP_PROXY``.

    ``https``: whether ``https://`` URLs are to come too, as tunnels.
    """
    lower = {"http_proxy": proxy}
    if https:
        lower["https_proxy"] = proxy
    lower["no_proxy"] = ",".join(direct)
    return {name: value for key, value in lower.items() for name in (key, key.upper())}


def entries(no_proxy: str) -> list[str]:
    """The names in such a list; some tools separate them with spaces."""
    return [entry for entry in no_proxy.replace(",", " ").lower().split() if entry]


def bypasses(no_proxy: str, host: str) -> str | None:
    """The entry by which ``host`` does not go through the proxy, as most tools read it, or None.

    ``*`` is everything; ``example.com`` and ``.example.com`` are the name and whatever is below it.
    """
    host = host.lower()
    for entry in entries(no_proxy):
        name = entry.removeprefix("*").lstrip(".").partition(":")[0] if entry != "::1" else entry
        if entry == "*" or (name and (host == name or host.endswith("." + name))):
            return entry
    return None
