"""Measures a proxy while ``crowd`` parks ten thousand exchanges in it: memory for each, and who wakes late.

Memory is read twice: with every client connected and nothing asked, and with everything parked. Their
difference is the exchange; the first less the proxy at rest is its connection. Both together are what one
parked exchange costs, and that is the number that is told.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import IO

from benchmarks.crowd import Plan
from benchmarks.http1 import wait_for_answer
from benchmarks.process import CORE_LOAD, Process, on_core

__all__ = ["Crowd", "Parked"]


@dataclass(frozen=True)
class Parked:
    count: int
    answered_200: int
    woken: int
    earliest_ms: float
    late_p50_ms: float
    late_p99_ms: float
    late_max_ms: float
    bystander_p99_ms: float
    bystander_max_ms: float
    bytes_per_connection: float
    bytes_per_parked: float
    """Connection and exchange together."""


class Crowd:
    """The crowd's process, told step by step. A context manager: it ends with the block."""

    def __init__(self, upstream_port: int, proxy_port: int, plan: Plan) -> None:
        command = [sys.executable, "-m", "benchmarks.crowd", str(upstream_port), str(proxy_port)]
        command += ["--count", str(plan.count), "--arrivals-seconds", str(plan.arrivals_seconds)]
        command += ["--hint-seconds", str(plan.hint_seconds)]
        self.plan = plan
        self.proxy_port = proxy_port
        self._popen = subprocess.Popen(
            on_core(CORE_LOAD, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._expect("ready")

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.kill()
        self._popen.communicate()

    def measure(self, proxy: Process) -> Parked:
        """RuntimeError when the crowd ends before its time."""
        wait_for_answer("/small", self.proxy_port, proxy.is_running)
        rest_bytes = proxy.rss_bytes()
        self._begin()
        self._expect("connected")
        connected_bytes = proxy.rss_bytes()
        self._begin()
        self._expect("parked")
        parked_bytes = proxy.rss_bytes()
        found: dict[str, float] = json.loads(self._line())
        return Parked(
            count=self.plan.count,
            answered_200=int(found.pop("answered_200")),
            woken=int(found.pop("woken")),
            bytes_per_connection=(connected_bytes - rest_bytes) / self.plan.count,
            bytes_per_parked=(parked_bytes - rest_bytes) / self.plan.count,
            **found,
        )

    def _begin(self) -> None:
        output = _pipe(self._popen.stdin)
        output.write("go\n")
        output.flush()

    def _line(self) -> str:
        line = _pipe(self._popen.stdout).readline().strip()
        if not line:
            raise RuntimeError("the crowd ended before its time")
        return line

    def _expect(self, word: str) -> None:
        if (line := self._line()) != word:
            raise RuntimeError(f"the crowd said {line!r}, not {word!r}")


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
