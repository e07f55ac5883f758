"""Faults that the fuzz finds and that are not mended yet: each with what it is. The goal is an empty table."""

from __future__ import annotations

import re

__all__ = ["KNOWN", "is_known"]

KNOWN = {
    r"a healthy body was cut": "a young body is cut at the deadline",
    r"another X-Request-Id: \('408'": "the 408 of a stalled request body does not carry the request's id",
    r"Spinning": "a lane of the outbox spins after its upstream was removed",
    r"before the hint of": "a hint is forgotten: by the outbox at a restart, by a hedged request",
    r"though .* may have been applied": "an older answer is handed over after a send that may have been applied",
    r"still waits though its time is over": "the outbox and hints, restarts",
    r"dead letter|stored, and|not delivered in 30 s": "the outbox and hints, restarts",
    r"at rest|at the end|afterwards": "sends that never end, and what that holds",
    r"Task was destroyed|tasks are left": "tasks cancelled before their first step",
    r"after its deadline|after the app had its answer": "sends after the deadline",
    r"before the app's FIN": "pipelined requests before a FIN",
    r"without an answer": "conversations without an end",
}


def is_known(fault: str) -> bool:
    return any(re.search(pattern, fault) for pattern in KNOWN)
