"""What happens in one run, as data: the site, the apps' conversations, the upstream's answers, the operator's acts.

A run is made from its seed; a failing one is printed as an expression that makes it again. Nothing here acts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["Act", "Plan", "Request", "Run", "Site", "Talk", "make", "simpler"]

SNAP = -1.0
"""In place of a delay: at the very moment of the next timer of the loop, so that both are handled in one turn."""


@dataclass(frozen=True)
class Plan:
    """What the upstream does with one arrival of a request."""

    does: str = "answer"  # answer | cut | hang | lie
    status: int = 200
    size_bytes: int = 2
    after: float = 0.0
    """Seconds from the whole request to the answer's head."""
    framing: str = "length"  # length | chunked | close
    pieces: int = 1
    """Of the body."""
    gap: float = 0.0
    """Seconds between the pieces, and before the first."""
    hint: int | None = None
    """Retry-After, in seconds."""
    keeps: bool = True
    """Whether the connection stays open after it."""
    early: bool = False
    """Whether it answers at the head, without waiting for the body."""
    interim: int = 0
    """How many 103 come first."""
    where: str = "request"  # head | request | answer-head | answer-body
    """Of a cut: after which part."""
    resets: bool = False


@dataclass(frozen=True)
class Request:
    """What an app asks; ``token`` names it everywhere."""

    token: str
    way: str = "mount"  # mount | host | unknown | tunnel | store
    method: str = "GET"
    size_bytes: int = 0
    keyed: bool = False
    timeout: float | None = None
    """Sidecar-Timeout, in seconds."""
    chunked: bool = False
    expects: bool = False
    pause: float = 0.0
    """Seconds in the middle of the request."""
    after: float = 0.0
    """Seconds before it; the first follows in the same write where it is 0 (pipelined)."""
    plans: tuple[Plan, ...] = (Plan(),)
    """For the first arrival and those after it; the last holds for all further ones."""


@dataclass(frozen=True)
class Talk:
    """One connection of an app."""

    at: float
    requests: tuple[Request, ...]
    ends: str = "waits"  # waits | half | reset | close
    """What the app does ``ends_after`` seconds behind its last byte; ``waits``: for its answers."""
    ends_after: float = 0.0
    stalls: float = 0.0
    """Seconds in which the app does not read its answers."""


@dataclass(frozen=True)
class Act:
    """Something that happens to the sidecar, or around it."""

    at: float
    what: str  # reload | restart | kill | outage | clock | disk
    seconds: float = 0.0
    how: str = ""


@dataclass(frozen=True)
class Site:
    """The configuration."""

    deadline: float = 10.0
    attempts: int = 4
    head: float = 2.0
    idle: float = 5.0
    base: float = 0.1
    table: str = "default"  # default | pass | store | hinted
    hedge: float | None = None
    outbox: bool = False
    max_age: float = 300.0
    keys: bool = True
    """Whether the upstream honours idempotency keys."""
    drain: float = 5.0


@dataclass(frozen=True)
class Run:
    seed: int
    site: Site
    talks: tuple[Talk, ...]
    acts: tuple[Act, ...] = ()

    @property
    def steps(self) -> int:
        return len(self.acts) + sum(len(talk.requests) for talk in self.talks)

    def __str__(self) -> str:
        """As an expression, without what is as usual."""
        return _expression(self)


_MOMENTS = (0.0, 0.001, 0.01, 0.05, 0.2, 0.5, 0.85, 0.999, 1.0, 1.5, 1.85, 2.0, 4.9, 5.0, 9.9)
_GAPS = (0.0, 0.0, 0.001, 0.05, 0.2, 1.0, 2.0, 6.0, 16.0, 31.0, 70.0)
_METHODS = ("GET", "GET", "GET", "POST", "POST", "POST", "PUT", "DELETE", "HEAD", "PATCH", "QUERY", "LIST")
_SIZES = (0, 1, 2, 500, 1500, 70_000)
_HINTS = (0, 1, 2, 3, 7, 30, 200, 1_784_000_000)


