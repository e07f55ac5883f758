"""A bounded look into a response body: for the rows that ask for one, and for the record.

At most 64 KiB as they came and 64 KiB decoded; the body itself is passed on untouched. Where a policy looks, the
request asks only for content codings that can be undone here (``readable_codings``): br and zstd need a library that
is not worth its size for that.
"""

from __future__ import annotations

import zlib

from sidecar.core.decision.conditions import LOOK_BYTES, READABLE_CODINGS, parse_json, resolve
from sidecar.wire.heads import ResponseMessage

__all__ = ["decoded", "first_text", "is_event_stream", "parsed", "readable_codings"]


def decoded(message: ResponseMessage, body: bytes) -> bytes | None:
    """The body without its content coding (RFC 9110 section 8.4), cut at 64 KiB; None if that cannot be undone here.

    A cut or damaged body is decoded as far as it goes.
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


def readable_codings(value: str) -> str:
    """An ``Accept-Encoding`` (RFC 9110 section 12.5.3) that allows only codings that can be undone here.

    What remains keeps its order and weights. ``*`` becomes gzip, unless its weight is 0. If nothing readable remains,
    not even an unencoded body, the value is returned as it is.
    """
    elements = [(element.partition(";")[0].strip(" \t").lower(), element) for element in value.split(",")]
    allowed = {coding: not _is_zero(element.partition(";")[2]) for coding, element in elements if coding}
    buffered: list[str] = []
    for coding, element in elements:
        if coding == "*" and allowed["*"]:
            if "gzip" not in allowed:
                buffered.append(element.strip(" \t").replace("*", "gzip", 1))
        elif coding == "*" or coding in READABLE_CODINGS:
            buffered.append(element.strip(" \t"))
    if len(buffered) == len(elements) and not allowed.get("*"):
        return value
    if any(allowed.get(coding) for coding in READABLE_CODINGS) or (allowed.get("*") and "gzip" not in allowed):
        return ", ".join(filter(None, buffered))
    if allowed.get("identity", allowed.get("*", True)):
        return ", ".join(["identity", *filter(None, buffered)])
    return value


def _is_zero(parameters: str) -> bool:
    """Whether the weight of an element is 0: "not acceptable" (RFC 9110 section 12.4.2)."""
    name, _, weight = parameters.replace(" ", "").replace("\t", "").partition("=")
    return name.lower() == "q" and bool(weight) and not weight.strip("0.")


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
    """The first pointer's value that is a text or a number, cut to ``limit`` characters."""
    for pointer in pointers:
        value = resolve(document, pointer)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return str(value)[:limit]
    return None


def parsed(message: ResponseMessage, body: bytes) -> object:
    """The body as JSON; if it is none, a value that no pointer leads into."""
    return parse_json(decoded(message, body))
