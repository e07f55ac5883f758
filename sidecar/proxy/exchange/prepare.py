"""Everything about an exchange that is known before its first send, worked out once.

Destination, policy, ids, deadline, and the part of the upstream's request head that is the same for every attempt. It
sends nothing. Counterpart: ``send``.
"""

# Compiled in the wheel.

from __future__ import annotations

from typing import Any, Final

from aiohttp import hdrs
from multidict import istr

from sidecar.core.decision.policy import Idempotency
from sidecar.core.decision.times import duration
from sidecar.core.settings.deployment import Origin
from sidecar.observe.trace import SpanIds, child, create
from sidecar.proxy.message.errors import own_options
from sidecar.proxy.message.headers import (
    CODINGS,
    CONNECTION,
    DROP,
    HARMLESS,
    HOST,
    KEEP,
    NO_NAMES,
    careful_fields,
    named_by_connection,
)
from sidecar.proxy.message.ids import idempotency_key, new_id, sane
from sidecar.proxy.message.peek import readable_codings
from sidecar.proxy.message.userinfo import moved
from sidecar.proxy.routing.destination import CompiledPolicy, Destination
from sidecar.proxy.routing.router import Refused, Router, UserInfo, check_climb, check_host, valid_hosts
from sidecar.upstream.login import Credential
from sidecar.wire.framing import CHUNKED
from sidecar.wire.heads import RequestMessage

__all__ = ["Prepared", "asked_host", "own_ids", "prepare"]

_HOST: Final = hdrs.HOST
_VIA: Final = hdrs.VIA
_MAX_FORWARDS: Final = istr(hdrs.MAX_FORWARDS)
_TIMEOUT: Final = istr("Sidecar-Timeout")
_OURS: Final = frozenset({b"sidecar-timeout"})
_TRACEPARENT: Final = istr("traceparent")
_ACCEPT_ENCODING: Final = istr(hdrs.ACCEPT_ENCODING)
_SIGNED: Final = (istr(hdrs.AUTHORIZATION), istr("Signature-Input"), istr("Signature"))
"""Where a request says which of its fields are signed: AWS Signature Version 4, RFC 9421 and the drafts before it."""

_readable: Final[set[bytes]] = set()
"""Values of ``Accept-Encoding`` that need no change; bounded, since a client may invent them."""
_READABLE: Final = 256


class Prepared:
    """One request, ready to be sent any number of times."""

    # Defaults stand on the class: an untroubled request sets few of them.
    key_line = b""
    """The header line of an idempotency key that we made; the app is told it, too."""
    keyed = False
    """Whether the request carries a key that this upstream honours."""
    trace: str | None = None
    spans: SpanIds | None = None
    """The ids of its spans; None: no spans are made."""
    credential: Credential | None = None
    """The credential put on each send, where the upstream has a login and the app sent none of its own."""
    credential_number = 0
    """The number of the token that the last send carried."""
    request_id = ""
    correlation_id = ""
    id_lines = b""
    """The header lines of both ids for the app."""
    prefix = b""
    """The request head up to what differs between attempts."""

    def __init__(self, destination: Destination, compiled: CompiledPolicy, target: str) -> None:
        self.destination = destination
        self.compiled = compiled
        self.target = target
        """The target for the upstream in origin-form, as it came except for mount and base path."""
        self.deadline_seconds = compiled.policy.deadline_seconds
        """Seconds for the whole exchange, from its start."""

    def head(self, number: int, left_seconds: float, *, expects_continue: bool) -> bytes:
        """The request head of attempt ``number``."""
        if not (self.compiled.varies or expects_continue or self.trace is not None):
            return self.prefix + b"\r\n"
        policy = self.compiled.policy
        head = self.prefix
        if self.trace is not None:
            if self.spans is not None:
                self.trace = self.spans.header(number)
            else:
                self.trace = child(self.trace, int(new_id()[:16], 16)) or self.trace
            head += b"traceparent: " + self.trace.encode("ascii") + b"\r\n"
        if self.credential is not None:
            head += self.credential.line()
            self.credential_number = self.credential.number
        if policy.attempt_header is not None:
            head += f"{policy.attempt_header}: {number}\r\n".encode("ascii")
        if policy.deadline_header is not None:
            head += f"{policy.deadline_header}: {max(0, round(left_seconds * 1000))}\r\n".encode("ascii")
        if expects_continue:
            head += b"Expect: 100-continue\r\n"
        return head + b"\r\n"


