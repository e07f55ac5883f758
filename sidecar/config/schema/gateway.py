"""The keys of the sidecar as a proxy: ``access`` (which clients may use it), ``tunnels`` (CONNECT), ``proxy``
(outbound).

Secrets are named, never written (``env:NAME``, ``file:PATH``); ``compile.gateway`` reads them when a configuration is
loaded, and everything that shows configuration shows the reference.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field, WithJsonSchema

from sidecar.config.schema.addresses import parse_host, parse_origin
from sidecar.config.schema.fields import Block, LongDuration, clip, kind_of, refuse
from sidecar.config.schema.secrets import split_reference
from sidecar.config.text.problems import Code

__all__ = ["DIRECT", "AccessBlock", "NoProxy", "OutboundUrl", "TunnelsBlock", "UpstreamOutboundUrl"]

DIRECT = "direct"
"""The value for an upstream that is reached without the default ``proxy``."""

_NO_PROXY = re.compile(r"\*|[*.]?[A-Za-z0-9_.:/\[\]-]+")


def _read_credential(value: object) -> str:
    if not isinstance(value, str) or split_reference(value) is None:
        raise refuse(
            Code.BAD_VALUE,
            "a credential is a secret, which must not stand in this file",
            "name a variable or a file that holds `user:password`: `env:NAME` or `file:PATH`",
        )
    return value


def _read_destination(value: object) -> str:
    if isinstance(value, str) and value.startswith("*."):
        return "*." + parse_host(value[2:])
    if value == "*":
        raise refuse(Code.BAD_VALUE, "`*` would be every host", "leave the list out, or name hosts")
    return parse_host(value)


def _read_no_proxy(value: object) -> str:
    if not isinstance(value, str) or not _NO_PROXY.fullmatch(value):
        shown = f"`{clip(value)}`" if isinstance(value, str) else kind_of(value)
        raise refuse(
            Code.BAD_VALUE, f"{shown} names no hosts", "as in `example.com`, `.example.com`, `10.0.0.0/8`, `*`"
        )
    return value


def _read_outbound(value: object) -> str:
    if isinstance(value, str) and split_reference(value) is not None:
        return value
    return read_proxy_url(value)


def read_proxy_url(value: object) -> str:
    """``http://host[:port]`` without a user. Raises what a validator raises."""
    text = value if isinstance(value, str) else ""
    if text.startswith(("https://", "socks")):
        raise refuse(Code.BAD_VALUE, "only `http://` proxies are spoken to", "TLS goes through them end to end")
    if "@" in text:
        raise refuse(
            Code.BAD_VALUE,
            "the user of a proxy is a secret, which must not stand in this file",
            "put the whole URL into a variable or a file, and write `env:NAME` or `file:PATH`",
        )
    if parse_origin(value).base_path:
        raise refuse(Code.BAD_VALUE, "the URL of a proxy has no path", "end it after the port")
    return text


def _read_upstream_outbound(value: object) -> str:
    return DIRECT if value == DIRECT else _read_outbound(value)


Credential = Annotated[
    str,
    BeforeValidator(_read_credential),
    WithJsonSchema({"type": "string", "pattern": "^(env|file):.+$", "title": "`env:NAME` or `file:PATH`"}),
]
HostPattern = Annotated[
    str, BeforeValidator(_read_destination), WithJsonSchema({"type": "string", "title": "host pattern"})
]
NoProxy = Annotated[str, BeforeValidator(_read_no_proxy), WithJsonSchema({"type": "string", "title": "host"})]
_URL_SCHEMA = {"type": "string", "pattern": "^(http://|env:|file:)"}
OutboundUrl = Annotated[
    str,
    BeforeValidator(_read_outbound),
    WithJsonSchema({**_URL_SCHEMA, "title": "URL, `env:NAME` or `file:PATH`"}),
]
UpstreamOutboundUrl = Annotated[
    str,
    BeforeValidator(_read_upstream_outbound),
    WithJsonSchema({"type": "string", "title": "URL, `env:NAME`, `file:PATH` or `direct`"}),
]
Port = Annotated[int, Field(ge=1, le=65535)]


class AccessBlock(Block):
    """Which clients may use the sidecar as a forward proxy, and for which hosts."""

    noun: ClassVar[str] = "the block `access`"

    credential: Credential | None = Field(
        None, description="Where `user:password` stands, which `HTTP_PROXY` users must then give; never the value."
    )
    destinations: Annotated[list[HostPattern], Field(min_length=1)] | None = Field(
        None, description="Hosts of no upstream that may be asked for: `name`, `*.name`, with an optional port."
    )


class TunnelsBlock(Block):
    """Where `CONNECT` (`https://` URLs through `HTTPS_PROXY`) may lead."""

    noun: ClassVar[str] = "the block `tunnels`"

    ports: Annotated[list[Port], Field(min_length=1)] = Field([443], description="Ports that may be asked for.")
    hosts: list[HostPattern] | None = Field(
        None, description="Hosts that may be asked for; left out: as plain requests. `[]`: no tunnels at all."
    )
    idle: LongDuration = Field(
        3600.0, description="Without a byte either way; holds for upgraded connections (WebSocket) too."
    )
