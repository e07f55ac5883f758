"""``sidecar retries [off|on] [UPSTREAM]``: turn the retries of a running sidecar off for a while, and on again.

It asks the admin port of one sidecar; each replica is switched by itself. Counterpart: ``admin.switches``.
"""

from __future__ import annotations

from pathlib import Path

import click

from sidecar.cli.admin_port import ask, config_option, place_of, url_option

__all__ = ["command"]


@click.command("retries")
@click.argument("to", type=click.Choice(["off", "on"]), required=False)
@click.argument("upstream", required=False)
@click.option("--for", "time", metavar="10m", help="Turn them on again after this time; a week at most.")
@url_option
@config_option
def command(to: str | None, upstream: str | None, time: str | None, url: str | None, config: Path | None) -> None:
    """Turn retries off or on, of UPSTREAM or of all; without a word: show where they are off.

    Off means that every answer is handed over as it comes (reason `switched_off`). It lasts until `retries on`, for
    the time of --for, or until the sidecar ends; a reload does not change it. Needs SIDECAR_ADMIN_TOKEN.
    """
    if time is not None and to != "off":
        raise click.UsageError("--for goes with `retries off`")
    place = place_of(url, config)
    if to is None:
        click.echo(ask(place, "GET", "/-/retries", {}), nl=False)
        return
    click.echo(ask(place, "POST", f"/-/retries/{to}", {"upstream": upstream, "for": time}), nl=False)
