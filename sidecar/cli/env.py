"""``sidecar env --for RUNTIME``: the lines that point a runtime at the sidecar, to be copied. Changes nothing.

What they say is ``sidecar.client_setup``; where the sidecar listens comes from its configuration, or from ``--proxy``.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import click

from sidecar.cli.ca import trust_of
from sidecar.cli.probe import reachable
from sidecar.client_setup.runtimes import RUNTIMES, Place, block_for
from sidecar.config.load import load_deployment
from sidecar.core.settings.deployment import Address, Deployment

__all__ = ["command", "place_of"]


@click.command("env")
@click.option("--for", "runtime", type=click.Choice(list(RUNTIMES)), required=True, help="Who is to be pointed here.")
@click.option(
    "-c",
    "--config",
    envvar="SIDECAR_CONFIG",
    type=click.Path(path_type=Path),
    help="The sidecar.yaml that says where it listens and what is mounted.  [env: SIDECAR_CONFIG]",
)
@click.option("--proxy", metavar="URL", help="Where the app reaches the sidecar, if not at its `listen` address.")
@click.option(
    "--https/--no-https",
    "https",
    default=None,
    help="Whether https:// URLs are to come too. Default: only if some are intercepted.",
)
def command(runtime: str, config: Path | None, proxy: str | None, https: bool | None) -> None:
    """Print the lines that point a runtime at the sidecar.

    \b
    eval "$(sidecar env --for curl)"
    """
    deployment = load_deployment(config, environ=os.environ).deployment
    place = place_of(deployment, _judged(proxy) if proxy else _listening(deployment.listen), https=https)
    click.echo(block_for(runtime, place), nl=False)


def place_of(deployment: Deployment, proxy: str, *, https: bool | None = None) -> Place:
    """A deployment, as its apps see it."""
    upstreams = deployment.upstreams
    return Place(
        proxy=proxy,
        mounts=tuple((upstream.name, upstream.mount) for upstream in upstreams if upstream.mount),
        hosts=tuple(host for upstream in upstreams for host in upstream.hosts if upstream.origin.scheme == "https"),
        asks_credential=deployment.access.credential is not None,
        https=deployment.intercept is not None if https is None else https,
        trust=trust_of(deployment.intercept) if deployment.intercept is not None else None,
    )


def _listening(listen: Address) -> str:
    host = reachable(listen.host)
    if not listen.port:
        raise click.UsageError("`listen` has port 0, which is any free one: say with --proxy where the sidecar is")
    return f"http://[{host}]:{listen.port}" if ":" in host else f"http://{host}:{listen.port}"


def _judged(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--proxy") from None
    if parts.scheme != "http" or not parts.hostname or port is None or parts.path.strip("/") or "@" in parts.netloc:
        raise click.BadParameter("write it as http://HOST:PORT", param_hint="--proxy")
    return f"http://{parts.netloc}"
