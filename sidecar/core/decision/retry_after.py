"""How long the upstream itself asks us to wait: ``Retry-After`` (RFC 9110 section 10.2.3) and every other hint.

An ordered list of sources; the first usable one wins. A source has a place and a unit; a name never implies a unit,
except ``Retry-After``. Garbage and negative amounts are ignored and the next source is read: never an exception, never
an instant retry. Of a field repeated with different values the longest counts, since a hint is a minimum. A past date,
or zero, is usable and means 0 seconds. Counterpart: ``decide``, which judges what the hint leads to (jitter,
``max_wait``, the deadline, the gate).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sidecar.core.decision.attempt import Attempt, Now, Request
from sidecar.core.decision.conditions import Look, NumberText
from sidecar.core.decision.rows import Condition, HintSource
from sidecar.core.decision.times import duration, http_date, iso8601, json_number, number
from sidecar.core.enums import Unit, WaitFrom

__all__ = ["Hint", "Reading", "SourceState", "members_of", "read_hint", "read_sources"]

LONGEST_FIELD: Final = 8 << 10
"""Characters of a field with parameters; a longer field is ignored."""
FIRST_EPOCH_S: Final = 1e9
"""Unit ``auto``: a number below this counts seconds from now, from this on it is epoch seconds (1e9 is in 2001)."""
FIRST_EPOCH_MS: Final = 1e11
"""Unit ``auto``: from this on a number is epoch milliseconds (1e11 is in 1973; as epoch seconds, in the year 5138)."""

MEMBERS: Final = re.compile(r'(?:[^,"]|"[^"]*")+')
PARAMETERS: Final = re.compile(r'(?:[^;"]|"[^"]*")+')


@dataclass(frozen=True, slots=True)
class Hint:
    """A usable hint of the upstream, or the policy's constant in its place."""

    seconds: float
    """Seconds from now; never negative, infinite for a number too large to count."""
    source: WaitFrom
    """``hint`` or ``constant``."""


class SourceState(StrEnum):
    """The result of one source of a wait."""

    USED = "used"
    """The first usable one: it is the hint."""
    GUARD_FAILED = "guard_failed"
    """A condition of its ``when`` does not hold."""
    ABSENT = "absent"
    """There is nothing at its place."""
    UNREADABLE = "unreadable"
    """The text at its place is no amount in its unit, or a negative one."""
    NOT_ASKED = "not_asked"
    """An earlier source was usable."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One source, and its result."""

    source: HintSource
    state: SourceState
    hint: Hint | None = None
    """The hint; with ``used`` only."""
    found: tuple[str, ...] = ()
    """The texts at its place, as the upstream sent them: not cleaned, not cut."""
    failed: Condition | None = None
    """With ``guard_failed``: the first condition that does not hold."""


def read_hint(
    sources: tuple[HintSource, ...], request: Request, attempt: Attempt, now: Now, look: Look | None = None
) -> Hint | None:
    """The hint of the first usable source, or None. ``look`` shares one parsed body with the table."""
    look = look or Look(request, attempt)
    for source in sources:
        if source.when and not look.all_hold(source.when):
            continue
        hint = _hint(source, look, now)
        if hint is not None:
            return hint
    return None


def read_sources(sources: tuple[HintSource, ...], request: Request, attempt: Attempt, now: Now) -> tuple[Reading, ...]:
    """The result of each source, in order. The one that is ``used``, if any, is what ``read_hint`` returns.

    For ``explain``; the path of a request calls ``read_hint``.
    """
    look = Look(request, attempt)
    readings: list[Reading] = []
    for source in sources:
        is_settled = bool(readings) and readings[-1].state in (SourceState.USED, SourceState.NOT_ASKED)
        readings.append(Reading(source, SourceState.NOT_ASKED) if is_settled else _reading(source, look, now))
    return tuple(readings)


def _reading(source: HintSource, look: Look, now: Now) -> Reading:
    failed = next((condition for condition in source.when if not look.holds(condition)), None)
    if failed is not None:
        return Reading(source, SourceState.GUARD_FAILED, failed=failed)
    hint, found = _hint(source, look, now), _found(source, look)
    if hint is not None:
        return Reading(source, SourceState.USED, hint, found)
    return Reading(source, SourceState.UNREADABLE if found else SourceState.ABSENT, found=found)


def _found(source: HintSource, look: Look) -> tuple[str, ...]:
    if source.place == "constant":
        return ()
    if source.place != "body":
        return tuple(look.attempt.headers.all(source.name))
    values = look.body_values(source.name)
    return tuple(v if isinstance(v, str) else f"a JSON value of the type {type(v).__name__}" for v in values)


def _hint(source: HintSource, look: Look, now: Now) -> Hint | None:
    """The hint of one source, if usable; its guard is not checked."""
    seconds = _seconds(source, look, now)
    if seconds is None or not seconds >= 0:  # also for NaN
        return None
    from_ = WaitFrom.CONSTANT if source.place == "constant" else WaitFrom.HINT
    return Hint(max(seconds + source.plus_seconds, source.at_least_seconds, 0.0), from_)


