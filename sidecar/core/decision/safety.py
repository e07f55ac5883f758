"""Whether sending an attempt again can do harm: the five permissions (section 3 of the design; RFC 9110 section 9.2.2).

It decides nothing else. ``decide`` judges whether a retry is wanted, how long to wait and what it costs;
``upstream.connection`` knows whether bytes were written (``Attempt.written``).
"""

from __future__ import annotations

from sidecar.core.decision.attempt import Attempt, Request
from sidecar.core.decision.policy import Policy
from sidecar.core.decision.rows import Row
from sidecar.core.enums import IDEMPOTENT_METHODS, Safe

__all__ = ["why_safe"]


def why_safe(policy: Policy, row: Row | None, request: Request, attempt: Attempt) -> Safe | None:
    """The first permission that allows this attempt to be repeated, or None: it may have been applied.

    1. it was never sent; 2. its method is idempotent (RFC 9110 section 9.2.2; methods are case-sensitive,
    section 9.1); 3. it carries a key that the upstream honours; 4. with this answer the upstream states
    that it did not act; 5. the operator takes the risk for this method (``resend_methods``).
    """
    if not attempt.written and attempt.status is None:
        return Safe.NEVER_SENT
    if request.method in IDEMPOTENT_METHODS:
        return Safe.IDEMPOTENT
    if request.keyed:
        return Safe.KEYED
    if is_unprocessed(row, attempt):
        return Safe.NOT_PROCESSED
    if request.method in policy.resend_methods:
        return Safe.RESEND_METHODS
    return None


def is_unprocessed(row: Row | None, attempt: Attempt) -> bool:
    """Whether the upstream states, by a whole answer, that it did not act. A failure states nothing.

    Where the row is silent, 429 does: the request was refused for its rate (RFC 6585 section 4).
    """
    if attempt.status is None or attempt.failure is not None:
        return False
    if row is None or row.processed is None:
        return attempt.status == 429
    return not row.processed
