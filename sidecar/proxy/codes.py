"""Error answers counted by the upstream's own code, read where the policy says (``errors.code``).

Only codes that the policy names become a label; whatever else an upstream writes is ``other``. Nothing is counted for
upstreams whose policy does not say where a code stands, and nothing for answers that are no errors.
"""

from __future__ import annotations

from sidecar.proxy.looking import first_text, parsed
from sidecar.proxy.preparation import Prepared
from sidecar.wire.heads import ResponseMessage

__all__ = ["count_code"]


def count_code(prepared: Prepared, message: ResponseMessage, body: bytes) -> None:
    """``body``: what has come of it; empty counts as a code that nobody knows."""
    errors = prepared.bound.policy.errors
    if message.code >= 400 and errors.code:
        code = first_text(parsed(message, body), errors.code) if body else None
        prepared.destination.meters.erred(code, errors.known_codes)
