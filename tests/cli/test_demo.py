"""``sidecar demo``: the sample upstream, the load and the table by themselves, then the verb as a process."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.demo.apis.scenes import STORIES
from sidecar.demo.apis.stage import APIS, deployment_of
from sidecar.demo.apis.telling import tell
from sidecar.demo.load import Load, Reply, Tally, run_load
from sidecar.demo.stage import deployment_for
from sidecar.demo.table import Side, table
from sidecar.demo.upstream import SHAKY, Fate, SampleUpstream, fate_of
from tests.support.client import connect
from tests.support.process import Processes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def sample() -> AsyncIterator[SampleUpstream]:
    upstream = SampleUpstream()
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    async with contextlib.AsyncExitStack() as stack:
        yield Processes(stack, tmp_path)


def test_the_same_call_meets_the_same_fate_every_time() -> None:
    calls = [(name, call) for name in ("1", "2", "x/y", "ü") for call in range(1, 50)]
    assert [fate_of(1, *call) for call in calls] == [fate_of(1, *call) for call in calls]
    assert [fate_of(1, *call) for call in calls] != [fate_of(2, *call) for call in calls]


def test_one_call_in_five_fails_in_each_of_the_three_ways() -> None:
    fates = Counter(fate_of(1, str(name), 1) for name in range(2000))
    assert set(fates) == set(Fate)
    assert 0.17 < 1 - fates[Fate.ANSWER] / 2000 < 0.23


def test_the_shaky_name_fails_twice_and_then_succeeds() -> None:
    assert [fate_of(1, SHAKY, call) for call in (1, 2, 3)] == [Fate.UNAVAILABLE, Fate.LIMITED, Fate.ANSWER]
    assert fate_of(1, SHAKY, 4) is Fate.UNAVAILABLE


async def test_a_limited_call_says_when_to_come_back(sample: SampleUpstream) -> None:
    async with connect("127.0.0.1", sample.port) as client:
        assert (await client.ask("GET", f"/v1/quote/{SHAKY}")).status == 503
        limited = await client.ask("GET", f"/v1/quote/{SHAKY}")
        assert (limited.status, limited.headers.get("Retry-After"), limited.headers.get("Retry-After-Ms")) == (
            429,
            "1",
            "150",
        )
        assert (await client.ask("GET", f"/v1/quote/{SHAKY}")).json()["quote"] == SHAKY


async def test_an_order_with_the_same_key_takes_effect_once(sample: SampleUpstream) -> None:
    name = next(str(n) for n in range(99) if {fate_of(1, str(n), call) for call in (1, 2, 3)} == {Fate.ANSWER})
    async with connect("127.0.0.1", sample.port) as client:
        for key in ("a", "a", "b"):
            await client.ask("POST", f"/v1/orders/{name}", [("Idempotency-Key", key)], b"{}")
    assert sample.placed[name] == 2


@pytest.mark.parametrize(("method", "target"), [("GET", "/"), ("POST", "/v1/quote/1"), ("GET", "/v1/quote/")])
async def test_an_unknown_call_is_told_what_there_is(sample: SampleUpstream, method: str, target: str) -> None:
    async with connect("127.0.0.1", sample.port) as client:
        answer = await client.ask(method, target)
    assert answer.status == 404
    assert "GET /v1/quote/NAME" in answer.json()["error"]["message"]


async def test_the_load_sends_each_request_once_and_counts_what_came(sample: SampleUpstream) -> None:
    seen: list[int] = []
    tally = await run_load("127.0.0.1", sample.port, "", Load(80, 2000), lambda now: seen.append(now.requests))
    good = sum(fate_of(1, str(number), 1) is Fate.ANSWER for number in range(80))
    assert (tally.requests, tally.succeeded) == (80, good)
    assert sample.calls.total() == 80
    assert seen == list(range(1, 81))


async def test_the_load_counts_a_server_that_is_not_there_as_failures() -> None:
    tally = await run_load("127.0.0.1", 1, "", Load(3, 1000), lambda _: None)
    assert (tally.requests, tally.succeeded) == (3, 0)


def test_percentiles_are_by_nearest_rank() -> None:
    tally = Tally(seconds=[number / 100 for number in range(100, 0, -1)])
    assert tally.percentile_seconds(0.5) == pytest.approx(0.51)
    assert tally.percentile_seconds(0.99) == pytest.approx(1.0)
    assert Tally().percentile_seconds(0.5) == 0


def test_the_table_tells_both_sides_in_columns() -> None:
    left, right = Tally(), Tally()
    left.note(None, 0.02)
    left.note(Reply(200), 0.01)
    right.note(Reply(200, "outcome=recovered, attempts=2"), 0.1)
    right.note(Reply(200, "outcome=ok, attempts=1"), 0.01)
    assert right.outcomes == {"recovered": 1, "ok": 1}
    lines = table(Side(left, 2, 1, 0), Side(right, 3, 2, 0)).splitlines()
    assert [line.split("  ")[-1].strip() for line in lines] == [
        "with the sidecar",
        "2",
        "100.0 %",
        "1.50",
        "100 ms",
        "100 ms",
        "2",
        "0",
    ]
    assert "50.0 %" in lines[2]


async def test_the_configuration_of_the_demonstration_is_valid(sample: SampleUpstream) -> None:
    deployment = deployment_for(sample, {})
    assert deployment.upstreams[0].origin.port == sample.port
    assert deployment.upstreams[0].policy.name == "sample"


async def test_the_demonstration_ends_by_itself_and_shows_what_the_sidecar_gains(processes: Processes) -> None:
    async with asyncio.timeout(15):
        ended = await (await processes.start("demo")).exit()
    assert ended.code == 0, ended.said
    assert ended.stderr == ""
    assert "100 of 400" in ended.stdout
    success = re.search(r"success +([0-9.]+) % +([0-9.]+) %", ended.stdout)
    assert success is not None, ended.stdout
    assert float(success[1]) < 90
    assert float(success[2]) > 98
    assert re.search(r"orders placed twice +0 +0", ended.stdout)
    assert re.search(r"Sidecar: outcome=recovered, attempts=\d", ended.stdout)


async def test_every_emulated_api_tells_its_story_with_nothing_done_twice() -> None:
    async with asyncio.timeout(15):
        texts = dict(zip(STORIES, await asyncio.gather(*map(tell, STORIES)), strict=True))
    for name, text in texts.items():
        assert "Done twice: 0. Sent again sooner than the API asked: 0." in text, name
        assert "recovered, attempts=2" in text, name
        assert "none" not in text, name
        if STORIES[name].crowd is not None:
            assert "200 succeeded, with 1 login." in text, text


def test_there_is_a_story_for_every_emulated_api_and_a_policy_of_its_name() -> None:
    assert set(STORIES) == set(APIS)
    policies = {path.stem for path in (ROOT / "config" / "policies").glob("*.yaml")}
    assert set(APIS) <= policies
    for name in APIS:
        assert deployment_of(name, 9).upstreams[0].policy.name == name


async def test_the_story_of_an_api_is_told_by_the_verb(processes: Processes) -> None:
    async with asyncio.timeout(15):
        ended = await (await processes.start("demo", "--api", "meshqu")).exit()
    assert ended.code == 0, ended.said
    assert ended.stderr == ""
    assert re.search(r"too many requests +POST /v1/decisions +429 \(wait 1 s\), 200 +200  recovered", ended.stdout)


async def test_staying_prints_a_curl_line_that_shows_a_recovered_request_and_ends_on_a_signal(
    processes: Processes,
) -> None:
    anywhere = {"SIDECAR_LISTEN": "127.0.0.1:0", "SIDECAR_ADMIN": "127.0.0.1:0"}
    process = await processes.start("demo", "--stay", environ=anywhere)
    await process.until(lambda: "Ctrl-C" in process.said)
    line = re.search(r"curl -i http://127\.0\.0\.1:(\d+)(/sample\S+)", process.said)
    assert line is not None, process.said
    async with connect("127.0.0.1", int(line[1])) as client:
        answer = await client.ask("GET", line[2])
    assert answer.status == 200
    told = answer.headers.get("Sidecar") or ""
    assert told.startswith("outcome=recovered, attempts=3"), told
    process.signal(signal.SIGTERM)
    ended = await process.exit()
    assert ended.code == 0, ended.said
    assert "Traceback" not in ended.said


def masked(text: str) -> list[str]:
    """Its lines, without what differs from run to run: ids, dates, versions, figures, spaces."""
    lines = [re.sub(r"^(Date|Server): .*", r"\1: …", line) for line in text.replace("\r", "").strip().splitlines()]
    return [re.sub(r"\s+", " ", re.sub(r"[0-9a-f]{32}|\d+(\.\d+)?", "…", line)) for line in lines]


async def test_the_readmes_first_commands_show_what_it_says(processes: Processes) -> None:
    """``make run``, then its curl line as it stands there, with the port that was free here."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"^```\n\$ curl -i http://127\.0\.0\.1:8080(/\S+)\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    assert shown is not None
    dry = subprocess.run(["make", "--dry-run", "run"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: ASYNC221
    assert "/sidecar demo --stay\n" in dry.stdout
    anywhere = {"SIDECAR_LISTEN": "127.0.0.1:0", "SIDECAR_ADMIN": "127.0.0.1:0"}
    process = await processes.start("demo", "--stay", environ=anywhere)
    await process.until(lambda: "Ctrl-C" in process.said)
    line = re.search(rf"curl -i (http://127\.0\.0\.1:\d+{re.escape(shown[1])})", process.said)
    assert line is not None, process.said
    curl = await asyncio.create_subprocess_exec("curl", "-si", line[1], stdout=asyncio.subprocess.PIPE)
    said, _ = await curl.communicate()
    assert masked(said.decode()) == masked(shown[2])
    process.signal(signal.SIGTERM)
    assert (await process.exit()).code == 0


async def test_an_address_in_use_is_one_clear_line_and_exit_code_1(
    processes: Processes, sample: SampleUpstream
) -> None:
    taken = {"SIDECAR_LISTEN": f"127.0.0.1:{sample.port}", "SIDECAR_ADMIN": "127.0.0.1:0"}
    ended = await (await processes.start("demo", "--stay", environ=taken)).exit()
    assert ended.code == 1, ended.said
    assert str(sample.port) in ended.stderr
    assert "SIDECAR_LISTEN" in ended.stderr
    assert "Traceback" not in ended.said