def make(seed: int) -> Run:
    """The run of a seed."""
    dice = random.Random(seed)
    site = _site(dice)
    talks: list[Talk] = []
    at = 0.0
    count = 0
    for _ in range(dice.randint(1, 8)):
        at += dice.choice(_GAPS)
        # Several at once: what shares a turn of the loop.
        for _ in range(dice.choice((1, 1, 1, 2, 5))):
            requests = []
            for _ in range(dice.choice((1, 1, 1, 2, 3))):
                count += 1
                requests.append(_request(dice, site, f"t{count}"))
            talks.append(_talk(dice, at, tuple(requests)))
    acts = [_act(dice, dice.uniform(0, at + 5)) for _ in range(dice.choice((0, 0, 0, 1, 1, 2, 3)))]
    return Run(seed, site, tuple(talks), tuple(sorted(acts, key=lambda act: act.at)))


def _site(dice: random.Random) -> Site:
    outbox = dice.random() < 0.5
    return Site(
        deadline=dice.choice((1.0, 2.0, 10.0, 60.0)),
        attempts=dice.choice((1, 2, 3, 4)),
        head=dice.choice((0.5, 1.0, 2.0)),
        idle=dice.choice((1.0, 5.0)),
        base=dice.choice((0.01, 0.1, 1.0)),
        table=dice.choice(("default", "pass", "hinted", *(("store",) if outbox else ()))),
        hedge=dice.choice((None, None, 0.2)),
        outbox=outbox,
        max_age=dice.choice((8.0, 300.0)),
        keys=dice.random() < 0.7,
    )


def _talk(dice: random.Random, at: float, requests: tuple[Request, ...]) -> Talk:
    ends = dice.choice(("waits", "waits", "waits", "half", "reset", "close"))
    if any(request.way == "tunnel" for request in requests):
        requests = tuple(replace(request, way="tunnel") for request in requests)
    after = dice.choice((0.0, 0.0, SNAP, *_MOMENTS)) if ends != "waits" else 0.0
    return Talk(at, requests, ends, after, dice.choice((0.0, 0.0, 0.0, 3.0, 90.0)))


def _request(dice: random.Random, site: Site, token: str) -> Request:
    ways = ["mount", "mount", "mount", "host", "unknown", "tunnel", *(["store"] * 8 if site.outbox else [])]
    way = dice.choice(ways)
    method = dice.choice(("POST", "POST", "PUT")) if way == "store" else dice.choice(_METHODS)
    size = 0 if method in ("GET", "HEAD", "DELETE", "LIST") else dice.choice(_SIZES)
    plans = [_plan(dice, site) for _ in range(dice.choice((0, 1, 1, 2, 3)))]
    return Request(
        token,
        way,
        method,
        size,
        keyed=dice.random() < 0.2,
        timeout=dice.choice((None, None, None, 0.5, 1.0, 3.0)),
        chunked=size > 0 and dice.random() < 0.3,
        expects=size > 0 and dice.random() < 0.1,
        pause=dice.choice((0.0, 0.0, 0.0, 0.0, 0.3, 2.0)) if size else 0.0,
        after=dice.choice((0.0, 0.0, 0.0, *_GAPS)),
        plans=(*plans, Plan()) if dice.random() < 0.8 or not plans else tuple(plans),
    )


def _plan(dice: random.Random, site: Site) -> Plan:
    moments = (0.0, 0.0, 0.0, SNAP, SNAP, site.head - 0.01, site.deadline - 0.15, *_MOMENTS)
    does = dice.choices(("answer", "cut", "hang", "lie"), (12, 3, 1, 1))[0]
    status = dice.choice((200, 200, 200, 429, 429, 429, 503, 503, 503, 500, 404, 408, 204, 304, 201))
    hint = dice.choice(_HINTS) if status in (429, 503) and dice.random() < 0.7 else None
    pieces = dice.choice((1, 1, 1, 2, 3))
    return Plan(
        does,
        status,
        dice.choice(_SIZES),
        dice.choice(moments),
        dice.choice(("length", "length", "chunked", "close")),
        pieces,
        dice.choice((0.0, 0.0, SNAP, 0.05, 0.3, 0.9)),
        hint,
        keeps=dice.random() < 0.8,
        early=dice.random() < 0.15,
        interim=dice.choice((0, 0, 0, 0, 1, 3)),
        where=dice.choice(("head", "request", "answer-head", "answer-body")),
        resets=dice.random() < 0.5,
    )


