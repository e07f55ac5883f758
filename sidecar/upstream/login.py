"""The credential of one upstream: obtained by a login, put on requests, renewed before it expires.

However many exchanges are refused at once, one login serves them all (single flight). Secrets are read at each login
from where the configuration says, go into that one request, and are kept nowhere; neither they nor the response nor the
token can be logged, counted or shown. The policy says whether a 401 leads here. Counterpart:
``proxy.exchange.actions``.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import orjson

from sidecar.core.decision.conditions import parse_json, resolve
from sidecar.core.decision.times import number
from sidecar.core.settings.deployment import Login, Reference
from sidecar.observe.log import EventLog
from sidecar.observe.metrics import UpstreamMeters
from sidecar.upstream.fetch import FetchFailed, ask
from sidecar.upstream.pool import Pool, Pools

__all__ = ["Credential", "Credentials", "token_in"]

LONGEST_TOKEN: Final = 16 << 10
"""Characters; a longer token would not fit into a request head that servers accept."""
SECRET_BYTES: Final = 64 << 10
AHEAD_SHARE: Final = 0.2
AHEAD_SECONDS: Final = 60.0
"""Seconds before its end at which a token is renewed, or a fifth of its life if that is less."""
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0
"""Seconds of the longest pause after failed logins (it doubles): wrong credentials must not lock the account."""
LOGINS_PER_MINUTE: Final = 30
"""Logins a minute, at most: an upstream that refuses every fresh token must not turn each request into a login."""
CONNECTIONS: Final = 4


class LoginFailed(Exception):
    """There is no token; the text says why, in our own words, never with a secret."""


class Credential:
    """The credential put on the requests to one upstream."""

    def __init__(
        self,
        name: str,
        rule: Login,
        pool: Pool,
        meters: UpstreamMeters,
        now: Callable[[], float],
        events: EventLog | None,
    ) -> None:
        self._name = name
        self.rule = rule
        self._pool = pool
        self._meters = meters
        self._now = now
        """The clock: monotonic seconds."""
        self._events = events
        self.header = rule.header.lower()
        self.number = 0
        """Number of the current token; a request remembers the one it carried."""
        self._line = b""
        self._renew_at = float("inf")
        self._ends_at = float("inf")
        self._flight: asyncio.Task[None] | None = None
        self._failures = 0
        self._quiet_until = 0.0
        self._recent: deque[float] = deque(maxlen=LOGINS_PER_MINUTE)

    def line(self) -> bytes:
        """The header line for a request, empty before the first login. Begins a renewal that is due."""
        if self._now() >= self._renew_at and self._may_log_in():
            self._begin()
        return self._line

    @property
    def is_usable(self) -> bool:
        """Whether there is a token that has not expired."""
        return bool(self._line) and self._now() < self._ends_at

    async def ready(self, seconds: float) -> None:
        """Log in now if there is no usable token: for a request that may not be repeatable later."""
        if not self.is_usable:
            await self.renewed(self.number, seconds)

    async def renewed(self, refused: int, seconds: float) -> bool:
        """Get a token other than the ``refused`` one; False if the login fails or takes longer than ``seconds``.

        Concurrent callers wait for the same login.
        """
        if self.number != refused:
            return True
        if self._flight is None and not self._may_log_in():
            return False
        flight = self._begin()
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await asyncio.shield(flight)
        except TimeoutError:
            return False
        return self.number != refused

    def _may_log_in(self) -> bool:
        now = self._now()
        if now < self._quiet_until:
            return False
        return len(self._recent) < LOGINS_PER_MINUTE or now - self._recent[0] >= 60.0

    def _begin(self) -> asyncio.Task[None]:
        if self._flight is None:
            self._recent.append(self._now())
            self._flight = asyncio.get_running_loop().create_task(self._log_in(), name=f"login {self._name}")
        return self._flight

    async def _log_in(self) -> None:
        """Log in. Never raises; the result is in ``number``."""
        self._meters.logins += 1
        try:
            async with asyncio.timeout(self.rule.timeout_seconds):
                body = await _secrets_in(self.rule)
                document = await self._answer(body)
            token, life_seconds = token_in(document, self.rule)
        except (LoginFailed, FetchFailed) as exc:
            self._failed(str(exc))
        except TimeoutError:
            self._failed("no answer in time")
        except Exception as exc:
            # Never the exception's text, which may quote a secret.
            self._failed(f"the login failed here ({type(exc).__name__})")
        else:
            self._take(token, life_seconds)
        finally:
            self._flight = None

    async def _answer(self, body: bytes) -> object:
        rule = self.rule
        media = "application/json" if rule.encoding == "json" else "application/x-www-form-urlencoded"
        head = (
            f"{rule.method} {rule.target} HTTP/1.1\r\nHost: {rule.origin.authority}\r\nAccept: application/json\r\n"
            f"Content-Type: {media}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        asked = await ask(
            self._pool, head.encode("ascii") + body, rule.method, seconds=rule.timeout_seconds, reuse=False
        )
        if not 200 <= asked.message.code < 300:
            raise LoginFailed(f"the login was answered {asked.message.code}")
        return parse_json(asked.body)

    def _take(self, token: str, life_seconds: float | None) -> None:
        rule, now = self.rule, self._now()
        value = f"{rule.scheme} {token}" if rule.scheme else token
        self._line = f"{rule.header}: {value}\r\n".encode("ascii")
        self.number += 1
        self._failures, self._quiet_until = 0, 0.0
        self._ends_at = self._renew_at = float("inf")
        if life_seconds is not None and life_seconds > 0:
            self._ends_at = now + life_seconds
            self._renew_at = self._ends_at - min(life_seconds * AHEAD_SHARE, AHEAD_SECONDS)
        if self._events is not None:
            self._events.limited("login", "info", upstream=self._name, life_seconds=life_seconds)

    def _failed(self, why: str) -> None:
        self._failures += 1
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self._failures - 1, 10))
        self._quiet_until = self._now() + pause
        self._meters.login_failures += 1
        if self._events is not None:
            self._events.limited("login_failed", "warning", upstream=self._name, detail=why, next_in_seconds=pause)

    async def close(self) -> None:
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)


class Credentials:
    """The credentials of all upstreams, kept across reloads while their rule stays the same."""

    def __init__(self, pools: Pools, now: Callable[[], float], events: EventLog | None = None) -> None:
        self._pools = pools
        self._now = now
        self._events = events
        self._by_name: dict[str, Credential] = {}
        self._replaced: list[Credential] = []

    def of(self, name: str, rule: Login | None, meters: UpstreamMeters) -> Credential | None:
        known = self._by_name.get(name)
        if known is not None and known.rule == rule:
            return known
        if known is not None:
            self._replaced.append(self._by_name.pop(name))
        if rule is None:
            return None
        pool = self._pools.apart(rule.origin, CONNECTIONS)
        made = self._by_name[name] = Credential(name, rule, pool, meters, self._now, self._events)
        return made

    async def close(self) -> None:
        for credential in (*self._by_name.values(), *self._replaced):
            await credential.close()


def token_in(document: object, rule: Login) -> tuple[str, float | None]:
    """The token and its life in seconds (None: unknown). Raises ``LoginFailed``, never with a value."""
    token = resolve(document, rule.token)
    if not isinstance(token, str) or not token:
        raise LoginFailed(f"the answer has no text at {rule.token}")
    if len(token) > LONGEST_TOKEN:
        raise LoginFailed(f"the token is longer than {LONGEST_TOKEN} characters")
    if not token.isascii() or not token.isprintable() or token != token.strip():
        raise LoginFailed("the token holds what no header may hold")  # RFC 9110 section 5.5
    life = resolve(document, rule.expires_in) if rule.expires_in is not None else None
    return token, number(life) if isinstance(life, str) else None


async def _secrets_in(rule: Login) -> bytes:
    """The body with its secrets, read now, outside the loop's thread."""
    filled = await asyncio.to_thread(_filled, rule.body)
    if rule.encoding == "json":
        return orjson.dumps(filled)
    assert isinstance(filled, dict)  # noqa: S101 - for the type checker: the configuration has judged it
    return urlencode(filled).encode("ascii")


