"""Which requests the admin port accepts, and what a browser may do with its responses.

A page of any web site can make a browser send requests to loopback (cross-site), or bind its own name to our address
(DNS rebinding). So the ``Host`` must be an address, a loopback name or a configured one; a request that changes
anything carries a token in ``Authorization``, which no form can send; responses are not framed, sniffed or cached.
Counterpart: ``views``, the responses.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from aiohttp import web
from aiohttp.typedefs import Middleware

from sidecar.admin.state import AdminState

__all__ = ["PROBES", "admit", "authorise", "guard", "host_name", "is_local", "sign"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PROBES = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
"""Paths that machines ask, which know the sidecar by a bare name inside a network (``http://sidecar:9180/metrics``)."""

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


def guard(state: AdminState) -> Middleware:
    """The middleware: checks the host, and turns every error into one line of text."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = admit(request, state.hosts)
        if refusal is not None:
            return refusal
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _text(error.status, f"{error.status} {error.reason}: {request.method} {request.path}")
        except Exception as error:
            # An operator must not see a traceback; the name of the exception is enough to report.
            return _text(500, f"The sidecar could not answer this: {type(error).__name__}. Please report it.")

    return guarded


def admit(request: web.Request, hosts: tuple[str, ...]) -> web.Response | None:
    """The refusal of a request whose ``Host`` could be a foreign page's, or None."""
    values = request.headers.getall("Host", [])
    if len(values) > 1 or (not values and request.version >= (1, 1)):
        return _text(400, "Exactly one Host header is needed (RFC 9112 section 3.2).")
    if not values:
        return None  # HTTP/1.0: no browser sends this
    name = host_name(values[0])
    if _is_ours(name, hosts) or (request.path in PROBES and name and "." not in name):
        return None
    return _text(
        403,
        "This port answers only to an address, to localhost, or to the configured admin host, so that no web "
        "page can read it through a name of its own. Ask by address, or set `admin` to the name.",
    )


def authorise(request: web.Request, token: str | None) -> web.Response | None:
    """The refusal of a request that would change something without the token, or None."""
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return _text(403, "A page of another site may change nothing here (Fetch Metadata, Sec-Fetch-Site).")
    if not token:
        return _text(
            403,
            "Changing anything needs a token, and none is configured. Start the sidecar with "
            "SIDECAR_ADMIN_TOKEN set, then send `Authorization: Bearer <token>`.",
        )
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    # Bytes outside ASCII come as surrogates (PEP 383), which no strict encoding takes.
    shown = given.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() != "bearer" or not hmac.compare_digest(shown, token.encode()):
        refusal = _text(401, "Send `Authorization: Bearer <token>` with the token of SIDECAR_ADMIN_TOKEN.")
        refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal
    return None


async def sign(_request: web.Request, response: web.StreamResponse) -> None:
    """Put the security headers on every response, and remove the name of the library."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "sidecar"


def is_local(remote: str | None) -> bool:
    """Whether a peer's address is this machine's own loopback."""
    try:
        address = ip_address((remote or "").partition("%")[0])
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def host_name(host: str) -> str:
    """The name or address in a ``Host`` value, lower case, without port and brackets; empty if there is none."""
    if host.startswith("["):
        address, bracket, _ = host[1:].partition("]")
        return address.lower() if bracket else ""
    return host.partition(":")[0].rstrip(".").lower()


def _is_ours(name: str, hosts: tuple[str, ...]) -> bool:
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761 section 6.3
        return True
    return name in {host.lower() for host in hosts} or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _text(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text + "\n")
