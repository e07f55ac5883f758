"""``access``, ``tunnels``, ``proxy`` and ``no_proxy`` → the values of ``core.settings.gateway``, with secrets read.

Files are read through ``Files``, so that a changed secret is a changed configuration. No message holds the value of a
secret. The keys themselves are in ``schema.gateway``.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import unquote_to_bytes

from pydantic_core import PydanticCustomError

from sidecar.config.schema.addresses import parse_origin
from sidecar.config.schema.gateway import DIRECT, read_proxy_url
from sidecar.config.schema.secrets import Reader
from sidecar.config.schema.shared import shared_rule
from sidecar.config.schema.site import SiteBlock
from sidecar.config.text.document import Mark
from sidecar.config.text.files import Files
from sidecar.config.text.problems import Code, Problem
from sidecar.core.settings.deployment import Origin, SharedRule
from sidecar.core.settings.gateway import Access, Outbound, OutboundProxy, TunnelRule

__all__ = ["Gateway", "read_gateway"]


@dataclass(frozen=True, slots=True)
class Gateway:
    """The sidecar as a proxy."""

    access: Access
    tunnels: TunnelRule
    outbound: Outbound
    shared: SharedRule | None


def read_gateway(
    site: SiteBlock, environ: Mapping[str, str], files: Files, folder: Path
) -> tuple[Gateway, list[Problem]]:
    """``folder`` is that of ``sidecar.yaml``."""
    reader = Reader(environ, files, folder)
    shared = shared_rule(site.shared, site.value_mark("shared"), reader)
    gateway = Gateway(_access(site, reader), _tunnels(site), _outbound(site, reader), shared)
    return gateway, [*reader.problems, *_review(site, gateway)]


def _access(site: SiteBlock, reader: Reader) -> Access:
    block = site.access
    if block is None:
        return Access()
    credential = None
    if block.credential is not None:
        mark = block.value_mark("credential")
        credential = reader.read(block.credential, mark)
        if credential is not None and (":" not in credential or not credential.isprintable()):
            reader.tell(mark, Code.BAD_VALUE, "what `credential` names does not hold `user:password` on one line")
            credential = None
    return Access(credential, None if block.destinations is None else tuple(block.destinations))


def _tunnels(site: SiteBlock) -> TunnelRule:
    block = site.tunnels
    return TunnelRule(frozenset(block.ports), None if block.hosts is None else tuple(block.hosts), block.idle)


def _outbound(site: SiteBlock, reader: Reader) -> Outbound:
    own: list[tuple[str, OutboundProxy | None]] = []
    for upstream in site.upstreams:
        if upstream.proxy == DIRECT:
            own.append((upstream.name, None))
        elif upstream.proxy is not None:
            own.append((upstream.name, _proxy(upstream.proxy, upstream.value_mark("proxy"), reader)))
    default = _proxy(site.proxy, site.value_mark("proxy"), reader) if site.proxy is not None else None
    no_proxy = site.no_proxy
    if no_proxy is None:
        # The lower-case name goes first, as in curl.
        listed = reader.environ.get("no_proxy") or reader.environ.get("NO_PROXY") or ""
        no_proxy = [entry.strip() for entry in listed.split(",") if entry.strip()] if default is not None else []
    return Outbound(default, tuple(no_proxy), tuple(own))


def _proxy(text: str, mark: Mark | None, reader: Reader) -> OutboundProxy | None:
    url = reader.read(text, mark)
    if url is None:
        return None
    scheme, separator, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    try:
        origin = parse_origin(read_proxy_url(f"{scheme}{separator}{place}".rstrip("/")))
    except PydanticCustomError as error:
        # The exception's text may quote the value: only the kind of mistake is named.
        what = "this" if url == text else f"what `{text}` holds"
        context = cast(dict[str, str], error.context or {})
        remedy = "write `http://HOST:PORT`" if url != text else context.get("help", "")
        reader.tell(mark, Code.BAD_VALUE, f"{what} is not the URL of a proxy", remedy)
        return None
    port = origin.port if ":" in place.rpartition("]")[2] else 80
    return OutboundProxy(origin.host, port, _basic(user) if at else "")


def _basic(user_info: str) -> str:
    """RFC 7617 section 2; user and password stand percent-encoded in a URL (RFC 3986 section 3.2.1)."""
    plain = unquote_to_bytes(user_info)
    return "Basic " + base64.b64encode(plain if b":" in plain else plain + b":").decode("ascii")


def _review(site: SiteBlock, gateway: Gateway) -> Iterator[Problem]:
    mark = site.access.value_mark("destinations") if site.access is not None else None
    if mark is not None and site.unknown_hosts == "refuse" and site.access is not None and site.access.destinations:
        yield mark.problem(Code.NO_EFFECT, "`destinations` does nothing where `unknown_hosts` is `refuse`")
    ways = [(gateway.outbound.default, site.value_mark("proxy"))]
    ways += [
        (proxy, upstream.value_mark("proxy"))
        for upstream in site.upstreams
        for name, proxy in gateway.outbound.by_upstream
        if name == upstream.name
    ]
    for proxy, place in ways:
        if proxy is not None and place is not None and _is_ours(site, proxy):
            text = "this proxy is the sidecar itself: requests would go round in a loop"
            yield place.problem(Code.CONTRADICTION, text, "name the next proxy's address")
    for upstream in site.upstreams:
        place = upstream.value_mark("origin")
        if place is not None and _is_link_local(upstream.origin):
            text = "the origin is a link-local address, which is never dialled"
            yield place.problem(Code.CONTRADICTION, text, "metadata services stand there; name the API's own address")


def _is_ours(site: SiteBlock, proxy: OutboundProxy) -> bool:
    own = [address for address in (site.listen, site.admin) if address.port == proxy.port]
    return any(proxy.host in (address.host, "localhost", "127.0.0.1", "::1") for address in own)


def _is_link_local(origin: Origin) -> bool:
    try:
        return ipaddress.ip_address(origin.host).is_link_local
    except ValueError:
        return False
