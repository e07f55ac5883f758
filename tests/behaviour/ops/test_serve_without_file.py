"""``sidecar serve`` with no file: a forward proxy on loopback with the default policy, and what to copy."""

from __future__ import annotations

import signal

from tests.support.client import connect
from tests.support.process import Processes
from tests.support.upstream import Upstream, reset, say

ANYWHERE = {"SIDECAR_LISTEN": "127.0.0.1:0", "SIDECAR_ADMIN": "127.0.0.1:0"}


async def test_it_is_a_forward_proxy_with_the_default_policy(processes: Processes, upstream: Upstream) -> None:
    process = await processes.start("serve", environ=ANYWHERE)
    await process.listening()
    upstream.script(say(503, headers=[("Retry-After", "0")]), say(200, b"yes"))
    async with connect("127.0.0.1", process.port) as client:
        answer = await client.ask("GET", f"http://{upstream.authority}/x?y=%20", host=upstream.authority)
        assert (answer.status, answer.body) == (200, b"yes")
        assert "outcome=recovered" in (answer.headers.get("Sidecar") or "")
        upstream.script(reset())
        answer = await client.ask("POST", f"http://{upstream.authority}/x", body=b"1", host=upstream.authority)
        assert answer.status == 502
    assert upstream.requests[0].target == "/x?y=%20"
    process.signal(signal.SIGTERM)
    assert (await process.exit()).code == 0


async def test_it_prints_where_it_listens_and_the_line_to_copy(processes: Processes) -> None:
    process = await processes.start("serve", environ=ANYWHERE)
    await process.listening()
    assert f"127.0.0.1:{process.port}" in process.said
    assert "HTTP_PROXY=http://127.0.0.1:" in process.said or "http_proxy=http://127.0.0.1:" in process.said
    assert f"127.0.0.1:{process.admin_port}" in process.said


async def test_a_path_of_no_upstream_is_404_with_a_hint(processes: Processes) -> None:
    process = await processes.start("serve", environ=ANYWHERE)
    await process.listening()
    answer = await process.ask("GET", "/x")
    assert answer.status == 404
    assert answer.json()["detail"]


async def test_it_runs_on_uvloop(processes: Processes) -> None:
    process = await processes.start("serve", environ=ANYWHERE)
    await process.listening()
    metrics = (await process.admin("/metrics")).body.decode()
    assert "sidecar_build_info{" in metrics
    assert "uvloop" in metrics
