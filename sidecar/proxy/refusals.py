"""A request that goes nowhere, as an exception: raised by whoever judges it, answered by the exchange."""

from __future__ import annotations

__all__ = ["Refused"]


class Refused(Exception):
    """``status`` is the answer for the app, ``kind`` a word for the counter, ``lines`` further fields of the answer."""

    def __init__(self, status: int, kind: str, detail: str, lines: bytes = b"") -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.lines = lines
