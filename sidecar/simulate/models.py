"""What a model of an upstream and its traffic is made of: plain values, combined at will.

A ``Model`` says who asks (``Traffic``), how long answers take (``Latency``, ``Slots``, ``Slow``), and who is turned
away or fails, when and how (``Limit``, ``Refusal``, ``Failing``, ``Outage``). ``spelled`` writes one as the constructor
that makes it; ``described`` in words. It acts nothing: that is ``composed``; ``random_models`` draws them from a seed.
Seconds everywhere; moments are seconds since the run began.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, is_dataclass
from math import log
from typing import Any, Final, Literal

from sidecar.core.decision.attempt import Headers, Request
from sidecar.simulate.clock import unit
from sidecar.simulate.upstream import HintStyle

__all__ = [
    "NEVER",
    "Caller",
    "Failing",
    "Hint",
    "Latency",
    "Limit",
    "Model",
    "Outage",
    "Refusal",
    "Slots",
    "Slow",
    "Traffic",
    "Who",
    "described",
    "model_from",
    "model_json",
    "spelled",
]

NEVER: Final = 1e9
"""Seconds: a moment after every run."""


@dataclass(frozen=True, slots=True)
class Caller:
    """What distinguishes one request from another."""

    endpoint: int
    item: int
    tenant: int
    method: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Who:
    """The requests that a part concerns; all of them where nothing is named."""

    endpoint: int | None = None
    item: int | None = None
    tenant: int | None = None
    larger_than: int | None = None
    """Bytes of the request body."""

    def covers(self, caller: Caller) -> bool:
        return (
            (self.endpoint is None or caller.endpoint == self.endpoint)
            and (self.item is None or caller.item == self.item)
            and (self.tenant is None or caller.tenant == self.tenant)
            and (self.larger_than is None or caller.size_bytes > self.larger_than)
        )

    @property
    def is_everybody(self) -> bool:
        return self.endpoint is None and self.item is None and self.tenant is None and self.larger_than is None


EVERYBODY: Final = Who()


@dataclass(frozen=True, slots=True)
class Hint:
    """What a refusal says about when to come back."""

    style: HintStyle | Literal["garbage"] = "seconds"
    says: Literal["right", "wrong", "fixed"] = "right"
    """``right``: the true moment, where there is one, else ``seconds``. ``wrong``: up to three times that.
    ``fixed``: ``seconds``, whatever is true."""
    seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests in open loop (``rate``), or in closed loop (``workers``)."""

    rate: float = 100.0
    """A second; open loop only."""
    requests: int = 1000
    workers: int = 0
    think: float = 0.0
    """Seconds between an answer and the worker's next request."""
    shape: Literal["steady", "poisson", "bursts", "ramp", "waves"] = "steady"
    endpoints: int = 2
    first: float = 0.5
    """Share of the requests that go to endpoint 0."""
    items: int = 20
    """Objects of each endpoint."""
    tenants: int = 1
    credential: str = "authorization"
    """The header that names the tenant."""
    writes: float = 0.0
    """Share of PUTs, with bodies of 100 bytes to 1 MB."""
    posts: float = 0.0
    """Share of POSTs without a key."""

    def callers(self, seed: int) -> list[Caller]:
        return [self._caller(seed, index) for index in range(self.requests)]

    def _caller(self, seed: int, index: int) -> Caller:
        endpoint = 0
        if self.endpoints > 1 and unit(seed, index, 101) >= self.first:
            endpoint = 1 + int(unit(seed, index, 102) * (self.endpoints - 1))
        kind = unit(seed, index, 105)
        method = "PUT" if kind < self.writes else "POST" if kind < self.writes + self.posts else "GET"
        size = 0 if method == "GET" else int(100 * 10_000 ** unit(seed, index, 106))
        return Caller(
            endpoint, int(unit(seed, index, 103) * self.items), int(unit(seed, index, 104) * self.tenants), method, size
        )

    def request(self, caller: Caller, index: int) -> Request:
        """As the sidecar would see it."""
        return Request(caller.method, f"/v1/e{caller.endpoint}/{caller.item}", headers=self.headers(caller, index))

    def headers(self, caller: Caller, index: int) -> Headers:
        return Headers(tuple(self.fields(caller, index)))

    def fields(self, caller: Caller, index: int) -> Iterator[tuple[bytes, bytes]]:
        yield b"Host", b"api.example"
        yield b"X-Request-Number", b"%d" % index
        value = b"Bearer t%d" if self.credential == "authorization" else b"t%d"
        yield self.credential.encode("ascii"), value % caller.tenant
        if caller.size_bytes:
            yield b"Content-Length", b"%d" % caller.size_bytes

    def moments(self, seed: int) -> list[float]:
        """When each request is due, in open loop."""
        count, rate = self.requests, self.rate
        total = count / rate
        if self.shape == "poisson":
            at, found = 0.0, []
            for index in range(count):
                found.append(at)
                at -= log(1.0 - unit(seed, index, 107)) / rate
            return found
        if self.shape == "bursts":
            per_burst = max(2, round(count / 12))
            return [(index // per_burst) * per_burst / rate for index in range(count)]
        if self.shape == "ramp":
            return [total * (index / count) ** 0.5 for index in range(count)]
        if self.shape == "waves":
            return [total * (index / count + 0.05 * _saw(8 * index / count)) for index in range(count)]
        return [index / rate for index in range(count)]

    @property
    def seconds(self) -> float:
        """Roughly how long it is offered, where nobody is slow."""
        return self.requests / self.rate if not self.workers else 10.0


def _saw(turn: float) -> float:
    """Between 0 and 1 and back."""
    part = turn % 1.0
    return 2 * part if part < 0.5 else 2 * (1 - part)


@dataclass(frozen=True, slots=True)
class Latency:
    """Of an answer that is no refusal."""

    kind: Literal["constant", "lognormal", "pareto", "bimodal", "drift"] = "constant"
    seconds: float = 0.01
    """The median, or the beginning of a drift."""
    spread: float = 1.0
    """Sigma of a lognormal; one in ten takes 1 + 10 × this as long in a bimodal; how often a drift doubles in a run."""


@dataclass(frozen=True, slots=True)
class Slots:
    """So many requests at once are worked on; others wait in line; a full line answers 503."""

    slots: int = 40
    queue: int = 200
    hint: Hint = Hint("none")


@dataclass(frozen=True, slots=True)
class Slow:
    """A brownout: everything takes ``factor`` times as long for a while."""

    begins: float = 2.0
    ends: float = 5.0
    factor: float = 4.0


@dataclass(frozen=True, slots=True)
class Limit:
    """A quota: what goes beyond it is refused."""

    kind: Literal["bucket", "fixed", "sliding", "concurrent"] = "bucket"
    rate: float = 50.0
    """A second; of ``concurrent``: how many at once."""
    window: float = 1.0
    """Seconds; of a bucket: how many seconds' worth it holds."""
    who: Who = EVERYBODY
    each: Literal["all", "endpoint", "item", "tenant"] = "all"
    """Whether each endpoint, item or tenant has a quota of its own."""
    others: float = 0.0
    """The share that callers elsewhere use of it, on average."""
    announced: Literal["no", "draft", "x"] = "no"
    status: int = 429
    hint: Hint = Hint()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Refuses for a cause that does not depend on how much is sent."""

    who: Who = EVERYBODY
    share: float = 1.0
    begins: float = 0.0
    ends: float = NEVER
    every: float = 0.0
    """The window of time comes again after so many seconds; 0: never."""
    at_most: int = 0
    """Refuses only the first so many; 0: no end."""
    status: int = 429
    hint: Hint = Hint()


@dataclass(frozen=True, slots=True)
class Failing:
    """Some sends fail."""

    how: Literal["independent", "bursts", "instance"] = "independent"
    """``bursts``: all sends in this share of short times; ``instance``: all that one of the instances gets."""
    share: float = 0.05
    """Of the sends, or of the time; of ``instance``: one of 1 / share instances."""
    seconds: float = 0.2
    """How long a burst lasts."""
    status: int = 503
    """0: the connection is reset."""


@dataclass(frozen=True, slots=True)
class Outage:
    """Nothing but errors between two moments."""

    begins: float = 2.0
    ends: float = 5.0
    status: int = 503
    """0: connections are refused."""
    hint: Hint = Hint("none")


@dataclass(frozen=True, slots=True)
class Model:
    traffic: Traffic = Traffic()
    latency: Latency = Latency()
    slots: Slots | None = None
    slow: Slow | None = None
    outage: Outage | None = None
    limits: tuple[Limit, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    failing: tuple[Failing, ...] = ()

    def concerns(self, caller: Caller) -> bool:
        """Whether anything here can turn this one away or let it fail; who is not concerned is a bystander."""
        if self.slots or self.slow or self.outage or self.failing:
            return True
        parts: tuple[Limit | Refusal, ...] = (*self.limits, *self.refusals)
        return any(part.who.covers(caller) for part in parts)


PARTS: Final[dict[str, Any]] = {
    "traffic": Traffic,
    "latency": Latency,
    "slots": Slots,
    "slow": Slow,
    "outage": Outage,
    "limits": Limit,
    "refusals": Refusal,
    "failing": Failing,
    "who": Who,
    "hint": Hint,
}


def model_json(model: Model) -> dict[str, Any]:
    """Plain values, for a file."""
    return asdict(model)


def model_from(found: dict[str, Any]) -> Model:
    """Out of such a file."""
    return Model(**{name: _part(name, value) for name, value in found.items()})


def _part(name: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_part(name, one) for one in value)
    if isinstance(value, dict):
        return PARTS[name](**{key: _part(key, one) for key, one in value.items()})
    return value


def spelled(value: Any) -> str:
    """The shortest constructor that makes it."""
    if isinstance(value, tuple):
        inner = ", ".join(spelled(one) for one in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, type) or not is_dataclass(value):
        return repr(value)
    kind: Any = type(value)
    default = kind()
    given = [
        f"{entry.name}={spelled(getattr(value, entry.name))}"
        for entry in fields(value)
        if getattr(value, entry.name) != getattr(default, entry.name)
    ]
    return f"{kind.__name__}({', '.join(given)})"


def described(model: Model) -> str:
    """In words, for a report."""
    traffic = model.traffic
    load = f"{traffic.workers} workers" if traffic.workers else f"{traffic.rate:g}/s {traffic.shape}"
    parts = [f"{traffic.requests} requests, {load}", f"{model.latency.kind} {model.latency.seconds * 1000:.3g} ms"]
    if model.slots is not None:
        parts.append(f"{model.slots.slots} slots, line of {model.slots.queue}")
    if model.slow is not None:
        parts.append(f"{model.slow.factor:g} × slower from {model.slow.begins:.3g} s to {model.slow.ends:.3g} s")
    if model.outage is not None:
        parts.append(f"down ({model.outage.status}) from {model.outage.begins:.3g} s to {model.outage.ends:.3g} s")
    parts += [_limit_in_words(limit) for limit in model.limits]
    parts += [_refusal_in_words(refusal, traffic) for refusal in model.refusals]
    parts += [f"{one.share:.3g} {one.how} failures ({one.status or 'reset'})" for one in model.failing]
    return "; ".join(parts)


def _limit_in_words(limit: Limit) -> str:
    what = f"{limit.rate:.3g} at once" if limit.kind == "concurrent" else f"{limit.rate:.3g}/s per {limit.window:.3g} s"
    each = "" if limit.each == "all" else f" for each {limit.each}"
    shared = f", {limit.others:.2g} used by others" if limit.others else ""
    told = "" if limit.announced == "no" else ", announced"
    return (
        f"{limit.kind} quota {what}{each}{_who_in_words(limit.who)}{shared}{told} → {_answer(limit.status, limit.hint)}"
    )


def _refusal_in_words(refusal: Refusal, traffic: Traffic) -> str:
    share = "all" if refusal.share >= 1 else f"a random {refusal.share * 100:.3g} %"
    when = "" if refusal.ends >= NEVER else f" from {refusal.begins:.3g} s to {refusal.ends:.3g} s"
    when += f" every {refusal.every:.3g} s" if refusal.every else ""
    who = _who_in_words(refusal.who)
    if refusal.who.tenant is not None:
        who += f" of {traffic.tenants} in {traffic.credential}"
    return f"refuses {share}{who}{when} → {_answer(refusal.status, refusal.hint)}"


def _who_in_words(who: Who) -> str:
    named = {"endpoint": who.endpoint, "item": who.item, "tenant": who.tenant, "bytes over": who.larger_than}
    found = [f"{what} {value}" for what, value in named.items() if value is not None]
    return f" of {', '.join(found)}" if found else ""


def _answer(status: int, hint: Hint) -> str:
    if hint.style == "none":
        return f"{status} without a hint"
    seconds = "" if hint.style == "garbage" else f", {hint.says} {hint.seconds:g} s"
    return f"{status}, hint {hint.style}{seconds}"
