"""``sidecar explain METHOD URL …``: what would happen with a response, and why. Nothing is sent.

Builds the exchange from its flags and runs what ``serve`` runs: its router finds the upstream, its engine decides.
Offline: no name is resolved, no clock is read unless a date has to be measured and ``--now`` is left out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import click
import orjson

from sidecar.cli.paint import painter
from sidecar.cli.route import Found, find
from sidecar.config.compile.policies import Chain
from sidecar.config.load import ConfigError, load_deployment, load_policy
from sidecar.config.text.files import shipped_policies
from sidecar.core.decision.attempt import Attempt, Headers, Now, Pressure, Request
from sidecar.core.decision.conditions import LOOK_BYTES, READABLE_CODINGS
from sidecar.core.decision.decide import Decision, decide, needs_body
from sidecar.core.decision.hedge import can_be_hedged
from sidecar.core.decision.policy import Policy
from sidecar.core.decision.rows import Row
from sidecar.core.dryrun.explain import explain_object, hedge_text
from sidecar.core.dryrun.replay import NEVER_SENT, request_of
from sidecar.core.dryrun.story import ExchangeView, judged, story_object, tell
from sidecar.core.dryrun.story_text import story_text
from sidecar.core.enums import UNKNOWN, FailureKind
from sidecar.observe.sanitize import clean
from sidecar.proxy.message.errors import Refused

__all__ = ["command"]

ROW_LINES = 6
"""Lines of a row that are quoted, at most."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The upstream and policy of a response, and where the rows of that policy are written."""

    found: Found
    chains: tuple[Chain, ...]


@click.command("explain")
@click.argument("method")
@click.argument("url")
@click.option("--status", type=click.IntRange(100, 999), help="The status that came back.")
@click.option("--failure", type=click.Choice([kind.value for kind in FailureKind]), help="Or the failure.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A response header; repeatable.")
@click.option("--body", type=click.File("rb"), help="A file with the decoded response body; - is stdin.")
@click.option(
    "--then",
    "thens",
    multiple=True,
    metavar="'STATUS|FAILURE [NAME: VALUE]'",
    help="What came back of the next send, such as 503, reset or '429 Retry-After: 2'; repeatable, in order.",
)
@click.option("--request-header", "request_headers", multiple=True, metavar="'NAME: VALUE'", help="Repeatable.")
@click.option("--attempt", type=click.IntRange(1, 1000), default=1, show_default=True, help="The number of this send.")
@click.option("--now", type=float, help="The time in Unix seconds, for answers that name a date.")
@click.option("--upstream", help="The name of the upstream, where the URL does not tell.")
@click.option("--policy", "policy_name", metavar="FILE|NAME", help="Judge by this policy; no sidecar.yaml is read.")
@click.option("-c", "--config", type=click.Path(path_type=Path), help="sidecar.yaml; else SIDECAR_CONFIG.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    method: str,
    url: str,
    status: int | None,
    failure: str | None,
    headers: tuple[str, ...],
    body: BinaryIO | None,
    thens: tuple[str, ...],
    request_headers: tuple[str, ...],
    attempt: int,
    now: float | None,
    upstream: str | None,
    policy_name: str | None,
    config: Path | None,
    form: str,
) -> None:
    """Say what would be done about an answer to METHOD URL, and why.

    URL is the upstream's own (http://api.example.com/v1/x), or that of a mount (http://127.0.0.1:8080/example/v1/x).
    Several answers in a row: --status 503 --then 503 --then 200.
    """
    if (status is None) == (failure is None):
        raise click.UsageError("Say what came back: --status CODE, or --failure KIND.")
    if thens and attempt > 1:
        raise click.UsageError("--then tells of several answers from the first send on: leave --attempt out.")
    if policy_name is not None and (upstream is not None or config is not None):
        raise click.UsageError("--policy reads no sidecar.yaml: leave --upstream and --config out.")
    kind = None if failure is None else FailureKind(failure)
    last = _answer(status, kind, _headers(headers, "--header"), _read(body))
    answers = (last, *map(_then, thens))
    sent = _headers(request_headers, "--request-header")
    wall = time.time() if now is None else now
    try:
        subject = _subject(method, url, upstream, policy_name, config)
    except Refused as refused:
        _print_refused(refused, form)
        return
    found = subject.found
    request = request_of(found.policy, method, found.path, found.query, sent)
    unread = _unread(found.policy, request, last)
    if unread:
        last = replace(last, body=None)
        answers = (last, *answers[1:])
    story = tell(found.upstream, found.policy, request, answers, wall)
    if attempt > 1:
        later = replace(last, number=attempt)
        story = replace(
            story, told=(judged(found.policy, request, later, _decide(found.policy, request, later, wall), wall),)
        )
    hedge = found.policy.hedge if attempt == 1 and _is_hedged(found.policy, request) else None
    if form == "json":
        told = _object(story) | ({"body_unread": unread} if unread else {})
        click.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2))
        return
    click.echo(story_text(story, request, _quoted(subject.chains), painter()))
    if unread:
        click.echo(f"\nbody unread: its content coding `{unread}` cannot be undone here")
    if hedge is not None:
        click.echo(f"\nhedge: {hedge_text(hedge)}")


