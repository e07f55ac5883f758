"""``sidecar health``: asks a running sidecar whether it lives (or is ready), for Docker's HEALTHCHECK.

Exit code 0 if it does, 1 if not, with one line that says why. It runs every few seconds, so it opens a socket and
nothing else: the configuration is read only if a file is named. It ignores ``HTTP_PROXY``: the question is ours to
ask directly. The counterpart is ``sidecar.admin``.
"""

from __future__ import annotations

import importlib
import os
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import click

__all__ = ["command"]

_DEFAULT_ADMIN = "127.0.0.1:9180"
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - listening there means: ask on loopback


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
        status, text = _ask(host, port, path, timeout_seconds)
    except (OSError, HTTPException) as error:
        raise click.ClickException(f"no answer from {place}: {_why(error)}") from None
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
        raise click.BadParameter(f"write it as http://{_DEFAULT_ADMIN}", param_hint="--url")
    return parts.hostname, port, parts.path.rstrip("/")


def _configured(file: Path | None) -> tuple[str, int]:
    """The admin address: environment before file before default, as for every setting."""
    written = os.environ.get("SIDECAR_ADMIN")
    if written is None and file is not None:
        loader = importlib.import_module("sidecar.config.load")  # costs more than all the rest of this command
        admin = loader.load_deployment(file, environ=os.environ).deployment.admin
        return _WILDCARDS.get(admin.host, admin.host), admin.port
    try:
        parts = urlsplit("//" + (written or _DEFAULT_ADMIN))
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise click.BadParameter(f"SIDECAR_ADMIN must be like {_DEFAULT_ADMIN}", param_hint="SIDECAR_ADMIN")
    return _WILDCARDS.get(host, host), port


def _ask(host: str, port: int, path: str, timeout_seconds: float) -> tuple[int, str]:
    connection = HTTPConnection(host, port, timeout=timeout_seconds)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read(4096).decode("utf-8", "backslashreplace")
        return response.status, " · ".join(text.split("\n")).strip(" ·")
    finally:
        connection.close()


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"not an HTTP answer ({type(error).__name__})"
