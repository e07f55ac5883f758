"""Checks for a second layer of retries, which multiplies ours: three sends there times five here are fifteen.

First the variables by which known tools are told to retry, then a probe: one request through the app's proxy to a
server of the doctor's own that always answers 503, counting what arrives. With the app's own command, the same without
the sidecar, to see whether the client itself repeats.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from sidecar.doctor.context import CheckContext, SidecarAddresses
from sidecar.doctor.findings import CheckKind, Finding
from sidecar.doctor.reach import ask

__all__ = ["layer_checks"]

COUNTERS = {
    "aws_max_attempts": ("the AWS SDK", 0, "1"),
    "pip_retries": ("pip", 1, "0"),
    "uv_http_retries": ("uv", 1, "0"),
    "npm_config_fetch_retries": ("npm", 1, "0"),
    "cargo_net_retry": ("cargo", 1, "0"),
    "poetry_requests_max_retries": ("poetry", 1, "0"),
    "bundle_retry": ("bundler", 1, "0"),
}
"""Variable, lower case → the tool that reads it, the sends that its count leaves out, the value for one send."""
AWS_DEFAULT_ATTEMPTS = 3
"""Sends of the modes ``standard`` and ``adaptive`` where AWS_MAX_ATTEMPTS is not set (AWS SDKs reference guide)."""
PROBE_PATH = "/sidecar-doctor"
PROBE_SECONDS = 3


def _hints(around: CheckContext) -> Iterator[Finding]:
    names = {name.lower(): name for name in around.environ}
    for key, (who, uncounted, single) in COUNTERS.items():
        value = around.environ.get(names.get(key, ""), "").strip()
        sends = int(value) + uncounted if value.isascii() and value.isdigit() and len(value) < 6 else 1
        if sends > 1:
            yield _multiplied(around, names[key], who, sends, f"export {names[key]}={single}")
    if around.environ.get("AWS_RETRY_MODE") in ("standard", "adaptive") and "AWS_MAX_ATTEMPTS" not in around.environ:
        yield _multiplied(around, "AWS_RETRY_MODE", "the AWS SDK", AWS_DEFAULT_ATTEMPTS, "export AWS_MAX_ATTEMPTS=1")


def _multiplied(around: CheckContext, name: str, who: str, sends: int, fix: str) -> Finding:
    ours = max(
        (u.policy.attempts for u in around.deployment.upstreams), default=around.deployment.default_policy.attempts
    )
    text = f"{who} sends up to {sends} times by itself ({name}), times {ours} here: {sends * ours} calls for one"
    return Finding(
        CheckKind.APP_RETRIES, name, text, f"{fix}; or `attempts: 1` in the policy: one layer owns the retries"
    )


class Counting(ThreadingHTTPServer):
    """Answers 503 to everything and counts it."""

    daemon_threads = True

    def __init__(self) -> None:
        self.arrived = 0
        super().__init__(("127.0.0.1", 0), _Refusing)

    @property
    def address(self) -> SidecarAddresses:
        return SidecarAddresses("127.0.0.1", self.server_port)


class _Refusing(BaseHTTPRequestHandler):
    server: Counting
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.arrived += 1
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Log nothing: the doctor reports."""


@contextlib.contextmanager
def _counting() -> Iterator[Counting]:
    server = Counting()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _probe(around: CheckContext) -> Iterator[Finding]:
    """The response says how often the sidecar has sent; the server knows how often it came."""
    if around.proxy.host not in ("127.0.0.1", "localhost", "::1"):
        return  # from there, this machine's loopback is not ours
    address = _app_proxy(around)
    with _counting() as server:
        headers = {"Host": server.address.url.removeprefix("http://"), "Sidecar-Timeout": f"{PROBE_SECONDS}s"}
        target = server.address.url + PROBE_PATH
        try:
            status, response, _ = ask(address, "GET", target, PROBE_SECONDS + around.timeout_seconds, headers)
        except (OSError, HTTPException):
            return  # No answer, or no proxy: another check reports that.
        said = _attempts(response.getheader("Sidecar"))
    if status == 503 and said and server.arrived > said:
        text = f"of one request, the sidecar sent {said}, and {server.arrived} arrived: something else retries too"
        fix = "let one layer own the retries: turn them off in the other proxy or mesh, or set `attempts: 1` here"
        yield Finding(CheckKind.SECOND_LAYER, address.url, text, fix)


def _app_proxy(around: CheckContext) -> SidecarAddresses:
    """The proxy that the app uses, which may be one in front of the sidecar."""
    value = around.environ.get("http_proxy") or around.environ.get("HTTP_PROXY") or ""
    with contextlib.suppress(ValueError):
        parts = urlsplit(value)
        if parts.scheme == "http" and parts.hostname and parts.port:
            return SidecarAddresses(parts.hostname, parts.port)
    return around.proxy


def _attempts(field: str | None) -> int:
    for item in (field or "").split(","):
        name, _, value = item.strip().partition("=")
        if name == "attempts" and value.isdigit():
            return int(value)
    return 0


def _client(around: CheckContext) -> Iterator[Finding]:
    """Run the app's own command against the server, without any proxy."""
    if not around.client or shutil.which(around.client[0]) is None:
        return
    environ = {name: value for name, value in around.environ.items() if not name.lower().endswith("_proxy")}
    with _counting() as server:
        url = server.address.url + PROBE_PATH
        command = [word.replace("{}", url) for word in around.client]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(  # noqa: S603 - the person's own command
                command, env=environ, timeout=60, check=False, capture_output=True
            )
        sends = server.arrived
    if sends > 1:
        yield _multiplied(around, around.client[0], f"`{around.client[0]}`", sends, "turn its own retries off")


layer_checks = (_hints, _probe, _client)
