"""Loaded by mitmproxy: a request id on each exchange. It has no retry, and gets none here."""

from __future__ import annotations

import uuid
from typing import Any


def request(flow: Any) -> None:
    flow.request.headers.setdefault("X-Request-Id", str(uuid.uuid4()))


def response(flow: Any) -> None:
    flow.response.headers["X-Request-Id"] = flow.request.headers["X-Request-Id"]
