"""``python -m benchmarks.harmless``: the engine beside plain retries under thousands of random upstreams.

Each seed is a model (``sidecar.simulate.random_models``), run on a virtual clock on the same dice for both sides and
judged by ``sidecar.simulate.harmless``. A counter-example is printed in words, with both sides' figures, made simpler,
and spelled as a constructor to be pasted into a test. Exit code 0: no harm and clear help; 1: harm.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

from sidecar.config.load import load_policy
from sidecar.core.decision.policy import Policy
from sidecar.simulate.harmless import Compared, Harm, harm_of, shrunk
from sidecar.simulate.models import Model, described, spelled
from sidecar.simulate.random_models import ROWS, drawn

DEFAULT = Path(__file__).resolve().parents[1] / "config" / "policies" / "default.yaml"
CHUNK = 10
CLEARLY = 0.8
"""Wasted sends, and failed exchanges, of plain's: at most this share where holding can help, over all such models."""


@dataclass(frozen=True)
class Verdict:
    """Of one seed, small enough to be handed between processes."""

    name: str
    model: Model
    harms: tuple[Harm, ...]
    figures: str
    reasons: str
    is_exhausted: bool
    requests: int
    wasted: tuple[int, int]
    """Sends without success: the sidecar's, and plain's."""
    failed: tuple[int, int]


def main() -> int:
    given = _parser().parse_args()
    began = time.perf_counter()
    verdicts: list[Verdict] = []
    for verdict in _asked_for(given):
        verdicts.append(verdict)
        harmed = sum(bool(one.harms) for one in verdicts)
        if given.one is not None or given.rows or given.row:
            say(f"{'HARM' if verdict.harms else 'ok  '} {verdict.name}: {verdict.figures}")
        if verdict.harms and harmed <= given.show:
            tell(verdict, shrink=harmed <= given.shrink)
    seconds = time.perf_counter() - began
    bad = [verdict for verdict in verdicts if verdict.harms]
    words = Counter(f"{harm.word} of {harm.group}" for verdict in bad for harm in verdict.harms)
    say(f"\n{len(verdicts)} models, {len(bad)} harmed, {seconds:.0f} s, {1000 * seconds / len(verdicts):.1f} ms each")
    say("  " + ", ".join(f"{count} × {word}" for word, count in words.most_common()))
    helps = tell_help(verdicts)
    return 1 if bad or not helps else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.harmless", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many models")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="processes")
    parser.add_argument("--one", type=int, help="this seed alone, told in full")
    parser.add_argument("--show", type=int, default=20, help="how many counter-examples to print")
    parser.add_argument("--shrink", type=int, default=5, help="how many of them to make simpler")
    parser.add_argument("--rows", action="store_true", help="the named models in place of seeds")
    parser.add_argument("--row", action="append", choices=list(ROWS), help="one of them; may be repeated")
    return parser


@cache
def shipped_policy() -> Policy:
    return load_policy(DEFAULT).policy


def _asked_for(given: argparse.Namespace) -> Iterator[Verdict]:
    if given.rows or given.row:
        yield from map(judged_row, given.row or ROWS)
    elif given.one is not None or given.jobs < 2:
        first, count = (given.first, given.seeds) if given.one is None else (given.one, 1)
        yield from map(judged, range(first, first + count))
    else:
        with ProcessPoolExecutor(given.jobs) as pool:
            yield from pool.map(judged, range(given.first, given.first + given.seeds), chunksize=CHUNK)


def judged(seed: int) -> Verdict:
    return _judged(f"seed {seed}", drawn(seed), seed)


def judged_row(name: str) -> Verdict:
    return _judged(name, ROWS[name], 1)


def _judged(name: str, model: Model, seed: int) -> Verdict:
    harms, found = harm_of(model, shipped_policy(), seed)
    pairs = found.pairs
    reasons: Counter[str] = Counter()
    for pair in pairs:
        reasons.update(pair.sidecar.reasons)
    return Verdict(
        name,
        model,
        tuple(harms),
        figures(found),
        ", ".join(f"{count} × {reason}" for reason, count in reasons.most_common(4)),
        found.is_exhausted,
        sum(len(pair.callers) for pair in pairs),
        (
            sum(pair.sidecar.sends - sum(pair.sidecar.good) for pair in pairs),
            sum(pair.plain.sends - sum(pair.plain.good) for pair in pairs),
        ),
        (
            sum(len(pair.callers) - sum(pair.sidecar.good) for pair in pairs),
            sum(len(pair.callers) - sum(pair.plain.good) for pair in pairs),
        ),
    )


def figures(found: Compared) -> str:
    parts = []
    for side in ("sidecar", "plain"):
        ran = [getattr(pair, side) for pair in found.pairs]
        took = sorted(seconds for one in ran for seconds in one.took)
        ok = fmean(fmean(one.good) for one in ran)
        sends = sum(one.sends for one in ran) / len(took)
        p50, p90 = took[len(took) // 2], took[len(took) * 9 // 10]
        parts.append(f"{side} {ok * 100:.2f} % ok, p50 {p50:.3f} s, p90 {p90:.3f} s, {sends:.3f} sends")
    return " | ".join(parts)


def tell(verdict: Verdict, *, shrink: bool) -> None:
    say(f"\nHARM {verdict.name}: {described(verdict.model)}")
    for harm in verdict.harms:
        say(f"  {harm}")
    say(f"  {verdict.figures}")
    say(f"  without success because of: {verdict.reasons or 'nothing'}")
    model = verdict.model
    if shrink:
        number = int(verdict.name.split()[-1]) if verdict.name.startswith("seed ") else 1
        words = {harm.word for harm in verdict.harms}

        def is_harmed(candidate: Model) -> bool:
            return any(harm.word in words for harm in harm_of(candidate, shipped_policy(), number)[0])

        model = shrunk(model, is_harmed)
        smaller = _judged("shrunk", model, number)
        say(f"  shrunk: {described(model)}")
        say(f"    {'; '.join(map(str, smaller.harms))}")
        say(f"    {smaller.figures}")
    say(f"  {spelled(model)}")


def tell_help(verdicts: Sequence[Verdict]) -> bool:
    """Where the upstream was exhausted or down: whether holding helped, over all such models."""
    there = [verdict for verdict in verdicts if verdict.is_exhausted]
    if not there:
        return True
    wasted = [sum(verdict.wasted[side] / verdict.requests for verdict in there) for side in (0, 1)]
    failed = [sum(verdict.failed[side] / verdict.requests for verdict in there) for side in (0, 1)]
    helps = wasted[0] <= CLEARLY * wasted[1] and failed[0] <= CLEARLY * failed[1]
    shares = [mine / max(1e-9, plains) for mine, plains in (wasted, failed)]
    say(
        f"exhausted or down: {len(there)} models; of plain's, {shares[0]:.3f} of the sends without success"
        f" and {shares[1]:.3f} of the failed exchanges (each asked ≤ {CLEARLY}):"
        f" {'clearly better' if helps else 'NOT clearly better'}"
    )
    return helps


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
