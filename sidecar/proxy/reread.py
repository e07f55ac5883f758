"""``then: reread``: look at the state before deciding about a refusal.

A GET of the same path, or of one made from it, with the app's own headers; what it answers is judged by the row's
conditions. Never of another upstream; its answer reaches the app only where the row asks for that.
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.core.conditions import Look
from sidecar.core.deployment import Origin
from sidecar.core.exchange import Attempt, Headers, Request
from sidecar.core.rows import Reread
from sidecar.proxy.answering import Kept
from sidecar.proxy.headers import careful_fields, named_by_connection
from sidecar.proxy.looking import decoded
from sidecar.proxy.preparation import Prepared, asked_host
from sidecar.upstream.asking import NoAnswer, ask
from sidecar.wire.heads import RequestMessage

__all__ = ["look", "path_to_read"]

OF_THE_BODY: Final = frozenset(b"content-length content-type content-encoding content-language content-md5".split())
"""A GET has no body (RFC 9110 section 9.3.1)."""
CONDITIONAL: Final = frozenset(
    b"if-match if-none-match if-modified-since if-unmodified-since if-range range accept-encoding".split()
)
"""The whole present state is wanted, in a form that can be read here."""

_SEGMENT: Final = re.compile(r"\$([0-9]+)")


def path_to_read(template: str, path: str) -> str | None:
    """The path for the GET, from that of the request (neither has a query); None if it has no such segment."""
    if template == "same":
        return path
    if template == "parent":
        return path.rstrip("/").rpartition("/")[0] or None
    segments = path.split("/")[1:]
    if any(int(number) > len(segments) or not segments[int(number) - 1] for number in _SEGMENT.findall(template)):
        return None
    return _SEGMENT.sub(lambda found: segments[int(found[1]) - 1], template)


async def look(rule: Reread, prepared: Prepared, message: RequestMessage, seconds: float) -> bool | Kept:
    """True: the state, as it is now, is one in which the row sends again; an answer: one that the app is to get.

    False: none of both, or the state cannot be read.
    """
    base = prepared.destination.base_path
    path = path_to_read(rule.path, prepared.target.partition("?")[0][len(base) :])
    if path is None:
        return False
    head = _head(prepared, message, base + path)
    try:
        asked = await ask(prepared.destination.pool, head, "GET", seconds=seconds, reuse=True)
    except NoAnswer:
        return False
    if not 200 <= asked.message.code < 300:
        return False
    seen = Attempt(
        1, asked.message.code, Headers(asked.message.raw_headers), body=decoded(asked.message, asked.body) or b""
    )
    state = Look(Request("GET", path), seen)
    if rule.resend_when and state.all_hold(rule.resend_when):
        return True
    if rule.answer_when and message.method != "HEAD" and state.all_hold(rule.answer_when):
        return Kept(asked.message, asked.body, asked.length)
    return False


def _head(prepared: Prepared, message: RequestMessage, target: str) -> bytes:
    bound, policy = prepared.bound, prepared.bound.policy
    written_anew = {policy.ids.request.header, policy.ids.correlation.header}
    if policy.idempotency is not None:
        written_anew.add(policy.idempotency.header)
    if prepared.credential is not None:
        written_anew.add(prepared.credential.header)
    dropped = named_by_connection(message) | OF_THE_BODY | CONDITIONAL
    dropped |= {name.lower().encode("ascii") for name in written_anew}
    line = f"GET {target} HTTP/1.1\r\n".encode("utf-8", "surrogateescape")
    host = prepared.destination.host_line or _own_host(message, prepared.destination.origin)
    credential = prepared.credential.line() if prepared.credential is not None else b""
    fields = careful_fields(message, bound.request_rules, dropped)
    return b"".join((line, host, *fields, bound.via_line, prepared.id_lines, credential, b"\r\n"))


def _own_host(message: RequestMessage, origin: Origin) -> bytes:
    return b"Host: " + asked_host(message, origin).encode("latin-1") + b"\r\n"
