"""``sidecar diff OLD NEW``: what a change of the configuration does. Nothing is sent and nothing is taken over.

Both are read and judged as ``serve`` would, in this environment. Counterparts: ``core.dryrun.compare``, which judges,
and ``POST /-/reload?dry_run=1``, the same for a running sidecar.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click
import orjson

from sidecar.cli.check import kind_of
from sidecar.cli.main import EXIT_FAILURE
from sidecar.cli.paint import painter
from sidecar.config.load import ConfigError, load_deployment, load_policy
from sidecar.config.policy_tests import load_cases
from sidecar.config.show.changes import Settings, changed_settings, settings_of
from sidecar.core.dryrun.compare import Situation, compare
from sidecar.core.dryrun.compare_text import comparison_object, comparison_text, is_same
from sidecar.core.dryrun.expectations import Case
from sidecar.core.settings.deployment import Address, Deployment
from sidecar.observe.sanitize import clean
from sidecar.observe.situations import situation_of_fields

__all__ = ["command"]

MOST_BYTES: Final = 32 << 20
"""Bytes read of a file of exchanges."""
MOST_EXCHANGES: Final = 10_000
NOWHERE: Final = Address("", 0)


@click.command("diff")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option(
    "--exchanges",
    type=click.Path(path_type=Path),
    help="Judge these as well: a log, a `sidecar report` or the answer of /debug/exchanges, as JSON.",
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(old: Path, new: Path, exchanges: Path | None, form: str) -> None:
    """Say what a change of the configuration does: which answers would be judged differently, and what needs a restart.

    OLD and NEW are each a sidecar.yaml (or its directory), or each a policy. Policy tests beside them are judged as
    well. Exit code 0 if they are the same, 1 if they differ, 78 if one is wrong.
    """
    before, after = _read(old), _read(new)
    if before[2] != after[2]:
        raise click.UsageError("One is a sidecar.yaml, the other a policy: name two of a kind.")
    situations = [*_tests(old, new), *(_exchanges(exchanges, after[0]) if exchanges is not None else ())]
    found = compare(before[0], after[0], changed_settings(before[1], after[1]), situations)
    if form == "json":
        click.echo(orjson.dumps(comparison_object(found), option=orjson.OPT_INDENT_2))
    else:
        click.echo(comparison_text(found, painter()))
    sys.exit(0 if is_same(found) else EXIT_FAILURE)


def _read(path: Path) -> tuple[Deployment, Settings, str]:
    """The deployment, its settings as written, and the kind of file."""
    path = _file(path)
    if kind_of(path) == "tests":
        raise click.UsageError(f"{path} is a file of policy tests: name the sidecar.yaml or the policy that it tests.")
    if kind_of(path) == "policy":
        policy = load_policy(path)
        above = f"policies.{policy.chain.name}."
        settings = {key.removeprefix(above): text for key, text in settings_of(None, (policy.chain,)).items()}
        return Deployment(NOWHERE, NOWHERE, (), policy.policy), settings, "policy"
    loaded = load_deployment(path, environ=os.environ)
    return loaded.deployment, settings_of(loaded.site, loaded.chains), "sidecar"


def _file(path: Path) -> Path:
    return path / "sidecar.yaml" if path.is_dir() else path


def _tests(old: Path, new: Path) -> Iterator[Situation]:
    """The policy tests beside each file; a test that both have, once."""
    seen: set[object] = set()
    for path in map(_file, (old, new)):
        folder = path.parent / "tests" if path.parent.name == "policies" else path.parent / "policies" / "tests"
        files = sorted(folder.glob("*.yaml"))
        site = path if path.parent.name != "policies" else None
        for case in _cases(files, site):
            situation = _of_case(case)
            key = (case.policy.name, situation.upstream, case.name, case.request.method, case.request.path)
            if key not in seen:
                seen.add(key)
                yield situation


def _cases(files: list[Path], site: Path | None) -> Iterable[Case]:
    if not files:
        return ()
    try:
        return load_cases(files, site, environ=os.environ)
    except ConfigError as error:
        problems = [problem for problem in error.problems if not problem.is_warning]
        first, _, _ = str(problems[0]).partition("\n")
        click.echo(f"the policy tests in {files[0].parent} are left out: {first}", err=True)
        return ()


def _of_case(case: Case) -> Situation:
    request = case.request
    is_policy = case.upstream == "-"
    return Situation(
        f"{case.file}:{case.lines[0] if case.lines else 0} {clean(case.name, 200)}",
        "" if is_policy else case.upstream,
        request.method,
        request.path,
        case.answers,
        policy=case.policy.name if is_policy else "",
        query=request.query,
        headers=request.headers,
        wall=case.wall,
    )


def _exchanges(path: Path, deployment: Deployment) -> Iterator[Situation]:
    """The exchanges of a file, at most ``MOST_EXCHANGES``. One that cannot be read is left out, and said."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror}", param_hint="--exchanges") from None
    entries = _entries(data[:MOST_BYTES])
    mounts = {upstream.name: upstream.mount or "" for upstream in deployment.upstreams}
    found = 0
    for entry in entries[:MOST_EXCHANGES]:
        situation = situation_of_fields(entry, _path(entry, mounts))
        if situation is not None:
            found += 1
            yield situation
    if found < len(entries):
        click.echo(f"{len(entries) - found} of {len(entries)} exchanges in {path} are left out", err=True)
    if not entries:
        raise click.BadParameter(f"{path}: no exchange is in it", param_hint="--exchanges")


def _entries(data: bytes) -> list[dict[str, Any]]:
    """The objects with attempts in one JSON text, or in lines of JSON."""
    try:
        whole = orjson.loads(data)
    except orjson.JSONDecodeError:
        return [entry for line in data.splitlines() for entry in _objects(_line(line))]
    inner = whole.get("exchanges") if isinstance(whole, dict) else whole
    return [entry for each in (inner if isinstance(inner, list) else [whole]) for entry in _objects(each)]


def _line(line: bytes) -> object:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def _objects(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict) and "attempts" in value:
        yield value


def _path(entry: dict[str, Any], mounts: dict[str, str]) -> str:
    """The path without the mount, as the policy's rows see it."""
    path, mount = str(entry.get("path", "/")), mounts.get(str(entry.get("upstream")), "").rstrip("/")
    if "://" in path:
        try:
            return urlsplit(path).path or "/"
        except ValueError:
            return "/"
    return path[len(mount) :] or "/" if mount and (path + "/").startswith(mount + "/") else path
