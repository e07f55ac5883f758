"""One run: a sidecar, scripted apps and upstreams on the virtual network, and what must hold whatever happens.

``play(run)`` returns the faults that were seen, as sentences; none is the good end. The apps and upstreams here do
exactly what the plan says; nothing of them is shared with the sidecar.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import io
import itertools
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.inside import ConfigError, Deployment, Sidecar, complaints, made
from tests.fuzz.judge import Judge
from tests.fuzz.loop import STARTS_AT, TURN_SECONDS, Spinning, Stalled, VirtualClock, VirtualLoop
from tests.fuzz.peers import App, Arrival, Fetched, Script, Upstream
from tests.fuzz.plans import SNAP, Act, Request, Run, Talk
from tests.fuzz.site import ELSEWHERE, UPSTREAM, deployment

__all__ = ["Played", "play"]

SETTLED_SECONDS = 45.0
"""After the last conversation: idle connections are closed, learnt limits let go."""
ENDED_SECONDS = 15.0
"""After its deadline an exchange is over: what is left of a body has come, or was cut."""
PROBE_SECONDS = 12.0
"""The longest pause of a breaker between two probes, and what the probe itself may take."""
LONGEST_SECONDS = 2000.0
"""Until every conversation must have come to an end."""


@dataclass
class Played:
    """What came of a run."""

    faults: list[str] = field(default_factory=list)
    turns: int = 0
    seconds: float = 0.0
    """Of virtual time."""
    requests: int = 0
    sends: int = 0


class World:
    """The virtual world of one run."""

    def __init__(self, run: Run, loop: VirtualLoop, folder: Path) -> None:
        self.run = run
        self.loop = loop
        self.folder = folder
        self.clock = VirtualClock(loop)
        self.log = io.StringIO()
        self.faults: list[str] = []
        self.arrivals: dict[str, list[Arrival]] = {}
        self.asked: dict[str, Fetched] = {}
        self.apps: list[App] = []
        self.upstreams: set[Upstream] = set()
        self.requests = {request.token: request for talk in run.talks for request in talk.requests}
        self.sidecar: Sidecar | None = None
        self.troubles: list[tuple[float, float]] = []
        """Times in which the sidecar was going down, or was down."""
        self.reloaded: list[float] = []
        self._lock: sqlite3.Connection | None = None
        loop.set_exception_handler(self._uncaught)
        loop.network.names["up.example"] = [UPSTREAM[0]]
        for address in (UPSTREAM, ELSEWHERE):
            loop.network.listen(*address, lambda sock: loop.adopt(sock, Upstream(self)))

    def _uncaught(self, _: Any, context: dict[str, Any]) -> None:
        self.fault(f"uncaught: {context.get('message')}: {context.get('exception')!r}")

    def fault(self, text: str) -> None:
        if text not in self.faults:
            self.faults.append(text)

    def now(self) -> float:
        return self.loop.time() - STARTS_AT

    def drive(self, script: Script) -> Callable[[], None]:
        """Go through ``script``, which yields seconds to wait. Returns what stops it."""
        handle: asyncio.Handle | None = None
        stopped = False

        def advance() -> None:
            nonlocal handle
            while not stopped:
                try:
                    seconds = next(script)
                except StopIteration:
                    return
                if seconds == SNAP:
                    due = self.loop.timers()[:4]
                    # Just before it, so that what is written now is read in the same turn as it fires.
                    at = self.loop.random.choice(due) - TURN_SECONDS if due else self.loop.time()
                    handle = self.loop.call_at(min(at, self.loop.time() + 30), advance)
                    return
                if seconds > 0:
                    handle = self.loop.call_later(seconds, advance)
                    return

        def stop() -> None:
            nonlocal stopped
            stopped = True
            if handle is not None:
                handle.cancel()

        handle = self.loop.call_soon(advance)
        return stop

    # -- the sidecar -------------------------------------------------------------------------------------

    def deployment(self, how: str = "same") -> Deployment:
        """Raises ``ConfigError``."""
        return deployment(self.folder, self.run.site, how)

    async def start(self) -> None:
        self.sidecar = made(self.deployment(), self.loop, self.clock, self.log)
        await self.sidecar.start()

    async def end(self, drain_seconds: float | None) -> None:
        sidecar = self.sidecar
        if sidecar is None:
            return
        if drain_seconds is not None:
            await sidecar.drain(drain_seconds)
        self.unlock()
        await sidecar.stop()
        self.sidecar = None

    def lock(self) -> None:
        """From now on the outbox's file cannot be written: another process has it."""
        path = self.folder / "outbox.db"
        if self._lock is None and path.exists():
            self._lock = sqlite3.connect(path, isolation_level=None)
            self._lock.execute("BEGIN IMMEDIATE")
            for queue in self.loop.queues:
                queue.is_held = True

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.execute("ROLLBACK")
            self._lock.close()
            self._lock = None
            for queue in self.loop.queues:
                queue.is_held = False

    async def act(self, act: Act) -> None:
        """One thing that happens to the sidecar."""
        loop = self.loop
        if act.what == "reload":
            await self._reload(act)
        elif act.what in ("restart", "kill"):
            begun = loop.time()
            await self.end(self.run.site.drain if act.what == "restart" else None)
            await asyncio.sleep(min(act.seconds, 3.0))
            await self.start()
            self.troubles.append((begun, loop.time()))
        elif act.what == "outage":
            loop.network.fate = lambda address: (act.how, 0.0) if address in (UPSTREAM, ELSEWHERE) else ("", 0.0)
            await asyncio.sleep(act.seconds)
            loop.network.fate = lambda _: ("", 0.0)
        elif act.what == "clock":
            self.clock.wall_offset_seconds += act.seconds
        elif act.what == "disk":
            self.lock()
            await asyncio.sleep(act.seconds)
            self.unlock()

    async def _reload(self, act: Act) -> None:
        if self.sidecar is None:
            return
        self.reloaded.append(self.loop.time())
        with contextlib.suppress(ConfigError):
            self.sidecar.apply(self.deployment(act.how))
        if act.how in ("without", "renamed"):
            await asyncio.sleep(act.seconds)
            if self.sidecar is not None:
                self.reloaded.append(self.loop.time())
                self.sidecar.apply(self.deployment())


