"""The lines that point one runtime at a sidecar: as a forward proxy, by base URLs, and what it must trust.

Every block can be copied as it is; lines that begin with ``#`` explain. The facts (which client reads which variable,
which switch is needed) are held by ``tests/clients``, with the clients themselves.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from sidecar.client_setup.variables import DIRECT, IN_CLUSTER, LOOPBACK, proxy_variables

__all__ = ["RUNTIMES", "Place", "Trust", "block_for", "keytool", "trust_variables"]


@dataclass(frozen=True, slots=True)
class Trust:
    """The files that ``sidecar ca init`` has written."""

    ca_file: str
    """The certificate alone: for runtimes that add it to what they trust already."""
    bundle_file: str
    """The system's certificates and ours: for runtimes that trust this file instead of the system's."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an app reaches a sidecar."""

    proxy: str
    """``http://HOST:PORT``"""
    mounts: tuple[tuple[str, str], ...] = ()
    """Upstream and its mount: ``("payments", "/payments")``."""
    hosts: tuple[str, ...] = ()
    """Host names in ``http://`` URLs that lead to a configured upstream."""
    asks_credential: bool = False
    """Whether clients of the proxy must send a credential."""
    https: bool = False
    """Whether ``https://`` URLs go through the proxy too."""
    trust: Trust | None = None
    """What an app must trust, where the sidecar intercepts."""


def block_for(runtime: str, place: Place) -> str:
    """The lines for one of ``RUNTIMES``, a newline at the end."""
    lines = RUNTIMES[runtime](place)
    return "\n".join(lines) + "\n"


def _proxy_notes(place: Place) -> list[str]:
    notes = [f"# As a proxy: http:// URLs go through {place.proxy} and are retried."]
    if place.asks_credential:
        notes.append("# It asks for a credential: write http://USER:PASSWORD@… in these variables.")
    if place.hosts:
        notes.append(f"# http://{place.hosts[0]}/… (http, in the app) leaves as verified https.")
    if place.trust:
        notes.append("# https:// URLs of the intercepted hosts are retried too; others pass as opaque tunnels.")
    elif place.https:
        notes.append("# https:// URLs pass as opaque tunnels: nothing in them can be retried.")
    else:
        notes.append("# https:// URLs do not come this way; through a tunnel nothing could be retried.")
    return notes


def _base_urls(place: Place) -> list[tuple[str, str]]:
    return [(_variable(name), place.proxy + ("" if mount == "/" else mount)) for name, mount in place.mounts]


def _variable(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper()) + "_BASE_URL"


def _exports(variables: Iterable[tuple[str, str]]) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in variables]


def trust_variables(trust: Trust) -> dict[str, dict[str, str]]:
    """Runtime -> the variables that make it trust what the sidecar signs."""
    bundle = trust.bundle_file
    return {
        "curl": {"CURL_CA_BUNDLE": bundle},
        "python": {"SSL_CERT_FILE": bundle, "REQUESTS_CA_BUNDLE": bundle},
        "node": {"NODE_EXTRA_CA_CERTS": trust.ca_file},
        "go": {"SSL_CERT_FILE": bundle},
        "git": {"GIT_SSL_CAINFO": bundle},
        "aws": {"AWS_CA_BUNDLE": bundle},
        "pip": {"PIP_CERT": bundle},
    }


def _shell(runtime: str, notes: list[str], extra: dict[str, str] | None = None) -> Callable[[Place], list[str]]:
    """A block of exports."""

    def block(place: Place) -> list[str]:
        variables = proxy_variables(place.proxy, https=place.https)
        if place.trust:
            variables |= trust_variables(place.trust).get(runtime, {})
        lines = [*_proxy_notes(place), *(f"# {note}" for note in notes)]
        lines += _exports((variables | (extra or {})).items())
        return [*lines, *_base_url_lines(place)]

    return block


def _base_url_lines(place: Place) -> list[str]:
    urls = _base_urls(place)
    if not urls:
        return []
    return ["", "# By base URL: needs no proxy variable at all; use whatever names your app reads.", *_exports(urls)]


