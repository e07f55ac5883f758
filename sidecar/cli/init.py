"""``sidecar init API…``: a commented ``sidecar.yaml`` to begin with, and a policy for each API. Overwrites nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import click
import orjson

from sidecar.config.show.json_schema import json_schema
from sidecar.config.text.files import shipped_policies

__all__ = ["command"]

SITE = """\
# yaml-language-server: $schema=sidecar.schema.json
# Where the sidecar listens, and which APIs it stands in front of. Every key: `sidecar schema sidecar`.
#   sidecar check {file}        every mistake at once, each with its place
#   sidecar serve -c {file}     then call http://127.0.0.1:8080/{first}/… in place of {origin}/…

listen: 127.0.0.1:8080            # for apps: base URLs and HTTP_PROXY on one port
admin: 127.0.0.1:9180             # health, metrics, page
unknown_hosts: pass               # HTTP_PROXY requests to a host of no upstream: pass | refuse

upstreams:
"""
UPSTREAM = """\
  - name: {name}
    origin: {origin}
    mount: /{name}    # http://127.0.0.1:8080/{name}/v1/x -> {origin}/v1/x
    hosts: [{host}]    # HTTP_PROXY: http://{plain}/v1/x -> {origin}/v1/x
    policy: {policy}    # {where}
"""
POLICY = """\
# yaml-language-server: $schema=../policy.schema.json
# What may be repeated toward {name}, when and for how long. Rows here come before those of the default policy.
extends: default
deadline: 30s                     # one per exchange, over everything
# attempts: 5                     # sends in all: the first and its retries
# idempotency: {{header: Idempotency-Key, methods: [POST]}}   # only if {name} says that it honours such a key
# table:
#   - {{status: 409, then: retry, attempts: 2}}
"""


class Api(NamedTuple):
    """An API as named on the command line."""

    name: str
    origin: str
    host: str


@click.command("init")
@click.argument("apis", nargs=-1, required=True, metavar="API...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("sidecar.yaml"),
    show_default=True,
    help="The file to write; policies go into policies/ beside it.",
)
def command(apis: tuple[str, ...], output: Path) -> None:
    """Write a commented sidecar.yaml to begin with. Nothing is overwritten.

    API is a URL (https://api.example.com), or NAME=URL. One whose name is a shipped policy's (meshqu, status-svc …)
    uses that policy; every other gets a policies/NAME.yaml of its own.
    """
    wanted = [_api(text) for text in apis]
    names = [api.name for api in wanted]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise click.UsageError(f"Two APIs are called `{twice}`: write NAME=URL.")
    folder = output.parent
    files = {output: _site(output, wanted)}
    for api in wanted:
        if not _is_shipped(api.name):
            files[folder / "policies" / f"{api.name}.yaml"] = POLICY.format(name=api.name)
    for kind in ("sidecar", "policy"):
        text = orjson.dumps(json_schema(kind), option=orjson.OPT_INDENT_2).decode() + "\n"
        files[folder / f"{kind}.schema.json"] = text
    if there := [str(path) for path in files if path.exists() and path.suffix != ".json"]:
        raise click.ClickException(f"{', '.join(there)} is there already, and nothing is overwritten: see --output")
    for path, text in files.items():
        _write(path, text)
    click.echo(f"\nnext: sidecar check {output} && sidecar serve -c {output}")


def _api(text: str) -> Api:
    name, equals, url = text.rpartition("=") if "=" in text.partition("://")[0] else ("", "", text)
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise click.UsageError(f"{text}: {error}.") from None
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or parts.query or parts.fragment:
        raise click.UsageError(f"{text}: write a URL such as https://api.example.com, or NAME=URL.")
    name = name if equals else _name_of(host)
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name):
        raise click.UsageError(
            f"`{name}` cannot be a name: lower-case letters, digits, `.`, `-` and `_`; write NAME=URL."
        )
    authority = parts.netloc.lower()
    return Api(name, f"{parts.scheme}://{authority}{parts.path.rstrip('/')}", authority)


def _name_of(host: str) -> str:
    """``api.payments.example`` is ``payments``: the label that distinguishes one API from another."""
    labels = [label for label in host.lower().split(".") if label not in ("api", "www")]
    return labels[0] if labels else "api"


def _site(output: Path, apis: list[Api]) -> str:
    parts = [SITE.format(file=output, first=apis[0].name, origin=apis[0].origin)]
    for api in apis:
        where = "shipped" if _is_shipped(api.name) else f"policies/{api.name}.yaml"
        host = f'"{api.host}"' if ":" in api.host else api.host
        parts.append(
            UPSTREAM.format(name=api.name, origin=api.origin, host=host, plain=api.host, policy=api.name, where=where)
        )
    return "".join(parts)


def _is_shipped(name: str) -> bool:
    return (shipped_policies() / f"{name}.yaml").is_file()


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return  # a schema that is there: the same for every configuration
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
    click.echo(f"wrote {path}")