def play(run: Run) -> Played:
    """Go through it; what was seen. Nothing is left of it."""
    played = Played()
    folder = _folder()
    for path in folder.glob("outbox.db*"):
        path.unlink()
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    loop = VirtualLoop(run.seed)
    asyncio.set_event_loop(loop)
    world = World(run, loop, folder)
    try:
        loop.run_until_complete(_play(world))
    except (Spinning, Stalled) as exc:
        world.fault(f"{type(exc).__name__}: {exc}")
    finally:
        world.unlock()
        _close(loop)
        asyncio.set_event_loop(None)
    if not any(text.startswith(("Spinning", "Stalled")) for text in world.faults):
        if len(os.listdir("/proc/self/fd")) > descriptors:
            world.fault(f"{len(os.listdir('/proc/self/fd')) - descriptors} descriptors are left open")
        if threading.active_count() > threads:
            world.fault(f"{threading.active_count() - threads} threads are left")
    if "Traceback" in world.log.getvalue() or "internal_error" in world.log.getvalue():
        world.fault("the log: " + _trouble_in(world.log.getvalue()))
    played.faults = world.faults
    played.turns, played.seconds = loop.turns, world.now()
    played.requests = len(world.asked)
    played.sends = sum(map(len, world.arrivals.values()))
    return played


@functools.cache
def _folder() -> Path:
    """For the files of every run of this process."""
    memory = Path("/dev/shm")  # noqa: S108 - for the outbox's fsync, some thousand times; the name in it is random
    made = tempfile.mkdtemp(prefix="fuzz-", dir=memory if os.access(memory, os.W_OK) else None)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def _trouble_in(log: str) -> str:
    return next((line for line in log.splitlines() if "internal_error" in line or "Traceback" in line), "")[:300]


