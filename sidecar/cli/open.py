"""``sidecar open [UPSTREAM]``: release everything that a running sidecar holds back, and forget why.

It asks the admin port of one sidecar; each replica is opened by itself. Counterpart: ``admin.switches``.
"""

from __future__ import annotations

from pathlib import Path

import click

from sidecar.cli.admin_port import ask, config_option, place_of, url_option

__all__ = ["command"]


@click.command("open")
@click.argument("upstream", required=False)
@url_option
@config_option
def command(upstream: str | None, url: str | None, config: Path | None) -> None:
    """Let go what is held back, and forget why.

    Gates, breaker, learnt rate and concurrency limit of UPSTREAM, or of all upstreams, begin anew; the exchanges
    that wait for them are sent at once. What the upstream answers then closes them again. Needs SIDECAR_ADMIN_TOKEN.
    """
    click.echo(ask(place_of(url, config), "POST", "/-/open", {"upstream": upstream}), nl=False)
