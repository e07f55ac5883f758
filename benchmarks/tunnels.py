"""``python -m benchmarks.tunnels``: what a tunnel adds to its bytes' latency, beside HAProxy; its memory when idle.

A round trip of 64 bytes to an echo and back, alone on its connection, is timed directly, through HAProxy (``mode tcp``:
the least that it can do) and through a CONNECT of the sidecar; what each adds over the direct way is compared. Then
1,000 tunnels are opened and left idle. Exit 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.peers import free_port, sidecar_python
from benchmarks.process import CORE_LOAD, CORE_PROXY, Process, raise_file_limit

TRIPS = 20_000
ROUNDS = 5
TUNNELS = 1000
MOST_RATIO = 1.5
MOST_BYTES = 20 << 10
MESSAGE = b"x" * 64
START_SECONDS = 10.0

HAPROXY = """
global
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen echo
  bind 127.0.0.1:{port}
  server echo 127.0.0.1:{echo}
"""
SIDECAR = """
listen: 127.0.0.1:{port}
admin: 127.0.0.1:0
tunnels: {{ports: [{echo}]}}
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tunnels", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--trips", type=int, default=TRIPS)
    given = parser.parse_args()
    raise_file_limit()
    os.sched_setaffinity(0, {CORE_LOAD})
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name, ExitStack() as stack:
        echo = stack.enter_context(echoing())
        proxies = {
            "haproxy": stack.enter_context(haproxy(Path(name), echo)),
            "sidecar": stack.enter_context(sidecar(Path(name), echo)),
        }
        held = latency(proxies, echo, given.rounds, given.trips)
        return 0 if idle(proxies["sidecar"], echo) and held else 1


@contextmanager
def echoing() -> Iterator[int]:
    """A thread per connection: the kernel wakes it, nothing else stands between."""

    def serve(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    pid = 0
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    pid = os.fork()
    if pid == 0:
        threading.stack_size(128 << 10)
        accept()
        os._exit(0)
    port = listener.getsockname()[1]
    listener.close()
    try:
        yield port
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


@contextmanager
def haproxy(folder: Path, echo: int) -> Iterator[tuple[int, Process]]:
    port = free_port()
    path = folder / "haproxy.cfg"
    path.write_text(HAPROXY.format(port=port, echo=echo))
    with Process(["haproxy", "-db", "-f", str(path)], CORE_PROXY, folder / "haproxy.log") as process:
        wait_for(port)
        yield port, process


@contextmanager
def sidecar(folder: Path, echo: int) -> Iterator[tuple[int, Process]]:
    port = free_port()
    path = folder / "sidecar.yaml"
    path.write_text(SIDECAR.format(port=port, echo=echo))
    command = [sidecar_python(), "-P", "-m", "sidecar", "serve", "-c", str(path)]
    with Process(command, CORE_PROXY, folder / "sidecar.log") as process:
        wait_for(port)
        yield port, process


def wait_for(port: int) -> None:
    until = time.perf_counter() + START_SECONDS
    while time.perf_counter() < until:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nothing listens on port {port}")


def opened(port: int, tunnel_to: int = 0) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tunnel_to:
        sock.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (tunnel_to, tunnel_to))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(4096)
        assert head.startswith(b"HTTP/1.1 200"), head
    return sock


def round_trip_us(sock: socket.socket, trips: int) -> float:
    """The median."""
    times = []
    with sock:
        for _ in range(trips):
            begun = time.perf_counter()
            sock.sendall(MESSAGE)
            got = 0
            while got < len(MESSAGE):
                got += len(sock.recv(65536))
            times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e6


def latency(proxies: dict[str, tuple[int, Process]], echo: int, rounds: int, trips: int) -> bool:
    added: dict[str, list[float]] = {name: [] for name in proxies}
    for number in range(rounds):
        direct = round_trip_us(opened(echo), trips)
        line = [f"round {number + 1}: direct {direct:.1f} µs"]
        for name, (port, _) in proxies.items():
            through = round_trip_us(opened(port, echo if name == "sidecar" else 0), trips)
            added[name].append(through - direct)
            line.append(f"{name} adds {through - direct:.1f} µs")
        print(" · ".join(line))
    ratio = statistics.median(added["sidecar"]) / statistics.median(added["haproxy"])
    print(f"added latency, median of rounds: {ratio:.2f} × HAProxy's (at most {MOST_RATIO})")
    return ratio <= MOST_RATIO


def idle(place: tuple[int, Process], echo: int) -> bool:
    port, process = place
    opened(port, echo).close()
    before = process.rss_bytes()
    tunnels = [opened(port, echo) for _ in range(TUNNELS)]
    time.sleep(0.5)
    each = (process.rss_bytes() - before) / TUNNELS
    for tunnel in tunnels:
        tunnel.close()
    print(f"{TUNNELS} idle tunnels: {each / 1024:.1f} KiB each (at most {MOST_BYTES >> 10})")
    return each <= MOST_BYTES


if __name__ == "__main__":
    sys.exit(main())
