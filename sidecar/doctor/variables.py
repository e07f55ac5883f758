"""Checks of the proxy variables: set, in both cases, alike, well formed, pointing here, and what they leave out.

Reads the environment only; opens nothing. ``sidecar.client_setup`` knows which client reads which name.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from sidecar.client_setup.variables import DIRECT, METADATA, bypasses
from sidecar.doctor.context import CheckContext
from sidecar.doctor.findings import CheckKind, Finding

__all__ = ["variable_checks"]

CLOUD_HINTS = ("AWS_", "ECS_", "AZURE_", "GOOGLE_", "GCP_", "CLOUDSDK_")
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def _presence(around: CheckContext) -> Iterator[Finding]:
    environ, url = around.environ, around.proxy.url
    if environ.get("http_proxy") or environ.get("HTTP_PROXY") or environ.get("all_proxy") or environ.get("ALL_PROXY"):
        return
    if any(_points_there(value, around) for value in environ.values()):
        return
    fix = f'eval "$(sidecar env --for {around.runtime or "curl"})" before the app starts'
    if any(upstream.mount for upstream in around.deployment.upstreams):
        text = f"no variable holds {url}: unless the app's own settings do, it does not use the sidecar"
        yield Finding(CheckKind.NO_POINTER, "environment", text, f"give the app a base URL below {url}, or {fix}")
    else:
        text = f"neither http_proxy nor HTTP_PROXY is set: the app does not use the sidecar at {url}"
        yield Finding(CheckKind.NO_VARIABLE, "http_proxy", text, fix)


def _points_there(value: str, around: CheckContext) -> bool:
    return value.startswith(f"{around.proxy.url}/") or value == around.proxy.url


def _cases(around: CheckContext) -> Iterator[Finding]:
    """curl, wget and git read only the lower-case name for ``http://``; other clients only the upper-case one."""
    for lower in ("http_proxy", "https_proxy", "no_proxy"):
        upper = lower.upper()
        small, large = around.environ.get(lower), around.environ.get(upper)
        if small and large and small != large:
            text = f"{lower} and {upper} say different things: each client believes another one"
            yield Finding(
                CheckKind.CASES_DIFFER, lower, text, f"set both to the same value, here {lower}'s or {upper}'s"
            )
        elif bool(small) != bool(large) and (lower == "http_proxy" or small or large):
            there, missing = (lower, upper) if small else (upper, lower)
            why = (
                "curl, wget and git read only the lower-case name" if missing == "http_proxy" else "some read only that"
            )
            yield Finding(
                CheckKind.ONE_CASE,
                missing,
                f"{there} is set and {missing} is not: {why}",
                f'export {missing}="${there}"',
            )


def _targets(around: CheckContext) -> Iterator[Finding]:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        value = around.environ.get(name)
        if not value:
            continue
        fault = _fault(value)
        if fault:
            yield Finding(CheckKind.MALFORMED, name, f"{name} {fault}", f"export {name}={around.proxy.url}")
        elif not _is_here(value, around) and name.lower() == "http_proxy":
            text = f"{name} points to another address than the sidecar's, {around.proxy.url}"
            yield Finding(
                CheckKind.ELSEWHERE,
                name,
                text,
                f"export {name}={around.proxy.url}, or say --proxy where the sidecar is",
            )


def _fault(value: str) -> str | None:
    """What is wrong with the value of a proxy variable; it is never printed, for it may hold a password."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if "://" not in value:
        return "has no scheme; many clients need http:// in front"
    if parts.scheme != "http":
        return f"begins with {parts.scheme}://; the sidecar is reached by http://, whatever the URLs behind it"
    if not parts.hostname:
        return "names no host"
    if port is None:
        return "names no port, which means 80 to some clients and 1080 to others"
    if parts.path.strip("/"):
        return "has a path; that would be a base URL, not a proxy"
    return None


def _is_here(value: str, around: CheckContext) -> bool:
    parts = urlsplit(value)
    host = parts.hostname or ""
    alike = host == around.proxy.host or {host, around.proxy.host} <= LOOPBACK_NAMES
    return alike and parts.port == around.proxy.port


def _left_out(around: CheckContext) -> Iterator[Finding]:
    """What ``NO_PROXY`` keeps from the sidecar, and what it should."""
    if not (around.environ.get("http_proxy") or around.environ.get("HTTP_PROXY")):
        return
    for name in ("no_proxy", "NO_PROXY"):
        value = around.environ.get(name, "")
        for upstream in around.deployment.upstreams:
            for host in upstream.hosts:
                entry = bypasses(value, host.partition(":")[0])
                if entry:
                    text = f"{name} holds `{entry}`: requests to {host} go past the sidecar and are not retried"
                    yield Finding(CheckKind.BYPASSED, upstream.name, text, f"take `{entry}` out of {name}")
    listed = around.environ.get("no_proxy") or around.environ.get("NO_PROXY") or ""
    if bypasses(listed, "localhost") is None or bypasses(listed, "127.0.0.1") is None:
        text = "NO_PROXY does not hold localhost and 127.0.0.1: the app's calls to itself go through the sidecar"
        yield Finding(
            CheckKind.LOOPBACK_PROXIED, "no_proxy", text, f"export no_proxy={','.join(DIRECT)} (and NO_PROXY)"
        )
    on_cloud = any(name.startswith(CLOUD_HINTS) for name in around.environ)
    missing = [host for host in METADATA[:1] if bypasses(listed, host) is None]
    if on_cloud and missing:
        text = f"NO_PROXY does not hold {missing[0]}: cloud SDKs fetch credentials there, and the sidecar refuses it"
        yield Finding(
            CheckKind.METADATA_PROXIED, "no_proxy", text, f"add {','.join(METADATA)} to no_proxy and NO_PROXY"
        )


def _https(around: CheckContext) -> Iterator[Finding]:
    value = around.environ.get("https_proxy") or around.environ.get("HTTPS_PROXY")
    if not value or _fault(value) or not _is_here(value, around) or around.deployment.intercept is not None:
        return
    text = "https:// URLs reach the sidecar as opaque tunnels: nothing in them can be retried"
    fix = "write http:// URLs for hosts that are listed under `hosts`, use a base URL, or intercept (docs/ways-in.md)"
    yield Finding(CheckKind.TUNNELLED, "https_proxy", text, fix)


def _node(around: CheckContext) -> Iterator[Finding]:
    if around.runtime != "node" or not (around.environ.get("http_proxy") or around.environ.get("HTTP_PROXY")):
        return
    if around.environ.get("NODE_USE_ENV_PROXY") != "1" and "--use-env-proxy" not in around.environ.get(
        "NODE_OPTIONS", ""
    ):
        text = "Node's fetch and http ignore the proxy variables without their switch"
        fix = "export NODE_USE_ENV_PROXY=1 (Node 22.21 or 24.5 and newer); before that, undici's EnvHttpProxyAgent"
        yield Finding(CheckKind.NODE_SWITCH, "NODE_USE_ENV_PROXY", text, fix)


variable_checks = (_presence, _cases, _targets, _left_out, _https, _node)
