"""``sidecar report``: from a running sidecar to two files, or one of them on the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sidecar.cli.main import main
from tests.behaviour.conftest import processes, pytest_asyncio_loop_factories, upstream
from tests.support.process import Processes
from tests.support.sidecar import QUICK, write_files, yaml_for
from tests.support.upstream import Upstream, say

__all__ = ["processes", "pytest_asyncio_loop_factories", "upstream"]


async def test_a_failed_exchange_becomes_a_bundle(processes: Processes, upstream: Upstream, tmp_path: Path) -> None:
    policy = f"extends: default\n{QUICK}\nreport: {{bodies: true}}"
    process = await processes.serve(write_files(tmp_path, yaml_for(upstream), {"test": policy}))
    upstream.script(say(422, b'{"error":"bad"}'))
    await process.ask("POST", "/api/x", [("X-Request-Id", "r/1")], b'{"a":1,"token":"s3cr3t"}')
    url = f"http://127.0.0.1:{process.admin_port}"
    shown = await (await processes.start("report", "r/1", "--url", url)).exit()
    assert shown.code == 0
    assert shown.stdout.startswith("# Failed request `r/1`")
    assert "s3cr3t" not in shown.said
    written = await (await processes.start("report", "r/1", "--url", url, "--output", "bundle")).exit()
    assert written.stdout.splitlines() == ["bundle/r_1.md", "bundle/r_1.json"]
    assert (tmp_path / "bundle/r_1.md").read_text() == shown.stdout
    assert json.loads((tmp_path / "bundle/r_1.json").read_text())["answer"]["body"] == {"error": "bad"}
    missing = await (await processes.start("report", "nobody", "--url", url)).exit()
    assert (missing.code, "nothing is known" in missing.stderr) == (1, True)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://x", "http://[::1"])
def test_what_cannot_be_asked_is_said_in_a_sentence(url: str) -> None:
    result = CliRunner().invoke(main, ["report", "x", "--url", url])
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output
