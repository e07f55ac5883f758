"""The command line: ``sidecar VERB …``. One file per verb beside this one, imported only when its verb is called.

It decides nothing but exit codes: 0 fine, 1 could not start or run, 2 usage, 78 configuration. Whatever goes wrong, the
user reads a sentence and never a traceback.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from typing import Any

import click

from sidecar import __version__
from sidecar.config.text.problems import ConfigError, nearest

__all__ = ["EXIT_CONFIGURATION", "EXIT_FAILURE", "main"]

EXIT_FAILURE = 1
EXIT_CONFIGURATION = 78
"""Exit code for a wrong configuration: EX_CONFIG of sysexits.h."""

VERBS = {
    "init": "Write a commented sidecar.yaml to begin with.",
    "serve": "Run the sidecar.",
    "demo": "Show in seconds, offline, what it does for a flaky upstream.",
    "check": "Judge configuration files; every mistake at once, each with its place.",
    "explain": "Say what would happen with an answer, and why. Nothing is sent.",
    "simulate": "Run the same engine on a virtual clock.",
    "test": "Run policy tests: what must come of which answer.",
    "fmt": "Indent configuration files alike; comments and order stay.",
    "diff": "Say what a change of the configuration does.",
    "show": "Print the effective configuration, and where each value comes from.",
    "schema": "Print the JSON Schema of the configuration, for editors.",
    "env": "Print the lines that point a runtime at the sidecar.",
    "ca": "Make the authority of interception, and say how apps trust it.",
    "doctor": "Say in plain words what is wrong with a set-up.",
    "health": "Ask a running sidecar whether it lives; for HEALTHCHECK.",
    "outbox": "Look into the outbox; send dead letters again, or drop them.",
    "top": "Show what a running sidecar saves, costs, gives up and holds, live.",
    "open": "Let go what a running sidecar holds back, and forget why.",
    "retries": "Turn the retries of a running sidecar off for a while, and on again.",
    "report": "Bundle what is known of one failed exchange.",
    "completion": "Print the completion script of bash, zsh or fish.",
}
"""Verb → its line in the help: the list is printed without importing a verb."""

VARIABLES = {
    "SIDECAR_CONFIG": "The sidecar.yaml of every verb. Default: sidecar.yaml here, if there is one; else built-in.",
    "SIDECAR_LISTEN": "Where apps find the sidecar. Default: 127.0.0.1:8080.",
    "SIDECAR_ADMIN": "Health, metrics and the page. Default: 127.0.0.1:9180.",
    "SIDECAR_ADMIN_TOKEN": "What changes state on the admin port; or SIDECAR_ADMIN_TOKEN_FILE. Default: nobody may.",
    "SIDECAR_LOG_FORMAT": "auto, pretty or json. Default: auto.",
    "SIDECAR_…": "Every other setting of sidecar.yaml: see `sidecar show`.",
    "NO_COLOR": "No colour, also at a terminal.",
}
"""The variables named in the help."""

_ARGUMENTS = "sidecar.arguments"


class Verbs(click.Group):
    """Imports a verb's module when the verb is called: ``sidecar health`` must not pay for ``serve``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [verb for verb in VERBS if _exists(verb)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS or not _exists(cmd_name):
            return None
        command: click.Command = importlib.import_module(f"sidecar.cli.{cmd_name}").command
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with a suggestion for a verb that is not there."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(f"There is no verb `{args[0][:64]}`: {nearest(args[0], VERBS)}", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, VERBS[verb]) for verb in self.list_commands(ctx)])
        with formatter.section("Environment"):
            formatter.write_dl(list(VARIABLES.items()))
        with formatter.section("Exit codes"):
            formatter.write_text("0 fine · 1 could not start or run · 2 usage · 78 configuration")

    def main(self, *args: Any, **extra: Any) -> Any:
        """As click's, but a configuration error of any verb ends with its text and 78."""
        try:
            return super().main(*args, **extra)
        except ConfigError as error:
            click.echo(str(error), err=True)
            sys.exit(EXIT_CONFIGURATION)


def _exists(verb: str) -> bool:
    return importlib.util.find_spec(f"sidecar.cli.{verb}") is not None


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    """Print the version and end."""
    if not wanted or ctx.resilient_parsing:
        return
    if "--json" not in ctx.meta[_ARGUMENTS]:
        click.echo(f"sidecar {__version__}")
    else:
        form = importlib.import_module("sidecar.cli.form").form()
        python = ".".join(map(str, sys.version_info[:3]))
        told = {"name": "sidecar", "version": __version__, "python": python, "form": form.partition(":")[0]}
        click.echo(json.dumps(told))
    ctx.exit()


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
@click.option("--json", "as_json", is_flag=True, is_eager=True, expose_value=False, help="With --version: as JSON.")
def main() -> None:
    """An HTTP proxy that runs beside a service and retries its calls: by status code, by a YAML table,
    without harm."""
