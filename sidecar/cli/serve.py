"""``sidecar serve``: run, until a signal ends it. Without any file: a forward proxy on loopback, safe defaults.

The configuration is validated in a process of its own (``config.child_process``) while this one imports what it needs
to run. So the costly imports are in ``serving``, which is imported after the other process has been started.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from sidecar.cli.serving.descriptors import fill_standard, raise_limit
from sidecar.cli.serving.lean_imports import leave_out_the_client
from sidecar.cli.serving.memory import collect_nothing_yet
from sidecar.config.child_process import ConfigProcess, first_config_process

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
    collect_nothing_yet()
    fill_standard()
    raise_limit()
    first = first_config_process(config, overrides)
    leave_out_the_client()
    serving = importlib.import_module("sidecar.cli.serving.run")
    serving.serve(first, lambda before: ConfigProcess(config, overrides, before))
