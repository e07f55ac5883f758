"""Two configurations held against each other: which requests would be judged differently, and what needs a restart.

Pure, and no second judge: every situation is played by ``replay.rehearse`` under both. Situations are made up from
the two policies (``made_answers``); policy tests and recent exchanges may be given beside them. The number of plays is
bounded, so that a reload stays quick whatever the files hold. Counterpart: ``compare_text``, the words.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final, NamedTuple, TypeVar

from sidecar.core.decision.attempt import Attempt, Headers
from sidecar.core.decision.decide import Decision, concerns_others
from sidecar.core.decision.policy import Policy
from sidecar.core.dryrun.made_answers import WALL_SECONDS, MadeAnswers
from sidecar.core.dryrun.replay import rehearse, request_of
from sidecar.core.enums import UNKNOWN, UNSTORED_METHODS, FailureKind, Verb
from sidecar.core.settings.deployment import Deployment, Route, Upstream
from sidecar.core.settings.path_index import PathIndex

__all__ = ["Comparison", "Difference", "SettingChange", "Situation", "Told", "Verdict", "compare", "same_judgement"]

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
MOST_PLAYS: Final = 10_000
"""Situations that are judged at most: some two seconds on one core. The rest is counted, not judged."""
MOST_DIFFERENCES: Final = 200
"""Differences that are listed at most; all are counted."""
CHANCE: Final = 0.0
"""A decision tells the whole range of its wait, so one value of chance is enough."""

STORED: Final = "stored before it is sent"
SENT: Final = "sent while the app waits"
UNHEARD: Final = "no send would bring this answer"

Result = int | FailureKind
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SettingChange:
    """One setting, as it is written; None: it was not there, or is not there any more."""

    path: str
    """``upstreams.api.origin``, ``policies.default.deadline``, ``policies.default.table``."""
    before: str | None
    after: str | None
    needs_restart: bool = False


@dataclass(frozen=True, slots=True)
class Situation:
    """A request with the answers that came to it in a row: a policy test, or a recent exchange."""

    name: str
    """For people: ``policies/tests/x.yaml:12 a test``, or ``exchange ID``."""
    upstream: str
    """The upstream's name; empty: ``policy`` is judged by itself."""
    method: str
    path: str
    answers: tuple[Attempt, ...]
    """``ended_at`` is how many seconds each took."""
    policy: str = ""
    query: str = ""
    headers: Headers = Headers()
    wall: float = WALL_SECONDS


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one configuration makes of an answer."""

    policy: str
    decision: Decision | None
    words: str = ""
    """In place of a decision: what happens without one."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Situations that are judged alike by each configuration, and differently by the two."""

    where: tuple[str, ...]
    """Upstreams, each with the paths of its route if it has one."""
    methods: tuple[str, ...]
    results: tuple[Result, ...]
    given: str
    """What request and answer hold besides, in words; empty: nothing."""
    before: Verdict
    after: Verdict


