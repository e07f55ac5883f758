"""A changed file is taken over whole or not at all; what is under way keeps what it began with."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sidecar.config.child_process import ConfigProcess
from sidecar.config.load import load_deployment
from sidecar.config.validated import ConfigInForce, ValidatedConfig
from sidecar.process import ServerProcess
from tests.support.client import connect
from tests.support.process import Process, Processes
from tests.support.sidecar import write_files, yaml_for
from tests.support.upstream import Live, Upstream, head_bytes, say

ONE = "extends: default\nattempts: 1\nbackoff: {base: 1ms, jitter: none}\n"
TWO = "extends: default\nattempts: 2\nbackoff: {base: 1ms, jitter: none}\n"
BAD = "extends: default\nattemps: 2\n"
RELOADED = "sidecar_config_last_reload_successful"


@pytest.fixture
def path(upstream: Upstream, tmp_path: Path) -> Path:
    return write_files(tmp_path, yaml_for(upstream), {"test": ONE})


def lose(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


def remount(path: Path) -> None:
    path.write_text(path.read_text().replace("mount: /api", "mount: /other"))


def drain_quickly(path: Path) -> None:
    path.write_text(path.read_text() + "limits: {drain: 9s}\n")


async def attempts_of(process: Process, upstream: Upstream) -> int:
    before = len(upstream.requests)
    upstream.otherwise = lambda _: say(503)
    await process.ask("GET", "/api/x")
    return len(upstream.requests) - before


async def until_attempts(process: Process, upstream: Upstream, count: int) -> None:
    async with asyncio.timeout(15):
        while await attempts_of(process, upstream) != count:
            pass


async def until_metric(process: Process, name: str, value: float) -> None:
    async with asyncio.timeout(15):
        while await process.metric(name) != value:
            pass


async def test_sighup_takes_over_the_changed_file(processes: Processes, upstream: Upstream, path: Path) -> None:
    process = await processes.serve(path)
    assert await attempts_of(process, upstream) == 1
    (path.parent / "policies/test.yaml").write_text(TWO)
    process.signal(signal.SIGHUP)
    await until_attempts(process, upstream, 2)
    assert await process.metric(RELOADED) == 1
    assert process.child.returncode is None


async def test_a_changed_file_is_noticed_without_a_signal(processes: Processes, upstream: Upstream, path: Path) -> None:
    process = await processes.serve(path)
    assert await attempts_of(process, upstream) == 1
    (path.parent / "policies/test.yaml").write_text(TWO)
    await until_attempts(process, upstream, 2)


async def test_a_swapped_symlink_is_noticed_as_kubernetes_does_it(
    processes: Processes, upstream: Upstream, tmp_path: Path
) -> None:
    """A config map: ``sidecar.yaml -> ..data/sidecar.yaml``, ``..data -> ..v1``; only ``..data`` is renamed."""
    for version, policy in (("..v1", ONE), ("..v2", TWO)):
        (tmp_path / version).mkdir()
        write_files(tmp_path / version, yaml_for(upstream), {"test": policy})
    (tmp_path / "..data").symlink_to("..v1")
    (tmp_path / "sidecar.yaml").symlink_to("..data/sidecar.yaml")
    (tmp_path / "policies").symlink_to("..data/policies")
    process = await processes.serve(tmp_path / "sidecar.yaml")
    assert await attempts_of(process, upstream) == 1
    (tmp_path / "..data_tmp").symlink_to("..v2")
    os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
    await until_attempts(process, upstream, 2)


async def test_a_bad_file_keeps_the_old_policy_and_says_so(
    processes: Processes, upstream: Upstream, path: Path
) -> None:
    process = await processes.serve(path)
    policy = path.parent / "policies/test.yaml"
    policy.write_text(BAD)
    process.signal(signal.SIGHUP)
    await until_metric(process, RELOADED, 0)
    await process.until(lambda: "attemps" in process.said)
    assert await attempts_of(process, upstream) == 1
    assert (await process.admin("/readyz")).status == 200
    assert "Traceback" not in process.said
    policy.write_text(TWO)
    process.signal(signal.SIGHUP)
    await until_attempts(process, upstream, 2)
    await until_metric(process, RELOADED, 1)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"[", b"a: &a [*a]"])
async def test_a_lost_or_unreadable_file_keeps_the_old_policy(
    processes: Processes, upstream: Upstream, path: Path, content: bytes | None
) -> None:
    process = await processes.serve(path)
    lose(path, content)
    process.signal(signal.SIGHUP)
    await until_metric(process, RELOADED, 0)
    assert await attempts_of(process, upstream) == 1
    assert "Traceback" not in process.said


async def test_an_exchange_under_way_keeps_the_policy_it_began_with(
    processes: Processes, upstream: Upstream, path: Path
) -> None:
    process = await processes.serve(path)
    live = Live()
    upstream.script(live)
    asking = asyncio.create_task(process.ask("GET", "/api/old"))
    connection = await live.here()
    await connection.read_request()
    (path.parent / "policies/test.yaml").write_text(TWO)
    process.signal(signal.SIGHUP)
    await until_attempts(process, upstream, 2)
    await connection.send(head_bytes(503, [("Content-Length", "3")]) + b"old")
    live.over()
    answer = await asking
    assert (answer.status, answer.body) == (503, b"old")
    assert [request.target for request in upstream.requests].count("/old") == 1


async def test_a_removed_mount_is_404_after_the_reload_and_kept_connections_live(
    processes: Processes, upstream: Upstream, path: Path
) -> None:
    process = await processes.serve(path)
    async with process.client() as client:
        assert (await client.ask("GET", "/api/x")).status == 200
        remount(path)
        process.signal(signal.SIGHUP)
        async with asyncio.timeout(60):
            while (await process.ask("GET", "/other/x")).status != 200:
                pass
        assert (await client.ask("GET", "/other/x")).status == 200
        assert (await client.ask("GET", "/api/x")).status == 404


async def test_a_reload_that_fails_in_an_unforeseen_way_is_told_and_the_next_one_works(
    upstream: Upstream, path: Path
) -> None:
    found = load_deployment(path, environ={})
    judged = ValidatedConfig(found.deployment, (), found.files, found.digest, "")

    def load(_: ConfigInForce) -> ValidatedConfig:
        results = {1: RuntimeError("can't start new thread"), 2: MemoryError()}
        calls.append(None)
        if len(calls) in results:
            raise results[len(calls)]
        return judged

    calls: list[None] = []
    life, asked = ServerProcess(judged, load), asyncio.Event()
    await life.sidecar.start()
    watching = asyncio.create_task(life._watch(asked))
    for number in (1, 2, 3):
        asked.set()
        async with asyncio.timeout(60):
            while len(calls) < number or life.sidecar.metrics.config_ok is not (number == 3):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await life.sidecar.stop()


async def test_requests_are_served_through_many_reloads(processes: Processes, upstream: Upstream, path: Path) -> None:
    process = await processes.serve(path)
    policy = path.parent / "policies/test.yaml"
    async with process.client() as client:
        for number in range(50):
            policy.write_text(f"{ONE}deadline: {number + 1}s\n")
            process.signal(signal.SIGHUP)
            assert (await client.ask("GET", "/api/x")).status == 200
    assert process.child.returncode is None


@asynccontextmanager
async def unwatched(path: Path, log: io.StringIO) -> AsyncIterator[ServerProcess]:
    """A sidecar that reloads only when it is asked to."""
    first = await asyncio.to_thread(ConfigProcess(path, {}).result)
    process = ServerProcess(first, lambda before: ConfigProcess(path, {}, before).result(), token="t")
    process.sidecar._log_stream = log
    await process.sidecar.start()
    try:
        yield process
    finally:
        await process.sidecar.stop()


async def reload(process: ServerProcess, query: str = "", bearer: str = "t") -> tuple[int, str]:
    port = process.sidecar.admin_address.port
    async with connect("127.0.0.1", port) as client:
        fields = [("Authorization", f"Bearer {bearer}")]
        answer = await client.ask("POST", f"/-/reload{query}", fields, host=f"127.0.0.1:{port}")
        return answer.status, answer.body.decode()


async def test_a_reload_answers_with_what_it_changed(upstream: Upstream, path: Path) -> None:
    upstream.otherwise = lambda _: say(503)
    policy, log = path.parent / "policies/test.yaml", io.StringIO()

    async def sends(process: ServerProcess) -> int:
        before = len(upstream.requests)
        async with connect("127.0.0.1", process.sidecar.address.port) as client:
            await client.ask("GET", "/api/x")
        return len(upstream.requests) - before

    async with unwatched(path, log) as process:
        assert await sends(process) == 1
        policy.write_text(TWO)
        drain_quickly(path)
        status, said = await reload(process, "?dry_run=1")
        assert (status, said.splitlines()[:3]) == (200, ["not taken over: a dry run", "", "settings"])
        assert "  limits.drain            25s → 9s\n  policies.test.attempts  1 → 2\n" in said
        assert "1 of 1 test or exchange judged differently\n  exchange " in said
        status, said = await reload(process, "?dry_run=1&format=json")
        told = json.loads(said)
        assert (status, told["ok"], told["same"], told["needs_restart"]) == (200, True, False, [])
        exchange = told["situations"]["different"][0]
        assert (exchange["old"]["reason"], exchange["new"]["decision"]) == ("attempts", "retry")
        policy.write_text(BAD)
        assert (await reload(process, "?dry_run=1"))[0] == 422
        policy.write_text(TWO)
        for wrong in ("?dry_run=yes", "?dry-run=1", "?dry_run=1&dry_run=0", "?format=xml"):
            assert (await reload(process, wrong))[0] == 400
        assert (await reload(process, bearer="wrong"))[0] == 401
        assert await sends(process) == 1
        assert process.sidecar.metrics.config_ok
        status, said = await reload(process)
        assert (status, said.partition("\n")[0]) == (200, "reloaded")
        assert "policies.test.attempts  1 → 2" in said
        assert await sends(process) == 2
        assert (await reload(process, "?dry_run=1"))[1].startswith("not taken over: a dry run\n\nthe same")
    (event,) = [line for line in log.getvalue().splitlines() if " reloaded " in line or '"reloaded"' in line]
    assert "2 settings, 4 differences in judgement, 2 of 2 recent exchanges judged differently" in event
