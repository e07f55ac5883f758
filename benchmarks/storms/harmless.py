"""``python -m benchmarks.storms.harmless``: do no harm, over real sockets.

The sidecar as it is shipped, beside the same app without a sidecar that retries each request by itself with the same
policy (``decide``: Retry-After, full jitter, five sends; nothing shared). Both meet the same model on the same dice:
the eight named ones and a few dozen random ones (``sidecar.simulate.random_models``). Judged as in the simulation
(``sidecar.simulate.harmless``), with 20 ms for p50. Exit code 0: no harm; 1: harm, named.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path

import uvloop

from benchmarks.harmless import figures, shipped_policy
from benchmarks.http1 import Answer, get, wait_for_answer
from benchmarks.machine import busy_share, described
from benchmarks.peers import free_port
from benchmarks.process import CORE_LOAD, Process, raise_file_limit
from benchmarks.report import table
from benchmarks.running import peer_running
from benchmarks.storms.apps import REASON, Apps
from benchmarks.storms.judge import Arrival
from benchmarks.storms.peers import STANDING
from sidecar.core.decision.attempt import Attempt, Headers, Now, Pressure
from sidecar.core.decision.decide import decide
from sidecar.core.decision.policy import Policy
from sidecar.core.decision.table import policy_passes
from sidecar.core.enums import FailureKind, Verb
from sidecar.simulate.clock import unit
from sidecar.simulate.harmless import Compared, Harm, Pair, Ran, compared, harms
from sidecar.simulate.models import Model, model_json, spelled
from sidecar.simulate.models import described as in_words
from sidecar.simulate.random_models import ROWS, drawn

RESULTS = Path(__file__).parents[1] / "results"
P50_SECONDS = 0.02
DICE_SEED = 1
RANDOM_MODELS = 32
MOST_PER_SECOND = 120.0
"""Of a random model: a real load of both sides at once must not be what makes it slow."""
LONGEST_SECONDS = 40.0
"""Until plain has its last answer, in the simulation."""
AT_ONCE = 3
"""Models under way at the same time, each with both of its sides."""
QUICK_REQUESTS = 150
NO_PRESSURE = Pressure()


@dataclass(frozen=True)
class Found:
    name: str
    pair: Pair
    compared: Compared
    harms: Sequence[Harm]


class ModelApps(Apps):
    """The apps of a model. ``policy``: they retry by themselves; None: a sidecar does it for them."""

    def __init__(self, port: int, model: Model, seed: int, policy: Policy | None) -> None:
        super().__init__(port)
        self._model, self._seed, self._policy = model, seed, policy
        self._callers = model.traffic.callers(seed)
        self.took = [0.0] * len(self._callers)
        self.good = [False] * len(self._callers)
        self.reasons: Counter[str] = Counter()

    async def take(self, index: int, due_at: float) -> None:
        """One request, from the moment when it was due to its end."""
        good, reason = await (self._once(index) if self._policy is None else self._until_done(index, self._policy))
        self.took[index] = time.monotonic() - due_at
        self.good[index] = good
        if not good:
            self.reasons[reason] += 1

    async def _once(self, index: int) -> tuple[bool, str]:
        answer = await self._asked(index)
        if answer is None:
            return False, "cut"
        found = REASON.search(answer.head)
        return answer.status < 400, f"{answer.status} {found[1].decode() if found else ''}".strip()

    async def _until_done(self, index: int, policy: Policy) -> tuple[bool, str]:
        request = self._model.traffic.request(self._callers[index], index)
        request = replace(request, deadline_at=time.monotonic() + policy.deadline_seconds)
        history: tuple[Attempt, ...] = ()
        for number in count(1):
            sent_at = time.monotonic()
            patience = min(policy.timeouts.head_seconds, request.deadline_at - sent_at)
            answer, failure = None, FailureKind.CLOSED
            try:
                answer = await asyncio.wait_for(self._asked(index), patience)
            except TimeoutError:
                failure = FailureKind.HEAD_TIMEOUT
            if answer is not None and policy_passes(policy, answer.status):
                return answer.status < 400, str(answer.status)
            now = time.monotonic()
            attempt = Attempt(
                number,
                status=None if answer is None else answer.status,
                headers=Headers(() if answer is None else fields_of(answer)),
                failure=None if answer is not None else failure,
                started_at=sent_at,
                ended_at=now,
            )
            history += (attempt,)
            chance = unit(self._seed, index, number)
            decision = decide(policy, request, history, Now(now, time.time()), chance, NO_PRESSURE)
            if decision.verb is not Verb.RETRY or decision.wait is None:
                return False, str(decision.reason)
            await asyncio.sleep(decision.wait.seconds)
        raise AssertionError

    async def _asked(self, index: int) -> Answer | None:
        try:
            wire = await self.wire()
            answer = await wire.ask(self._bytes(index))
        except asyncio.CancelledError:
            wire.transport.abort()
            raise
        except OSError:
            return None
        if wire.is_open:
            self.idle.append(wire)
        return answer

    def _bytes(self, index: int) -> bytes:
        caller = self._callers[index]
        request = self._model.traffic.request(caller, index)
        fields = b"".join(b"%b: %b\r\n" % field for field in self._model.traffic.fields(caller, index))
        line = f"{caller.method} {request.path} HTTP/1.1\r\n".encode()
        return line + fields + b"\r\n" + b"x" * caller.size_bytes


def fields_of(answer: Answer) -> tuple[tuple[bytes, bytes], ...]:
    lines = answer.head.split(b"\r\n")[1:]
    pairs = [line.partition(b":") for line in lines if line]
    return tuple((name.strip(), value.strip()) for name, _, value in pairs)


async def offered(apps: ModelApps, model: Model, seed: int) -> None:
    """The whole load."""
    traffic = model.traffic
    if traffic.workers:
        numbers = iter(range(traffic.requests))

        async def work() -> None:
            for index in numbers:
                await apps.take(index, time.monotonic())
                await asyncio.sleep(traffic.think)

        await asyncio.gather(*(work() for _ in range(min(traffic.workers, traffic.requests))))
        return
    began_at = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for index, moment in enumerate(traffic.moments(seed)):
            due_at = began_at + moment
            await asyncio.sleep(max(0.0, due_at - time.monotonic()))
            group.create_task(apps.take(index, due_at))


def stand(name: str, model: Model, policy: Policy, folder: Path) -> Found:
    """Both sides of one model, at the same time, each before an upstream of its own."""
    with ThreadPoolExecutor(2) as pool:
        sides = [pool.submit(_side, name, model, policy, folder, is_plain) for is_plain in (False, True)]
        mine, other = (side.result() for side in sides)
    pair = Pair(mine, other, model.traffic.callers(DICE_SEED))
    found = Compared(model, policy.deadline_seconds, [pair], P50_SECONDS)
    return Found(name, pair, found, harms(found))


def _side(name: str, model: Model, policy: Policy, folder: Path, is_plain: bool) -> Ran:
    place = folder / f"{name}-{'plain' if is_plain else 'sidecar'}"
    place.mkdir(parents=True)
    described = place / "storm.json"
    parameters = {"spec": model_json(model), "seed": DICE_SEED}
    described.write_text(json.dumps({"model": "composed", "parameters": parameters}))
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.storms.upstream", str(port), str(described), str(DICE_SEED)]
    with Process(command, CORE_LOAD, place / "upstream.log") as upstream:
        wait_for_answer("/", port, upstream.is_running)
        if is_plain:
            return _loaded(port, port, model, policy)
        with peer_running(STANDING[0], place, port) as running:
            return _loaded(running.port, port, model, None)


def _loaded(port: int, upstream: int, model: Model, policy: Policy | None) -> Ran:
    apps = ModelApps(port, model, DICE_SEED, policy)
    get("/begin", upstream)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(offered(apps, model, DICE_SEED))
        runner.run(_closed(apps))
    arrivals = [Arrival(*row) for row in json.loads(get("/log", upstream).body)]
    causes = Counter(json.loads(get("/causes", upstream).body))
    longest = shipped_policy().deadline_seconds
    took = [min(seconds, longest) for seconds in apps.took]
    return Ran(took, apps.good, len(arrivals), causes, apps.reasons)


async def _closed(apps: ModelApps) -> None:
    apps.close()


@cache
def random_models(number: int) -> dict[str, Model]:
    """The first so many seeds whose load a small machine can bear, and which end soon."""
    found: dict[str, Model] = {}
    seeds = count()
    while len(found) < number:
        seed = next(seeds)
        model = drawn(seed)
        if _is_bearable(model) and _seconds(model, seed) <= LONGEST_SECONDS:
            found[f"seed {seed}"] = model
    return found


def _is_bearable(model: Model) -> bool:
    traffic = model.traffic
    if traffic.workers:
        return traffic.workers / (model.latency.seconds + traffic.think) <= MOST_PER_SECOND
    return traffic.rate <= MOST_PER_SECOND


def _seconds(model: Model, seed: int) -> float:
    """How long plain takes for all of it: in closed loop its workers' time, else the load and the longest of them."""
    plain, traffic = compared(model, shipped_policy(), [seed]).pairs[0].plain, model.traffic
    if traffic.workers:
        return sum(plain.took) / traffic.workers
    return traffic.seconds + max(plain.took)


