"""Which words of the closed lists (``core.enums``, ``core.flow.queue``) running sidecars have really said.

Every sidecar that a test runs over sockets notes its records here; ``pytest --every-word`` (as ``make test`` calls it)
fails where a word was said by none: it is either dead, or not tested.
"""

from __future__ import annotations

from typing import Final

from sidecar.core.enums import FailureKind, Outcome, Reason, Safe, Verb, WaitFrom
from sidecar.core.flow.queue import HELD_BY
from sidecar.observe.record import ExchangeRecord

__all__ = ["CLOSED", "note", "said", "unsaid"]

CLOSED: Final[dict[str, frozenset[str]]] = {
    "outcome": frozenset(Outcome),
    "reason": frozenset(Reason),
    "failure": frozenset(FailureKind),
    "then": frozenset(Verb) - {Verb.STORE},  # told by the outcome
    "wait from": frozenset(WaitFrom),
    "safe": frozenset(Safe),
    "held by": frozenset(HELD_BY),
}
"""Each closed list that a record can say a word of."""

said: Final[set[tuple[str, str]]] = set()
"""List and word, by this process."""


def note(record: ExchangeRecord) -> None:
    """What this record says."""
    said.add(("outcome", record.outcome))
    if record.reason is not None:
        said.add(("reason", record.reason))
    said.update(("held by", hold.by) for hold in record.held)
    for attempt in record.attempts:
        if attempt.failure is not None:
            said.add(("failure", attempt.failure))
        if attempt.wait_from is not None:
            said.add(("wait from", attempt.wait_from))
        if attempt.decision is not None:
            said.add(("then", attempt.decision.verb))
        if attempt.decision is not None and attempt.decision.safe_because is not None:
            said.add(("safe", attempt.decision.safe_because))


def unsaid(words: set[tuple[str, str]]) -> list[str]:
    """``reason: rate`` … of what nobody has said."""
    return sorted(f"{name}: {word}" for name, closed in CLOSED.items() for word in closed if (name, word) not in words)