def _java(place: Place) -> list[str]:
    parts = urlsplit(place.proxy)
    direct = "|".join(_java_host(host) for host in DIRECT)
    options = [f"-Dhttp.proxyHost={parts.hostname}", f"-Dhttp.proxyPort={parts.port}"]
    if place.https:
        options += [f"-Dhttps.proxyHost={parts.hostname}", f"-Dhttps.proxyPort={parts.port}"]
    options.append(f"-Dhttp.nonProxyHosts={direct}")
    note = "# Java reads no proxy variables, only these properties; the JVM prints that it took them."
    lines = [*_proxy_notes(place), note]
    if place.trust:
        lines += ["# Trust is in a key store:", f"#   {keytool(place.trust)}"]
    lines += _exports([("JAVA_TOOL_OPTIONS", " ".join(options))])
    return [*lines, *_base_url_lines(place)]


def _java_host(host: str) -> str:
    return "[::1]" if host == "::1" else "127.*" if host == LOOPBACK[1] else host


def _docker(place: Place) -> list[str]:
    variables = proxy_variables(place.proxy, https=place.https) | dict(_base_urls(place))
    lines = [
        *_proxy_notes(place),
        "# A container has a loopback of its own: share the sidecar's, as here, or name the sidecar by its host name.",
        "docker run --network container:sidecar \\",
    ]
    lines += [f"  --env {name}={shlex.quote(value)} \\" for name, value in variables.items()]
    if place.trust:
        inside = Trust("/etc/sidecar/ca.pem", "/etc/sidecar/bundle.pem")
        for here, there in ((place.trust.ca_file, inside.ca_file), (place.trust.bundle_file, inside.bundle_file)):
            lines.append(f"  --volume {shlex.quote(here)}:{there}:ro \\")
        lines += [f"  --env {name}={value} \\" for name, value in _all_trust(inside).items()]
    return [*lines, "  YOUR-IMAGE"]


def keytool(trust: Trust) -> str:
    """The command that adds the certificate to a Java runtime's key store."""
    file = shlex.quote(trust.ca_file)
    return f"keytool -importcert -noprompt -alias sidecar -file {file} -cacerts -storepass changeit"


def _all_trust(trust: Trust) -> dict[str, str]:
    return {name: value for names in trust_variables(trust).values() for name, value in names.items()}


def _kubernetes(place: Place) -> list[str]:
    variables = proxy_variables(place.proxy, https=place.https, direct=(*DIRECT, *IN_CLUSTER))
    if place.trust:
        variables |= _all_trust(place.trust)
    lines = [
        *_proxy_notes(place),
        "# Under the app's container; the sidecar is an init container of the same pod with restartPolicy: Always.",
    ]
    if place.trust:
        lines.append("# Mount the sidecar's ca.pem and bundle.pem (never its key) at these paths.")
    lines.append("env:")
    for name, value in (variables | dict(_base_urls(place))).items():
        lines.append(f'  - {{name: {name}, value: "{value}"}}')
    return lines


RUNTIMES: dict[str, Callable[[Place], list[str]]] = {
    "curl": _shell("curl", ["curl reads only the lower-case name for http:// URLs (and so do wget and git)."]),
    "python": _shell(
        "python",
        ["requests, httpx and urllib read these; aiohttp only with ClientSession(trust_env=True)."],
    ),
    "node": _shell(
        "node",
        [
            "Node's fetch and http read them only with the switch, from Node 22.21 and 24.5 on. Before that:",
            "  npm install undici, then setGlobalDispatcher(new EnvHttpProxyAgent()).",
        ],
        {"NODE_USE_ENV_PROXY": "1"},
    ),
    "java": _java,
    "go": _shell("go", ["net/http reads these; it never sends localhost or 127.0.0.1 through a proxy."]),
    "docker": _docker,
    "kubernetes": _kubernetes,
}
"""Runtime → the function that writes its block."""
