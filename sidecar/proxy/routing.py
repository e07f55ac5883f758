"""Which upstream is meant: by mount (base URLs) or by host (``HTTP_PROXY``).

Compiled once per configuration: mounts and hosts are dictionaries, so that a look-up costs the same with one
upstream and with a thousand. It answers with a ``Destination`` and the target to send, or refuses.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from typing import NoReturn

from sidecar.core.deployment import Deployment, Origin, Upstream
from sidecar.observe.metrics import Metrics
from sidecar.proxy.destinations import Bound, BoundRoute, Destination, Purse, TimerShelf
from sidecar.upstream.pool import Pools

__all__ = ["Refused", "Router", "check_host"]

UNKNOWN_HOSTS = 1000
"""Hosts without an upstream whose budget is remembered; the oldest is forgotten."""

OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 - refused, not bound

_HOST = re.compile(r"(?:[A-Za-z0-9._~%!$&'()*+;=-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_valid_hosts: set[str] = set()


class Refused(Exception):
    """A request that goes nowhere. ``status`` is the answer for the app, ``kind`` a word for the counter."""

    def __init__(self, status: int, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail


def check_host(value: str) -> None:
    """One host, an optional port, nothing else (RFC 9112 section 3.2, RFC 9110 section 7.2), else ``Refused`` (400)."""
    if value in _valid_hosts:
        return
    found = _HOST.fullmatch(value)
    if found is None or (found[1] is not None and not 0 < int(found[1]) < 65536):
        raise Refused(400, "host", "the Host field is not a host with an optional port")
    if len(_valid_hosts) < 1024:
        _valid_hosts.add(value)


class Router:
    """The map of one deployment."""

    def __init__(
        self,
        deployment: Deployment,
        pools: Pools,
        metrics: Metrics,
        timers: TimerShelf,
        via: str,
        loop: asyncio.AbstractEventLoop,
        before: Router | None = None,
    ) -> None:
        self.deployment = deployment
        self._pools = pools
        self._timers = timers
        self._via = via
        self._metrics = metrics
        self._loop = loop
        self.default = Bound(deployment.default_policy, timers, via)
        self._mounts: dict[str, Destination] = {}
        self._hosts: dict[str, Destination] = {}
        self._unknown: OrderedDict[Origin, Destination] = OrderedDict()
        self.destinations: dict[str, Destination] = {}
        for upstream in deployment.upstreams:
            self._add(upstream, before)
        self._depths = sorted({mount.count("/") for mount in self._mounts if mount != "/"}, reverse=True)
        self._root = self._mounts.get("/")

    def _add(self, upstream: Upstream, before: Router | None) -> None:
        origin = upstream.origin
        earlier = before.destinations.get(upstream.name) if before is not None else None
        rule = upstream.policy.budget
        # What has been earned and spent survives a reload, unless the rule itself changed.
        keep = earlier is not None and earlier.bound.policy.budget == rule
        purse = earlier.purse if earlier is not None and keep else Purse(rule, self._loop.time())
        destination = Destination(
            name=upstream.name,
            origin=origin,
            pool=self._pools.configured(origin, upstream.connections),
            meters=self._metrics.upstream(upstream.name),
            bound=Bound(upstream.policy, self._timers, self._via),
            purse=purse,
            host_line=b"" if upstream.host == "keep" else b"Host: " + origin.authority.encode("ascii") + b"\r\n",
            base_path=origin.base_path,
            routes=tuple(
                BoundRoute(route.methods, route.pattern, Bound(route.policy, self._timers, self._via))
                for route in upstream.routes
            ),
        )
        destination.meters.read_budget = lambda: purse.peek(self._loop.time())
        self.destinations[upstream.name] = destination
        if upstream.mount is not None:
            self._mounts[upstream.mount] = destination
        for host in upstream.hosts:
            self._hosts[host] = destination

    def find(self, target: str) -> tuple[Destination, str]:
        """The destination of a request target and the target to send there. Raises ``Refused``."""
        if target[:1] == "/":
            return self._by_mount(target)
        if target == "*":
            raise Refused(501, "target", "OPTIONS * asks about this proxy itself, which has no answer to it")
        return self._by_host(target)

    def _by_mount(self, target: str) -> tuple[Destination, str]:
        query = target.find("?")
        path = target if query < 0 else target[:query]
        for depth in self._depths:
            mount = _first_segments(path, depth)
            destination = self._mounts.get(mount)
            if destination is not None:
                rest = target[len(mount) :]
                return destination, destination.base_path + (rest if rest[:1] == "/" else "/" + rest)
        if self._root is not None:
            return self._root, self._root.base_path + target
        raise Refused(404, "mount", self._no_mount())

    def _no_mount(self) -> str:
        mounts = ", ".join(sorted(self._mounts))
        if mounts:
            return f"no upstream is mounted there; the mounts are: {mounts}"
        return "no upstream has a mount: set http_proxy to this address, or configure an upstream with a mount"

    def _by_host(self, target: str) -> tuple[Destination, str]:
        scheme, separator, rest = target.partition("://")
        scheme = scheme.lower()
        if not separator or scheme not in ("http", "https"):
            raise Refused(400, "target", "only http:// and https:// targets are proxied")
        authority, path = _split(rest)
        if "@" in authority:
            raise Refused(400, "target", "credentials in a URL are not accepted: send them as Authorization")
        check_host(authority)
        authority = authority.lower()
        destination = self._hosts.get(authority)
        host, port = _host_and_port(authority, scheme)
        if destination is None and port in (80, 443):
            destination = self._hosts.get(host)
        if destination is None:
            if port in self._pools.own_ports and host in OWN_NAMES:
                self._refuse_own(port)
            destination = self._unknown_host(Origin("https" if scheme == "https" else "http", host, port))
        return destination, destination.base_path + path

    def _refuse_own(self, port: int) -> NoReturn:
        if port == self._pools.own_port:
            raise Refused(508, "loop", "the target is this proxy itself")
        raise Refused(403, "own_port", "that is this sidecar's own admin port")

    def _unknown_host(self, origin: Origin) -> Destination:
        if self.deployment.unknown_hosts == "refuse":
            raise Refused(403, "host", "this host is not configured, and unknown_hosts is refuse")
        known = self._unknown.get(origin)
        if known is not None:
            self._unknown.move_to_end(origin)
            return known
        meters = self._metrics.unknown
        made = Destination(
            name=meters.name,
            origin=origin,
            pool=self._pools.unknown(origin),
            meters=meters,
            bound=self.default,
            purse=Purse(self.default.policy.budget, self._loop.time()),
            host_line=b"Host: " + origin.authority.encode("ascii") + b"\r\n",
            base_path="",
            host=origin.authority,
        )
        self._unknown[origin] = made
        if len(self._unknown) > UNKNOWN_HOSTS:
            self._unknown.popitem(last=False)
        return made


def _first_segments(path: str, depth: int) -> str:
    at = 0
    for _ in range(depth):
        at = path.find("/", at + 1)
        if at < 0:
            return path
    return path[:at]


def _split(rest: str) -> tuple[str, str]:
    """``host/path?query`` → authority and origin-form target (RFC 9112 section 3.2.1: an empty path becomes /)."""
    for at, character in enumerate(rest):
        if character in "/?":
            return rest[:at], rest[at:] if character == "/" else "/" + rest[at:]
    return rest, "/"


def _host_and_port(authority: str, scheme: str) -> tuple[str, int]:
    default = 443 if scheme == "https" else 80
    if authority.startswith("["):
        host, _, port = authority[1:].partition("]")
        return host, int(port[1:]) if port else default
    host, _, port = authority.partition(":")
    return host, int(port) if port else default