def _filled(template: object) -> object:
    if isinstance(template, dict):
        return {key: _filled(item) for key, item in template.items()}
    if isinstance(template, list):
        return [_filled(item) for item in template]
    return _secret(template) if isinstance(template, Reference) else template


def _is_text(value: str) -> bool:
    """Whether it can be encoded: bytes of the environment that are not UTF-8 come as surrogates (PEP 383)."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _secret(reference: Reference) -> str:
    """Read one secret. Raises ``LoginFailed``."""
    if reference.kind == "env":
        value = os.environ.get(reference.name)
        if not value:
            raise LoginFailed(f"the variable {reference.name} is not set")
        if not _is_text(value):
            raise LoginFailed(f"the variable {reference.name} is not UTF-8")
        return value
    path = Path(reference.name)
    try:
        # A pipe or a device could block for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise LoginFailed(f"{path} is not a file")
        with path.open("rb") as file:
            data = file.read(SECRET_BYTES + 1)
        text = data.decode("utf-8").rstrip("\r\n")
    except OSError as exc:
        raise LoginFailed(f"{path} cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise LoginFailed(f"{path} is not UTF-8") from None
    if not text or len(data) > SECRET_BYTES:
        raise LoginFailed(f"{path} is empty" if not text else f"{path} is larger than {SECRET_BYTES} bytes")
    return text
