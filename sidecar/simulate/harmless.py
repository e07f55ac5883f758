"""The property "do no harm": the engine beside *plain*, under the same model, on the same dice.

*Plain* (``plain``) retries each request by itself with the same policy. ``compared`` runs both, ``harms`` judges:

- **ok**: successes of the sidecar ≥ plain's − 0.5 points.
- **p50**, **p90**: ≤ 1.5 × plain's + 50 ms, of the time until an exchange has its success. One without success counts
  as the deadline: to fail fast is no merit, and to save an exchange that plain gives up is no harm.
- **error p90**: of the exchanges that fail on both sides, the app is told no later than that either.
- **sends**: ≤ 1.1 × plain's.

Bystanders (requests that no part of the model concerns) are judged apart from the others, and always so. Of the
others, where the upstream was *exhausted or down* for plain (``EXHAUSTED_SHARE`` of its sends were turned away by a
quota, full slots or an outage), a fixed capacity is dealt out: a request that waits in line takes longer than the lucky
ones of a free-for-all. There p50 and p90 may be worse if the mean is not, and errors may come later, up to the
deadline.

**Chance.** A run of a few hundred requests cannot tell half a point. So a first run only raises suspicion; a suspect is
run on ``DICE`` fresh dice, and harms only if the pooled figures are beyond the limit, and beyond it by more than two
standard errors: of the differences between the sides (paired by dice) for counts, of the rank for a quantile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import fmean, stdev
from typing import Final, Literal

from sidecar.core.decision.attempt import Request
from sidecar.core.decision.policy import Policy
from sidecar.simulate.clock import Clock
from sidecar.simulate.composed import Composed
from sidecar.simulate.contenders import Side, Sidecar
from sidecar.simulate.models import Caller, Model
from sidecar.simulate.plain import Plain
from sidecar.simulate.random_models import simpler
from sidecar.simulate.stats import Stats

__all__ = ["DICE", "Compared", "Harm", "Pair", "Ran", "compared", "harm_of", "harms", "shrunk"]

DICE: Final = 8
"""Runs of a suspect: some 5,000 requests, of which half a point is 25."""
LOST_POINTS: Final = 0.005
SLOWER_FACTOR: Final = 1.5
SLOWER_SECONDS: Final = 0.05
"""What p90 may be later by, beside the factor."""
SENDS_FACTOR: Final = 1.1
EXHAUSTED_SHARE: Final = 0.05
"""Of plain's sends: below it, to wait for others costs more than it saves."""
SIGMAS: Final = 2.0
FEWEST_BYSTANDERS: Final = 30
LONGEST_SECONDS: Final = 200_000.0
"""Of a run, in virtual time: 1,000 exchanges of one worker, each held to its deadline, take 60,000."""

Word = Literal["ok", "p50", "p90", "error p90", "sends"]


@dataclass(slots=True)
class Ran:
    """One side after one run; lists are by the request's index."""

    took: list[float]
    """Seconds until the end of the exchange, at most the deadline."""
    good: list[bool]
    sends: int
    causes: Counter[str]
    reasons: Counter[str]
    """Why exchanges ended without success."""


@dataclass(slots=True)
class Pair:
    """Both sides of one run."""

    sidecar: Ran
    plain: Ran
    callers: list[Caller]


@dataclass(slots=True)
class Compared:
    """A model on several dice."""

    model: Model
    deadline_seconds: float
    pairs: list[Pair] = field(default_factory=list)
    p50_seconds: float = SLOWER_SECONDS
    """What p50 may be later by, beside the factor."""

    @property
    def is_exhausted(self) -> bool:
        """Whether a quota, full slots or an outage turned away a good part of what plain sent."""
        causes: Counter[str] = Counter()
        for pair in self.pairs:
            causes.update(pair.plain.causes)
        lost = causes["limit"] + causes["slots"] + causes["outage"] + causes["timeout"]
        return lost >= EXHAUSTED_SHARE * max(1, sum(pair.plain.sends for pair in self.pairs))


