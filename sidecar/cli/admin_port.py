"""The admin port of a running sidecar, asked by a command: its address, the token, and the response.

The address is that of ``SIDECAR_ADMIN``, else of the configuration, else the default. It asks directly, whatever
``HTTP_PROXY`` says. Every fault is a sentence. Counterpart: ``sidecar.admin``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import click

from sidecar.admin.token import TokenError, read_token
from sidecar.cli.probe import reachable
from sidecar.config.load import load_deployment
from sidecar.observe.sanitize import clean

__all__ = ["ask", "config_option", "place_of", "url_option"]

ANSWER_BYTES = 1 << 20
SECONDS = 10.0

url_option = click.option("--url", metavar="URL", help="The admin address, in place of the configured one.")
config_option = click.option(
    "-c", "--config", type=click.Path(path_type=Path), help="sidecar.yaml; else SIDECAR_CONFIG."
)


def place_of(url: str | None, config: Path | None) -> tuple[str, int]:
    """Host and port."""
    if url is None:
        admin = load_deployment(config, environ=os.environ).deployment.admin
        return reachable(admin.host), admin.port
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from None
    if parts.scheme != "http" or not host:
        raise click.BadParameter("write it as http://127.0.0.1:9180", param_hint="--url")
    return host, port


def ask(place: tuple[str, int], method: str, path: str, query: Mapping[str, str | None]) -> bytes:
    """The body of the response. ``query``: entries of None are left out. A POST carries ``SIDECAR_ADMIN_TOKEN``."""
    host, port = place
    shown = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    headers = {"Authorization": f"Bearer {_token()}"} if method == "POST" else {}
    asked = urlencode({name: value for name, value in query.items() if value is not None})
    connection = HTTPConnection(host, port, timeout=SECONDS)
    try:
        connection.request(method, path + (f"?{asked}" if asked else ""), headers=headers)
        response = connection.getresponse()
        data = response.read(ANSWER_BYTES)
    except (OSError, HTTPException) as error:
        raise click.ClickException(f"no answer from {shown}: {error or type(error).__name__}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise click.ClickException(f"{shown}: {clean(data[:300].decode('utf-8', 'replace').strip(), 300)}")
    return data


def _token() -> str:
    try:
        token = read_token(os.environ)
    except TokenError as error:
        raise click.ClickException(str(error)) from None
    if token is None:
        raise click.ClickException(
            "this changes the sidecar: set SIDECAR_ADMIN_TOKEN to the token that it was started with"
        )
    return token
