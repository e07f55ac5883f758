"""A request that is refused, as an exception: raised where it is checked, answered by the exchange."""

from __future__ import annotations

from typing import Final

__all__ = ["Refused", "own_options"]

ALLOW: Final = b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, QUERY, CONNECT\r\n"


class Refused(Exception):
    """``status`` is that of the response, ``kind`` a word for the counter, ``lines`` further header lines."""

    def __init__(self, status: int, kind: str, detail: str, lines: bytes = b"") -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.lines = lines


def own_options() -> Refused:
    """The response to an OPTIONS that asks about this proxy itself: ``*``, or the last of ``Max-Forwards``.

    RFC 9110 sections 7.6.2 and 9.3.7. Other methods with ``Max-Forwards: 0`` are passed on, except TRACE.
    """
    return Refused(204, "options", "", ALLOW)
