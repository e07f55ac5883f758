"""Everything about an exchange that is known before its first send, worked out once.

Where it goes, by which policy, under which ids, until when; and the part of the upstream's request head that is
the same for every attempt. It sends nothing; the counterpart is ``sending``.
"""

from __future__ import annotations

from typing import Any, Final

from aiohttp import hdrs
from multidict import istr

from sidecar.core.instants import duration
from sidecar.core.policy import Idempotency
from sidecar.observe.trace import child, create
from sidecar.proxy.destinations import Bound, Destination
from sidecar.proxy.headers import NO_NAMES, named_by_connection, request_fields
from sidecar.proxy.ids import idempotency_key, new_id, sane
from sidecar.proxy.routing import Refused, Router, check_host
from sidecar.wire.framing import CHUNKED
from sidecar.wire.heads import RequestMessage

__all__ = ["Prepared", "check", "own_ids", "prepare"]

_HOST = hdrs.HOST
_VIA = hdrs.VIA
_UPGRADE = hdrs.UPGRADE
_MAX_FORWARDS: Final = istr(hdrs.MAX_FORWARDS)
_TIMEOUT: Final = istr("Sidecar-Timeout")
_TRACEPARENT: Final = istr("traceparent")


class Prepared:
    """One request, ready to be sent any number of times."""

    __slots__ = (
        "bound",
        "correlation_id",
        "correlation_line",
        "deadline_seconds",
        "destination",
        "id_line",
        "key_line",
        "keyed",
        "prefix",
        "request_id",
        "target",
        "trace",
    )

    def __init__(self, destination: Destination, bound: Bound, target: str) -> None:
        self.destination = destination
        self.bound = bound
        self.target = target
        """For the upstream, origin-form, as it came but for mount and base path."""
        self.deadline_seconds = bound.policy.deadline_seconds
        """For the whole exchange, from its start."""
        self.request_id = ""
        self.correlation_id = ""
        self.id_line = b""
        self.correlation_line = b""
        self.key_line = b""
        """The idempotency key that we made, to be told to the app too."""
        self.keyed = False
        """Whether the request carries a key that this upstream honours."""
        self.trace: str | None = None
        self.prefix = b""

    def head(self, number: int, left_seconds: float, *, expects_continue: bool) -> bytes:
        """The request head of attempt ``number``."""
        policy = self.bound.policy
        head = self.prefix
        if self.trace is not None:
            self.trace = child(self.trace, int(new_id()[:16], 16)) or self.trace
            head += b"traceparent: " + self.trace.encode("ascii") + b"\r\n"
        if policy.attempt_header is not None:
            head += f"{policy.attempt_header}: {number}\r\n".encode("ascii")
        if policy.deadline_header is not None:
            head += f"{policy.deadline_header}: {max(0, round(left_seconds * 1000))}\r\n".encode("ascii")
        if expects_continue:
            head += b"Expect: 100-continue\r\n"
        return head + b"\r\n"


def check(message: RequestMessage, via: str) -> None:
    """What the parser lets through and we must not. Raises ``Refused``.

    RFC 9110 sections 7.2 (Host), 7.6.3 (loops), 7.8 (Upgrade), 9.3.8 (TRACE), RFC 9112 section 3.2 (target).
    """
    headers = message.headers
    host = headers.get(_HOST)
    if host is not None:
        check_host(host)
    if message.upgrade:
        _check_upgrade(message)
    if message.method == "TRACE":
        raise Refused(405, "method", "TRACE would echo credentials, and is not forwarded")
    if message.method == "OPTIONS" and headers.get(_MAX_FORWARDS) == "0":
        raise Refused(501, "method", "Max-Forwards ends here, and this proxy has no options of its own to tell")
    if "#" in message.path:
        raise Refused(400, "target", "a request target has no fragment")
    if _VIA in headers and via in ",".join(headers.getall(_VIA)):
        raise Refused(508, "loop", "this request has been here before: the upstream leads back to this proxy")


def _check_upgrade(message: RequestMessage) -> None:
    if message.method == "CONNECT":
        raise Refused(501, "method", "CONNECT tunnels are not supported yet: use http:// URLs or a mount")
    if message.headers.get(_UPGRADE, "").strip().lower() != "h2c":
        raise Refused(501, "header", "Upgrade is not supported yet")


