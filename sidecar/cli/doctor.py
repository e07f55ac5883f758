"""``sidecar doctor``: run beside an app, says in plain words what is wrong with its set-up. Changes nothing.

What it looks for is in ``sidecar.doctor``. Exit code 0 if nothing is broken (warnings are no error), 1 if something is.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import click
import orjson

from sidecar.cli.probe import reachable
from sidecar.client_setup.runtimes import RUNTIMES
from sidecar.config.load import ConfigError, load_deployment
from sidecar.core.settings.deployment import Address
from sidecar.doctor.context import CheckContext, SidecarAddresses
from sidecar.doctor.examination import examine
from sidecar.doctor.findings import CheckKind, Finding

__all__ = ["command"]


@click.command("doctor")
@click.option(
    "-c",
    "--config",
    envvar="SIDECAR_CONFIG",
    type=click.Path(path_type=Path),
    help="The sidecar.yaml that the sidecar runs on.  [env: SIDECAR_CONFIG]",
)
@click.option("--proxy", metavar="URL", help="Where the app reaches the sidecar, if not at its `listen` address.")
@click.option("--admin", metavar="URL", help="Where its admin port is, if not at its `admin` address.")
@click.option("--for", "runtime", type=click.Choice(list(RUNTIMES)), help="The app's runtime.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--timeout", "timeout_seconds", type=click.FloatRange(0.1, 60), default=5.0, show_default=True, help="Seconds."
)
@click.argument("client", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND … {}]")
def command(
    config: Path | None,
    proxy: str | None,
    admin: str | None,
    runtime: str | None,
    form: str,
    timeout_seconds: float,
    client: tuple[str, ...],
) -> None:
    """Say in plain words what is wrong with a set-up: run it where the app runs, with the app's environment.

    After `--`, a command of the app that requests the URL that stands for {}: it is run once, against a server that
    answers 503, to see whether it retries by itself.
    """
    try:
        deployment = load_deployment(config, environ=os.environ).deployment
    except ConfigError as error:
        findings = [_unread(error)]
    else:
        around = CheckContext(
            environ=os.environ,
            deployment=deployment,
            proxy=_addresses(proxy, deployment.listen, "--proxy"),
            admin=_addresses(admin, deployment.admin, "--admin"),
            runtime=runtime,
            wall=time.time,
            timeout_seconds=timeout_seconds,
            file_limit=_file_limit(),
            client=client,
        )
        findings = examine(around)
    click.echo(_as_json(findings) if form == "json" else _as_text(findings))
    sys.exit(1 if any(finding.ailment.is_error for finding in findings) else 0)


def _unread(error: ConfigError) -> Finding:
    first, *others = [problem for problem in error.problems if not problem.is_warning]
    more = f" (and {len(others)} more)" if others else ""
    text = f"the configuration cannot be read: {first.place}: {first.message}{more}"
    return Finding(CheckKind.CONFIGURATION, first.file, text, "sidecar check shows every mistake with its place")


def _addresses(url: str | None, configured: Address, option: str) -> SidecarAddresses:
    if url is None:
        if not configured.port:
            raise click.UsageError(f"its port is 0, which is any free one: say with {option} where it is")
        return SidecarAddresses(reachable(configured.host), configured.port)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme != "http":
        raise click.BadParameter("write it as http://HOST:PORT", param_hint=option)
    return SidecarAddresses(host, port)


def _file_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _as_text(findings: list[Finding]) -> str:
    lines = []
    for finding in findings:
        kind = "error" if finding.ailment.is_error else "warning"
        lines.append(f"{kind} {finding.ailment.code} {finding.ailment.title}: {finding.message}")
        lines.append(f"  fix: {finding.fix}")
    errors = sum(finding.ailment.is_error for finding in findings)
    warnings = len(findings) - errors
    if not findings:
        return "nothing is wrong"
    return "\n".join([*lines, f"{_count(errors, 'error')}, {_count(warnings, 'warning')}"])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _as_json(findings: list[Finding]) -> str:
    objects = [
        {
            "code": finding.ailment.code,
            "name": finding.ailment.title,
            "severity": "error" if finding.ailment.is_error else "warning",
            "subject": finding.subject,
            "message": finding.message,
            "fix": finding.fix,
        }
        for finding in findings
    ]
    broken = any(finding.ailment.is_error for finding in findings)
    return orjson.dumps({"ok": not broken, "findings": objects}, option=orjson.OPT_INDENT_2).decode()
