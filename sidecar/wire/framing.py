"""The length of a body: RFC 9112 section 6, for both directions, strictly.

The parser has already refused what is ambiguous in itself (two lengths, a length beside chunked, signs, lists). This
module refuses codings that we do not undo, and knows the messages that have no body whatever the head says.
"""

# Compiled in the wheel.

from __future__ import annotations

from typing import Final

from aiohttp import hdrs

from sidecar.wire.heads import BadHead, RequestMessage, ResponseMessage

__all__ = ["CHUNKED", "UNTIL_CLOSE", "request_length", "response_length", "stays_open"]

CHUNKED: Final = -1
"""The length is told chunk by chunk (RFC 9112 section 7.1)."""
UNTIL_CLOSE: Final = -2
"""The body ends where the connection does (responses only)."""

_TRANSFER_ENCODING: Final = hdrs.TRANSFER_ENCODING
_CONTENT_LENGTH: Final = hdrs.CONTENT_LENGTH


def request_length(message: RequestMessage) -> int:
    """Bytes of the request body, or ``CHUNKED``.

    Raises ``BadHead``: 501 for a coding other than chunked, 400 for chunked that is not alone or comes over
    HTTP/1.0 (RFC 9112 sections 6.1 and 6.3).
    """
    coding = message.headers.get(_TRANSFER_ENCODING)
    if coding is not None:
        if not message.chunked or coding.lower() != "chunked":
            if coding.strip() and "chunked" not in coding.lower():
                raise BadHead(501, "framing", "this transfer coding is not supported")
            raise BadHead(400, "framing", "the transfer coding is ambiguous")
        if message.version[1] == 0:
            raise BadHead(400, "framing", "chunked coding does not exist in HTTP/1.0")
        if len(message.headers.getall(_TRANSFER_ENCODING)) != 1:
            raise BadHead(400, "framing", "the transfer coding is given more than once")
        return CHUNKED
    length = message.headers.get(_CONTENT_LENGTH)
    if length is None:
        return 0
    return _digits(length, 400)


def response_length(message: ResponseMessage, method: str) -> int:
    """Bytes of the response body, ``CHUNKED`` or ``UNTIL_CLOSE`` (RFC 9112 section 6.3).

    Raises ``BadHead`` (502) for a coding that we would have to undo.
    """
    code = message.code
    if method == "HEAD" or code == 204 or code == 304:
        return 0
    length = message.headers.get(_CONTENT_LENGTH)
    if length is not None:
        return _digits(length, 502)
    coding = message.headers.get(_TRANSFER_ENCODING)
    if coding is None:
        return UNTIL_CLOSE
    if message.chunked and coding.lower() == "chunked" and len(message.headers.getall(_TRANSFER_ENCODING)) == 1:
        return CHUNKED
    raise BadHead(502, "upstream", "the upstream used a transfer coding that is not supported")


def stays_open(message: ResponseMessage) -> bool:
    """Whether the upstream keeps the connection (RFC 9112 section 9.3).

    The parser does not know that a response to HEAD has no body, and takes its missing length for "until close".
    """
    return message.version[1] == 1 and "close" not in ",".join(message.headers.getall("Connection", ())).lower()


def _digits(text: str, status: int) -> int:
    # int() alone would let through signs, separators and the digits of other scripts.
    # A leading zero means octal to some, so the next server might frame the body differently.
    if not (text.isascii() and text.isdigit() and len(text) <= 19) or (text[0] == "0" and text != "0"):
        raise BadHead(status, "framing", "the content length is not a number of bytes")
    return int(text)
