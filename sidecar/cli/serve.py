"""``sidecar serve``: run, until a signal ends it. Without any file: a forward proxy on loopback, safe defaults."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import uvloop

from sidecar.admin.token import TokenError, read_token
from sidecar.app import CannotListen, Sidecar
from sidecar.config.load import Loaded, load_deployment
from sidecar.life import Life

__all__ = ["command"]


@click.command()
@click.option("-c", "--config", type=click.Path(path_type=Path), help="sidecar.yaml; without it, built-in defaults.")
@click.option("--listen", metavar="HOST:PORT", help="Where apps find the sidecar; port 0 takes any.")
@click.option("--admin", metavar="HOST:PORT", help="Health, metrics and the page.")
@click.option("--log-format", metavar="auto|pretty|json", help="How the log is written.")
def command(config: Path | None, listen: str | None, admin: str | None, log_format: str | None) -> None:
    """Run the sidecar."""
    flags = {"listen": listen, "admin": admin, "log.format": log_format}
    overrides = {name: value for name, value in flags.items() if value is not None}

    def load() -> Loaded:
        return load_deployment(config, environ=os.environ, overrides=overrides)

    try:
        token = read_token(os.environ)
        uvloop.run(_run(load, token))
    except (CannotListen, TokenError) as exc:
        click.echo(f"sidecar: {exc}", err=True)
        sys.exit(1)


async def _run(load: object, token: str | None) -> None:
    await Life(load, token=token).run(_announce)  # type: ignore[arg-type]


def _announce(sidecar: Sidecar, loaded: Loaded) -> None:
    """Where it listens, and the line to copy."""
    place = f"http://{sidecar.address.host}:{sidecar.address.port}"
    admin = f"http://{sidecar.admin_address.host}:{sidecar.admin_address.port}"
    lines = [f"sidecar listening on {place} · health, metrics and page on {admin}"]
    mounts = [upstream for upstream in loaded.deployment.upstreams if upstream.mount]
    lines += [f"  {place}{upstream.mount} → {upstream.name}" for upstream in mounts[:10]]
    if len(mounts) > 10:
        lines.append(f"  … and {len(mounts) - 10} more mounts")
    if not mounts:
        lines.append(f"  export http_proxy={place}   # then any http:// URL goes through it")
    for warning in loaded.warnings:
        lines.append(f"  warning: {warning}")
    click.echo("\n".join(lines), err=True)