def prepare(message: RequestMessage, router: Router, body_length: int) -> Prepared:
    """Work out everything for one request. Raises ``Refused``.

    The plain way is one walk over the fields. A field that is worth a closer look (an id, a trace, a key, a loop, a
    deadline, an unusual Connection or Host) leads to the careful way.
    """
    path = message.path
    method = message.method
    if method == "TRACE":
        raise Refused(405, "method", "TRACE would echo credentials, and is not forwarded")
    if "#" in path:
        raise Refused(400, "target", "a request target has no fragment")
    try:
        destination, target = router.find(path)
    except UserInfo as found:
        return prepare(moved(message, found.target, found.user_info), router, body_length)
    if destination.base_path or destination.credential is not None:
        check_climb(target[len(destination.base_path) :])
    compiled = destination.compiled
    if destination.routes is not None:
        compiled = destination.policy_for(method, target.partition("?")[0][len(destination.base_path) :])
    prepared = Prepared(destination, compiled, target)
    rules = compiled.request_rules
    memory = rules.memory
    line = f"{method} {target} HTTP/1.1\r\n".encode()  # the parser lets only ASCII through
    parts = [line, destination.host_line]
    if not destination.host_line or compiled.creates:
        return _prepare_carefully(prepared, message, router, line, body_length)
    for name, value in message.raw_headers:
        verdict = memory.get(name)
        if verdict is None:
            verdict = rules.judge(name)
        if verdict == KEEP or (verdict == CODINGS and value in _readable):
            parts += (name, b": ", value, b"\r\n")
        elif verdict > DROP and not (
            (verdict == CONNECTION and value in HARMLESS) or (verdict == HOST and value in valid_hosts)
        ):
            return _prepare_carefully(prepared, message, router, line, body_length)
    # A request with neither id begins a chain: one new id serves as both.
    prepared.request_id = prepared.correlation_id = new = new_id()
    prepared.id_lines = ids = f"{compiled.request_id_name}{new}{compiled.correlation_name}{new}\r\n".encode()
    parts += (compiled.via_line, ids)
    if body_length == CHUNKED:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    prepared.prefix = b"".join(parts)
    return prepared


def _prepare_carefully(
    prepared: Prepared, message: RequestMessage, router: Router, line: bytes, body_length: int
) -> Prepared:
    headers, compiled, destination = message.headers, prepared.compiled, prepared.destination
    _check(message, router.via)
    asked = headers.get(_TIMEOUT)
    if asked is not None:
        shorter = duration(asked.strip())
        if shorter is None or shorter <= 0:
            raise Refused(400, "header", "Sidecar-Timeout is not a duration such as 5s or 250ms")
        prepared.deadline_seconds = min(prepared.deadline_seconds, shorter)
    named = named_by_connection(message) if asked is None else named_by_connection(message) | _OURS
    prepared.request_id, keeps_request_id = _id(headers, compiled.request_id, named)
    prepared.correlation_id, keeps_correlation_id = _id(headers, compiled.correlation_id, named)
    if not (keeps_request_id or compiled.request_id in headers or compiled.correlation_id in headers):
        prepared.correlation_id = prepared.request_id
    request_line = compiled.request_id_line + prepared.request_id.encode("ascii") + b"\r\n"
    correlation_line = compiled.correlation_line + prepared.correlation_id.encode("ascii") + b"\r\n"
    prepared.id_lines = request_line + correlation_line
    tail: list[bytes] = [compiled.via_line]
    if not keeps_request_id:
        tail.append(request_line)
        named = _without(named, message, compiled.request_id)
    if not keeps_correlation_id:
        tail.append(correlation_line)
        named = _without(named, message, compiled.correlation_id)
    named = _take_rarer(prepared, message, named, tail)
    if body_length == CHUNKED:
        tail.append(b"Transfer-Encoding: chunked\r\n")
    host_line = destination.host_line or b"Host: " + asked_host(message, destination.origin).encode("latin-1") + b"\r\n"
    prepared.prefix = b"".join((line, host_line, *careful_fields(message, compiled.request_rules, named), *tail))
    return prepared


def asked_host(message: RequestMessage, origin: Origin) -> str:
    """The host that the app asked for: the target's, whatever ``Host`` says (RFC 9112 section 3.2.2), else ``Host``."""
    _, separator, rest = message.path.partition("://")
    if separator and message.path[:1] != "/":
        authority = rest.partition("/")[0].partition("?")[0]
        return authority.rpartition("@")[2]
    host: str = message.headers.get(_HOST, "")
    return host or origin.authority


def _check(message: RequestMessage, via: str) -> None:
    """Check a head that is worth a closer look: RFC 9110 sections 7.2 (Host), 7.6.2 and 7.6.3 (loops)."""
    headers = message.headers
    host = headers.get(_HOST)
    if host is not None:
        check_host(host)
    if message.method == "OPTIONS" and headers.get(_MAX_FORWARDS) == "0":
        raise own_options()
    if _VIA in headers and via in ",".join(headers.getall(_VIA)):
        raise Refused(508, "loop", "this request has been here before: the upstream leads back to this proxy")