@dataclass(frozen=True, slots=True)
class Told:
    """The first answer of a given situation that is judged differently."""

    situation: Situation
    answer: int
    """Its number, from 1."""
    before: Verdict
    after: Verdict


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a new configuration changes."""

    settings: tuple[SettingChange, ...] = ()
    added: tuple[str, ...] = ()
    """Upstreams that only the new one has."""
    removed: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    """At most ``MOST_DIFFERENCES``."""
    all_differences: int = 0
    judged: int = 0
    """Made-up situations that were judged by both; requests whose policy is unchanged need none."""
    unjudged: int = 0
    """Kinds of request that were left out because of ``MOST_PLAYS``."""
    unmade_rows: tuple[str, ...] = ()
    """Rows for which no answer could be made up."""
    told: tuple[Told, ...] = ()
    given: int = 0
    """Given situations that were judged by both."""
    not_judged: tuple[str, ...] = ()
    """Given situations that one of the two knows no policy for."""
    same_contents: bool = True
    """Whether the secrets and files that the settings name hold the same."""
    needs_restart: tuple[str, ...] = ()
    """Blocks of ``sidecar.yaml`` that differ, and that a running sidecar does not take over."""


class _Rule(NamedTuple):
    """What decides about a request in one configuration."""

    policy: Policy
    stores_first: bool


class _Raw(NamedTuple):
    """One difference, before alike ones are put together."""

    where: str
    method: str
    result: Result | None
    """None: it is about the request, not about an answer."""
    given: str
    before: Verdict
    after: Verdict

    @property
    def kind(self) -> tuple[Hashable, Hashable, str]:
        return _key(self.before), _key(self.after), self.given


def compare(
    old: Deployment,
    new: Deployment,
    settings: tuple[SettingChange, ...] = (),
    situations: Iterable[Situation] = (),
) -> Comparison:
    """What ``new`` changes. ``settings``: those that differ, found by the caller, who knows how they are written."""
    comparing = _Comparing()
    merged = list(_merged(list(comparing.all(old, new))))
    told, given, not_judged = _told(old, new, situations)
    before, after = ({upstream.name for upstream in each.upstreams} for each in (old, new))
    return Comparison(
        settings=settings,
        added=tuple(sorted(after - before)),
        removed=tuple(sorted(before - after)),
        differences=tuple(merged[:MOST_DIFFERENCES]),
        all_differences=len(merged),
        judged=comparing.judged,
        unjudged=comparing.unjudged,
        unmade_rows=tuple(sorted(comparing.unmade)),
        told=tuple(told[:MOST_DIFFERENCES]),
        given=given,
        not_judged=tuple(not_judged),
        same_contents=_contents(old) == _contents(new),
        needs_restart=tuple(
            dict.fromkeys(change.path.partition(".")[0] for change in settings if change.needs_restart)
        ),
    )


def _contents(deployment: Deployment) -> Hashable:
    """What settings refer to, and do not show."""
    shared = deployment.shared
    return (
        deployment.access.credential,
        deployment.outbound,
        None if shared is None else (shared.username, shared.password),
        frozenset((upstream.name, upstream.origin.trust, upstream.origin.proxy) for upstream in deployment.upstreams),
    )


def same_judgement(before: Decision | None, after: Decision | None) -> bool:
    """Whether two decisions do the same, whichever rows made them."""
    return _essence(before) == _essence(after)


def _essence(decision: Decision | None) -> Hashable:
    """What a decision does; where its row stands is no part of that."""
    left = 0 if decision is None or decision.verb is Verb.PASS else decision.attempts_left
    return left, _deed(decision)


def _deed(decision: Decision | None) -> Hashable:
    """The same without the attempts that it leaves: what they come to, later answers tell."""
    if decision is None:
        return None
    wait = decision.wait
    return (
        decision.verb,
        decision.reason,
        None if wait is None else (wait.source, round(wait.min_seconds, 6), round(wait.max_seconds, 6)),
        decision.cost,
        decision.reread,
        concerns_others(decision),
        None if decision.gate_until is None else round(decision.gate_until, 6),
    )


def _key(verdict: Verdict) -> Hashable:
    row = None if verdict.decision is None else verdict.decision.row
    return verdict.policy, verdict.words, _essence(verdict.decision), row


class _Comparing:
    """One run over made-up situations: counts its plays, and judges each pair of policies once."""

    def __init__(self) -> None:
        self.judged = 0
        self.unjudged = 0
        self.unmade: set[str] = set()
        self._made: dict[tuple[int, int], MadeAnswers] = {}
        self._known: dict[Hashable, list[_Raw]] = {}
        self._equal: dict[tuple[int, int], bool] = {}

    def _is_same(self, before: _Rule, after: _Rule) -> bool:
        key = id(before.policy), id(after.policy)
        if key not in self._equal:
            self._equal[key] = before.policy == after.policy
        return self._equal[key] and before.stores_first is after.stores_first

    def all(self, old: Deployment, new: Deployment) -> Iterator[_Raw]:
        known = {upstream.name: upstream for upstream in old.upstreams}
        for upstream in new.upstreams:
            if upstream.name in known:
                yield from self._of_upstream(known[upstream.name], upstream)
        if old.unknown_hosts == new.unknown_hosts == "pass":
            rules = _Rule(old.default_policy, False), _Rule(new.default_policy, False)
            for method in METHODS:
                yield from self._of_request(UNKNOWN, method, "/", *rules)
        for made in self._made.values():
            self.unmade |= {f"{row.file}:{row.line}" if row.file else "built in" for row in made.unmade.values()}

    def _of_upstream(self, old: Upstream, new: Upstream) -> Iterator[_Raw]:
        """Each pair of rules that decides about some of its requests, with the paths that it decides about."""
        paths: dict[Hashable, tuple[str, str, _Rule, _Rule, list[str]]] = {}
        rule_of, new_rule_of = _rules(old), _rules(new)
        for sample, written in _samples(old, new).items():
            for method in METHODS:
                before, after = rule_of(method, sample), new_rule_of(method, sample)
                if self._is_same(before, after):
                    continue
                looks = _looks_at_path(before.policy) or _looks_at_path(after.policy)
                rules = id(before.policy), id(after.policy), before.stores_first, after.stores_first
                key = (method, rules, sample if looks else "")
                paths.setdefault(key, (method, sample, before, after, []))[4].append(written)
        has_routes = bool(old.routes or new.routes)
        for method, sample, before, after, written_paths in paths.values():
            where = f"{new.name} {', '.join(written_paths)}" if has_routes else new.name
            yield from self._of_request(where, method, sample, before, after)

    def _of_request(self, where: str, method: str, path: str, before: _Rule, after: _Rule) -> Iterator[_Raw]:
        if self._is_same(before, after):
            return
        key = (method, path, id(before.policy), id(after.policy), before.stores_first, after.stores_first)
        if key not in self._known:
            if self.judged >= MOST_PLAYS:
                self.unjudged += 1
                return
            self._known[key] = list(self._judge(method, path, before, after))
        for raw in self._known[key]:
            yield raw._replace(where=where)

    def _judge(self, method: str, path: str, before: _Rule, after: _Rule) -> Iterator[_Raw]:
        sides = before.policy, after.policy
        made = self._made.setdefault((id(sides[0]), id(sides[1])), MadeAnswers(sides))
        stored = [rule.stores_first and method not in UNSTORED_METHODS for rule in (before, after)]
        if any(stored):
            # What is stored unsent gets no answer that could be judged: that alone is the difference.
            if stored[0] is not stored[1]:
                verdicts = [
                    Verdict(policy.name, None, STORED if is_stored else SENT)
                    for policy, is_stored in zip(sides, stored, strict=True)
                ]
                yield _Raw("", method, None, "", *verdicts)
            return
        plain: dict[Result, tuple[Verb, ...]] = {}
        for each in made.of(method, path):
            if self.judged >= MOST_PLAYS:
                self.unjudged += 1
                return
            self.judged += 1
            headers = Headers(each.request_fields)
            decisions = [
                rehearse(
                    policy,
                    request_of(policy, method, path, each.query, headers),
                    (each.answer,),
                    WALL_SECONDS,
                    CHANCE,
                )[0].decision
                for policy in sides
            ]
            if same_judgement(*decisions):
                continue
            verbs = tuple(decision.verb for decision in decisions)
            for result in each.results:
                # A hint adds nothing where the answer without one makes the same difference, or where both hand over.
                if not each.given:
                    plain[result] = verbs
                elif each.is_hint and result in plain and (plain[result] == verbs or verbs[0] is verbs[1]):
                    continue
                verdicts = [Verdict(policy.name, decision) for policy, decision in zip(sides, decisions, strict=True)]
                yield _Raw("", method, result, each.given, *verdicts)


def _rules(upstream: Upstream) -> Callable[[str, str], _Rule]:
    """What decides about a request, by method and path."""
    index = PathIndex((route.methods, route.path, route.pattern, route) for route in upstream.routes)
    own = _Rule(upstream.policy, False)
    of_route = {id(route): _Rule(route.policy, route.store_first) for route in upstream.routes}

    def rule_of(method: str, path: str) -> _Rule:
        route: Route | None = index.first(method, path)
        return own if route is None else of_route[id(route)]

    return rule_of


def _samples(old: Upstream, new: Upstream) -> dict[str, str]:
    """A path for each route of both → the path as written; and one that most likely no route takes."""
    samples = {"/": "every other path"}
    for route in (*old.routes, *new.routes):
        samples.setdefault(route.path.replace("**", "x").replace("*", "x"), route.path)
    return samples


def _looks_at_path(policy: Policy) -> bool:
    return any(condition.place in ("path", "query") for row in policy.table.rows for condition in row.when)


def _merged(found: Sequence[_Raw]) -> Iterator[Difference]:
    """Alike ones together: first the results, then the methods, then the upstreams."""
    results = _grouped(found, lambda raw: (raw.kind, raw.where, raw.method))
    by_results = [
        (group[0], tuple(dict.fromkeys(raw.result for raw in group if raw.result is not None))) for group in results
    ]
    methods = _grouped(by_results, lambda pair: (pair[0].kind, pair[0].where, pair[1]))
    by_methods = [(*group[0], tuple(pair[0].method for pair in group)) for group in methods]
    for group in _grouped(by_methods, lambda triple: (triple[0].kind, triple[1], triple[2])):
        raw, its_results, its_methods = group[0]
        where = tuple(triple[0].where for triple in group)
        yield Difference(where, its_methods, its_results, raw.given, raw.before, raw.after)


def _grouped(items: Iterable[T], key_of: Callable[[T], Hashable]) -> list[list[T]]:
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key_of(item), []).append(item)
    return list(groups.values())


def _told(old: Deployment, new: Deployment, situations: Iterable[Situation]) -> tuple[list[Told], int, list[str]]:
    """The given situations that are judged differently, how many were judged, and those that could not be."""
    policies_of = [_policies(each) for each in (old, new)]
    rules_of = [{upstream.name: _rules(upstream) for upstream in each.upstreams} for each in (old, new)]
    told: list[Told] = []
    not_judged: list[str] = []
    judged = 0
    for situation in situations:
        sides = [_policy_for(situation, *side) for side in zip((old, new), rules_of, policies_of, strict=True)]
        if sides[0] is None or sides[1] is None:
            not_judged.append(situation.name)
            continue
        judged += 1
        if sides[0] == sides[1]:
            continue
        first = _first_difference(situation, sides[0], sides[1])
        if first is not None:
            told.append(first)
    return told, judged, not_judged


def _policies(deployment: Deployment) -> dict[str, Policy]:
    """The policies in use, by name."""
    used = [deployment.default_policy]
    for upstream in deployment.upstreams:
        used += [upstream.policy, *(route.policy for route in upstream.routes)]
        used += [] if upstream.shadow is None else [upstream.shadow]
    return {policy.name: policy for policy in used}


def _policy_for(
    situation: Situation,
    deployment: Deployment,
    rules_of: dict[str, Callable[[str, str], _Rule]],
    policies: dict[str, Policy],
) -> Policy | None:
    if situation.policy:
        return policies.get(situation.policy)
    if situation.upstream == UNKNOWN:
        return deployment.default_policy if deployment.unknown_hosts == "pass" else None
    rule_of = rules_of.get(situation.upstream)
    return None if rule_of is None else rule_of(situation.method, situation.path).policy


def _first_difference(situation: Situation, old: Policy, new: Policy) -> Told | None:
    plays = [
        rehearse(
            policy,
            request_of(policy, situation.method, situation.path, situation.query, situation.headers),
            situation.answers,
            situation.wall,
            CHANCE,
        )
        for policy in (old, new)
    ]
    for index, steps in enumerate(zip_longest(*plays)):
        before, after = (None if step is None else step.decision for step in steps)
        if _deed(before) != _deed(after):
            return Told(situation, index + 1, _verdict(old, before), _verdict(new, after))
    return None


def _verdict(policy: Policy, decision: Decision | None) -> Verdict:
    return Verdict(policy.name, decision, UNHEARD if decision is None else "")
