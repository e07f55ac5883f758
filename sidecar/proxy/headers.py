"""Which fields travel: both heads, as bytes, in the order, case and repetition in which they came.

Hop-by-hop fields stay behind (RFC 9110 section 7.6.1), with whatever ``Connection`` names; the transfer coding
is written anew (a length stays where it was); our own fields are set after that, so that nobody can talk them
away. A head is built by one walk over its fields with one dictionary look-up for each.
"""

from __future__ import annotations

from aiohttp import hdrs
from multidict import istr

from sidecar.wire.heads import RequestMessage, ResponseMessage

__all__ = ["FORBIDDEN_TO_NAME", "NO_NAMES", "named_by_connection", "request_fields", "response_fields", "status_line"]

_CONNECTION = istr(hdrs.CONNECTION)

REQUEST_DROPPED = frozenset(
    b"connection keep-alive proxy-connection proxy-authorization te trailer transfer-encoding upgrade "
    b"http2-settings host expect".split()
)
"""Hop by hop, or written anew. Proxy-Authorization was meant for us (RFC 9110 section 11.7.2)."""
RESPONSE_DROPPED = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade sidecar".split()
)
FORBIDDEN_TO_NAME = frozenset(b"host content-length transfer-encoding content-type".split())
"""What ``Connection`` cannot take away: framing, and what the body is."""

NO_NAMES: frozenset[bytes] = frozenset()
_HARMLESS = frozenset({"keep-alive", "Keep-Alive", "close"})

_MEMORY = 4096
"""Spellings of field names that are remembered; a hostile peer's inventions are judged anew each time."""
_request_verdicts: dict[bytes, bool] = {}
_response_verdicts: dict[bytes, bool] = {}
_status_lines: dict[tuple[int, str], bytes] = {}


def _drops_request(name: bytes) -> bool:
    lower = name.lower()
    verdict = lower in REQUEST_DROPPED or lower.startswith(b"sidecar-")
    if len(_request_verdicts) < _MEMORY:
        _request_verdicts[name] = verdict
    return verdict


def _drops_response(name: bytes) -> bool:
    verdict = name.lower() in RESPONSE_DROPPED
    if len(_response_verdicts) < _MEMORY:
        _response_verdicts[name] = verdict
    return verdict


def named_by_connection(message: RequestMessage | ResponseMessage) -> frozenset[bytes]:
    """Lower-case names of the further fields that ``Connection`` makes hop-by-hop; nearly always none."""
    if _CONNECTION not in message.headers:
        return NO_NAMES
    values = message.headers.getall(_CONNECTION)
    if len(values) == 1 and values[0] in _HARMLESS:
        return NO_NAMES
    tokens = ",".join(values).encode("latin-1", "replace").lower().split(b",")
    return frozenset(token.strip() for token in tokens) - FORBIDDEN_TO_NAME


def request_fields(message: RequestMessage, dropped: frozenset[bytes]) -> list[bytes]:
    """The app's fields as they go upstream, as pieces to be joined.

    ``dropped`` (lower case): what ``Connection`` names, and what the caller writes anew.
    """
    parts: list[bytes] = []
    for name, value in message.raw_headers:
        verdict = _request_verdicts.get(name)
        if not (_drops_request(name) if verdict is None else verdict) and (not dropped or name.lower() not in dropped):
            parts += (name, b": ", value, b"\r\n")
    return parts


def response_fields(message: ResponseMessage, dropped: frozenset[bytes]) -> list[bytes]:
    """The upstream's fields as they go to the app, as pieces to be joined, without those ``dropped`` (lower case)."""
    dropped |= named_by_connection(message)
    parts: list[bytes] = []
    for name, value in message.raw_headers:
        verdict = _response_verdicts.get(name)
        if not (_drops_response(name) if verdict is None else verdict) and (not dropped or name.lower() not in dropped):
            parts += (name, b": ", value, b"\r\n")
    return parts


def status_line(code: int, reason: str) -> bytes:
    """With the upstream's own reason phrase. The version is ours (RFC 9110 section 6.2)."""
    line = _status_lines.get((code, reason))
    if line is None:
        line = b"HTTP/1.1 %d %b\r\n" % (code, reason.encode("utf-8", "surrogateescape"))
        if len(_status_lines) < _MEMORY:
            _status_lines[code, reason] = line
    return line
