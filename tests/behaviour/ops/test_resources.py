"""When the machine runs out of something the sidecar goes on, and is well again afterwards. Threats, faults 39, 42."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from pathlib import Path

from tests.support.client import Client, request_bytes
from tests.support.process import Process, Processes
from tests.support.sidecar import write_files, yaml_for
from tests.support.upstream import Upstream, hang, say
from tests.support.wire import Gone

POLICY = "extends: default\nattempts: 1\ndeadline: 2s\nattempt: {connect: 1s, head: 1s}\n"


def processor_seconds(process: Process) -> float:
    fields = Path(f"/proc/{process.child.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(process: Process) -> int:
    """The size of its address space."""
    status = Path(f"/proc/{process.child.pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmSize:")[2].split()[0]) << 10


async def test_it_survives_having_no_descriptors_left(upstream: Upstream, processes: Processes, tmp_path: Path) -> None:
    process = await processes.serve(write_files(tmp_path, yaml_for(upstream), {"test": POLICY}))
    assert (await process.ask("GET", "/api/x")).status == 200
    resource.prlimit(process.child.pid, resource.RLIMIT_NOFILE, (40, 40))
    before = processor_seconds(process)
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(process.client()) for _ in range(60)]
        for client in clients:
            with contextlib.suppress(OSError, Gone):
                await client.send(request_bytes("GET", "/api/x"))
        answers = await asyncio.gather(*[client.answer() for client in clients[:5]], return_exceptions=True)
        assert answers
    assert processor_seconds(process) - before < 1.5  # no busy loop around accept
    async with asyncio.timeout(15):
        while not await _is_well(process):
            pass
    assert process.child.returncode is None
    assert process.said.count("Traceback") == 0
    assert len(process.said.splitlines()) < 200


async def test_where_descriptors_are_few_connections_wait_and_none_is_refused(
    upstream: Upstream, processes: Processes, tmp_path: Path
) -> None:
    """600 apps at once, each on a connection of its own, and 128 open files: the kernel holds those that wait."""
    process = await processes.serve(write_files(tmp_path, yaml_for(upstream), {"test": POLICY}))
    assert await process.metric("sidecar_accept_pauses_total") == 0
    resource.prlimit(process.child.pid, resource.RLIMIT_NOFILE, (128, 128))
    before = processor_seconds(process)
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(process.client()) for _ in range(600)]

        async def asked(client: Client) -> int:
            await client.send(request_bytes("GET", "/api/x", [("Connection", "close")]))
            return (await client.answer()).status

        assert await asyncio.gather(*map(asked, clients)) == [200] * 600
    assert await process.metric("sidecar_accept_pauses_total") > 0  # type: ignore[operator]
    assert processor_seconds(process) - before < 5.0
    assert '"event":"accept_paused"' in process.said
    async with asyncio.timeout(30):
        while await process.metric("sidecar_accept_paused"):
            pass


async def test_idle_connections_make_room_for_those_that_wait(
    upstream: Upstream, processes: Processes, tmp_path: Path
) -> None:
    process = await processes.serve(write_files(tmp_path, yaml_for(upstream), {"test": POLICY}))
    resource.prlimit(process.child.pid, resource.RLIMIT_NOFILE, (64, 64))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(40):
            await stack.enter_async_context(process.client())
        assert (await process.ask("GET", "/api/x")).status == 200


async def test_a_shutdown_while_connections_wait_is_a_clean_one(
    upstream: Upstream, processes: Processes, tmp_path: Path
) -> None:
    process = await processes.serve(write_files(tmp_path, yaml_for(upstream), {"test": POLICY}))
    resource.prlimit(process.child.pid, resource.RLIMIT_NOFILE, (64, 64))
    upstream.otherwise = lambda _: hang()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(40):
            client = await stack.enter_async_context(process.client())
            await client.send(request_bytes("GET", "/api/x"))
        await process.until(lambda: '"event":"accept_paused"' in process.said)
        process.signal(signal.SIGTERM)
        assert (await process.exit()).code == 0
    assert "Traceback" not in process.said


async def _is_well(process: Process) -> bool:
    try:
        return (await process.ask("GET", "/api/x")).status == 200
    except (OSError, Gone, TimeoutError):
        return False


async def test_a_log_that_nobody_reads_stops_nothing(upstream: Upstream, processes: Processes, tmp_path: Path) -> None:
    path = write_files(tmp_path, yaml_for(upstream, top="log: {format: json, sample: 1}"), {"test": POLICY})
    process = await processes.serve(path)
    process.stop_reading()
    async with process.client() as client:
        for _ in range(1500):
            answer = await client.ask("GET", "/api/" + "x" * 200)
            assert answer.status == 200
    process.signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        assert await process.child.wait() == 0


async def test_hundreds_of_idle_connections_cost_no_service(
    upstream: Upstream, processes: Processes, tmp_path: Path
) -> None:
    process = await processes.serve(write_files(tmp_path, yaml_for(upstream), {"test": POLICY}))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(300):
            await stack.enter_async_context(process.client())
        assert (await process.ask("GET", "/api/x")).status == 200
    assert (await process.ask("GET", "/api/x")).status == 200


async def test_a_crowd_behind_a_hanging_upstream_leaves_the_other_one_alone(
    upstream: Upstream, processes: Processes, tmp_path: Path
) -> None:
    async with Upstream.start() as slow:
        slow.otherwise = lambda _: hang()
        text = f"""
listen: 127.0.0.1:0
admin: 127.0.0.1:0
upstreams:
  - {{name: slow, origin: "http://127.0.0.1:{slow.port}", mount: /slow, policy: test, connections: 5}}
  - {{name: quick, origin: "http://127.0.0.1:{upstream.port}", mount: /quick, policy: test}}
"""
        process = await processes.serve(write_files(tmp_path, text, {"test": POLICY}))
        upstream.otherwise = lambda _: say(200, b"quick")
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(50):
                client = await stack.enter_async_context(process.client())
                await client.send(request_bytes("GET", "/slow/x"))
            await slow.received(5)
            for _ in range(20):
                assert (await process.ask("GET", "/quick/x")).body == b"quick"
            assert len(slow.requests) == 5


async def test_it_survives_having_no_memory_left(upstream: Upstream, processes: Processes, tmp_path: Path) -> None:
    """Bodies that together need more than the process may have: each is answered, or its connection ends."""
    process = await processes.serve(write_files(tmp_path, yaml_for(upstream), {"test": POLICY}))
    assert (await process.ask("GET", "/api/x")).status == 200
    size = memory_bytes(process)
    resource.prlimit(process.child.pid, resource.RLIMIT_AS, (size + (24 << 20), resource.RLIM_INFINITY))

    async def one() -> str:
        try:
            return str((await process.ask("POST", "/api/x", body=b"x" * (1000 << 10))).status)
        except (OSError, Gone) as error:
            return type(error).__name__

    upstream.keep_bodies = False
    upstream.otherwise = lambda _: hang()
    ends = await asyncio.gather(*[one() for _ in range(80)])
    assert ends.count("Gone") > 0
    assert set(ends) <= {"Gone", "502", "503", "504", "ConnectionResetError"}
    upstream.otherwise = lambda _: say(200)
    async with asyncio.timeout(30):
        while not await _is_well(process):
            pass
    assert process.child.returncode is None
    assert process.said.count("Traceback") == 0
    for gauge in ("sidecar_inflight_requests", "sidecar_buffered_bytes"):
        assert await process.metric(gauge) == 0
