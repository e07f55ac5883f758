"""SIGTERM: not ready, waits cut short, work under way finished, one summary line, exit 0. DESIGN and issue, Life."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from pathlib import Path

import pytest

from tests.support.client import request_bytes
from tests.support.process import Process, Processes
from tests.support.sidecar import write_files, yaml_for
from tests.support.upstream import Live, Upstream, hang, head_bytes, say
from tests.support.wire import Gone

POLICY = "extends: default\ndeadline: 60s\nattempt: {head: 30s}\nbackoff: {base: 20s, jitter: none}\n"


@pytest.fixture
async def process(upstream: Upstream, processes: Processes, tmp_path: Path) -> Process:
    path = write_files(tmp_path, yaml_for(upstream, top="limits: {drain: 60s}"), {"test": POLICY})
    return await processes.serve(path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_sidecar_exits_with_0_and_one_summary(process: Process, number: signal.Signals) -> None:
    assert (await process.ask("GET", "/api/x")).status == 200
    assert (await process.admin("/readyz")).status == 200
    process.signal(number)
    end = await process.exit()
    assert end.code == 0, end.said
    assert "Traceback" not in end.said
    [summary] = [line for line in end.said.splitlines() if '"event":"stopped"' in line]
    assert json.loads(summary)["exchanges"] == 1


async def test_a_wait_is_cut_short_and_answered_with_the_last_answer(process: Process, upstream: Upstream) -> None:
    upstream.script(say(503, b"later", headers=[("X-Last", "1")]), say(200))
    asking = asyncio.create_task(process.ask("GET", "/api/x"))
    await upstream.received()
    await _until_metric(process, "sidecar_held_requests", 1)
    process.signal(signal.SIGTERM)
    answer = await asking
    assert (answer.status, answer.body, answer.headers.get("X-Last")) == (503, b"later", "1")
    assert "reason=draining" in (answer.headers.get("Sidecar") or "")
    assert (await process.exit()).code == 0
    assert len(upstream.requests) == 1


async def _until_metric(process: Process, name: str, value: float) -> None:
    """Until the samples of a family add up to this."""
    async with asyncio.timeout(60):
        while True:
            text = (await process.admin("/metrics")).body.decode()
            found = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(name)]
            if sum(map(float, found)) == value:
                return


async def test_work_under_way_is_finished_and_readiness_is_off(process: Process, upstream: Upstream) -> None:
    live = Live()
    upstream.script(live)
    asking = asyncio.create_task(process.ask("GET", "/api/x"))
    connection = await live.here()
    await connection.read_request()
    process.signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        while (await process.admin("/readyz")).status != 503:
            pass
    assert (await process.admin("/livez")).status == 200
    await connection.send(head_bytes(200, [("Content-Length", "4")]) + b"done")
    live.over()
    answer = await asking
    assert (answer.status, answer.body) == (200, b"done")
    assert (await process.exit()).code == 0


async def test_no_new_connection_is_taken_while_draining(process: Process, upstream: Upstream) -> None:
    live = Live()
    upstream.script(live)
    asking = asyncio.create_task(process.ask("GET", "/api/x"))
    connection = await live.here()
    await connection.read_request()
    process.signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        while (await process.admin("/readyz")).status != 503:
            pass
    assert await _refused(process)
    await connection.send(head_bytes(200, [("Content-Length", "0")]))
    live.over()
    assert (await asking).status == 200
    assert (await process.exit()).code == 0
    assert len(upstream.requests) == 1


async def _refused(process: Process) -> bool:
    """Whether a new request is turned away: by the kernel, by a closed connection, or by a 503 of our own."""
    try:
        return (await process.ask("GET", "/api/y")).status == 503
    except (OSError, Gone):
        return True


async def test_an_idle_kept_connection_does_not_hold_the_exit(process: Process) -> None:
    async with process.client() as client:
        assert (await client.ask("GET", "/api/x")).status == 200
        process.signal(signal.SIGTERM)
        assert await client.ended()
        assert (await process.exit()).code == 0


async def test_nobody_is_cut_by_a_shutdown_under_load(process: Process, upstream: Upstream) -> None:
    """Every request that was taken is answered whole; the others are refused or see a closed connection."""
    upstream.otherwise = lambda _: say(200, b"whole" * 1000)
    answered = 0

    async def app() -> None:
        nonlocal answered
        async with process.client() as client:
            while True:
                try:
                    answer = await client.ask("GET", "/api/x")
                except (Gone, OSError):
                    return
                assert answer.status in (200, 503)
                assert answer.cut is None
                if answer.status == 200:
                    assert answer.body == b"whole" * 1000
                    answered += 1

    apps = [asyncio.create_task(app()) for _ in range(8)]
    await upstream.received(200)
    process.signal(signal.SIGTERM)
    await asyncio.gather(*apps)
    end = await process.exit()
    assert end.code == 0
    assert '"cut":0' in end.said
    assert answered == len(upstream.requests)


async def test_draining_has_a_limit(upstream: Upstream, processes: Processes, tmp_path: Path) -> None:
    path = write_files(tmp_path, yaml_for(upstream, top="limits: {drain: 200ms}"), {"test": POLICY})
    process = await processes.serve(path)
    upstream.script(hang())
    async with process.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        await upstream.received()
        process.signal(signal.SIGTERM)
        end = await process.exit()
    assert end.code in (0, 1)
    assert "Traceback" not in end.said


async def test_a_second_signal_ends_at_once(process: Process, upstream: Upstream) -> None:
    upstream.script(hang())
    async with process.client() as client:
        await client.send(request_bytes("GET", "/api/x"))
        await upstream.received()
        process.signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            while (await process.admin("/readyz")).status != 503:
                pass
        process.signal(signal.SIGTERM)
        async with asyncio.timeout(20):  # the drain limit is 60 s
            end = await process.exit()
    assert "Traceback" not in end.said


@pytest.mark.parametrize("door", ["listen", "admin"])
async def test_a_port_in_use_is_one_clear_line_and_exit_1(
    door: str, upstream: Upstream, processes: Processes, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = yaml_for(upstream).replace(f"{door}: 127.0.0.1:0", f"{door}: 127.0.0.1:{port}")
        process = await processes.start("serve", "-c", str(write_files(tmp_path, text, {"test": POLICY})))
        end = await process.exit()
    assert end.code == 1
    assert len([line for line in end.said.splitlines() if line.strip()]) == 1
    assert str(port) in end.said
    assert "Traceback" not in end.said


async def test_a_broken_file_is_exit_78_with_every_error(
    upstream: Upstream, processes: Processes, tmp_path: Path
) -> None:
    text = yaml_for(upstream) + "nonsense: 1\nlisten_: 2\n"
    policies = {"test": "deadline: 5\nattemps: 3\n"}
    process = await processes.start("serve", "-c", str(write_files(tmp_path, text, policies)))
    end = await process.exit()
    assert end.code == 78
    for word in ("nonsense", "listen_", "deadline", "attemps"):
        assert word in end.said
    assert "^" in end.said
    assert "Traceback" not in end.said


async def test_a_missing_file_is_exit_78(processes: Processes, tmp_path: Path) -> None:
    process = await processes.start("serve", "-c", str(tmp_path / "absent.yaml"))
    end = await process.exit()
    assert end.code == 78
    assert "absent.yaml" in end.said
    assert "Traceback" not in end.said


async def test_a_mistyped_variable_is_exit_78(processes: Processes, upstream: Upstream, tmp_path: Path) -> None:
    path = write_files(tmp_path, yaml_for(upstream), {"test": POLICY})
    process = await processes.start("serve", "-c", str(path), environ={"SIDECAR_LISTN": "127.0.0.1:0"})
    end = await process.exit()
    assert end.code == 78
    assert "SIDECAR_LISTN" in end.said
