"""``sidecar retries``: a switch in a running process, from a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from sidecar.cli.main import main
from tests.behaviour.conftest import processes, pytest_asyncio_loop_factories, upstream
from tests.support.process import Processes
from tests.support.sidecar import QUICK, write_files, yaml_for
from tests.support.upstream import Upstream, say

__all__ = ["processes", "pytest_asyncio_loop_factories", "upstream"]


async def test_retries_are_turned_off_and_on(processes: Processes, upstream: Upstream, tmp_path: Path) -> None:
    token = {"SIDECAR_ADMIN_TOKEN": "correct horse"}
    path = write_files(tmp_path, yaml_for(upstream), {"test": f"extends: default\n{QUICK}"})
    process = await processes.serve(path, environ=token)
    address = {"SIDECAR_ADMIN": f"127.0.0.1:{process.admin_port}"}

    async def say_it(*words: str, environ: dict[str, str]) -> tuple[int, str]:
        ended = await (await processes.start("retries", *words, environ={**address, **environ})).exit()
        return ended.code, ended.stdout + ended.stderr

    assert await say_it("off", "api", "--for", "10m", environ=token) == (0, "api: retries are off for 600 s more\n")
    upstream.script(say(503))
    assert (await process.ask("GET", "/api/x")).status == 503
    assert (await say_it(environ={}))[1].startswith("api: retries are off for ")
    code, said = await say_it("on", "nobody", environ=token)
    assert (code, "there are: api, unknown" in said) == (1, True)
    assert (await say_it("on", environ={}))[0] == 1
    assert await say_it("on", environ=token) == (0, "retries are on\n")


@pytest.mark.parametrize("token", [None, "größe", "wrong"])
def test_what_cannot_be_said_is_a_sentence(token: str | None) -> None:
    environ = {"SIDECAR_ADMIN": "127.0.0.1:1", "SIDECAR_ADMIN_TOKEN": token}
    result = CliRunner().invoke(main, ["retries", "off"], env=environ)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert CliRunner().invoke(main, ["retries", "on", "--for", "1m"]).exit_code == 2
