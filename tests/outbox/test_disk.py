"""The disk is full, the file is damaged, two sidecars share it: said clearly, nothing lost, the rest goes on."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
from pathlib import Path

from sidecar.core.settings.deployment import OutboxRule
from sidecar.outbox.items import Item
from sidecar.outbox.sqlite import SqliteOutbox
from tests.support.process import Processes
from tests.support.sidecar import QUICK, write_files, yaml_for
from tests.support.upstream import Upstream, say

ALWAYS = "    routes: [{methods: [POST], policy: test, store: always}]"
POLICY = f"""
extends: default
{QUICK}
idempotency: {{header: X-Idempotency-Key}}
errors: {{shape: {{error: {{code: "{{code}}"}}}}}}
"""


def laid(folder: Path, upstream: Upstream) -> Path:
    return write_files(folder, yaml_for(upstream, more=ALWAYS, top="outbox: {file: outbox.db}"), {"test": POLICY})


async def test_a_full_disk_refuses_what_it_cannot_keep_and_serves_the_rest(
    processes: Processes, upstream: Upstream, tmp_path: Path
) -> None:
    process = await processes.serve(laid(tmp_path, upstream))
    assert (await process.ask("POST", "/api/x", body=b"1")).status == 202
    await upstream.received(1)
    unlimited = resource.prlimit(process.child.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.child.pid, resource.RLIMIT_FSIZE, (96 << 10, unlimited[1]))
    refused = await process.ask("POST", "/api/x", body=b"2" * 200_000)
    assert refused.status == 503
    assert json.loads(refused.body) == {"error": {"code": "OUTBOX_UNAVAILABLE"}}
    upstream.otherwise = lambda _: say(200, b"read")
    assert (await process.ask("GET", "/api/x")).body == b"read"
    assert (await process.admin("/readyz")).status == 200
    resource.prlimit(process.child.pid, resource.RLIMIT_FSIZE, unlimited)
    assert (await process.ask("POST", "/api/x", body=b"3" * 200_000)).status == 202
    await upstream.until(lambda: any(request.body == b"3" * 200_000 for request in upstream.requests))
    assert not any(request.body.startswith(b"2") for request in upstream.requests)
    process.signal(signal.SIGTERM)
    ended = await process.exit()
    assert ended.code == 0
    assert "Traceback" not in ended.said


async def test_a_damaged_file_stops_the_start_with_the_remedy_and_is_kept(
    processes: Processes, upstream: Upstream, tmp_path: Path
) -> None:
    path = laid(tmp_path, upstream)
    (tmp_path / "outbox.db").write_bytes(b"what is left of it" * 1000)
    process = await processes.start("serve", "-c", str(path))
    ended = await process.exit()
    assert ended.code == 1
    assert "is damaged" in ended.stderr
    assert "move it away" in ended.stderr
    assert "Traceback" not in ended.said
    assert (tmp_path / "outbox.db").read_bytes() == b"what is left of it" * 1000


async def test_a_second_sidecar_is_refused_the_same_file(
    processes: Processes, upstream: Upstream, tmp_path: Path
) -> None:
    path = laid(tmp_path, upstream)
    await processes.serve(path)
    second = await processes.start("serve", "-c", str(path))
    ended = await second.exit()
    assert ended.code == 1
    assert "in use by another sidecar" in ended.stderr


async def test_what_the_command_revives_is_delivered_by_the_running_sidecar(
    processes: Processes, upstream: Upstream, tmp_path: Path
) -> None:
    path = laid(tmp_path, upstream)
    upstream.script(say(422))
    process = await processes.serve(path)
    receipt = json.loads((await process.ask("POST", "/api/x", body=b"1")).body)["stored"]
    async with asyncio.timeout(60):
        while await process.metric('sidecar_outbox_dead_total{upstream="api"}') != 1.0:
            pass
    command = await processes.start("outbox", "-c", str(path), "retry", "--dead")
    ended = await command.exit()
    assert (ended.code, ended.stdout) == (0, f"{receipt} waits again\n")
    await upstream.until(lambda: len(upstream.requests) == 2)
    assert upstream.requests[0].headers.get("X-Idempotency-Key") == upstream.requests[1].headers.get(
        "X-Idempotency-Key"
    )


async def test_requests_of_an_upstream_that_is_gone_are_kept(
    processes: Processes, upstream: Upstream, tmp_path: Path
) -> None:
    path = laid(tmp_path, upstream)
    outbox_file = SqliteOutbox.open(str(tmp_path / "outbox.db"))
    for number in range(3):
        item = Item(f"{number:032x}", "gone", "POST", "/x", b"Host: h\r\n", b"1", 4e9)
        outbox_file.add(item, OutboxRule(outbox_file.path))
    outbox_file.close()
    process = await processes.serve(path)
    process.signal(signal.SIGTERM)
    assert (await process.exit()).code == 0
    outbox_file = SqliteOutbox.open(str(tmp_path / "outbox.db"))
    assert len(outbox_file.ids(dead=False)) == 3  # of an upstream that is not configured: kept, not lost
    outbox_file.close()