def _object(story: ExchangeView) -> dict[str, object]:
    """The keys of the contract, about the last response that would come."""
    told = explain_object(story.upstream, story.policy.name, story.told[-1].decision)
    return told | story_object(story)


def _decide(policy: Policy, request: Request, last: Attempt, wall: float) -> Decision:
    """The decision if the attempts so far had taken no time; chance at its middle."""
    earlier = [Attempt(n, last.status, last.headers, failure=last.failure) for n in range(1, last.number)]
    return decide(policy, request, (*earlier, last), Now(0.0, wall), 0.5, Pressure())


def _unread(policy: Policy, request: Request, last: Attempt) -> str:
    """The content coding because of which ``serve`` could not look into the body, where the policy asks for that."""
    coding = ", ".join(last.headers.all("Content-Encoding")).strip().lower()
    unreadable = last.status is not None and coding not in READABLE_CODINGS
    return clean(coding, 32) if unreadable and needs_body(policy, request, last) else ""


def _is_hedged(policy: Policy, request: Request) -> bool:
    """Whether a first send of this request may be hedged."""
    return policy.hedge is not None and policy.attempts > 1 and can_be_hedged(request)


def _subject(method: str, url: str, upstream: str | None, policy_name: str | None, config: Path | None) -> Subject:
    """Find upstream and policy. Raises ``Refused`` for what the sidecar would not send."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise click.UsageError(f"{url}: {error}.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.UsageError(f"{url}: write a whole URL, such as http://api.example.com/v1/x.")
    try:
        if policy_name is not None:
            loaded = load_policy(_policy_file(policy_name))
            return Subject(Found(UNKNOWN, loaded.policy, parts.path or "/", parts.query), (loaded.chain,))
        site = load_deployment(config, environ=os.environ)
    except ConfigError as error:
        # Warnings, of this policy or another, are not what was asked about.
        raise ConfigError(problem for problem in error.problems if not problem.is_warning) from None
    return Subject(find(site.deployment, method, parts, upstream), site.chains)


def _policy_file(name: str) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    return shipped_policies() / f"{name}.yaml"


def _quoted(chains: Sequence[Chain]) -> Callable[[Row], list[str]]:
    """The lines that a row is written on, with their numbers."""
    documents = {source.document.name: source.document for chain in chains for source in chain.sources}
    begins = {
        (source.document.name, mark.line)
        for chain in chains
        for source, row in chain.rows
        if (mark := row.key_mark("")) is not None
    }

    def lines_of(row: Row) -> list[str]:
        document = documents.get(row.file)
        if document is None or not row.line:
            return []
        first = row.line - 1
        later = [line for file, line in begins if file == row.file and line > first]
        end = min([*later, first + ROW_LINES, len(document.lines)])
        text = document.lines[first:end]
        while len(text) > 1 and (not text[-1].strip() or text[-1].lstrip().startswith("#")):
            text.pop()
        cut = len(text[0]) - len(text[0].lstrip())
        return [f"{first + 1 + n} | {clean(line[cut:] if n else line.lstrip(), 110)}" for n, line in enumerate(text)]

    return lines_of


def _answer(status: int | None, failure: FailureKind | None, headers: Headers, body: bytes | None = None) -> Attempt:
    written = failure is None or failure not in NEVER_SENT
    return Attempt(number=1, status=status, headers=headers, body=body, failure=failure, written=written)


def _then(text: str) -> Attempt:
    what, _, field = text.strip().partition(" ")
    headers = _headers((field,), "--then") if field.strip() else Headers()
    if what.isascii() and what.isdigit() and 100 <= int(what) <= 999:
        return _answer(int(what), None, headers)
    if what in {kind.value for kind in FailureKind}:
        return _answer(None, FailureKind(what), Headers())
    raise click.UsageError(f"--then '{text}': a status such as 503, or a failure: {', '.join(FailureKind)}.")


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


def _print_refused(refused: Refused, form: str) -> None:
    """The response that the sidecar gives itself; nothing is sent, so nothing is judged."""
    if form == "json":
        told: dict[str, object] = {
            "upstream": UNKNOWN,
            "policy": None,
            "row": None,
            "decision": "pass",
            "reason": None,
            "wait": None,
            "safe_because": None,
            "attempts_left": 0,
            "gate": False,
            "refused": {"status": refused.status, "kind": refused.kind, "detail": refused.detail},
        }
        click.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2))
        return
    paint = painter()
    click.echo(paint(f"refused: the sidecar answers {refused.status} itself, and sends nothing", "red"))
    click.echo(f"  {refused.kind:<13}  {refused.detail}")