def own_ids(message: RequestMessage | None, compiled: CompiledPolicy) -> tuple[str, str, bytes]:
    """Request id, correlation id and their header lines, for a request that is sent nowhere."""
    if message is None or not (compiled.request_id in message.headers or compiled.correlation_id in message.headers):
        request_id = correlation_id = new_id()
    else:
        request_id, _ = _id(message.headers, compiled.request_id, NO_NAMES)
        correlation_id, _ = _id(message.headers, compiled.correlation_id, NO_NAMES)
    lines = compiled.request_id_line + request_id.encode() + b"\r\n"
    return request_id, correlation_id, lines + compiled.correlation_line + correlation_id.encode() + b"\r\n"


def _id(headers: Any, name: istr, named: frozenset[bytes]) -> tuple[str, bool]:
    """The app's id if it is sane and not dropped, with True if it may travel as it came; else a new one."""
    value = headers.get(name)
    if value is None or not sane(value):
        return new_id(), False
    only = len(headers.getall(name)) == 1 and not (named and name.lower().encode("ascii") in named)
    return value, only


def _without(named: frozenset[bytes], message: RequestMessage, name: str) -> frozenset[bytes]:
    """The names to drop, with ``name`` if the app sent it: we write that field ourselves."""
    return named | {name.lower().encode("ascii")} if name in message.headers else named


def _take_rarer(
    prepared: Prepared, message: RequestMessage, named: frozenset[bytes], tail: list[bytes]
) -> frozenset[bytes]:
    """Trace, idempotency key and our own counters, where the policy or the app asks for them."""
    policy = prepared.compiled.policy
    creates = policy.trace == "create"
    sampler = prepared.compiled.sampler
    if sampler is not None:
        prepared.spans = sampler.begin(message.headers.get(_TRACEPARENT), int(new_id() + new_id(), 16))
        prepared.trace = prepared.spans.header(0)
        named = _without(named, message, _TRACEPARENT)
    elif creates or _TRACEPARENT in message.headers:
        _take_trace(prepared, message.headers.get(_TRACEPARENT), create_missing=creates)
        if prepared.trace is not None:
            named = _without(named, message, _TRACEPARENT)
    if policy.idempotency is not None:
        named = _take_key(prepared, message, policy.idempotency, named, tail)
    if prepared.destination.credential is not None:
        named = _take_credential(prepared, message, prepared.destination.credential, named)
    if prepared.compiled.reads and _ACCEPT_ENCODING in message.headers:
        named = _take_codings(message, named, tail)
    forwards = message.headers.get(_MAX_FORWARDS)
    if forwards is not None and message.method == "OPTIONS" and forwards.isascii() and forwards.isdigit():
        # RFC 9110 section 7.6.2; zero has been answered here.
        named = _without(named, message, _MAX_FORWARDS)
        tail.append(b"Max-Forwards: %d\r\n" % (int(forwards[:9]) - 1))
    for own in (policy.attempt_header, policy.deadline_header):
        if own is not None:
            named = _without(named, message, own)
    return named


def _take_codings(message: RequestMessage, named: frozenset[bytes], tail: list[bytes]) -> frozenset[bytes]:
    """Ask for no content coding that cannot be undone here, unless the field is signed: then it must not change."""
    name = b"accept-encoding"
    if name in named:
        return named
    for field in _SIGNED:
        if field in message.headers and "accept-encoding" in ",".join(message.headers.getall(field)).lower():
            return named
    given = ", ".join(message.headers.getall(_ACCEPT_ENCODING))
    readable = readable_codings(given)
    if readable == given:
        if len(_readable) < _READABLE and len(given) <= _READABLE:
            _readable.update(value for field, value in message.raw_headers if field.lower() == name)
        return named
    tail.append(b"Accept-Encoding: " + readable.encode("utf-8", "surrogateescape") + b"\r\n")
    return named | {name}


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
        prepared.keyed = message.method in rule.methods
        return named
    if message.method in rule.methods:
        prepared.keyed = True
        prepared.key_line = f"{rule.header}: {idempotency_key(rule.format)}\r\n".encode("ascii")
        tail.append(prepared.key_line)
    return _without(named, message, rule.header)


def _take_credential(
    prepared: Prepared, message: RequestMessage, credential: Credential, named: frozenset[bytes]
) -> frozenset[bytes]:
    """Put on our credential, unless the app sent its own and the login does not replace it."""
    rule = credential.rule
    if not rule.replace and (message.headers.get(rule.header) or "").strip():
        return named
    prepared.credential = credential
    return _without(named, message, rule.header)
