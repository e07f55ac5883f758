"""Which upstream is meant: by mount (base URLs) or by host (``HTTP_PROXY``).

Compiled once per configuration. Mounts and hosts are dictionaries, so a look-up costs the same with one upstream and
with a thousand. It answers with a ``Destination`` and the target to send, or refuses.
"""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, NoReturn

from sidecar.core.decision.policy import Policy
from sidecar.core.settings.deployment import Deployment, Login, Origin, Upstream
from sidecar.core.settings.path_index import PathIndex
from sidecar.observe.metrics import Metrics, UpstreamMeters
from sidecar.observe.trace import Sampler
from sidecar.proxy.message.errors import Refused, own_options
from sidecar.proxy.routing.access import Admission
from sidecar.proxy.routing.destination import CompiledPolicy, Destination, RetryBudget, TimersByLength
from sidecar.proxy.routing.limiter import Holding
from sidecar.proxy.routing.shadow import Shadow
from sidecar.upstream.dialer import Dialer
from sidecar.upstream.login import Credentials
from sidecar.upstream.outbound_proxy import OutboundProxies
from sidecar.upstream.pool import Pool, Pools

__all__ = ["Refused", "Router", "UserInfo", "check_climb", "check_host", "valid_hosts"]

UNKNOWN_HOSTS = 1000
"""Hosts without an upstream whose budget is remembered; then the oldest is forgotten."""

_ONE_SEGMENT: Final = [1]

OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 - refused, not bound

_SLASH: Final = re.compile(r"/|\\|%2f|%5c")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+;=-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
valid_hosts: Final[set[bytes]] = set()
"""Values of ``Host`` that have been found valid; bounded."""


class UserInfo(Exception):
    """The target carries credentials; ``target`` is what it would be without them."""

    def __init__(self, target: str, user_info: str) -> None:
        super().__init__()
        self.target = target
        self.user_info = user_info


def check_host(value: str) -> None:
    """One host, an optional port, nothing else (RFC 9112 section 3.2, RFC 9110 section 7.2), else ``Refused`` (400).

    No percent-encoding, which RFC 3986 section 3.2.2 would allow: no name in the DNS needs it, and a proxy that decodes
    would take ``169%2e254.169.254`` for an address that is never dialled.
    """
    found = _HOST.fullmatch(value)
    if found is None or (found[1] is not None and not 0 < int(found[1]) < 65536):
        raise Refused(400, "host", "the Host field is not a host with an optional port")
    if len(valid_hosts) < 1024:
        valid_hosts.add(value.encode("ascii"))


