"""``sidecar ca``: the local authority of interception. ``init`` makes it once; alone, it prints what apps must trust.

The authority itself is ``sidecar.intercept``, which needs the extra ``intercept``; it is opened only when called.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from sidecar.client_setup.runtimes import Trust, keytool, trust_variables
from sidecar.config.check.intercept import wanted_intercept
from sidecar.config.text.files import default_site
from sidecar.core.settings.deployment import Intercept

__all__ = ["command", "trust_of"]

_config = click.option(
    "-c",
    "--config",
    envvar="SIDECAR_CONFIG",
    default=lambda: default_site(os.environ) or Path("sidecar.yaml"),
    show_default="sidecar.yaml",
    type=click.Path(path_type=Path),
    help="The sidecar.yaml whose `intercept` names the hosts and the folder.  [env: SIDECAR_CONFIG]",
)


@click.group("ca", invoke_without_command=True)
@_config
@click.pass_context
def command(context: click.Context, config: Path) -> None:
    """Print what each runtime needs to trust the sidecar's authority; `sidecar ca init` makes it."""
    if context.invoked_subcommand is not None:
        return
    wanted = _wanted(config)
    trust = trust_of(wanted)
    if not Path(trust.ca_file).is_file():
        raise click.ClickException(f"there is no {trust.ca_file} yet: make it with `sidecar ca init`")
    lines = [f"# for {', '.join(wanted.hosts)}"]
    for runtime, variables in trust_variables(trust).items():
        lines += [f"export {name}={shlex.quote(value)}   # {runtime}" for name, value in variables.items()]
    lines += ["# wget reads no variable:", f"#   wget --ca-certificate={shlex.quote(trust.bundle_file)}"]
    lines += ["# Java keeps trust in a key store:", f"#   {keytool(trust)}"]
    lines += ["# whoever holds ca.key can pass as these hosts: apps need ca.pem and bundle.pem only"]
    click.echo("\n".join(lines))


@command.command("init")
@_config
@click.option("--again", is_flag=True, help="Replace an authority that is there; apps must then trust the new one.")
def init(config: Path, again: bool) -> None:
    """Make the authority for the hosts of `intercept`: ca.key (0600), ca.pem, bundle.pem."""
    wanted = _wanted(config)
    folder = Path(wanted.folder)
    authority = _room()
    if (folder / authority.KEY).exists() and not again:
        raise click.ClickException(f"{folder / authority.KEY} is there already; --again replaces it")
    try:
        made = authority.create(folder, wanted.hosts, datetime.now(UTC))
    except OSError as error:
        raise click.ClickException(f"{error.filename or folder} cannot be written: {error.strerror}") from None
    click.echo(f"{folder}/ca.pem signs for {', '.join(authority.names_of(wanted.hosts))}")
    click.echo(f"until {made.not_valid_after_utc:%Y-%m-%d}, and for nobody else; `sidecar ca` says how apps trust it")
    if not authority.system_certificates():
        text = "this system's certificates were not found: bundle.pem holds only the new one"
        click.echo(f"warning: {text}; apps that trust it in place of theirs reach nobody else", err=True)


def trust_of(intercept: Intercept) -> Trust:
    """The files for apps, by their absolute paths."""
    folder = Path(intercept.folder).absolute()
    return Trust(str(folder / "ca.pem"), str(folder / "bundle.pem"))


def _wanted(config: Path) -> Intercept:
    wanted = wanted_intercept(config)
    if wanted is None:
        raise click.ClickException(
            f"{config} has no `intercept`: add\n  intercept: {{hosts: [api.example.com], ca: ca}}"
        )
    return wanted


def _room() -> Any:
    try:
        return importlib.import_module("sidecar.intercept.authority")
    except ImportError:
        click.echo("sidecar: interception needs its extra: pip install 'retry-sidecar[intercept]'", err=True)
        sys.exit(1)
