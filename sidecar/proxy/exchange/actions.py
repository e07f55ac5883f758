"""What a row asks for besides a wait: log in (``then: login``), or read the state (``then: reread``); then whether to
send again.

Only for exchanges in trouble, each once per exchange (or as often as a reread says). It sends none of the app's
requests and hands nothing over: it turns a decision into another one. Counterpart: ``retry_loop``.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import Final

from sidecar.core.decision.attempt import Attempt, Headers, Request
from sidecar.core.decision.conditions import Look
from sidecar.core.decision.decide import LEAST_ATTEMPT_SECONDS, NO_WAIT, Decision
from sidecar.core.decision.rows import Reread
from sidecar.core.enums import Reason, Verb
from sidecar.core.settings.deployment import Origin
from sidecar.proxy.exchange.context import Services
from sidecar.proxy.exchange.prepare import Prepared, asked_host
from sidecar.proxy.exchange.respond import BufferedResponse
from sidecar.proxy.message.headers import careful_fields, named_by_connection
from sidecar.proxy.message.peek import decoded
from sidecar.upstream.fetch import FetchFailed, ask
from sidecar.wire.heads import RequestMessage

__all__ = ["CARRIED_OUT", "Actions", "look", "path_to_read"]

OF_THE_BODY: Final = frozenset(b"content-length content-type content-encoding content-language content-md5".split())
"""A GET has no body (RFC 9110 section 9.3.1)."""
CONDITIONAL: Final = frozenset(
    b"if-match if-none-match if-modified-since if-unmodified-since if-range range accept-encoding".split()
)
"""Dropped for the GET: the whole present state is wanted, in a form that can be read here (RFC 9110 section 13.1)."""

_SEGMENT: Final = re.compile(r"\$([0-9]+)")


def path_to_read(template: str, path: str) -> str | None:
    """The path of the GET, made from that of the request (neither has a query); None if a named segment is missing."""
    if template == "same":
        return path
    if template == "parent":
        return path.rstrip("/").rpartition("/")[0] or None
    segments = path.split("/")[1:]
    if any(int(number) > len(segments) or not segments[int(number) - 1] for number in _SEGMENT.findall(template)):
        return None
    return _SEGMENT.sub(lambda found: segments[int(found[1]) - 1], template)


async def look(rule: Reread, prepared: Prepared, message: RequestMessage, seconds: float) -> bool | BufferedResponse:
    """Read the state. True: the row sends again in it. A response: the app gets that one.

    False: neither, or the state cannot be read. ``seconds`` bounds the whole read.
    """
    base = prepared.destination.base_path
    path = path_to_read(rule.path, prepared.target.partition("?")[0][len(base) :])
    if path is None:
        return False
    head = _head(prepared, message, base + path)
    try:
        asked = await ask(prepared.destination.pool, head, "GET", seconds=seconds, reuse=True)
    except FetchFailed:
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
        return BufferedResponse(asked.message, asked.body, asked.length)
    return False


def _head(prepared: Prepared, message: RequestMessage, target: str) -> bytes:
    compiled, policy = prepared.compiled, prepared.compiled.policy
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
    fields = careful_fields(message, compiled.request_rules, dropped)
    return b"".join((line, host, *fields, compiled.via_line, prepared.id_lines, credential, b"\r\n"))


def _own_host(message: RequestMessage, origin: Origin) -> bytes:
    return b"Host: " + asked_host(message, origin).encode("latin-1") + b"\r\n"


CARRIED_OUT: Final = frozenset({Verb.LOGIN, Verb.REREAD})


class Actions:
    """The actions of one exchange."""

    def __init__(self, services: Services, prepared: Prepared, message: RequestMessage, deadline_at: float) -> None:
        self._services = services
        self._prepared = prepared
        self._message = message
        self._deadline_at = deadline_at
        """Monotonic seconds."""
        self._done: Counter[Verb] = Counter()
        self.answer: BufferedResponse | None = None
        """What was read, where it becomes the app's response; then the decision has no reason."""

    async def carry_out(self, decision: Decision) -> Decision:
        """Carry out ``then: login`` or ``then: reread``. Returns ``retry``, or ``pass`` with the reason; raises only on
        cancellation.
        """
        verb = decision.verb
        if verb is Verb.LOGIN and self._prepared.credential is None:
            # No login is configured, or the app sent its own credential: the response is for the app to deal with.
            return _hand_over(decision, Reason.NOT_RETRYABLE)
        most = decision.reread.times if decision.reread is not None else 1
        if self._done[verb] >= most:
            return _hand_over(decision, Reason.ATTEMPTS)
        self._done[verb] += 1
        objection = await (self._log_in() if verb is Verb.LOGIN else self._reread(decision))
        if objection is None and self._left_seconds() < LEAST_ATTEMPT_SECONDS:
            objection = Reason.DEADLINE
        if objection is None and decision.cost > self._tokens():
            # Checked again: other exchanges may have spent the tokens during the action; from here on nothing waits.
            objection = Reason.BUDGET
        if objection is not None or self.answer is not None:
            return _hand_over(decision, objection)
        return replace(decision, verb=Verb.RETRY, wait=decision.wait or NO_WAIT)

    def _left_seconds(self) -> float:
        return max(0.0, self._deadline_at - self._services.clock.monotonic())

    def _tokens(self) -> float:
        return self._prepared.destination.budget.tokens(self._services.clock.monotonic())

    async def _log_in(self) -> Reason | None:
        prepared = self._prepared
        if prepared.credential is None:
            return Reason.LOGIN_FAILED
        held = prepared.destination.meters.held
        held["login"] += 1
        try:
            renewed = await prepared.credential.renewed(prepared.credential_number, self._left_seconds())
        finally:
            held["login"] -= 1
        return None if renewed else Reason.LOGIN_FAILED

    async def _reread(self, decision: Decision) -> Reason | None:
        if decision.reread is None:
            return Reason.NOT_RETRYABLE
        timeouts = self._prepared.compiled.policy.timeouts
        seconds = min(timeouts.connect_seconds + timeouts.head_seconds, self._left_seconds())
        seen = await look(decision.reread, self._prepared, self._message, seconds)
        if isinstance(seen, BufferedResponse):
            self.answer = seen
            return None
        return None if seen else Reason.NOT_RETRYABLE


def _hand_over(decision: Decision, reason: Reason | None) -> Decision:
    return replace(decision, verb=Verb.PASS, reason=reason, wait=None, safe_because=None, cost=0.0, reread=None)
