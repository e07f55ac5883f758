"""Instructions per request, counted by callgrind: a check that does not care how busy the machine is.

The sidecar and the bare aiohttp proxy are warmed up, then asked the same requests on one connection while
valgrind counts. Their ratio is compared with the one in ``counts.json``; ``python -m benchmarks.counts`` exits
with 1 when it has grown by more than a twentieth. After a wanted change: ``--record``. Needs the Debian packages
valgrind and nginx-light. Counts are of user space: system calls are in ``benchmarks.quick``.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.http1 import request_bytes, take_answer
from benchmarks.peers import Peer, by_name
from benchmarks.running import peer_running, upstream_running

__all__ = ["REQUESTS", "count", "program_missing"]

RECORDED = Path(__file__).parent / "counts.json"
GROWTH = 1.05
WARM_REQUESTS = 300
"""Python 3.11 specialises its bytecode on the way; after this many, counts repeat."""
COUNTED_REQUESTS = 300
REQUESTS = {"get": ("GET", "/small", 0), "post": ("POST", "/sink", 2048)}


def program_missing() -> str | None:
    """What must be installed first, in words; None when nothing is missing."""
    for program in ("valgrind", "callgrind_control"):
        if subprocess.run(["which", program], capture_output=True).returncode != 0:
            return f"{program} is not installed. Try: apt-get install valgrind"
    return None


def count(peer: Peer, request: tuple[str, str, int], upstream: int, folder: Path) -> float:
    """Instructions per request in user space. TimeoutError when the peer does not answer under valgrind."""
    out = folder / "callgrind.out"
    out.unlink(missing_ok=True)
    under = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
    with peer_running(peer, folder, upstream, under=under) as running:
        sent = bytes_of(request, running.port)
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            ask(connection, sent, WARM_REQUESTS)
            _control(running.process.pid, "-i", "on")
            ask(connection, sent, COUNTED_REQUESTS)
            _control(running.process.pid, "-i", "off")
    return _total(out) / COUNTED_REQUESTS


def bytes_of(request: tuple[str, str, int], port: int) -> bytes:
    method, path, size = request
    fields = f"Content-Type: application/json\r\nContent-Length: {size}\r\n" if size else ""
    return request_bytes(path, port, method, fields) + b"x" * size


def ask(connection: socket.socket, sent: bytes, times: int) -> None:
    """One after the other. RuntimeError on any answer but 200."""
    buffer = bytearray()
    for _ in range(times):
        connection.sendall(sent)
        while (answer := take_answer(buffer)) is None:
            chunk = connection.recv(65536)
            if not chunk:
                raise RuntimeError("the proxy closed the connection while it was measured")
            buffer += chunk
        if answer.status != 200:
            raise RuntimeError(f"the proxy answered {answer.status} while it was measured")


def _control(pid: int, *arguments: str) -> None:
    subprocess.run(["callgrind_control", *arguments, str(pid)], capture_output=True, check=True, timeout=30)


def _total(out: Path) -> int:
    found = re.search(r"^totals: (\d+)", out.read_text(), re.MULTILINE)
    if not found:
        raise RuntimeError("callgrind wrote no total")
    return int(found.group(1))


def measured(names: Sequence[str]) -> dict[str, float]:
    """The ratio of instructions, sidecar over bare, by request."""
    found = {}
    (sidecar,), (bare,) = by_name("sidecar"), by_name("bare aiohttp")
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name, upstream_running(Path(name)) as upstream:
        for key in names:
            ours = count(sidecar, REQUESTS[key], upstream, Path(name))
            theirs = count(bare, REQUESTS[key], upstream, Path(name))
            print(
                f"  {key}: sidecar {ours:,.0f}, bare {theirs:,.0f} instructions, ratio {ours / theirs:.4f}", flush=True
            )
            found[key] = ours / theirs
    return found


def judged(found: dict[str, float], recorded: dict[str, float]) -> bool:
    """True when nothing has grown; says what has."""
    held = True
    for key, ratio in found.items():
        before = recorded.get(key)
        if before is None:
            print(f"{key}: nothing recorded yet; --record does it")
        elif ratio > before * GROWTH:
            held = False
            print(f"{key}: GROWN from {before:.4f} to {ratio:.4f} of the bare proxy's instructions")
        else:
            print(f"{key}: {ratio:.4f}, recorded {before:.4f}: held")
    return held


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counts", description=__doc__)
    parser.add_argument("--record", action="store_true", help="write the ratios to counts.json")
    given = parser.parse_args()
    if missing := program_missing():
        print(missing)
        return 1
    try:
        found = measured(list(REQUESTS))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"Could not count: {error}")
        return 1
    if given.record:
        ratios = {key: round(ratio, 4) for key, ratio in found.items()}
        RECORDED.write_text(json.dumps({"python": platform.python_version(), "ratios": ratios}, indent=2) + "\n")
        return 0
    recorded = json.loads(RECORDED.read_text())["ratios"] if RECORDED.exists() else {}
    return 0 if judged(found, recorded) else 1


if __name__ == "__main__":
    sys.exit(main())
