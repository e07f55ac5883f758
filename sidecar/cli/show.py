"""``sidecar show``: the effective configuration, and where each value comes from. Starts nothing.

A configuration holds no secrets; a reference to one (``env:NAME``) is shown as it is written.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from sidecar.config.load import load_deployment

__all__ = ["command"]


@click.command("show")
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    help="sidecar.yaml. Left out: what SIDECAR_CONFIG names, else the built-in configuration.",
)
def command(config: Path | None) -> None:
    """Print the effective configuration as YAML: flag > environment > file > default.

    The comment beside each value says where it comes from.
    """
    loaded = load_deployment(config, environ=os.environ)
    for warning in loaded.warnings:
        click.echo(f"{warning}\n", err=True)
    click.echo(loaded.text(), nl=False)
