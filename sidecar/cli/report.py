"""``sidecar report REQUEST_ID``: what is known of one failed exchange, as a bundle for a ticket.

It asks the running sidecar on this machine. The report was redacted before it was kept; nothing is added to it.
Counterpart: ``sidecar.observe.reports``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import orjson

from sidecar.cli.admin_port import ask, config_option, place_of, url_option
from sidecar.observe.reports import markdown

__all__ = ["command"]


@click.command("report")
@click.argument("request_id")
@click.option("--format", "form", type=click.Choice(["markdown", "json"]), default="markdown", show_default=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="A directory: both forms go into it, as ID.md and ID.json.",
)
@url_option
@config_option
def command(request_id: str, form: str, output: Path | None, url: str | None, config: Path | None) -> None:
    """Bundle what is known of one failed exchange.

    REQUEST_ID is any of its ids: the X-Request-Id of the answer, the correlation id, or the upstream's own.
    """
    report = _report(ask(place_of(url, config), "GET", "/debug/report", {"id": request_id}))
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


def _report(data: bytes) -> dict[str, Any]:
    try:
        report: dict[str, Any] = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise click.ClickException("that is no sidecar: it answers something else") from None
    return report