def _seconds(source: HintSource, look: Look, now: Now) -> float | None:
    """Seconds from now by one source; 0 for a past moment; None if it is not usable."""
    if source.place == "constant":
        return source.constant_seconds
    wall = _wall(source, look, now)
    if source.place == "field":
        return _longest([_read(text, source.unit, wall) for text in _field_texts(source, look)])
    if source.place == "body":
        values = look.body_values(source.name)
        return _longest([_read(value, source.unit, wall) for value in values if isinstance(value, str)])
    return _longest(
        [_read_line(text.strip(" \t"), source.unit, wall) for text in look.attempt.headers.all(source.name)]
    )


def _read_line(text: str, unit: Unit, wall: float) -> float | None:
    """One line of a header field; of several lines that were joined by a proxy (RFC 9110 section 5.2), the longest."""
    seconds = _read(text, unit, wall)
    if seconds is None and ", " in text and len(text) <= LONGEST_FIELD:
        return _longest([_read(part.strip(" \t"), unit, wall) for part in text.split(", ")])
    return seconds


def _wall(source: HintSource, look: Look, now: Now) -> float:
    """The clock that moments are measured against: ours, or that of the response's ``Date``."""
    if source.clock == "server":
        dates = set(look.attempt.headers.all("date"))
        date = http_date(dates.pop().strip(" \t"), now.wall) if len(dates) == 1 else None
        return now.wall if date is None else date
    return now.wall


def _longest(found: list[float | None]) -> float | None:
    return max((seconds for seconds in found if seconds is not None), default=None)


def _read(text: str, unit: Unit, wall: float) -> float | None:
    """Seconds from ``wall`` by the grammar of the unit, 0 for a past moment."""
    amount = json_number(text) if isinstance(text, NumberText) else number(text)
    return READERS[unit](text, amount, wall)


def _delta(text: str, amount: float | None, wall: float) -> float | None:
    return amount


def _milliseconds(text: str, amount: float | None, wall: float) -> float | None:
    return None if amount is None else amount / 1000


def _epoch(text: str, amount: float | None, wall: float) -> float | None:
    return _until(amount, wall)


def _epoch_milliseconds(text: str, amount: float | None, wall: float) -> float | None:
    return _until(None if amount is None else amount / 1000, wall)


def _date(text: str, amount: float | None, wall: float) -> float | None:
    return _until(http_date(text, wall), wall)


def _timestamp(text: str, amount: float | None, wall: float) -> float | None:
    return _until(iso8601(text), wall)


def _duration(text: str, amount: float | None, wall: float) -> float | None:
    return duration(text)


def _retry_after(text: str, amount: float | None, wall: float) -> float | None:
    """RFC 9110 section 10.2.3, with a decimal point, which some servers send."""
    return _date(text, amount, wall) if amount is None else amount


def _auto(text: str, amount: float | None, wall: float) -> float | None:
    """A guess by size and form, for APIs that are inconsistent; a named unit is always better."""
    if amount is None:
        guesses = (http_date(text, wall), iso8601(text))
        moment = next((guess for guess in guesses if guess is not None), None)
        return duration(text) if moment is None else _until(moment, wall)
    if amount < FIRST_EPOCH_S:
        return amount
    return _until(amount if amount < FIRST_EPOCH_MS else amount / 1000, wall)


READERS: Final[dict[Unit, Callable[[str, float | None, float], float | None]]] = {
    Unit.S: _delta,
    Unit.MS: _milliseconds,
    Unit.EPOCH_S: _epoch,
    Unit.EPOCH_MS: _epoch_milliseconds,
    Unit.HTTP_DATE: _date,
    Unit.ISO8601: _timestamp,
    Unit.DURATION: _duration,
    Unit.AUTO: _auto,
    Unit.RETRY_AFTER: _retry_after,
}


def _until(moment: float | None, wall: float) -> float | None:
    """Seconds until a moment in Unix seconds; 0 if it is past."""
    return None if moment is None else max(0.0, moment - wall)


def _field_texts(source: HintSource, look: Look) -> list[str]:
    """The values of one parameter inside a field, as ``"default";r=0;t=5`` or ``limit=100, reset=5``.

    Members with quota left (``r`` above 0, draft-ietf-httpapi-ratelimit-headers) did not refuse us and are left out.
    The caller takes the longest of the rest.
    """
    members = [
        member
        for line in look.attempt.headers.all(source.name)
        for member in members_of(line)
        if source.field.lower() in member
    ]
    if len(members) > 1:
        members = [member for member in members if not _has_units_left(member)]
    return [member[source.field.lower()] for member in members]


def members_of(line: str) -> list[dict[str, str]]:
    """The parameters of each comma-separated member, by lower-case name, without their quotes."""
    if len(line) > LONGEST_FIELD or line.count('"') % 2:
        # A quote is never closed, so no member's end is known (RFC 9651 section 4.2: ignore the field).
        return []
    return [
        {name.strip().lower(): value.strip().strip('"') for name, value in _pairs(member)}
        for member in MEMBERS.findall(line)
    ]


def _pairs(member: str) -> Iterator[tuple[str, str]]:
    for parameter in PARAMETERS.findall(member):
        name, _, value = parameter.partition("=")
        yield name, value


def _has_units_left(member: dict[str, str]) -> bool:
    left = number(member.get("r", "0"))
    return left is not None and left > 0
