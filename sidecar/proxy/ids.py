"""Ids: the app's own if they are sane, else new ones.

A request id and a correlation id stay the same over every attempt; a trace keeps its id and gets a new span
for each (``sidecar.observe.trace``). New ids are 128 random bits; they are names, not secrets.
"""

from __future__ import annotations

import random
import string
import uuid
from typing import Literal

__all__ = ["idempotency_key", "new_id", "sane"]

SANE = string.ascii_letters + string.digits + "-._~:/+=@!#$%&*()|^?"
"""Visible ASCII without what separates or quotes in logs, headers and shells: no space , ; " ' ` \\ < > [ ] { }."""
LONGEST = 128


def sane(value: str | None) -> bool:
    """Whether an id of the app may be kept: 1-128 characters of ``SANE``."""
    return value is not None and 0 < len(value) <= LONGEST and not value.strip(SANE)


def new_id() -> str:
    """32 hexadecimal digits."""
    return f"{random.getrandbits(128):032x}"


def idempotency_key(form: Literal["uuid", "quoted"]) -> str:
    """A new key: a bare UUID, or the structured string of the IETF draft (httpapi-idempotency-key-header)."""
    key = str(uuid.uuid4())
    return f'"{key}"' if form == "quoted" else key
