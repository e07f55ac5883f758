"""``sidecar health``: asks a running sidecar whether it lives (or is ready), for Docker's HEALTHCHECK.

Exit code 0 if it does, 1 if not, with one line that says why. It runs every few seconds, so it opens a socket and
nothing else: of a configuration that is named only the line of ``admin`` is read. It ignores ``HTTP_PROXY``. ``probe``
is the same for a container, without the command line. Counterpart: ``sidecar.admin``.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from urllib.parse import urlsplit

import click

from sidecar.cli.probe import DEFAULT_ADMIN, NotHttp, admin_line, ask, reachable, site, split, why

__all__ = ["command"]


@click.command("health")
@click.option("--url", metavar="URL", help="Where to ask, in place of the configured admin address.")
@click.option(
    "-c",
    "--config",
    "file",
    envvar="SIDECAR_CONFIG",
    type=click.Path(path_type=Path),
    help="The sidecar.yaml that names the admin address.  [env: SIDECAR_CONFIG]",
)
@click.option("--ready", is_flag=True, help="Ask whether it takes new requests, not only whether it lives.")
@click.option(
    "--timeout", "timeout_seconds", type=click.FloatRange(0.01, 60), default=2.0, show_default=True, help="Seconds."
)
def command(url: str | None, file: Path | None, ready: bool, timeout_seconds: float) -> None:
    """Ask a running sidecar whether it lives; for HEALTHCHECK."""
    host, port, path = _place(url) if url else (*_configured(file), "")
    path = path or ("/readyz" if ready else "/livez")
    place = f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"
    try:
        status, text = ask(host, port, path, timeout_seconds)
    except (OSError, NotHttp) as error:
        raise click.ClickException(f"no answer from {place}: {why(error)}") from None
    if status != 200:
        raise click.ClickException(f"{place} answered {status}: {text}")
    click.echo(text)


def _place(url: str) -> tuple[str, int, str]:
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise click.BadParameter(f"{error}", param_hint="--url") from None
    if parts.scheme != "http" or not parts.hostname:
        raise click.BadParameter(f"write it as http://{DEFAULT_ADMIN}", param_hint="--url")
    return parts.hostname, port, parts.path.rstrip("/")


def _configured(file: Path | None) -> tuple[str, int]:
    """The admin address: environment before file before default, as for every setting."""
    written = os.environ.get("SIDECAR_ADMIN")
    named = site() if file is None else str(file)
    if written is None and named is not None:
        try:
            host, port = split(admin_line(named) or DEFAULT_ADMIN)
        except (OSError, ValueError):
            # It says what is wrong with the file; loading it costs more than all the rest.
            loader = importlib.import_module("sidecar.config.load")
            admin = loader.load_deployment(Path(named), environ=os.environ).deployment.admin
            host, port = admin.host, admin.port
        return reachable(host), port
    try:
        host, port = split(written or DEFAULT_ADMIN)
    except ValueError:
        raise click.BadParameter(f"SIDECAR_ADMIN must be like {DEFAULT_ADMIN}", param_hint="SIDECAR_ADMIN") from None
    return reachable(host), port