def prepare(message: RequestMessage, router: Router, body_length: int) -> Prepared:
    """Raises ``Refused``."""
    destination, target = router.find(message.path)
    bound = destination.bound
    if destination.routes:
        path = target.partition("?")[0][len(destination.base_path) :]
        bound = destination.policy_for(message.method, path)
    prepared = Prepared(destination, bound, target)
    headers = message.headers
    asked = headers.get(_TIMEOUT)
    if asked is not None:
        shorter = duration(asked.strip())
        if shorter is None or shorter <= 0:
            raise Refused(400, "header", "Sidecar-Timeout is not a duration such as 5s or 250ms")
        prepared.deadline_seconds = min(prepared.deadline_seconds, shorter)
    named = named_by_connection(message)
    prepared.request_id, keeps_request_id = _id(headers, bound.request_id, named)
    prepared.correlation_id, keeps_correlation_id = _id(headers, bound.correlation_id, named)
    prepared.id_line = bound.request_id_line + prepared.request_id.encode("ascii") + b"\r\n"
    prepared.correlation_line = bound.correlation_line + prepared.correlation_id.encode("ascii") + b"\r\n"
    tail: list[bytes] = [bound.via_line]
    if not keeps_request_id:
        tail.append(prepared.id_line)
        named = _without(named, message, bound.request_id)
    if not keeps_correlation_id:
        tail.append(prepared.correlation_line)
        named = _without(named, message, bound.correlation_id)
    named = _take_rarer(prepared, message, named, tail)
    if body_length == CHUNKED:
        tail.append(b"Transfer-Encoding: chunked\r\n")
    host_line = destination.host_line or b"Host: " + headers.get(_HOST, "").encode("latin-1") + b"\r\n"
    line = f"{message.method} {target} HTTP/1.1\r\n".encode("utf-8", "surrogateescape")
    prepared.prefix = b"".join((line, host_line, *request_fields(message, named), *tail))
    return prepared


def own_ids(message: RequestMessage | None, bound: Bound) -> tuple[str, str, bytes]:
    """Request id, correlation id and their lines for an answer to a request that goes nowhere."""
    if message is None:
        request_id, correlation_id = new_id(), new_id()
    else:
        request_id, _ = _id(message.headers, bound.request_id, NO_NAMES)
        correlation_id, _ = _id(message.headers, bound.correlation_id, NO_NAMES)
    lines = bound.request_id_line + request_id.encode() + b"\r\n"
    return request_id, correlation_id, lines + bound.correlation_line + correlation_id.encode() + b"\r\n"


def _id(headers: Any, name: istr, named: frozenset[bytes]) -> tuple[str, bool]:
    """The app's id if it is one, sane and not to be dropped (and that it may travel as it came); else a new one."""
    value = headers.get(name)
    if value is None or not sane(value):
        return new_id(), False
    only = len(headers.getall(name)) == 1 and not (named and name.lower().encode("ascii") in named)
    return value, only


def _without(named: frozenset[bytes], message: RequestMessage, name: str) -> frozenset[bytes]:
    """The names to drop, with one more that the app has sent and we write ourselves."""
    return named | {name.lower().encode("ascii")} if name in message.headers else named


def _take_rarer(
    prepared: Prepared, message: RequestMessage, named: frozenset[bytes], tail: list[bytes]
) -> frozenset[bytes]:
    """Trace, idempotency key and our own counters, where the policy or the app asks for them."""
    policy = prepared.bound.policy
    creates = policy.trace == "create"
    if creates or _TRACEPARENT in message.headers:
        _take_trace(prepared, message.headers.get(_TRACEPARENT), create_missing=creates)
        if prepared.trace is not None:
            named = _without(named, message, _TRACEPARENT)
    if policy.idempotency is not None:
        named = _take_key(prepared, message, policy.idempotency, named, tail)
    forwards = message.headers.get(_MAX_FORWARDS)
    if forwards is not None and message.method == "OPTIONS" and forwards.isascii() and forwards.isdigit():
        # RFC 9110 section 7.6.2; zero has been answered here.
        named = _without(named, message, _MAX_FORWARDS)
        tail.append(b"Max-Forwards: %d\r\n" % (int(forwards[:9]) - 1))
    for own in (policy.attempt_header, policy.deadline_header):
        if own is not None:
            named = _without(named, message, own)
    return named


def _take_trace(prepared: Prepared, given: str | None, *, create_missing: bool) -> None:
    """Keep a valid trace; make one if asked to. An invalid one is passed on for the upstream to judge."""
    if given is not None and child(given, 1) is not None:
        prepared.trace = given
    elif create_missing:
        prepared.trace = create(int(new_id() + new_id(), 16))


def _take_key(
    prepared: Prepared, message: RequestMessage, rule: Idempotency, named: frozenset[bytes], tail: list[bytes]
) -> frozenset[bytes]:
    """The app's own key, or a new one where the policy says that this upstream honours it."""
    given = message.headers.get(rule.header)
    if given and given.strip() and not (named and rule.header.lower().encode("ascii") in named):
        prepared.keyed = True
        return named
    if message.method in rule.methods:
        prepared.keyed = True
        prepared.key_line = f"{rule.header}: {idempotency_key(rule.format)}\r\n".encode("ascii")
        tail.append(prepared.key_line)
    return _without(named, message, rule.header)
