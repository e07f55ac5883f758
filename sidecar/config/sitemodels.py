"""The keys of ``sidecar.yaml``: listeners, upstreams, routes, limits, log.

The only source of their types, defaults and descriptions, and of the names of the ``SIDECAR_*`` variables.
Policies are in ``models``.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from sidecar.config.fields import (
    Block,
    Duration,
    Method,
    PolicyName,
    Share,
    Size,
    UpstreamName,
)
from sidecar.config.places import HostPort, parse_address, parse_host, parse_mount, parse_origin, parse_path
from sidecar.core.deployment import Address, Origin

__all__ = ["LimitsBlock", "LogBlock", "RouteBlock", "SiteBlock", "UpstreamBlock"]

_PATH_SCHEMA = {"type": "string", "pattern": "^/"}

ListenAddress = Annotated[
    Address,
    BeforeValidator(parse_address),
    PlainSerializer(lambda address: str(HostPort(address.host, address.port)), return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^.+:[0-9]{1,5}$", "title": "address"}),
]
OriginUrl = Annotated[
    Origin,
    BeforeValidator(parse_origin),
    PlainSerializer(lambda origin: f"{origin.scheme}://{origin.authority}{origin.base_path}", return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^https?://", "title": "origin"}),
]
HostName = Annotated[str, BeforeValidator(parse_host), WithJsonSchema({"type": "string", "title": "host"})]
MountPath = Annotated[str, BeforeValidator(parse_mount), WithJsonSchema({**_PATH_SCHEMA, "title": "mount"})]
PathPattern = Annotated[str, BeforeValidator(parse_path), WithJsonSchema({**_PATH_SCHEMA, "title": "path"})]


class RouteBlock(Block):
    """The policy of some requests of an upstream; the first route that matches wins."""

    noun: ClassVar[str] = "a route"

    methods: Annotated[list[Method], Field(min_length=1)] | None = Field(
        None, description="For these methods; left out: all."
    )
    path: PathPattern = Field(
        "/**", description="For paths after the mount that match in full: `*` is one segment, `**` any number."
    )
    policy: PolicyName = Field(description="The name of their policy.")


class UpstreamBlock(Block):
    """A named API that the app calls."""

    noun: ClassVar[str] = "an upstream"

    name: UpstreamName = Field(description="How it is called in log, metrics and headers.")
    origin: OriginUrl = Field(
        description="Its real `http://` or `https://` address (certificate verified); its path is prefixed."
    )
    mount: MountPath | None = Field(
        None, description="The app calls `http://LISTEN/MOUNT/x`, the upstream gets `/x`. `/` means everything."
    )
    hosts: Annotated[list[HostName], Field(min_length=1)] | None = Field(
        None, description="With `HTTP_PROXY`: `http://HOST/x` goes to the origin."
    )
    policy: PolicyName | None = Field(None, description="The name of its policy; left out: `default_policy`.")
    routes: list[RouteBlock] = Field([], description="Other policies for some of its requests, first match wins.")
    host: Literal["origin", "keep"] = Field(
        "origin", description="What `Host` says toward it: the origin's name, or what the app sent."
    )
    ca_file: str | None = Field(
        None, description="PEM file of certificates to trust in place of the system's; relative to this file."
    )
    connections: int = Field(1000, ge=1, le=100_000, description="At most this many at once; others wait.")


class LimitsBlock(Block):
    """What one app, or one connection of it, may cost."""

    noun: ClassVar[str] = "the block `limits`"

    head: Annotated[Size, Field(ge=1 << 10, le=16 << 20)] = Field(64 << 10, description="The largest request head.")
    headers: int = Field(200, ge=10, le=10_000, description="The most header fields in it.")
    head_timeout: Duration = Field(30.0, description="For a request head to arrive.")
    idle: Duration = Field(
        3600.0, description="Between two requests of a connection. Longer than the app's own, so that it closes first."
    )
    drain: Duration = Field(25.0, description="For exchanges under way when the sidecar is told to stop.")
    connections: int = Field(20_000, ge=1, le=1_000_000, description="The most connections of apps.")


class LogBlock(Block):
    """What is logged, and how."""

    noun: ClassVar[str] = "the block `log`"

    format: Literal["auto", "pretty", "json"] = Field(
        "auto", description="`auto`: pretty on a terminal, JSON lines otherwise."
    )
    sample: Share = Field(0.01, description="Share of uneventful exchanges that are logged; the others always are.")
    slow: Duration = Field(5.0, description="An exchange that takes longer is logged.")


class SiteBlock(Block):
    """``sidecar.yaml``: where the sidecar listens, and what it stands in front of."""

    noun: ClassVar[str] = "sidecar.yaml"

    listen: ListenAddress = Field(
        Address("127.0.0.1", 8080),
        description="For apps: base URLs and `HTTP_PROXY` on one port. Port 0: any free one.",
    )
    admin: ListenAddress = Field(Address("127.0.0.1", 9180), description="Health, metrics, page.")
    unknown_hosts: Literal["pass", "refuse"] = Field(
        "pass", description="`HTTP_PROXY` requests to hosts of no upstream: `pass` with `default_policy`, or `refuse`."
    )
    default_policy: PolicyName = Field("default", description="For upstreams that name none, and for unknown hosts.")
    upstreams: list[UpstreamBlock] = Field([], description="The APIs that the app calls.")
    limits: LimitsBlock = Field(LimitsBlock(), description="What an app may cost.")
    log: LogBlock = Field(LogBlock(), description="What is logged, and how.")
