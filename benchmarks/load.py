"""Drives one load at a proxy and says what it cost: ``wrk`` for throughput, ``steady`` for a fixed rate.

Both run on the load's core as processes of their own, so that nothing of theirs is counted. CPU is that of
the proxy's processes between the first and the last request.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import CORE_LOAD, Process, on_core

__all__ = ["Load", "Sample", "drive", "drive_newcomers", "drive_steadily", "wrk_program"]

SAMPLE_SECONDS = 0.05

SCRIPT = """
wrk.method = "%(method)s"
%(body)s
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\\n{"requests":%%d,"bytes":%%d,"micros":%%d,"p50":%%d,"p99":%%d,"status":%%d,"socket":%%d}\\n',
    summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99),
    e.status, e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    path: str
    connections: int
    method: str = "GET"
    body_bytes: int = 0
    response_bytes: int = 0
    """Of one response where it is big; costs are then per MiB as well."""


@dataclass(frozen=True)
class Sample:
    """One run of one load through one proxy."""

    requests: int
    seconds: float
    cpu_seconds: float
    """0 where there is no proxy."""
    p50_us: float
    p99_us: float
    bad_status: int
    """Answers of 400 and above that the client saw."""
    socket_errors: int
    rss_peak_bytes: int
    megabytes: float = 0.0
    """MiB of bodies through the proxy."""
    max_us: float = 0.0
    """Only of a steady load."""

    @property
    def cpu_us(self) -> float:
        """CPU microseconds per request."""
        return self.cpu_seconds * 1e6 / max(self.requests, 1)

    @property
    def cpu_us_per_mib(self) -> float:
        return self.cpu_seconds * 1e6 / self.megabytes if self.megabytes else 0.0

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0


def wrk_program() -> str | None:
    return shutil.which("wrk")


def drive(load: Load, port: int, proxy: Process | None, seconds: float, folder: Path) -> Sample:
    """As many requests as the proxy takes, for so long. RuntimeError when wrk itself fails."""
    command = [
        wrk_program() or "wrk",
        "-t1",
        f"-c{load.connections}",
        f"-d{max(round(seconds), 1)}s",
        "--timeout",
        "60s",
        "-s",
        str(_script(load, folder)),
        f"http://127.0.0.1:{port}{load.path}",
    ]
    found, cpu_seconds, rss_bytes = _run(command, proxy)
    requests = int(found["requests"])
    megabytes = max(found["bytes"] if load.response_bytes else 0, requests * load.body_bytes) / (1 << 20)
    return Sample(
        requests=requests,
        seconds=found["micros"] / 1e6,
        cpu_seconds=cpu_seconds,
        p50_us=found["p50"],
        p99_us=found["p99"],
        bad_status=int(found["status"]),
        socket_errors=int(found["socket"]),
        rss_peak_bytes=rss_bytes,
        megabytes=megabytes,
    )


def drive_steadily(
    path: str, port: int, proxy: Process | None, rate: float, seconds: float, connections: int = 32
) -> Sample:
    """So many requests a second, whatever the proxy does; latency from the moment a request was due."""
    command = [sys.executable, "-m", "benchmarks.steady", str(port), path]
    command += ["--rate", str(rate), "--seconds", str(seconds), "--connections", str(connections)]
    return _sample(*_run(command, proxy))


def _sample(found: dict[str, float], cpu_seconds: float, rss_bytes: int) -> Sample:
    """Of a load of ours, which prints a ``steady.Result``."""
    return Sample(
        requests=int(found["requests"]),
        seconds=found["seconds"],
        cpu_seconds=cpu_seconds,
        p50_us=found["p50_us"],
        p99_us=found["p99_us"],
        max_us=found["max_us"],
        bad_status=int(found["bad_status"]),
        socket_errors=int(found["lost"]),
        rss_peak_bytes=rss_bytes,
    )


def drive_newcomers(load: Load, port: int, proxy: Process | None) -> Sample:
    """A bystander while crowds of new connections are made (``newcomers``)."""
    command = [sys.executable, "-m", "benchmarks.newcomers", str(port), load.path]
    return _sample(*_run([*command, "--connections", str(load.connections)], proxy))


def _script(load: Load, folder: Path) -> Path:
    body = ""
    if load.body_bytes:
        body = f'wrk.headers["Content-Type"] = "application/json"\nwrk.body = string.rep("x", {load.body_bytes})'
    path = folder / "wrk.lua"
    path.write_text(SCRIPT % {"method": load.method, "body": body})
    return path


def _run(command: list[str], proxy: Process | None) -> tuple[dict[str, float], float, int]:
    """The load's last line as JSON, the proxy's CPU seconds meanwhile, its peak of resident bytes."""
    cpu_before = proxy.cpu_seconds() if proxy else 0.0
    rss_bytes = 0
    with subprocess.Popen(
        on_core(CORE_LOAD, command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        while True:
            rss_bytes = max(rss_bytes, proxy.rss_bytes() if proxy else 0)
            try:
                output, _ = running.communicate(timeout=SAMPLE_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
    if proxy and not proxy.is_running():
        raise RuntimeError(f"the proxy ended under load; its output: {proxy.log}")
    if running.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {output[-500:]}")
    cpu_seconds = (proxy.cpu_seconds() if proxy else 0.0) - cpu_before
    found: dict[str, float] = json.loads(output.strip().splitlines()[-1])
    return found, cpu_seconds, rss_bytes
