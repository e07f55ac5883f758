"""The front door: ``sidecar VERB …``. One file per verb beside this one, opened only when its verb is called.

Nothing is decided here but exit codes: 0 fine, 1 could not start or run, 2 usage, 78 configuration.
Whatever goes wrong, the user reads a sentence and never a traceback. Its counterparts are the verbs.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

import click

from sidecar import __version__
from sidecar.config.problems import ConfigError

__all__ = ["EXIT_CONFIGURATION", "EXIT_FAILURE", "main"]

EXIT_FAILURE = 1
EXIT_CONFIGURATION = 78
"""EX_CONFIG of sysexits.h."""

VERBS = {
    "serve": "Run the sidecar.",
    "demo": "Show in seconds, offline, what it does for a flaky upstream.",
    "check": "Judge configuration files; every mistake at once, each with its place.",
    "explain": "Say what would happen with an answer, and why. Nothing is sent.",
    "simulate": "Run the same engine on a virtual clock.",
    "test": "Run policy tests: what must come of which answer.",
    "show": "Print the effective configuration, and where each value comes from.",
    "schema": "Print the JSON Schema of the configuration, for editors.",
    "env": "Print the lines that point a runtime at the sidecar.",
    "ca": "Make the authority of interception, and say how apps trust it.",
    "doctor": "Say in plain words what is wrong with a set-up.",
    "health": "Ask a running sidecar whether it lives; for HEALTHCHECK.",
    "outbox": "Look into the outbox; send dead letters again, or drop them.",
    "retries": "Turn the retries of a running sidecar off for a while, and on again.",
    "report": "Bundle what is known of one failed exchange.",
}
"""Verb -> its line in the help: the list can be printed without opening a single one."""


class Verbs(click.Group):
    """Opens a verb's module when the verb is called: ``sidecar health`` must not pay for ``serve``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [verb for verb in VERBS if _exists(verb)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS or not _exists(cmd_name):
            return None
        command: click.Command = importlib.import_module(f"sidecar.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, VERBS[verb]) for verb in self.list_commands(ctx)])

    def main(self, *args: Any, **extra: Any) -> Any:
        """As click's, but a configuration error ends with its text and 78, from whichever verb it comes."""
        try:
            return super().main(*args, **extra)
        except ConfigError as error:
            click.echo(str(error), err=True)
            sys.exit(EXIT_CONFIGURATION)


def _exists(verb: str) -> bool:
    return importlib.util.find_spec(f"sidecar.cli.{verb}") is not None


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sidecar", message="%(prog)s %(version)s")
def main() -> None:
    """An HTTP proxy that runs beside a service and retries its calls: by status code, by a YAML table,
    without harm."""