class Router:
    """The map of one deployment."""

    def __init__(
        self,
        deployment: Deployment,
        pools: Pools,
        metrics: Metrics,
        timers: TimersByLength,
        via: str,
        loop: asyncio.AbstractEventLoop,
        before: Router | None = None,
        credentials: Credentials | None = None,
        *,
        hold: Callable[[Policy, UpstreamMeters], Holding],
        sampler: Sampler | None = None,
    ) -> None:
        self._hold = hold
        self._sampler = sampler
        self.deployment = deployment
        self._pools = pools
        self._timers = timers
        self.via = via
        self._metrics = metrics
        self._loop = loop
        self._credentials = credentials
        access = deployment.access
        self.credential = access.credential.encode("utf-8") if access.credential is not None else None
        """The credential that clients of the forward side must show; None: none."""
        self._admission = Admission(deployment)
        self._way_out = OutboundProxies(deployment.outbound)
        self._bounds: dict[tuple[int, bool, bool, int], CompiledPolicy] = {}
        self._shadows: dict[int, Shadow] = {}
        self.default = self._bind(deployment.default_policy)
        self._mounts: dict[str, Destination] = {}
        self._hosts: dict[str, Destination] = {}
        self._unknown: OrderedDict[Origin, Destination] = OrderedDict()
        self.destinations: dict[str, Destination] = {}
        for upstream in deployment.upstreams:
            self._add(upstream, before)
        for plain, known in before._unknown.items() if before is not None else ():
            with contextlib.suppress(Refused):  # such hosts may be forbidden by now
                self._add_host(plain, known)
        # Apart from the others: the first segment of //x is empty, and yet it is not mounted at /.
        self._root = self._mounts.pop("/", None)
        self._depths = sorted({mount.count("/") for mount in self._mounts}, reverse=True)

    def _bind(
        self, policy: Policy, *, logs_in: bool = False, store_first: bool = False, shadow: Policy | None = None
    ) -> CompiledPolicy:
        """Compile each policy once, however many upstreams share it; apart for those with a login or a shadow."""
        key = (id(policy), logs_in, store_first, id(shadow))
        compiled = self._bounds.get(key)
        if compiled is None:
            second = None if shadow is None else self._shadows.setdefault(id(shadow), Shadow(shadow))
            compiled = self._bounds[key] = CompiledPolicy(
                policy, self._timers, self.via, store_first=store_first, shadow=second, sampler=self._sampler
            )
            if logs_in:
                # The login's credential is put on each send: it may have been renewed meanwhile.
                compiled.creates = compiled.varies = True
        return compiled

    def _add(self, upstream: Upstream, before: Router | None) -> None:
        origin, logs_in = upstream.origin, upstream.login is not None
        origin = replace(origin, proxy=self._way_out.of_upstream(upstream.name, origin.host, origin.port))
        earlier = before.destinations.get(upstream.name) if before is not None else None
        budget = self._budget(upstream.policy, earlier)
        pool = self._pools.configured(upstream.name, origin, upstream.connections)
        meters = self._metrics.upstream(upstream.name)
        destination = Destination(
            name=upstream.name,
            origin=origin,
            pool=pool,
            meters=meters,
            holding=self._holding(upstream.policy, meters, earlier),
            compiled=self._bind(upstream.policy, logs_in=logs_in, shadow=upstream.shadow),
            budget=budget,
            host_line=b"" if upstream.host == "keep" and not _asks_proxy(origin) else _host_line(origin),
            base_path=_before_path(origin),
            routes=PathIndex(
                (
                    route.methods,
                    route.path,
                    route.pattern,
                    self._bind(route.policy, logs_in=logs_in, store_first=route.store_first, shadow=upstream.shadow),
                )
                for route in upstream.routes
            )
            if upstream.routes
            else None,
        )
        if earlier is not None and earlier.pool is pool:
            destination.durations = earlier.durations
        destination.meters.read_budget = lambda: budget.peek(self._loop.time())
        if self._credentials is not None:
            destination.credential = self._credentials.of(upstream.name, self._login(upstream), destination.meters)
        self.destinations[upstream.name] = destination
        if upstream.mount is not None:
            self._mounts[upstream.mount] = destination
        for host in upstream.hosts:
            self._hosts[host] = destination

    def _login(self, upstream: Upstream) -> Login | None:
        """The login takes the same way as the requests. A login without TLS goes direct, past an outbound proxy that
        could read it.
        """
        login = upstream.login
        if login is None or login.origin.scheme == "http":
            return login
        way = self._way_out.of_upstream(upstream.name, login.origin.host, login.origin.port)
        return replace(login, origin=replace(login.origin, proxy=way))

    @property
    def dialer(self) -> Dialer:
        """Opens the way for tunnels, which no pool keeps."""
        return self._pools.dialer

    def find(self, target: str) -> tuple[Destination, str]:
        """The destination of a request target and the target to send there. Raises ``Refused``."""
        if target[:1] == "/":
            return self._by_mount(target)
        if target == "*":
            # The parser lets no other method ask for it.
            raise own_options()
        return self._by_host(target)

    def _holding(self, policy: Policy, meters: UpstreamMeters, earlier: Destination | None) -> Holding:
        """What was learnt of an upstream, and its held exchanges, survive every reload."""
        if earlier is not None and earlier.meters is meters:
            earlier.holding.configure(policy)
            return earlier.holding
        return self._hold(policy, meters)

    def _budget(self, policy: Policy, earlier: Destination | None) -> RetryBudget:
        """The budget's balance survives a reload, unless the rule itself changed."""
        if earlier is not None and earlier.compiled.policy.budget == policy.budget:
            return earlier.budget
        return RetryBudget(policy.budget, self._loop.time())

    def holdings(self) -> Iterator[Holding]:
        for destination in (*self.destinations.values(), *self._unknown.values()):
            yield destination.holding

    def holdings_of(self, name: str) -> Iterator[Holding]:
        """The limiters of the upstream with this name; the unknown one has many."""
        if name in self.destinations:
            yield self.destinations[name].holding
        elif name == self._metrics.unknown.name:
            for destination in self._unknown.values():
                yield destination.holding

    def pools(self) -> Iterator[Pool]:
        """The pools of every destination."""
        for destination in (*self.destinations.values(), *self._unknown.values()):
            yield destination.pool

    def _by_mount(self, target: str) -> tuple[Destination, str]:
        depths = self._depths
        if depths:
            at = target.find("/", 1)
            if at > 0 and depths == _ONE_SEGMENT:
                destination = self._mounts.get(target[:at])
                if destination is not None:
                    return destination, destination.base_path + target[at:]
            query = target.find("?")
            path = target if query < 0 else target[:query]
            for depth in depths:
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
            user_info, _, place = authority.rpartition("@")
            raise UserInfo(f"{scheme}://{place}{path}", user_info)
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

    def tunnel(self, host: str, port: int) -> Destination:
        """Where a CONNECT leads. Raises ``Refused``.

        A host of an upstream whose origin is https leads to that origin, as its other requests do.
        """
        self._admission.check_tunnel(host, port)
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        found = self._hosts.get(authority)
        if found is None and port == 443:
            found = self._hosts.get(authority.rpartition(":")[0])
        if found is not None and found.origin.scheme == "https":
            return found
        if port in self._pools.own_ports and host in OWN_NAMES:
            self._refuse_own(port)
        return self._unknown_host(Origin("https", host, port))

    def _refuse_own(self, port: int) -> NoReturn:
        if port == self._pools.own_port:
            raise Refused(508, "loop", "the target is this proxy itself")
        raise Refused(403, "own_port", "that is this sidecar's own admin port")

    def _unknown_host(self, origin: Origin) -> Destination:
        known = self._unknown.get(origin)
        if known is not None:
            self._unknown.move_to_end(origin)
            return known
        if len(self._unknown) >= UNKNOWN_HOSTS:
            self._forget_host()
        return self._add_host(origin, None)

    def _forget_host(self) -> None:
        """Forget the host asked for longest ago, if possible one without an exchange under way."""
        hosts = self._unknown
        oldest = next((origin for origin, known in hosts.items() if not known.pool.is_busy), next(iter(hosts)))
        self._pools.forget(hosts.pop(oldest).origin)

    def _add_host(self, plain: Origin, earlier: Destination | None) -> Destination:
        """Add a host without an upstream. ``earlier``: its destination in the map before this one. Raises
        ``Refused``.
        """
        self._admission.check_host(plain.host, plain.port)
        origin = replace(plain, proxy=self._way_out.of_host(plain.host, plain.port))
        meters, policy = self._metrics.unknown, self.default.policy
        made = self._unknown[plain] = Destination(
            name=meters.name,
            origin=origin,
            pool=self._pools.unknown(origin),
            meters=meters,
            holding=self._holding(policy, meters, earlier),
            compiled=self.default,
            budget=self._budget(policy, earlier),
            host_line=_host_line(origin),
            base_path=_before_path(origin),
            host=origin.authority,
        )
        return made