def _act(dice: random.Random, at: float) -> Act:
    what = dice.choice(("reload", "reload", "restart", "restart", "kill", "outage", "clock", "disk"))
    seconds = dice.choice((0.5, 3.0, 20.0, 90.0))
    how = ""
    if what == "reload":
        how = dice.choice(("same", "policy", "without", "renamed", "broken"))
    elif what == "outage":
        how = dice.choice(("refused", "hole", "reset"))
    elif what == "clock":
        seconds = dice.choice((-3600.0, 3600.0, -5.0, 5.0))
    elif what == "disk":
        seconds = dice.choice((0.5, 3.0, 12.0))
    return Act(round(at, 3), what, seconds, how)


def _expression(value: Any) -> str:
    """``value`` as Python: fields that have their default are left out."""
    if isinstance(value, tuple):
        return "(" + "".join(f"{_expression(each)}, " for each in value).rstrip() + ")"
    if not hasattr(value, "__dataclass_fields__"):
        return repr(value)
    parts = []
    for name, spec in value.__dataclass_fields__.items():
        now = getattr(value, name)
        if now != spec.default:
            parts.append(f"{name}={_expression(now)}")
    return f"{type(value).__name__}({', '.join(parts)})"


def simpler(run: Run) -> list[Run]:
    """Runs that are a little smaller: for shrinking, largest steps first."""
    found: list[Run] = []
    talks, acts = run.talks, run.acts
    half = len(talks) // 2
    if half > 1:
        found += [replace(run, talks=talks[half:]), replace(run, talks=talks[:half])]
    found += [replace(run, talks=talks[:n] + talks[n + 1 :]) for n in range(len(talks)) if len(talks) > 1]
    found += [replace(run, acts=acts[:n] + acts[n + 1 :]) for n in range(len(acts))]
    for n, talk in enumerate(talks):
        for smaller in _simpler_talks(talk):
            found.append(replace(run, talks=(*talks[:n], smaller, *talks[n + 1 :])))
    for name, spec in Site.__dataclass_fields__.items():
        if getattr(run.site, name) != spec.default:
            found.append(replace(run, site=_plain(run.site, name)))
    return found


def _plain(value: Any, name: str) -> Any:
    """``value`` with that field as usual."""
    return replace(value, **{name: value.__dataclass_fields__[name].default})


def _simpler_talks(talk: Talk) -> list[Talk]:
    requests = talk.requests
    found = [
        replace(talk, requests=requests[:n] + requests[n + 1 :]) for n in range(len(requests)) if len(requests) > 1
    ]
    if talk.stalls:
        found.append(replace(talk, stalls=0.0))
    if talk.ends != "waits":
        found.append(replace(talk, ends="waits", ends_after=0.0))
    for n, request in enumerate(requests):
        smaller = [
            replace(request, plans=request.plans[:k] + request.plans[k + 1 :])
            for k in range(len(request.plans))
            if len(request.plans) > 1
        ]
        for name, spec in Request.__dataclass_fields__.items():
            if name not in ("token", "plans") and getattr(request, name) != spec.default:
                smaller.append(_plain(request, name))
        for k, plan in enumerate(request.plans):
            for name, spec in Plan.__dataclass_fields__.items():
                if getattr(plan, name) != spec.default:
                    less = _plain(plan, name)
                    smaller.append(replace(request, plans=(*request.plans[:k], less, *request.plans[k + 1 :])))
        found += [replace(talk, requests=(*requests[:n], each, *requests[n + 1 :])) for each in smaller]
    return found