@dataclass(frozen=True, slots=True)
class Harm:
    """One rule that was broken."""

    word: Word
    group: Literal["all", "concerned", "bystanders"]
    sidecar: float
    plain: float

    def __str__(self) -> str:
        return f"{self.word} of {self.group}: {_told(self.word, self.sidecar)}, plain {_told(self.word, self.plain)}"


def _told(word: Word, value: float) -> str:
    if word == "ok":
        return f"{value * 100:.2f} %"
    return f"{value:.3f}" if word == "sends" else f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


# -- a run -----------------------------------------------------------------------------------------------


def compared(model: Model, policy: Policy, seeds: Sequence[int]) -> Compared:
    """Both sides, once for each seed of the dice."""
    found = Compared(model, policy.deadline_seconds)
    for seed in seeds:
        callers = model.traffic.callers(seed)
        requests = [model.traffic.request(caller, index) for index, caller in enumerate(callers)]
        ran = [_run(model, policy, seed, callers, requests, is_plain=is_plain) for is_plain in (False, True)]
        found.pairs.append(Pair(ran[0], ran[1], callers))
    return found


def _run(
    model: Model, policy: Policy, seed: int, callers: list[Caller], requests: list[Request], *, is_plain: bool
) -> Ran:
    clock, stats = Clock(seed), Stats(1.0)
    upstream = Composed(clock, model, seed, callers)
    side: Side = (Plain if is_plain else Sidecar)(clock, policy, upstream, stats)
    took, good = [0.0] * len(requests), [False] * len(requests)
    ended = [0]

    def end(index: int) -> None:
        ended[0] += 1
        _, seconds, is_good = stats.durations[-1]
        took[index] = min(seconds, policy.deadline_seconds)
        good[index] = is_good and seconds <= policy.deadline_seconds

    _offer(model, seed, clock, side, requests, end)
    while ended[0] < len(requests) and clock.now < LONGEST_SECONDS:
        clock.run(clock.now + 5.0)
    if ended[0] < len(requests):
        raise RuntimeError(f"{len(requests) - ended[0]} exchanges without an end after {LONGEST_SECONDS:g} s")
    return Ran(took, good, sum(stats.sent.values), upstream.causes, stats.reasons)


def _offer(
    model: Model, seed: int, clock: Clock, side: Side, requests: list[Request], end: Callable[[int], None]
) -> None:
    traffic = model.traffic
    if not traffic.workers:
        moments = traffic.moments(seed)

        def arrive(index: int) -> None:
            if index + 1 < len(requests):
                clock.at(moments[index + 1], arrive, index + 1)
            side.take(requests[index], index, lambda: end(index))

        clock.at(moments[0], arrive, 0)
        return
    given = [0]

    def work() -> None:
        index = given[0]
        if index >= len(requests):
            return
        given[0] += 1

        def done() -> None:
            end(index)
            clock.after(traffic.think, work)

        side.take(requests[index], index, done)

    for _ in range(min(traffic.workers, len(requests))):
        clock.at(0.0, work)


# -- the judgement ---------------------------------------------------------------------------------------


def harm_of(model: Model, policy: Policy, seed: int) -> tuple[list[Harm], Compared]:
    """What is wrong with the engine under this model, and the figures that say so; nothing is the usual answer."""
    first = compared(model, policy, [seed])
    if not harms(first, sigmas=0.0):
        return [], first
    more = compared(model, policy, [seed * 1000 + number for number in range(1, DICE + 1)])
    return harms(more), more


