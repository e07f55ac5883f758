"""``sidecar schema [sidecar|policy|tests]``: the JSON Schema of a configuration file, for editors."""

from __future__ import annotations

import click
import orjson

from sidecar.config.show.json_schema import SCHEMAS, json_schema

__all__ = ["command"]


@click.command("schema")
@click.argument("kind", type=click.Choice(list(SCHEMAS)), default="policy")
def command(kind: str) -> None:
    """Print the JSON Schema (draft 2020-12) of a policy file, of sidecar.yaml or of policy tests.

    In an editor that knows the YAML language server: save it, and begin the file with

      # yaml-language-server: $schema=policy.schema.json
    """
    click.echo(orjson.dumps(json_schema(kind), option=orjson.OPT_INDENT_2))
