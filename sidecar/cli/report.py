"""``sidecar report REQUEST_ID``: what is known of one failed exchange, as a bundle for a ticket.

It asks the running sidecar on this machine. What comes has been redacted before it was kept; nothing is added to it.
The counterpart is ``sidecar.observe.reports``.
"""

from __future__ import annotations

import os
import re
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import click
import orjson

from sidecar.config.load import load_deployment
from sidecar.observe.reports import markdown
from sidecar.observe.text import clean

__all__ = ["command"]

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - listening there means: ask on loopback


@click.command("report")
@click.argument("request_id")
@click.option("--format", "form", type=click.Choice(["markdown", "json"]), default="markdown", show_default=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="A directory: both forms go into it, as ID.md and ID.json.",
)
@click.option("--url", metavar="URL", help="The admin address, in place of the configured one.")
@click.option("-c", "--config", type=click.Path(path_type=Path), help="sidecar.yaml; else SIDECAR_CONFIG.")
def command(request_id: str, form: str, output: Path | None, url: str | None, config: Path | None) -> None:
    """Bundle what is known of one failed exchange.

    REQUEST_ID is any of its ids: the X-Request-Id of the answer, the correlation id, or the upstream's own.
    """
    report = _ask(*_place(url, config), request_id)
    texts = {"md": markdown(report), "json": orjson.dumps(report, option=orjson.OPT_INDENT_2).decode() + "\n"}
    if output is None:
        click.echo(texts["json" if form == "json" else "md"], nl=False)
        return
    name = re.sub(r"[^A-Za-z0-9._-]", "_", request_id)[:100].lstrip(".") or "report"
    try:
        output.mkdir(parents=True, exist_ok=True)
        for ending, text in texts.items():
            path = output / f"{name}.{ending}"
            path.write_text(text, encoding="utf-8")
            click.echo(path)
    except OSError as error:
        raise click.ClickException(f"cannot write into {output}: {error.strerror}") from None


def _place(url: str | None, config: Path | None) -> tuple[str, int]:
    if url is None:
        admin = load_deployment(config, environ=os.environ).deployment.admin
        return _WILDCARDS.get(admin.host, admin.host), admin.port
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from None
    if parts.scheme != "http" or not host:
        raise click.BadParameter("write it as http://127.0.0.1:9180", param_hint="--url")
    return host, port


def _ask(host: str, port: int, request_id: str) -> dict[str, Any]:
    place = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    connection = HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", f"/debug/report?id={quote(request_id, safe='')}")
        response = connection.getresponse()
        data = response.read()
    except (OSError, HTTPException) as error:
        raise click.ClickException(f"no answer from {place}: {error or type(error).__name__}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise click.ClickException(f"{place}: {clean(data[:300].decode('utf-8', 'replace').strip(), 300)}")
    try:
        report: dict[str, Any] = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise click.ClickException(f"{place} is no sidecar: it answers something else") from None
    return report