def harms(found: Compared, sigmas: float = SIGMAS) -> list[Harm]:
    """Every rule that is broken. ``sigmas``: by how many standard errors at the least."""
    broken = _lost(found, sigmas) + _sent(found, sigmas)
    concerned: list[tuple[int, int]] = []
    bystanders: list[tuple[int, int]] = []
    for number, pair in enumerate(found.pairs):
        for index, caller in enumerate(pair.callers):
            (concerned if found.model.concerns(caller) else bystanders).append((number, index))
    if len(bystanders) >= FEWEST_BYSTANDERS:
        broken += _slower(found, bystanders, "bystanders", sigmas, is_exhausted=False)
    if concerned:
        broken += _slower(found, concerned, "concerned", sigmas, is_exhausted=found.is_exhausted)
    return broken


def _is_certain(excess: list[float], sigmas: float) -> bool:
    """Whether the mean of these is more than so many standard errors above zero."""
    if len(excess) < 2 or not sigmas:
        return True
    return fmean(excess) > sigmas * stdev(excess) / sqrt(len(excess))


def _lost(found: Compared, sigmas: float) -> list[Harm]:
    mine = [fmean(pair.sidecar.good) for pair in found.pairs]
    other = [fmean(pair.plain.good) for pair in found.pairs]
    if fmean(other) - fmean(mine) <= LOST_POINTS:
        return []
    if not _is_certain([b - a for a, b in zip(mine, other, strict=True)], sigmas):
        return []
    return [Harm("ok", "all", fmean(mine), fmean(other))]


def _sent(found: Compared, sigmas: float) -> list[Harm]:
    excess = [float(pair.sidecar.sends - SENDS_FACTOR * pair.plain.sends) for pair in found.pairs]
    if fmean(excess) <= 0 or not _is_certain(excess, sigmas):
        return []
    requests = sum(len(pair.callers) for pair in found.pairs)
    mine, other = (sum(getattr(pair, side).sends for pair in found.pairs) for side in ("sidecar", "plain"))
    return [Harm("sends", "all", mine / requests, other / requests)]


def _slower(
    found: Compared,
    of: list[tuple[int, int]],
    group: Literal["concerned", "bystanders"],
    sigmas: float,
    *,
    is_exhausted: bool,
) -> list[Harm]:
    pairs, deadline = found.pairs, found.deadline_seconds
    both = [(pairs[number].sidecar, pairs[number].plain, index) for number, index in of]
    mine = [one.took[index] if one.good[index] else deadline for one, _, index in both]
    other = [one.took[index] if one.good[index] else deadline for _, one, index in both]
    broken = []
    if not is_exhausted or fmean(mine) > fmean(other) + SLOWER_SECONDS:
        broken += _beyond(mine, other, "p50", 0.5, group, sigmas, found.p50_seconds)
        broken += _beyond(mine, other, "p90", 0.9, group, sigmas)
    failed = [(a.took[index], b.took[index]) for a, b, index in both if not a.good[index] and not b.good[index]]
    if failed and not is_exhausted:
        mine, other = [a for a, _ in failed], [b for _, b in failed]
        broken += _beyond(mine, other, "error p90", 0.9, group, sigmas)
    return broken


def _beyond(
    mine: list[float],
    other: list[float],
    word: Word,
    share: float,
    group: Literal["concerned", "bystanders"],
    sigmas: float,
    seconds: float = SLOWER_SECONDS,
) -> list[Harm]:
    allowance = sigmas * sqrt(share * (1 - share) / len(mine))
    ours, theirs = _quantile(mine, share - allowance), _quantile(other, share)
    return [Harm(word, group, ours, theirs)] if ours > SLOWER_FACTOR * theirs + seconds else []


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[max(0, min(len(values) - 1, int(share * len(values))))]


# -- counter-examples ------------------------------------------------------------------------------------


def shrunk(model: Model, is_harmed: Callable[[Model], bool], most_tries: int = 150) -> Model:
    """The simplest model found that is still harmed."""
    candidates = simpler(model)
    for _ in range(most_tries):
        candidate = next(candidates, None)
        if candidate is None:
            break
        if is_harmed(candidate):
            model, candidates = candidate, simpler(candidate)
    return model
