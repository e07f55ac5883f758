"""What a policy test expects, compared with what the engine does: the judgement of ``sidecar test``.

A case is played twice, with every wait as short and as long as chance allows, and an expectation must hold of both: it
is about the whole range, never about one random number. The names of expectations are those of ``explain``'s object. It
reads no file and prints nothing. Counterpart: ``config.policy_tests``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.core.decision.attempt import Attempt, Request
from sidecar.core.decision.decide import Decision
from sidecar.core.decision.policy import Policy
from sidecar.core.dryrun.explain import explain_object
from sidecar.core.dryrun.replay import Step, rehearse

__all__ = ["Case", "Expected", "Failed", "Unmet", "judge"]

SHORTEST, LONGEST = 0.0, 1.0
"""The two ends of chance."""
TOLERANCE_SECONDS: Final = 1e-6
"""Seconds; binary fractions: 0.1 + 0.2 is not 0.3."""


@dataclass(frozen=True, slots=True)
class Expected:
    """One expectation about one response."""

    name: str
    """``decision``, ``wait``, ``wait.at_least``, ``row.file`` …"""
    value: object
    """A word, a number, a truth value or float seconds; None: there must be none."""
    line: int
    """The line of the file where it is written, from 1."""


@dataclass(frozen=True, slots=True)
class Case:
    """One policy test."""

    name: str
    file: str
    upstream: str
    policy: Policy
    request: Request
    answers: tuple[Attempt, ...]
    """The responses; ``ended_at`` is how many seconds each took."""
    lines: tuple[int, ...]
    """The line of the file where each response is written."""
    expected: tuple[tuple[Expected, ...], ...]
    """The expectations of each response; empty for one that only leads to the next."""
    wall: float
    """Unix seconds at the first send."""


@dataclass(frozen=True, slots=True)
class Unmet:
    """One expectation that does not hold."""

    name: str
    expected: str
    came: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A case that failed, at its first response with an unmet expectation."""

    case: Case
    line: int
    attempt: int
    unmet: tuple[Unmet, ...]
    decision: Decision
    """What was decided instead, for the explanation."""


Objects = Sequence[dict[str, Any]]
"""What ``explain`` says of one response, for each value of chance."""


def judge(case: Case) -> Failed | None:
    """None if everything holds."""
    plays = [rehearse(case.policy, case.request, case.answers, case.wall, chance) for chance in (SHORTEST, LONGEST)]
    for index, expected in enumerate(case.expected):
        ended = next((play for play in plays if len(play) <= index), None)
        if ended is not None:
            return _never_came(case, index, ended[-1])
        failed = _judge_step(case, index, expected, [play[index] for play in plays])
        if failed is not None:
            return failed
    return None


def _never_came(case: Case, index: int, last: Step) -> Failed:
    """The case has a response to a send that would not be made."""
    decision = last.decision
    reason = f" ({decision.reason})" if decision.reason is not None else ""
    unmet = Unmet("decision", "another send", f"{decision.verb}{reason}")
    return Failed(case, case.lines[index], index, (unmet,), decision)


def _judge_step(case: Case, index: int, expected: tuple[Expected, ...], steps: Sequence[Step]) -> Failed | None:
    told = [explain_object(case.upstream, case.policy.name, step.decision) for step in steps]
    held = [(wanted, _unmet(wanted, told)) for wanted in expected]
    found = [(wanted, unmet) for wanted, unmet in held if unmet is not None]
    if not found:
        return None
    first, _ = found[0]
    guilty = next((n for n, one in enumerate(told) if _unmet(first, [one]) is not None), 0)
    unmets = tuple(dict.fromkeys(unmet for _, unmet in found))
    return Failed(case, first.line, index + 1, unmets, steps[guilty].decision)


def _unmet(wanted: Expected, told: Objects) -> Unmet | None:
    block, _, key = wanted.name.partition(".")
    values = [one[block] for one in told]
    if not key:
        return _exactly(wanted, values)
    if any(value is None for value in values):
        return Unmet(block, f"a {block}", "null")
    return _of_wait(wanted, key, values) if block == "wait" else _of_row(wanted, key, values)


def _exactly(wanted: Expected, values: list[Any]) -> Unmet | None:
    if all(value == wanted.value for value in values):
        return None
    return Unmet(wanted.name, _text(wanted), _either(map(_shown, values)))


def _of_row(wanted: Expected, key: str, rows: list[Any]) -> Unmet | None:
    if key == "file":
        found = all(_is_same_file(str(wanted.value), row["file"]) for row in rows)
    else:
        found = all(row[key] == wanted.value for row in rows)
    return None if found else Unmet(wanted.name, _text(wanted), _either(map(_shown, rows)))


def _is_same_file(wanted: str, file: str) -> bool:
    """Whether both name the same file; ``wanted`` may be any tail of its path."""
    return f"/{file}".endswith(f"/{wanted}")


def _of_wait(wanted: Expected, key: str, waits: list[Any]) -> Unmet | None:
    if key == "from":
        words = [wait["from"] for wait in waits]
        return None if set(words) == {wanted.value} else Unmet(wanted.name, _text(wanted), _either(words))
    least, most = min(wait["min_seconds"] for wait in waits), max(wait["max_seconds"] for wait in waits)
    assert isinstance(wanted.value, float)  # noqa: S101 - for the type checker: the loader saw to it
    if ENDS[key](least, most, wanted.value):
        return None
    return Unmet(wanted.name, _text(wanted), _range(least, most))


ENDS: Final[dict[str, Callable[[float, float, float], bool]]] = {
    "min": lambda least, _most, wanted: abs(least - wanted) <= TOLERANCE_SECONDS,
    "max": lambda _least, most, wanted: abs(most - wanted) <= TOLERANCE_SECONDS,
    "at_least": lambda least, _most, wanted: least >= wanted - TOLERANCE_SECONDS,
    "at_most": lambda _least, most, wanted: most <= wanted + TOLERANCE_SECONDS,
}
"""Checks of an expected wait: whether the range from ``least`` to ``most`` seconds is as wanted."""


def _text(wanted: Expected) -> str:
    return _seconds(wanted.value) if isinstance(wanted.value, float) else _shown(wanted.value)


def _shown(value: Any) -> str:
    """The value as its author would write it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        if "from" in value:
            return f"{value['from']} {_range(value['min_seconds'], value['max_seconds'])}"
        return f"{value['file']}:{value['line']}"
    return str(value)


def _either(texts: Any) -> str:
    """One text, or two that differ by chance alone."""
    return " or ".join(dict.fromkeys(texts))


def _range(least: float, most: float) -> str:
    return _seconds(least) if most <= least else f"{_seconds(least)} … {_seconds(most)}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.6g}s"
