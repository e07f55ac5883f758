"""Which fields travel, in the order, case and repetition in which they came.

Hop-by-hop fields stay behind (RFC 9110 section 7.6.1), with those that ``Connection`` names; the transfer coding is
written anew; our own fields come last, so that no client can remove them. ``Transfer_Encoding`` and its like stay
behind, too: a server that turns names into variables reads ``_`` as ``-``, and could frame the body by a field that no
proxy has checked. A head costs one walk over its fields with one dictionary look-up for each.
"""

# Compiled in the wheel.

from __future__ import annotations

from typing import Final

from aiohttp import hdrs
from multidict import istr

from sidecar.wire.heads import RequestMessage, ResponseMessage

__all__ = [
    "ASK",
    "CODINGS",
    "CONNECTION",
    "DROP",
    "FORBIDDEN_TO_NAME",
    "HARMLESS",
    "HOST",
    "KEEP",
    "NO_NAMES",
    "Rules",
    "careful_fields",
    "named_by_connection",
    "request_rules",
    "response_rules",
]

_CONNECTION: Final = istr(hdrs.CONNECTION)

REQUEST_DROPPED: Final = frozenset(
    b"connection keep-alive proxy-connection proxy-authorization te trailer transfer-encoding upgrade "
    b"http2-settings host expect".split()
)
"""Hop-by-hop, or written anew. Proxy-Authorization is meant for us (RFC 9110 section 11.7.2)."""
RESPONSE_DROPPED: Final = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade sidecar".split()
)
FORBIDDEN_TO_NAME: Final = frozenset(b"host content-length transfer-encoding content-type".split())
"""Fields that ``Connection`` cannot remove: framing, and what the body is."""

NO_NAMES: Final[frozenset[bytes]] = frozenset()
_HARMLESS: Final = frozenset({"keep-alive", "Keep-Alive", "close"})
HARMLESS: Final = frozenset({b"keep-alive", b"Keep-Alive", b"close"})
"""Values of ``Connection`` that name no further field."""

KEEP: Final = 0
DROP: Final = 1
ASK: Final = 2
CONNECTION: Final = 3
HOST: Final = 4
CODINGS: Final = 5
"""What to do with a field, by its name: pass it on; leave it out; look closer; look closer at its value."""

_MEMORY: Final = 4096
"""Spellings of field names that are remembered; further ones, which a hostile client may invent, are classified anew
each time.
"""
_MEMORY_LENGTH: Final = 64
"""Characters of a remembered field name; a longer one is an invention."""


class Rules:
    """What to do with each field of a head, remembered by the spelling of its name.

    ``asked`` (lower case): names that make a head worth a closer look. ``reads``: whether the answer has to be read
    here, so that ``Accept-Encoding`` matters.
    """

    __slots__ = ("_asked", "_dropped", "_look_alikes", "_own_prefix", "_reads", "memory")

    def __init__(
        self, dropped: frozenset[bytes], asked: frozenset[bytes], own_prefix: bytes = b"", *, reads: bool = False
    ) -> None:
        self._dropped = dropped
        self._look_alikes = dropped | {b"content-length"}
        self._asked = asked
        self._own_prefix = own_prefix
        self._reads = reads
        self.memory: dict[bytes, int] = {}

    def judge(self, name: bytes) -> int:
        """Classify a name that ``memory`` does not hold."""
        lower = name.lower()
        if b"_" in lower and lower.replace(b"_", b"-") in self._look_alikes:
            verdict = DROP
        elif lower in self._asked:
            verdict = ASK
        elif lower == b"connection":
            verdict = CONNECTION
        elif self._reads and lower == b"accept-encoding":
            verdict = CODINGS
        elif lower == b"host" and lower in self._dropped:
            verdict = HOST
        elif lower in self._dropped or (self._own_prefix and lower.startswith(self._own_prefix)):
            verdict = DROP
        else:
            verdict = KEEP
        if len(self.memory) < _MEMORY and len(name) <= _MEMORY_LENGTH:
            self.memory[name] = verdict
        return verdict

    def is_ours(self, name: bytes) -> bool:
        """Whether the field is meant for us alone, though it was worth a closer look."""
        return bool(self._own_prefix) and name.lower().startswith(self._own_prefix)


def request_rules(asked: frozenset[bytes], *, reads: bool = False) -> Rules:
    """Rules for heads toward an upstream. ``reads``: its responses may have to be read here."""
    return Rules(REQUEST_DROPPED, asked, b"sidecar-", reads=reads)


def response_rules(asked: frozenset[bytes]) -> Rules:
    """Rules for heads toward the app."""
    return Rules(RESPONSE_DROPPED, asked)


def named_by_connection(message: RequestMessage | ResponseMessage) -> frozenset[bytes]:
    """Lower-case names of the further fields that ``Connection`` makes hop-by-hop; nearly always none."""
    if _CONNECTION not in message.headers:
        return NO_NAMES
    values = message.headers.getall(_CONNECTION)
    if len(values) == 1 and values[0] in _HARMLESS:
        return NO_NAMES
    tokens = ",".join(values).encode("latin-1", "replace").lower().split(b",")
    return frozenset(token.strip() for token in tokens) - FORBIDDEN_TO_NAME


def careful_fields(message: RequestMessage | ResponseMessage, rules: Rules, dropped: frozenset[bytes]) -> list[bytes]:
    """The fields that travel, as pieces to be joined, for a head that is worth a closer look.

    ``dropped`` (lower case): what ``Connection`` names, and what the caller writes anew.
    """
    parts: list[bytes] = []
    memory = rules.memory
    for name, value in message.raw_headers:
        verdict = memory.get(name)
        if verdict is None:
            verdict = rules.judge(name)
        if verdict in (KEEP, ASK, CODINGS) and not (dropped and name.lower() in dropped) and not rules.is_ours(name):
            parts += (name, b": ", value, b"\r\n")
    return parts