def _close(loop: VirtualLoop) -> None:
    """Whatever a failed run has left."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    with contextlib.suppress(Spinning, Stalled):
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()


async def _play(world: World) -> None:
    run, loop = world.run, world.loop
    await world.start()
    world.apps = [App(world, talk) for talk in run.talks]
    acts = asyncio.ensure_future(_acts(world))
    until = loop.time() + LONGEST_SECONDS
    while loop.time() < until and not (acts.done() and all(app.is_over for app in world.apps)):  # noqa: ASYNC110
        await asyncio.sleep(5)  # virtual time
    if not acts.done():
        world.fault(f"an act has not come to an end: {run.acts}")
        acts.cancel()
        await asyncio.gather(acts, return_exceptions=True)
    elif acts.exception() is not None:
        world.fault(f"an act failed: {acts.exception()!r}")
    for text in Judge(world).faults():
        world.fault(text)
    if world.sidecar is None:
        return
    # An app that has left behind bytes that nobody reads yet is missed when its exchange is over.
    settled = max(SETTLED_SECONDS, run.site.deadline + ENDED_SECONDS)
    await asyncio.sleep(max(settled, _quiet_at(world) - loop.time()))
    if run.site.outbox:
        await _deliver(world)
    for text in complaints(world.sidecar):
        world.fault("at rest: " + text)
    await _probe(world)
    for text in complaints(world.sidecar):
        world.fault("at the end: " + text)
    await world.end(run.site.drain)
    for upstream in list(world.upstreams):
        upstream.leave(resets=False)
    await asyncio.sleep(0.1)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    if left:
        world.fault(f"tasks are left: {sorted(task.get_name() for task in left)}")


async def _acts(world: World) -> None:
    for act in world.run.acts:
        await asyncio.sleep(max(0.0, act.at - world.now()))
        await world.act(act)


async def _deliver(world: World) -> None:
    """Whatever was stored is delivered or dead in the end; and rightly so."""
    # Ages are told by the wall's clock, which may have been set back.
    until = world.loop.time() + world.run.site.max_age + 700 + max(0.0, -world.clock.wall_offset_seconds)
    while world.loop.time() < until:
        left = _items(world)
        if not [each for each in left if each[1] is None]:
            break
        await asyncio.sleep(20)  # virtual time
    await asyncio.sleep(world.run.site.deadline + ENDED_SECONDS)  # what was under way when its age was over
    judge = Judge(world)
    for asked in world.asked.values():
        arrivals = world.arrivals.get(asked.request.token, [])
        if judge.is_stored(asked) or asked.request.way == "store":
            for text in judge.sends(asked, arrivals):
                world.fault(text)
    for target, dead_at, reason, note in _items(world):
        token = target.rpartition("/")[2]
        arrivals = world.arrivals.get(token, [])
        if dead_at is None:
            world.fault(f"{token} was stored, and still waits though its time is over; {len(arrivals)} sends")
        elif any(each.finished_at and each.plan.status < 300 and each.plan.does == "answer" for each in arrivals):
            if not any(each.gone_at and each.gone_at <= each.finished_at for each in arrivals if each.finished_at):
                world.fault(f"{token} is a dead letter ({reason}), though it was delivered")
        elif reason == "not_safe" and not arrivals and not any(act.how == "reset" for act in world.run.acts):
            world.fault(f"{token} is a dead letter ({reason} {note}), though it was never sent")
    dead = {target.rpartition("/")[2] for target, *_ in _items(world)}
    for asked in world.asked.values():
        token = asked.request.token
        if "outcome=stored" in asked.sidecar and token not in dead:
            arrivals = world.arrivals.get(token, [])
            if not any(each.has_answered and each.plan.status < 400 for each in arrivals):
                world.fault(f"{token} was stored, and is neither delivered nor dead; {len(arrivals)} sends")


def _items(world: World) -> list[tuple[str, float | None, str, str]]:
    path = world.folder / "outbox.db"
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(path)) as file:
        rows = file.execute("select target, dead_at, dead_reason, note from item").fetchall()
    return [(bytes(row[0]).decode() if isinstance(row[0], bytes) else str(row[0]), *row[1:]) for row in rows]


def _hints(world: World) -> Iterator[float]:
    """Until when the upstream has asked for quiet."""
    for arrivals in world.arrivals.values():
        for arrival in arrivals:
            if arrival.plan.hint is not None and arrival.answered_at is not None:
                yield arrival.answered_at + arrival.plan.hint


def _quiet_at(world: World) -> float:
    """When every hint is over that anybody would wait for."""
    longest = world.loop.time() + LONGEST_SECONDS
    return max((at for at in _hints(world) if at < longest), default=0.0) + 10.0


def _failed_lately(world: World, at: float) -> bool:
    """Whether whatever was sent in the seconds before has failed: then a breaker may be open, between two probes."""
    sends = itertools.chain(*(world.arrivals[name] for name in world.arrivals if world.requests[name].way != "unknown"))
    latest = [each for each in sends if at - PROBE_SECONDS < each.at < at]
    return bool(latest) and not any(each.finished_at and each.plan.status < 500 for each in latest)


async def _probe(world: World) -> None:
    """The sidecar still serves plain requests, each way in, whatever an upstream once asked for."""
    ways = ["mount", "host", "unknown", "tunnel", *(["store"] if world.run.site.outbox else [])]
    apps = []
    for round_ in (0, 1):
        for way in ways:
            token = f"p{round_}{way}"
            method = "POST" if way == "store" else "GET"
            request = Request(token, way, method)
            world.requests[token] = request
            apps.append(App(world, Talk(0.0, (request,))))
        await asyncio.sleep(30.0)  # virtual time
    for app in apps:
        request = app.talk.requests[0]
        asked = world.asked.get(request.token)
        wanted = 202 if request.way == "store" else 200
        if asked is not None and "reason=breaker" in asked.sidecar and _failed_lately(world, asked.sent_at):
            continue
        if asked is None or asked.status != wanted:
            got = "no answer" if asked is None or asked.answer is None else f"{asked.status} {asked.sidecar}"
            detail = bytes(asked.answer.body)[:200] if asked is not None and asked.answer is not None else b""
            world.fault(f"afterwards a plain request by {request.way} got {got} {detail!r}")
        elif not world.arrivals.get(request.token):
            world.fault(f"afterwards a plain request by {request.way} was not delivered in 30 s")