def check_climb(target: str) -> None:
    """Refuse a target whose dot segments lead above where it begins, in whatever spelling a server may read them.

    For upstreams with a base path or a credential of ours: their neighbours must not see it (RFC 3986 section 5.2.4).
    """
    path = target.partition("?")[0]
    if "/.." not in path and "%" not in path and "\\" not in path:
        return
    depth = 0
    for segment in _SLASH.split(path.lower().replace("%2e", ".")):
        if segment == "..":
            depth -= 1
            if depth < 0:
                raise Refused(400, "target", "the path leads out of what is mounted there")
        elif segment not in ("", "."):
            depth += 1


def _host_line(origin: Origin) -> bytes:
    """The ``Host`` line, with our credential for an outbound proxy that reads this head."""
    line = b"Host: " + origin.authority.encode("ascii") + b"\r\n"
    if origin.proxy is None or not _asks_proxy(origin) or not origin.proxy.authorization:
        return line
    return line + b"Proxy-Authorization: " + origin.proxy.authorization.encode("ascii") + b"\r\n"


def _before_path(origin: Origin) -> str:
    """What precedes a path in the request line: an outbound proxy is asked in absolute-form (RFC 9112 section
    3.2.2).
    """
    return f"http://{origin.authority}{origin.base_path}" if _asks_proxy(origin) else origin.base_path


def _asks_proxy(origin: Origin) -> bool:
    """Whether an outbound proxy reads the head itself; through TLS it sees nothing."""
    return origin.proxy is not None and origin.scheme == "http"


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
