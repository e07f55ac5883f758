"""A real Prometheus scrapes a real sidecar with the shipped rules; ``promtool`` checks the rules and runs their tests.

Debian's package ``prometheus`` has both; where it is missing the tests fail and say so.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from tests.behaviour.conftest import Make, clock, make, pytest_asyncio_loop_factories, upstream
from tests.support.client import connect
from tests.support.upstream import Upstream, free_port, say

__all__ = ["clock", "make", "pytest_asyncio_loop_factories", "upstream"]

RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
PATIENCE_SECONDS = 60.0


def program(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"{name} is not installed: apt install prometheus"
    return found


@pytest.mark.parametrize("words", [("check", "rules", "rules.yaml"), ("test", "rules", "tests.yaml")], ids=" ".join)
def test_promtool_finds_nothing_wrong_with_the_rules(words: tuple[str, ...]) -> None:
    done = subprocess.run([program("promtool"), *words], cwd=RULES, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout + done.stderr


class Prometheus:
    """The server, asked by its API."""

    def __init__(self, port: int, process: asyncio.subprocess.Process) -> None:
        self._port = port
        self._process = process

    async def ask(self, path: str) -> Any:
        """The ``data`` of an answer; None while it does not answer yet."""
        try:
            async with connect("127.0.0.1", self._port) as client:
                answer = await client.ask("GET", path, host=f"127.0.0.1:{self._port}")
        except OSError:
            assert self._process.returncode is None, "prometheus has ended"
            return None
        return json.loads(answer.body)["data"] if answer.status == 200 else None

    async def until(self, path: str, holds: Any) -> Any:
        """The first answer of which ``holds`` is true."""
        told: Any = None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not (told and holds(told)):
                    await asyncio.sleep(0.05)
                    told = await self.ask(path)
        except TimeoutError:
            raise AssertionError(f"waited in vain; {path} says {told}") from None
        return told

    async def value(self, query: str, wanted: float) -> None:
        path = f"/api/v1/query?query={quote(query)}"
        await self.until(path, lambda told: [float(each["value"][1]) for each in told["result"]] == [wanted])


@asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[Prometheus]:
    """It scrapes ``target`` five times a second, and evaluates the shipped rules."""
    port, config = free_port(), folder / "prometheus.yaml"
    settings = {
        "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "500ms"},
        "rule_files": [str(RULES / "rules.yaml")],
        "scrape_configs": [{"job_name": "retry-sidecar", "static_configs": [{"targets": [target]}]}],
    }
    config.write_text(yaml.safe_dump(settings))
    process = await asyncio.create_subprocess_exec(
        program("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    )
    try:
        yield Prometheus(port, process)
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def test_prometheus_scrapes_a_sidecar_and_evaluates_the_rules(
    make: Make, upstream: Upstream, tmp_path: Path
) -> None:
    sidecar = await make(upstream)
    upstream.script(say(503), say(200), say(404))
    for status in (200, 404, 200):
        assert (await sidecar.ask("GET", "/api/x")).status == status
    address = sidecar.sidecar.admin_address
    async with prometheus(tmp_path, f"{address.host}:{address.port}") as server:
        await server.value('sidecar_requests_total{upstream="api", outcome="recovered"}', 1)
        await server.value('sum(sidecar_attempts_total{upstream="api"})', 4)
        await server.value('sidecar_retries_total{cause="503"}', 1)
        await server.value("sum(up)", 1)
        await server.value("histogram_quantile(1, sum by (le) (sidecar_attempt_duration_seconds_bucket)) < bool 1", 1)
        (target,) = (await server.ask("/api/v1/targets"))["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")

        def evaluated(told: Any) -> bool:
            return all(group["lastEvaluation"] > "2" for group in told["groups"]) and all(
                rule["health"] == "ok" for group in told["groups"] for rule in group["rules"]
            )

        told = await server.until("/api/v1/rules", evaluated)
        assert sum(len(group["rules"]) for group in told["groups"]) >= 15
