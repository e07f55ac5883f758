"""``sidecar top``: one frame of a running sidecar, from what its admin port says."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from sidecar.cli.main import main
from sidecar.cli.top import frame
from sidecar.observe.pretty import coloured
from tests.behaviour.conftest import processes, pytest_asyncio_loop_factories, upstream
from tests.support.process import Process, Processes
from tests.support.sidecar import QUICK, write_files, yaml_for
from tests.support.upstream import Upstream, say

__all__ = ["processes", "pytest_asyncio_loop_factories", "upstream"]

BUSY: dict[str, Any] = {
    "name": "payments",
    "state": "gate",
    "retries_off": None,
    "held": {"gate": 3},
    "budget_tokens": 7.5,
    "trend": [0, [10, 2, 1, 14, 4, 1.5, 3, 1, 0], [20, 0, 0, 20, 0, 0.0, 0, 0, 0]],
}
NUMBERS: dict[str, Any] = {
    "build": {"version": "9.9"},
    "inflight": 4,
    "checks": [{"name": "loop", "ok": True, "detail": ""}],
    "trend": {"slot_seconds": 5, "slots": 60},
    "upstreams": [BUSY],
}


def test_the_first_row_says_saved_cost_gave_up_held() -> None:
    lines = frame(NUMBERS).split("\n")
    assert lines[0] == "sidecar 9.9  ready  4 under way  last 5 min"
    assert lines[1] == (
        "saved 2 of 30 (6.7 %)   cost +4 sends (+13.3 %), 1.5 s waited   gave up 1 (3.3 %)   held now 3"
    )
    assert re.split(r"\s+", lines[4].strip())[:8] == ["payments", "gate", "30", "1.13", "2", "1", "3", "8"]


def test_what_holds_is_painted_and_nothing_is_invented_without_traffic() -> None:
    assert "\x1b[33mpayments" in frame(NUMBERS, coloured)
    quiet = {**BUSY, "state": "flowing", "held": {}, "trend": []}
    text = frame({**NUMBERS, "upstreams": [quiet], "checks": [{"name": "listening", "ok": False}]})
    assert "not ready: listening" in text
    assert "saved 0 of 0 (0 %)" in text


def test_many_upstreams_fit_onto_the_screen() -> None:
    text = frame({**NUMBERS, "upstreams": [{**BUSY, "name": f"api-{n}"} for n in range(100)]}, most_lines=20)
    assert len(text.split("\n")) == 20
    assert text.endswith("… and 85 more upstreams")


async def first_upstream(process: Process) -> dict[str, Any]:
    numbers = json.loads((await process.admin("/debug/numbers")).body)
    first: dict[str, Any] = numbers["upstreams"][0]
    return first


async def test_a_running_sidecar_is_shown(processes: Processes, upstream: Upstream, tmp_path: Path) -> None:
    path = write_files(tmp_path, yaml_for(upstream), {"test": f"extends: default\n{QUICK}"})
    process = await processes.serve(path)
    while not (await first_upstream(process))["trend"]:  # noqa: ASYNC110 - it begins in another process, within a second
        await asyncio.sleep(0.05)
    upstream.script(say(503), say(200))
    assert (await process.ask("GET", "/api/x")).status == 200
    ended = await (await processes.start("top", "--url", f"http://127.0.0.1:{process.admin_port}")).exit()
    assert ended.code == 0, ended.stderr
    assert "saved 1 of 1 (100.0 %)" in ended.stdout
    assert re.search(r"^api +flowing +1 +2\.00", ended.stdout, re.MULTILINE)
    assert "\x1b" not in ended.stdout


def test_nobody_there_is_a_sentence() -> None:
    result = CliRunner().invoke(main, ["top", "--once", "--url", "http://127.0.0.1:1"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: no answer from http://127.0.0.1:1")
