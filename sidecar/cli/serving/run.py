"""What ``sidecar serve`` does once everything is imported: start, print the addresses, run, end with the right exit
code.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable

import click
import uvloop

from sidecar.admin.token import TokenError, read_token
from sidecar.app import CannotListen, OutboxError, Sidecar
from sidecar.cli.form import form
from sidecar.cli.serving.memory import collect_rarely, keep_freed_memory
from sidecar.config.child_process import ConfigProcess, ConfigProcessFailed
from sidecar.config.validated import ConfigInForce, ValidatedConfig
from sidecar.process import ServerProcess

__all__ = ["serve"]


def serve(first: ConfigProcess, again: Callable[[ConfigInForce], ConfigProcess]) -> None:
    """Run until a signal. ``again`` validates the configuration anew for a reload, and compares it with the one in
    force. Exits with 1 where it cannot run.
    """
    keep_freed_memory()
    try:
        loaded = first.result()
        life = ServerProcess(
            loaded, lambda before: again(before).result(), token=read_token(os.environ), environ=os.environ
        )
        uvloop.run(life.run(_announce))
    except (CannotListen, ConfigProcessFailed, OutboxError, TokenError) as exc:
        click.echo(f"sidecar: {exc}", err=True)
        sys.exit(1)


def _announce(sidecar: Sidecar, loaded: ValidatedConfig) -> None:
    """Print where it listens, and the line to copy; from here on it serves."""
    collect_rarely()
    place = f"http://{sidecar.address.host}:{sidecar.address.port}"
    admin = f"http://{sidecar.admin_address.host}:{sidecar.admin_address.port}"
    lines = [f"sidecar listening on {place} · health, metrics and page on {admin}"]
    mounts = [upstream for upstream in loaded.deployment.upstreams if upstream.mount]
    lines += [f"  {place}{upstream.mount} → {upstream.name}" for upstream in mounts[:10]]
    if len(mounts) > 10:
        lines.append(f"  … and {len(mounts) - 10} more mounts")
    if not mounts:
        lines.append(f"  export http_proxy={place}   # then any http:// URL goes through it")
    if (running := form()) != "compiled":
        lines.append(f"  not compiled, requests cost some more CPU than they could: {running} (docs/performance.md)")
    for warning in loaded.warnings:
        lines.append(f"  warning: {warning}")
    # A full disk behind the output is no reason not to serve.
    with contextlib.suppress(OSError):
        click.echo("\n".join(lines), err=True)
