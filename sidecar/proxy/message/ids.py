"""Ids: the app's own if they are sane, else new ones.

A request id and a correlation id stay the same over every attempt; a trace keeps its id and gets a new span
for each (``sidecar.observe.trace``). New ids are 128 random bits; they are names, not secrets.
"""

# Compiled in the wheel.

from __future__ import annotations

import random
import string
import uuid
from typing import Final, Literal

__all__ = ["idempotency_key", "new_id", "sane"]

SANE: Final = string.ascii_letters + string.digits + "-._~:/+=@!#$%&*()|^?"
"""Visible ASCII without what separates or quotes in logs, headers and shells: no space , ; " ' ` \\ < > [ ] { }."""
LONGEST: Final = 128
PAGE_BYTES: Final = 4096


def sane(value: str | None) -> bool:
    """Whether an id of the app may be kept: 1-128 characters of ``SANE``."""
    return value is not None and 0 < len(value) <= LONGEST and not value.strip(SANE)


class _Ids:
    """Random hexadecimal digits, drawn ``PAGE_BYTES`` at a time and cut into ids: an eighth of the cost of drawing
    each.
    """

    __slots__ = ("_at", "_digits")

    def __init__(self) -> None:
        self._digits = ""
        self._at = 0

    def next(self) -> str:
        at = self._at
        if at == len(self._digits):
            self._digits = random.randbytes(PAGE_BYTES).hex()
            at = 0
        self._at = at + 32
        return self._digits[at : at + 32]


new_id = _Ids().next
"""32 hexadecimal digits."""


def idempotency_key(form: Literal["uuid", "quoted"]) -> str:
    """A new key: a bare UUID, or the structured string of the IETF draft (httpapi-idempotency-key-header)."""
    key = str(uuid.uuid4())
    return f'"{key}"' if form == "quoted" else key
