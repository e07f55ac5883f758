"""The keys of ``sidecar.yaml``: listeners, upstreams, routes, limits, log.

The only source of their types, defaults and descriptions, and of the names of the ``SIDECAR_*`` variables. Policies are
in ``policy``.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from sidecar.config.schema.addresses import HostPort, parse_address, parse_host, parse_mount, parse_origin, parse_path
from sidecar.config.schema.fields import (
    Block,
    Duration,
    LongDuration,
    Method,
    PolicyName,
    Share,
    Size,
    UpstreamName,
)
from sidecar.config.schema.gateway import AccessBlock, NoProxy, OutboundUrl, TunnelsBlock, UpstreamOutboundUrl
from sidecar.config.schema.login import LoginBlock
from sidecar.config.schema.shared import SharedUrl
from sidecar.core.settings.deployment import Address, Origin

__all__ = ["InterceptBlock", "LimitsBlock", "LogBlock", "OutboxBlock", "RouteBlock", "SiteBlock", "UpstreamBlock"]

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
    store: Literal["always"] | None = Field(
        None, description="`always`: into the outbox at once, in place of being sent while the app waits."
    )


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
    shadow: PolicyName | None = Field(
        None,
        description="A second policy that judges every answer as well, and acts on nothing; its differences are told.",
    )
    host: Literal["origin", "keep"] = Field(
        "origin", description="What `Host` says toward it: the origin's name, or what the app sent."
    )
    ca_file: str | None = Field(
        None, description="PEM file of certificates to trust in place of the system's; relative to this file."
    )
    connections: int = Field(1000, ge=1, le=100_000, description="At most this many at once; others wait.")
    proxy: UpstreamOutboundUrl | None = Field(
        None, description="The `http://` proxy that it is reached through; `direct`: none, whatever holds for all."
    )
    login: LoginBlock | None = Field(None, description="Where a token is had, for rows that say `then: login`.")


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


class OutboxBlock(Block):
    """Where requests are kept that are delivered later: `then: store`, and routes with `store: always`."""

    noun: ClassVar[str] = "the block `outbox`"

    file: Annotated[str, Field(min_length=1)] = Field(
        description="An SQLite file, made if it is missing; relative to this file. Its directory must exist."
    )
    max_bytes: Annotated[Size, Field(ge=1 << 10)] = Field(
        256 << 20, description="Of everything in it; a request that does not fit is refused with 503."
    )
    max_count: int = Field(100_000, ge=1, le=10_000_000, description="The most requests in it.")
    max_age: LongDuration = Field(
        72 * 3600.0, description="A request that could not be delivered for this time becomes a dead letter."
    )


class InterceptBlock(Block):
    """``https://`` hosts whose tunnels are opened, so that an unmodified app's calls are retried. Needs the extra
    ``intercept``."""

    noun: ClassVar[str] = "the block `intercept`"

    hosts: Annotated[list[HostName], Field(min_length=1)] = Field(
        description="`CONNECT` to these is answered with a certificate of our own; a port only where it is not 443."
    )
    ca: Annotated[str, Field(min_length=1)] = Field(
        description="The folder that `sidecar ca init` has made; relative to this file."
    )


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
    access: AccessBlock | None = Field(None, description="Which clients may use the sidecar as a forward proxy.")
    tunnels: TunnelsBlock = Field(TunnelsBlock(), description="Where `CONNECT` may lead.")
    proxy: OutboundUrl | None = Field(
        None, description="The `http://` proxy that the sidecar itself goes out through, with a user by reference only."
    )
    no_proxy: list[NoProxy] | None = Field(
        None, description="Hosts that `proxy` does not hold for; left out: what `no_proxy` or `NO_PROXY` lists."
    )
    limits: LimitsBlock = Field(LimitsBlock(), description="What an app may cost.")
    log: LogBlock = Field(LogBlock(), description="What is logged, and how.")
    outbox: OutboxBlock | None = Field(None, description="Where requests are kept that are delivered later.")
    intercept: InterceptBlock | None = Field(None, description="`https://` hosts whose tunnels are opened.")
    shared: SharedUrl | None = Field(
        None,
        description="The Redis or Valkey through which replicas share gates, rates, breakers and budgets: "
        "`redis://HOST:PORT/DATABASE` or `rediss://…`; with a password by reference only. Needs the extra `redis`.",
    )