def quicker(model: Model) -> Model:
    return replace(model, traffic=replace(model.traffic, requests=min(QUICK_REQUESTS, model.traffic.requests)))


def rows(found: Sequence[Found]) -> Iterator[list[str]]:
    for one in found:
        verdict = "harm: " + "; ".join(map(str, one.harms)) if one.harms else "none"
        mine, other = figures(one.compared).replace("sidecar ", "").replace("plain ", "").split(" | ")
        yield [one.name, in_words(one.compared.model), mine, other, verdict]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storms.harmless", description=__doc__)
    parser.add_argument("--random", type=int, default=RANDOM_MODELS, help="how many random models")
    parser.add_argument("--row", action="append", choices=list(ROWS), help="only this named one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="four named ones, small")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="models under way at the same time")
    parser.add_argument("--output", type=Path, help="write the result here")
    parser.add_argument("--no-file", action="store_true", help="write no result file")
    given = parser.parse_args()
    raise_file_limit()
    busy = busy_share()
    models = {name: ROWS[name] for name in given.row or ROWS}
    if given.quick:
        models = {name: quicker(model) for name, model in list(models.items())[:4]}
    elif not given.row:
        models |= random_models(given.random)
    found = _all_found(models, given.at_once)
    text = table(["model", "in words", "sidecar", "each by itself", "harm"], list(rows(found))) + "\n"
    print("\n" + text, flush=True)
    if not given.no_file:
        path = given.output or _free_path()
        path.write_text(_head(busy) + text)
        print(f"Written to {path.name}")
    bad = [one for one in found if one.harms]
    for one in bad:
        print(f"HARM {one.name}: {'; '.join(map(str, one.harms))}\n  {spelled(one.compared.model)}")
    print(f"{len(found)} models, {len(bad)} harmed")
    return 1 if bad else 0


def _all_found(models: dict[str, Model], at_once: int) -> list[Found]:
    with tempfile.TemporaryDirectory(prefix="sidecar-harmless-") as folder, ThreadPoolExecutor(at_once) as pool:

        def told(name: str, model: Model) -> Found:
            found = stand(name, model, shipped_policy(), Path(folder))
            print(f"{'HARM' if found.harms else 'ok  '} {name}: {figures(found.compared)}", flush=True)
            return found

        return list(pool.map(told, models.keys(), models.values()))


def _head(busy: float) -> str:
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return f"# Do no harm over real sockets, measured on {today}\n\n{described([STANDING[0]], busy)}\n\n"


def _free_path() -> Path:
    today = datetime.datetime.now(tz=datetime.UTC).date()
    names = [f"harmless-{today}", *[f"harmless-{today}-{number}" for number in range(2, 1000)]]
    return next(path for name in names if not (path := RESULTS / f"{name}.md").exists())


if __name__ == "__main__":
    sys.exit(main())
