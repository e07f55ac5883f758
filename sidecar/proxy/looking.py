"""A bounded look into a response body: for the rows that ask for one, and for the record.

At most 64 KiB as they came and 64 KiB decoded; the body itself is passed on untouched.
"""

from __future__ import annotations

import zlib
from typing import Final

from sidecar.core.conditions import parse_json, resolve
from sidecar.wire.heads import ResponseMessage

__all__ = ["decoded", "first_text", "is_event_stream", "parsed"]

LOOK_BYTES: Final = 64 << 10


def decoded(message: ResponseMessage, body: bytes) -> bytes | None:
    """The body without its content coding (RFC 9110 section 8.4), cut at 64 KiB; None if that cannot be undone here.

    A cut or damaged body is decoded as far as it goes. gzip and deflate are known; br and zstd are not.
    """
    coding = message.headers.get("Content-Encoding")
    if coding is None or coding.strip().lower() in ("", "identity"):
        return body[:LOOK_BYTES]
    coding = coding.strip().lower()
    if coding in ("gzip", "x-gzip"):
        return _inflate(body, 16 + zlib.MAX_WBITS)
    if coding == "deflate":
        return _inflate(body, zlib.MAX_WBITS) or _inflate(body, -zlib.MAX_WBITS)
    return None


def is_event_stream(message: ResponseMessage) -> bool:
    """Whether these are server-sent events, which go to the app as they come."""
    content_type: str = message.headers.get("Content-Type", "")
    return content_type.lower().startswith("text/event-stream")


def _inflate(body: bytes, window_bits: int) -> bytes | None:
    try:
        return zlib.decompressobj(window_bits).decompress(body[:LOOK_BYTES], LOOK_BYTES)
    except zlib.error:
        return None


def first_text(document: object, pointers: tuple[str, ...], limit: int = 200) -> str | None:
    """The first of the places that holds a text or a number, cut to ``limit`` characters."""
    for pointer in pointers:
        value = resolve(document, pointer)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return str(value)[:limit]
    return None


def parsed(message: ResponseMessage, body: bytes) -> object:
    """The body as JSON, or something that no pointer leads into."""
    return parse_json(decoded(message, body))
