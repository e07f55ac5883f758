"""``sidecar explain METHOD URL …``: what would happen with an answer, and why. Nothing is sent.

Builds the exchange from its flags and asks the engine that ``serve`` runs. Offline: no name is resolved, no clock is
read unless a date has to be measured and ``--now`` is left out.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import urlsplit

import click
import orjson

from sidecar.config.load import load_deployment
from sidecar.core.conditions import LOOK_BYTES
from sidecar.core.decide import Decision, decide
from sidecar.core.deployment import Deployment, Upstream
from sidecar.core.exchange import Attempt, Headers, Now, Pressure
from sidecar.core.explain import explain_object, explain_text
from sidecar.core.hedge import can_be_hedged
from sidecar.core.policy import HedgeRule, Policy
from sidecar.core.rehearsal import NEVER_SENT, request_of
from sidecar.core.words import FailureKind

__all__ = ["command"]

UNKNOWN = "unknown"
"""The name of every host that no upstream claims, as in the metrics."""


class Target(NamedTuple):
    """Which policy decides, and what it sees of the URL."""

    upstream: str
    policy: Policy
    path: str
    query: str


@click.command("explain")
@click.argument("method")
@click.argument("url")
@click.option("--status", type=click.IntRange(100, 999), help="The status that came back.")
@click.option("--failure", type=click.Choice([kind.value for kind in FailureKind]), help="Or the failure.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A response header; repeatable.")
@click.option("--body", type=click.File("rb"), help="A file with the response body; - is standard input.")
@click.option("--request-header", "request_headers", multiple=True, metavar="'NAME: VALUE'", help="Repeatable.")
@click.option("--attempt", type=click.IntRange(1, 1000), default=1, show_default=True, help="The number of this send.")
@click.option("--now", type=float, help="The time in Unix seconds, for answers that name a date.")
@click.option("--upstream", help="The name of the upstream, where the URL does not tell.")
@click.option("-c", "--config", type=click.Path(path_type=Path), help="sidecar.yaml; else SIDECAR_CONFIG.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    method: str,
    url: str,
    status: int | None,
    failure: str | None,
    headers: tuple[str, ...],
    body: BinaryIO | None,
    request_headers: tuple[str, ...],
    attempt: int,
    now: float | None,
    upstream: str | None,
    config: Path | None,
    form: str,
) -> None:
    """Say what would be done about an answer to METHOD URL, and why.

    URL is the upstream's own (http://api.example.com/v1/x), or that of a mount (http://127.0.0.1:8080/example/v1/x).
    """
    if (status is None) == (failure is None):
        raise click.UsageError("Say what came back: --status CODE, or --failure KIND.")
    deployment = load_deployment(config, environ=os.environ).deployment
    target = _target(deployment, method, url, upstream)
    last = Attempt(
        number=attempt,
        status=status,
        headers=_headers(headers, "--header"),
        body=_read(body),
        failure=None if failure is None else FailureKind(failure),
        written=failure is None or FailureKind(failure) not in NEVER_SENT,
    )
    sent = _headers(request_headers, "--request-header")
    moment = time.time() if now is None else now
    hedge = _hedge(target.policy, method, sent) if attempt == 1 else None
    _print(target, _decide(target, method, sent, last, moment), hedge, form)


def _decide(target: Target, method: str, sent: Headers, last: Attempt, now: float) -> Decision:
    """As if the attempts so far had taken no time; chance at its middle."""
    request = request_of(target.policy, method, target.path, target.query, sent)
    earlier = [Attempt(n, last.status, last.headers, failure=last.failure) for n in range(1, last.number)]
    return decide(target.policy, request, (*earlier, last), Now(0.0, now), 0.5, Pressure())


def _hedge(policy: Policy, method: str, sent: Headers) -> HedgeRule | None:
    """The policy's, if a first send of this request may be hedged."""
    request = request_of(policy, method, "/", "", sent)
    return policy.hedge if policy.attempts > 1 and can_be_hedged(request) else None


def _target(deployment: Deployment, method: str, url: str, name: str | None) -> Target:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise click.UsageError(f"{url}: {error}.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.UsageError(f"{url}: write a whole URL, such as http://api.example.com/v1/x.")
    path = parts.path or "/"
    found, path = _find(deployment, parts.hostname, port, path, name)
    if found is None:
        return Target(UNKNOWN, deployment.default_policy, path, parts.query)
    route = found.route_of(method, path)
    return Target(found.name, found.policy if route is None else route.policy, path, parts.query)


def _find(
    deployment: Deployment, host: str, port: int | None, path: str, name: str | None
) -> tuple[Upstream | None, str]:
    """The upstream, and the path as it sees it."""
    if name is not None:
        named = next((upstream for upstream in deployment.upstreams if upstream.name == name), None)
        if named is None:
            known = ", ".join(upstream.name for upstream in deployment.upstreams) or "none is configured"
            raise click.UsageError(f"There is no upstream `{name}`: {known}.")
        return named, _after_mount(named, path) or path
    own = f"[{host}]" if ":" in host else host
    for upstream in deployment.upstreams:
        if f"{own}:{port}" in upstream.hosts or (port in (None, 80, 443) and own in upstream.hosts):
            return upstream, path
    if port != deployment.listen.port:
        return None, path
    mounted = [(len(u.mount or ""), u, rest) for u in deployment.upstreams if (rest := _after_mount(u, path))]
    if mounted:
        _, upstream, rest = max(mounted, key=lambda entry: entry[0])
        return upstream, rest
    return None, path


def _after_mount(upstream: Upstream, path: str) -> str | None:
    """The path below the upstream's mount, or None if it does not lie there."""
    mount = upstream.mount
    if mount is None:
        return None
    if mount == "/":
        return path
    if path == mount or path.startswith(mount + "/"):
        return path[len(mount) :] or "/"
    return None


def _headers(lines: tuple[str, ...], flag: str) -> Headers:
    fields = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise click.UsageError(f"{flag} '{line}': write it as 'NAME: VALUE'.")
        fields.append((name.strip().encode("utf-8"), value.strip().encode("utf-8")))
    return Headers(tuple(fields))


def _read(body: BinaryIO | None) -> bytes | None:
    if body is None:
        return None
    return body.read(LOOK_BYTES)


def _print(target: Target, decision: Decision, hedge: HedgeRule | None, form: str) -> None:
    if form == "json":
        told = explain_object(target.upstream, target.policy.name, decision)
        click.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2))
    else:
        click.echo(explain_text(target.upstream, target.policy.name, decision, hedge))
