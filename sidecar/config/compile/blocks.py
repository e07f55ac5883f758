"""Blocks → the frozen values of ``core``. Nothing is checked here: blocks are valid.

A row takes what it leaves out from the policy that is in force, not from the file that it is written in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from sidecar.config.compile.policies import Chain, overlay
from sidecar.config.schema.addresses import compile_path
from sidecar.config.schema.fields import Block
from sidecar.config.schema.login import compile_login
from sidecar.config.schema.policy import IdBlock, PolicyBlock
from sidecar.config.schema.row import BackoffBlock, ConditionBlock, RereadBlock, RowBlock, WaitBlock
from sidecar.config.schema.site import InterceptBlock, OutboxBlock, RouteBlock, SiteBlock, UpstreamBlock
from sidecar.core.decision import policy as core
from sidecar.core.decision.expression import Expression
from sidecar.core.decision.rows import Backoff, Condition, HintSource, Place, Reread, Row
from sidecar.core.decision.table import Table
from sidecar.core.enums import Unit, Verb
from sidecar.core.settings.deployment import Deployment, Intercept, Limits, Logging, Origin, OutboxRule, Route, Upstream

__all__ = ["compile_conditions", "compile_deployment", "compile_policy", "compile_row"]


def compile_policy(chain: Chain) -> core.Policy:
    """The policy in force."""
    block = chain.settings
    rows = tuple(compile_row(row, block, source.document.name) for source, row in chain.rows)
    return core.Policy(
        name=chain.name,
        table=Table(rows),
        deadline_seconds=block.deadline,
        attempts=block.attempts,
        timeouts=core.Timeouts(block.attempt.connect, block.attempt.head, block.attempt.idle),
        backoff=_backoff(block.backoff),
        wait=_waits(block.wait),
        max_wait_seconds=block.max_wait,
        over_max=block.over_max,
        verdict=_verdict(block),
        resend_methods=frozenset(block.resend_methods),
        idempotency=_idempotency(block),
        ids=core.Ids(_id(block.ids.request), _id(block.ids.correlation)),
        trace=block.trace,
        errors=_errors(block, rows),
        body=core.BodyLimits(block.body.memory, block.body.disk),
        budget=core.BudgetRule(block.budget.ratio, block.budget.min_per_second),
        breaker=core.BreakerRule(
            block.breaker.failure_ratio,
            block.breaker.min_requests,
            block.breaker.window,
            block.breaker.when_open,
        ),
        gate=core.GateRule(tuple(block.gate.key), block.gate.queue),
        attempt_header=block.attempt_header,
        deadline_header=block.deadline_header,
        stored_shape=block.stored_shape,
        report=_report(block),
        hedge=_hedge(block),
    )


def compile_row(row: RowBlock, policy: PolicyBlock, file: str) -> Row:
    """One line of the table."""
    mark = row.key_mark("")
    backoff: Block | None = row.backoff and overlay(row.backoff, policy.backoff)
    return Row(
        verb=row.then,
        statuses=row.status or frozenset(),
        failures=row.failure or frozenset(),
        when=compile_conditions(row.when),
        attempts=row.attempts,
        backoff=_backoff(backoff) if isinstance(backoff, BackoffBlock) else None,
        wait=None if row.wait is None else _waits(row.wait),
        max_wait_seconds=row.max_wait,
        over_max=row.over_max,
        processed=row.processed,
        gate=row.gate,
        cost=_cost(row),
        reread=_reread(row.reread),
        file=file,
        line=mark.line + 1 if mark else 0,
    )


def _cost(row: RowBlock) -> float:
    """A retry after a login is no sign of overload, and happens once: it is free unless the row says more."""
    return 0.0 if row.then is Verb.LOGIN and not row.sets("cost") else row.cost


def compile_conditions(blocks: list[ConditionBlock] | None) -> tuple[Condition, ...]:
    return tuple(map(_condition, blocks or ()))


def _condition(block: ConditionBlock) -> Condition:
    place = block.place
    name = getattr(block, place)
    if isinstance(name, tuple):
        if name:
            return _shorthand(place, name)
        name = ""
    if block.sets("equals"):
        return Condition(place, name, "equals", ("null" if block.equals is None else block.equals,))
    if block.in_ is not None:
        return Condition(place, name, "in", tuple(block.in_))
    if block.matches is not None:
        return Condition(place, name, "matches", pattern=Expression(block.matches))
    return Condition(place, name, "present", present=block.present is not False)


def _shorthand(place: Place, texts: tuple[str, ...]) -> Condition:
    """``method: [GET, HEAD]`` is one of; ``path: /v1/**`` is matched in full; ``body_text: x`` contains."""
    if place == "method":
        return Condition("method", "", "in", texts)
    if place == "path":
        whole = "|".join(compile_path(text).pattern for text in texts)
        return Condition("path", "", "matches", pattern=re.compile(rf"\A(?:{whole})\Z"))
    return Condition("body_text", "", "matches", pattern=re.compile("|".join(map(re.escape, texts))))


def _waits(blocks: list[WaitBlock]) -> tuple[HintSource, ...]:
    return tuple(map(_wait, blocks))


def _wait(block: WaitBlock) -> HintSource:
    when = compile_conditions(block.when)
    plus, at_least = block.plus or 0.0, block.at_least or 0.0
    if block.constant is not None:
        return HintSource(
            "constant", constant_seconds=block.constant, when=when, plus_seconds=plus, at_least_seconds=at_least
        )
    return HintSource(
        "field" if block.field is not None else "body" if block.body is not None else "header",
        name=block.header or block.body or "",
        field=block.field or "",
        unit=block.unit or Unit.RETRY_AFTER,
        when=when,
        plus_seconds=plus,
        at_least_seconds=at_least,
        clock=block.clock,
    )


def _backoff(block: BackoffBlock) -> Backoff:
    return Backoff(block.base, block.factor, block.cap, block.jitter, block.ratio)


def _reread(block: RereadBlock | None) -> Reread | None:
    return (
        Reread(block.path, compile_conditions(block.resend_when), compile_conditions(block.answer_when), block.times)
        if block
        else None
    )


def _idempotency(block: PolicyBlock) -> core.Idempotency | None:
    rule = block.idempotency
    return core.Idempotency(rule.header, frozenset(rule.methods), rule.format) if rule else None


def _verdict(block: PolicyBlock) -> core.Verdict | None:
    rule = block.verdict
    return core.Verdict(rule.header, rule.yes, rule.no) if rule else None


def _report(block: PolicyBlock) -> core.ReportRule | None:
    rule = block.report
    return core.ReportRule(rule.bodies, tuple(rule.redact), rule.keep) if rule else None


def _hedge(block: PolicyBlock) -> core.HedgeRule | None:
    rule = block.hedge
    if rule is None:
        return None
    return core.HedgeRule(after_seconds=rule.after) if rule.quantile is None else core.HedgeRule(rule.quantile)


def _id(block: IdBlock) -> core.IdRule:
    return core.IdRule(block.header, tuple(block.from_response), tuple(block.from_body))


def _errors(block: PolicyBlock, rows: tuple[Row, ...]) -> core.Errors:
    """Only codes that the policy names may become a metric label: whatever else an upstream writes is unbounded."""
    pointers = tuple(block.errors.code)
    conditions = [condition for row in rows for condition in row.when]
    known = {
        value
        for condition in conditions
        if condition.place == "body" and condition.name in pointers
        for value in condition.values
    }
    named = frozenset(known).union(block.errors.known)
    return core.Errors(pointers, tuple(block.errors.message), block.errors.shape, named)


def compile_deployment(
    site: SiteBlock, policies: Mapping[str, core.Policy], source: str, read: Callable[[Path], bytes]
) -> Deployment:
    """The deployment. ``policies`` holds every name that the site uses; ``read`` gives the bytes of a file that was
    checked.
    """
    limits, log = site.limits, site.log
    folder = Path(source).parent
    return Deployment(
        listen=site.listen,
        admin=site.admin,
        upstreams=tuple(
            _upstream(block, policies, policies[site.default_policy], _origin(block, folder, read), folder)
            for block in site.upstreams
        ),
        default_policy=policies[site.default_policy],
        unknown_hosts=site.unknown_hosts,
        limits=Limits(limits.head, limits.headers, limits.head_timeout, limits.idle, limits.drain, limits.connections),
        logging=Logging(log.format, log.sample, log.slow),
        outbox=_outbox(site.outbox, folder),
        intercept=_intercept(site.intercept, folder),
        source=source,
    )


def _intercept(block: InterceptBlock | None, folder: Path) -> Intercept | None:
    return None if block is None else Intercept(tuple(block.hosts), str(folder / block.ca))


def _outbox(block: OutboxBlock | None, folder: Path) -> OutboxRule | None:
    if block is None:
        return None
    return OutboxRule(str(folder / block.file), block.max_bytes, block.max_count, block.max_age)


def _upstream(
    block: UpstreamBlock, policies: Mapping[str, core.Policy], default: core.Policy, origin: Origin, folder: Path
) -> Upstream:
    return Upstream(
        name=block.name,
        origin=origin,
        policy=policies[block.policy] if block.policy else default,
        mount=block.mount,
        hosts=tuple(block.hosts or ()),
        routes=tuple(_route(route, policies) for route in block.routes),
        host=block.host,
        connections=block.connections,
        login=compile_login(block.login, origin, folder),
        shadow=policies[block.shadow] if block.shadow else None,
    )


def _origin(block: UpstreamBlock, folder: Path, read: Callable[[Path], bytes]) -> Origin:
    origin = block.origin
    if block.ca_file is None:
        return origin
    path = folder / block.ca_file
    return replace(origin, ca_file=str(path), trust=read(path).decode("ascii"))


def _route(block: RouteBlock, policies: Mapping[str, core.Policy]) -> Route:
    methods, pattern = frozenset(block.methods or ()), compile_path(block.path)
    return Route(policies[block.policy], methods, block.path, pattern, store_first=block.store == "always")
