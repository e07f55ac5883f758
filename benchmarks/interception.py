"""What opening TLS toward the app adds: CPU per request, intercepted beside plain, in one run of one sidecar.

``python -m benchmarks.interception`` prints one line of JSON; exit code 1 above 1.3 times. Both go by keep-alive
connections to the same upstream: plain as ``GET http://HOST/…`` (origination), intercepted through a tunnel to
``HOST:443``. The upstream speaks TLS, for that is what an intercepted one does.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import trustme

from benchmarks.http1 import take_answer
from benchmarks.peers import free_port, sidecar_python
from benchmarks.process import CORE_LOAD, CORE_PROXY, Process
from sidecar.intercept.authority import CERTIFICATE, create

__all__ = ["main"]

HOST = "api.example"
CONNECTIONS = 16
ROUNDS = 5
AT_MOST = 1.3
"""Intercepted over plain."""
REQUESTS = 20_000
WARM_UP = 2_000
START_SECONDS = 20.0

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}; keepalive_requests 1000000000;
  proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {folder}/upstream.pem; ssl_certificate_key {folder}/upstream.pem;
    location / {{ default_type application/json; return 200 '{{"id":"0123456789","state":"ready","amount":1200}}'; }}
  }}
}}
"""

SIDECAR = """
listen: 127.0.0.1:{listen}
admin: 127.0.0.1:{admin}
upstreams:
  - {{name: api, origin: "https://localhost:{port}", ca_file: authority.pem, hosts: [{host}]}}
intercept: {{hosts: [{host}], ca: ca}}
log: {{sample: 0}}
"""


def _upstream(folder: Path) -> int:
    """Lays the configuration of a TLS upstream; returns its port."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(folder / "upstream.pem"))
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
    return port


def _plain(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def _through_tunnel(port: int, context: ssl.SSLContext) -> socket.socket:
    opened = _plain(port)
    opened.sendall(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode())
    if not opened.recv(4096).startswith(b"HTTP/1.1 200"):
        raise RuntimeError("the tunnel was refused")
    return context.wrap_socket(opened, server_hostname=HOST)


def _load(connections: list[socket.socket], request: bytes, count: int) -> None:
    """``count`` requests, one at a time on each connection."""
    buffers = [bytearray() for _ in connections]
    for _ in range(count // len(connections)):
        for connection in connections:
            connection.sendall(request)
        for connection, buffer in zip(connections, buffers, strict=True):
            while (answer := take_answer(buffer)) is None:
                buffer.extend(connection.recv(65536))
            if answer.status != 200:
                raise RuntimeError(f"answered {answer.status}")


def _cost(proxy: Process, make: Callable[[], socket.socket], request: bytes) -> float:
    """CPU microseconds of the sidecar per request."""
    connections = [make() for _ in range(CONNECTIONS)]
    _load(connections, request, WARM_UP)
    before = proxy.cpu_seconds()
    _load(connections, request, REQUESTS)
    cost = (proxy.cpu_seconds() - before) / REQUESTS * 1e6
    for connection in connections:
        connection.close()
    return cost


def _wait(process: Process, port: int) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    while process.is_running() and time.monotonic() < give_up_at:
        try:
            _plain(port).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"nothing listens on {port}; it said: {process.log.read_text(errors='replace')[-400:]}")


def main() -> None:
    nginx = shutil.which("nginx")
    if nginx is None:
        sys.exit("benchmarks.interception: nginx is missing")
    os.sched_setaffinity(0, {CORE_LOAD})
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        upstream = _upstream(folder)
        create(folder / "ca", [HOST], datetime.now(UTC))
        listen = free_port()
        (folder / "sidecar.yaml").write_text(SIDECAR.format(listen=listen, admin=free_port(), port=upstream, host=HOST))
        behind = stack.enter_context(
            Process([nginx, "-c", str(folder / "nginx.conf")], CORE_LOAD, folder / "nginx.out")
        )
        command = [sidecar_python(), "-P", "-m", "sidecar", "serve", "-c", str(folder / "sidecar.yaml")]
        proxy = stack.enter_context(Process(command, CORE_PROXY, folder / "sidecar.out"))
        _wait(behind, upstream)
        _wait(proxy, listen)
        context = ssl.create_default_context(cafile=folder / "ca" / CERTIFICATE)
        plain_request = f"GET http://{HOST}/v1/x HTTP/1.1\r\nHost: {HOST}\r\nAccept: */*\r\n\r\n".encode()
        inner_request = f"GET /v1/x HTTP/1.1\r\nHost: {HOST}\r\nAccept: */*\r\n\r\n".encode()
        plain, intercepted = [], []
        for _ in range(ROUNDS):
            plain.append(_cost(proxy, lambda: _plain(listen), plain_request))
            intercepted.append(_cost(proxy, lambda: _through_tunnel(listen, context), inner_request))
    result = {"plain_us": median(plain), "intercepted_us": median(intercepted)}
    result["ratio"] = result["intercepted_us"] / result["plain_us"]
    print(json.dumps({key: round(value, 2) for key, value in result.items()}))
    sys.exit(result["ratio"] > AT_MOST)


if __name__ == "__main__":
    main()
