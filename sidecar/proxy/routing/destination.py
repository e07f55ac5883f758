"""Upstreams and policies prepared for the path of a request: everything that would otherwise be computed each time.

Made when a configuration is read, dropped with it; a running exchange keeps the one it began with.
"""

# Compiled in the wheel.

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from multidict import istr

from sidecar.core.decision.budget import Budget, capacity, deposit, full_floor, refill, withdraw
from sidecar.core.decision.hedge import Durations
from sidecar.core.decision.policy import BudgetRule, Policy
from sidecar.core.decision.table import policy_looks_into_body, policy_passes
from sidecar.core.settings.deployment import Origin
from sidecar.core.settings.path_index import PathIndex
from sidecar.observe.metrics import UpstreamMeters
from sidecar.observe.trace import Sampler
from sidecar.proxy.message.headers import request_rules, response_rules
from sidecar.proxy.routing.limiter import Holding
from sidecar.proxy.routing.shadow import Shadow
from sidecar.upstream.login import Credential
from sidecar.upstream.pool import Pool
from sidecar.upstream.timeouts import Timers

__all__ = ["CompiledPolicy", "Destination", "RetryBudget", "TimersByLength"]

STATUSES = range(1000)


class TimersByLength:
    """``Timers`` by length: every policy with the same timeout shares one timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._by_seconds: dict[float, Timers] = {}

    def of(self, seconds: float) -> Timers:
        if seconds not in self._by_seconds:
            self._by_seconds[seconds] = Timers(self._loop, seconds)
        return self._by_seconds[seconds]

    def close(self) -> None:
        for timers in self._by_seconds.values():
            timers.close()


class CompiledPolicy:
    """A policy, compiled for the loop."""

    __slots__ = (
        "_for_tunnels",
        "_timers",
        "_via",
        "allows_fast_path",
        "correlation_id",
        "correlation_line",
        "correlation_name",
        "creates",
        "hands_over",
        "head_timers",
        "looks",
        "passes",
        "policy",
        "reads",
        "request_id",
        "request_id_line",
        "request_id_name",
        "request_rules",
        "response_rules",
        "sampler",
        "shadow",
        "store_first",
        "varies",
        "via_line",
    )

    def __init__(
        self,
        policy: Policy,
        timers: TimersByLength,
        via: str,
        *,
        store_first: bool = False,
        judges: bool = True,
        shadow: Shadow | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        self.policy = policy
        self._timers = timers
        self._via = via
        self._for_tunnels: CompiledPolicy | None = None
        self.hands_over = tuple([not judges or policy_passes(policy, status) for status in STATUSES])
        """Indexed by status: whether that response goes to the app without a judgement of this policy."""
        self.shadow = shadow
        """A second policy that judges as well, and acts on nothing."""
        self.passes = self.hands_over
        """The same, and no shadow judges it either."""
        if shadow is not None:
            pairs = zip(self.hands_over, shadow.judges, strict=True)
            self.passes = tuple([handed_over and not shadowed for handed_over, shadowed in pairs])
        self.looks = tuple([judges and policy_looks_into_body(policy, status) for status in STATUSES])
        """Indexed by status: whether the judgement has to look into the body."""
        self.request_id = istr(policy.ids.request.header)
        self.request_id_line = policy.ids.request.header.encode("ascii") + b": "
        self.correlation_id = istr(policy.ids.correlation.header)
        self.correlation_line = policy.ids.correlation.header.encode("ascii") + b": "
        self.via_line = b"Via: 1.1 " + via.encode("ascii") + b"\r\n"
        self.request_id_name = f"{policy.ids.request.header}: "
        self.correlation_name = f"\r\n{policy.ids.correlation.header}: "
        """Header name for both id lines."""
        self.sampler = sampler
        """Which exchanges are traced; None: no spans are made."""
        self.creates = policy.trace == "create" or policy.idempotency is not None or sampler is not None
        """Whether a request may need a field that the app did not send."""
        self.store_first = store_first
        """Whether requests are stored instead of sent while the app waits (``store: always``)."""
        self.allows_fast_path = policy.attempts > 1 and not store_first and policy.hedge is None
        """Whether a first send needs no task: an only attempt has a timeout of its own, and a hedge a race."""
        self.varies = policy.attempt_header is not None or policy.deadline_header is not None
        """Whether the head differs from attempt to attempt."""
        ids = {policy.ids.request.header.lower().encode("ascii"), policy.ids.correlation.header.lower().encode("ascii")}
        self.reads = True in self.looks
        """Whether some response has to be read here."""
        self.request_rules = request_rules(frozenset(ids | _rarities(policy)), reads=self.reads)
        self.response_rules = response_rules(frozenset(ids))
        self.head_timers = timers.of(min(policy.timeouts.head_seconds, policy.deadline_seconds))

    def for_tunnels(self) -> CompiledPolicy:
        """The policy of a tunnel: its table judges failures only, since the one response is our own."""
        if self._for_tunnels is None:
            self._for_tunnels = CompiledPolicy(self.policy, self._timers, self._via, judges=False)
        return self._for_tunnels


def _rarities(policy: Policy) -> set[bytes]:
    """Names of request fields that cannot just be passed on (lower case)."""
    names = {b"sidecar-timeout", b"traceparent", b"via", b"max-forwards"}
    own = (policy.attempt_header, policy.deadline_header)
    names |= {name.lower().encode("ascii") for name in own if name is not None}
    if policy.idempotency is not None:
        names.add(policy.idempotency.header.lower().encode("ascii"))
    return names


class RetryBudget:
    """The retry budget of an upstream (gRFC A6, Finagle): the core's value, and the requests counted since it was
    updated.
    """

    __slots__ = ("_budget", "_rule", "earned", "paid", "requests")

    def __init__(self, rule: BudgetRule, now: float) -> None:
        self._rule = rule
        self._budget: Budget = full_floor(rule, now)
        self.requests = 0
        self.paid = 0.0
        """Tokens paid since a shared store was told."""
        self.earned = 0
        """Requests counted since a shared store was told."""

    def tokens(self, now: float) -> float:
        self._budget = refill(self._budget, self._rule, now, self.requests)
        self.earned += self.requests
        self.requests = 0
        return self._budget.tokens

    def peek(self, now: float) -> float:
        """The tokens, without a change of state: for a reader in another thread."""
        return max(0.0, refill(self._budget, self._rule, now, self.requests).tokens)

    def pay(self, cost: float) -> None:
        """Spend ``cost`` tokens; call after ``tokens`` has shown that there are enough."""
        paid = withdraw(self._budget, cost)
        if paid is not None:
            self.paid += cost
            self._budget = paid

    def give_back(self, cost: float) -> None:
        """Return ``cost`` tokens that were paid for a send that was not made, or for retries that led to a success."""
        self.paid -= cost
        self._budget = deposit(self._budget, self._rule, cost)

    def terms(self) -> tuple[float, float, float, float]:
        """Floor a second, ratio, capacity, and the tokens of a new budget: the terms of a shared one."""
        rule = self._rule
        return rule.floor_per_second, rule.ratio, capacity(rule), full_floor(rule, 0.0).tokens

    def settle(self, tokens: float) -> None:
        """Take the balance of all replicas, less what was paid here since it was counted.

        Keep a negative balance: clearing it would let every replica refill from its own floor.
        """
        if math.isfinite(tokens):
            most = capacity(self._rule)
            self._budget = Budget(max(-most, min(most, tokens - self.paid)), self._budget.at)

    def alone(self) -> None:
        """Stop sharing: forget what was not yet told, and take on no debt of other replicas."""
        self.paid, self.earned = 0.0, 0
        self._budget = Budget(max(0.0, self._budget.tokens), self._budget.at)


@dataclass(slots=True)
class Destination:
    """The place an exchange is sent to."""

    name: str
    """For labels: the upstream's configured name, or ``unknown``."""
    origin: Origin
    pool: Pool
    meters: UpstreamMeters
    compiled: CompiledPolicy
    budget: RetryBudget
    holding: Holding
    host_line: bytes
    """The ``Host`` line; empty: the app's own ``Host`` is kept."""
    base_path: str
    routes: PathIndex[CompiledPolicy] | None = None
    host: str = ""
    """The host asked for, if no upstream is configured for it; for the record only."""
    credential: Credential | None = None
    """The credential of an upstream with a ``login``."""
    durations: dict[str, Durations] = field(default_factory=dict)
    """Name of a hedging policy → how long first sends took; empty where no policy hedges."""

    def durations_of(self, policy: str) -> Durations:
        known = self.durations.get(policy)
        if known is None:
            known = self.durations[policy] = Durations()
        return known

    def policy_for(self, method: str, path: str) -> CompiledPolicy:
        """The first route that matches, else the upstream's own policy."""
        found = self.routes.first(method, path) if self.routes is not None else None
        return self.compiled if found is None else found
