"""The admin port over real sockets: what it answers, to whom, and that no page of the web can use it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from sidecar.admin import AdminState, Check, ReloadResult, make_admin, make_runner
from sidecar.core.enums import Outcome
from sidecar.observe.families import HELD_BY
from sidecar.observe.metrics import Metrics
from sidecar.observe.recent import Recent
from sidecar.observe.trend import Trend
from tests.observe.samples import FAILED, OK, RECOVERED

TOKEN = "correct horse"
READ_PATHS = ["/", "/livez", "/readyz", "/healthz", "/metrics", "/config", "/debug/exchanges", "/debug/numbers"]
SWITCHES = ["/-/reload", "/-/open", "/-/retries/off", "/-/retries/on"]


@dataclass
class World:
    """The rest of the process, as far as the admin port sees it."""

    checks: list[tuple[str, bool, str]] = field(default_factory=lambda: [("config", True, ""), ("listening", True, "")])
    metrics: Metrics = field(default_factory=lambda: Metrics(CollectorRegistry()))
    recent: Recent = field(default_factory=lambda: Recent(100))
    reloads: int = 0
    result: ReloadResult = ReloadResult(True, "in force")
    config: str = "listen: 127.0.0.1:8080"
    fault: Exception | None = None
    changes: list[tuple[object, ...]] = field(default_factory=list)
    off: dict[str, float | None] = field(default_factory=dict)

    def ready(self) -> Sequence[tuple[str, bool, str]]:
        return self.checks

    def config_text(self) -> str:
        if self.fault is not None:
            raise self.fault
        return self.config

    def names(self) -> list[str]:
        return ["api", "unknown"]

    def open(self, upstream: str | None) -> int:
        self.changes.append(("open", upstream))
        return 3

    def look(self) -> None:
        pass

    def turn_retries_off(self, upstream: str | None, seconds: float | None) -> None:
        self.changes.append(("off", upstream, seconds))
        self.off = {name: seconds for name in self.names() if upstream in (None, name)}

    def turn_retries_on(self, upstream: str | None) -> None:
        self.changes.append(("on", upstream))
        self.off = {}

    def retries_off(self) -> dict[str, float | None]:
        return self.off

    def states(self) -> dict[str, dict[str, object]]:
        return {name: {"state": "flowing"} for name in self.names()}

    async def reload(self, *, dry_run: bool = False) -> ReloadResult:
        self.reloads += not dry_run
        return self.result

    def state(self, token: str | None = TOKEN) -> AdminState:
        return AdminState(
            ready=self.ready,
            metrics=self.metrics,
            recent=self.recent,
            config_text=self.config_text,
            reload=self.reload,
            operator=self,
            report={"known": {"request_id": "known"}}.get,
            token=token,
            hosts=("sidecar.internal.example",),
        )


class Door:
    """A running admin port, and a client that says exactly what it is told to."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def raw(self, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(60):
                return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()

    async def ask(
        self, path: str, method: str = "GET", headers: dict[str, str] | None = None, data: bytes | None = None
    ) -> tuple[int, str, dict[str, str]]:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"http://127.0.0.1:{self.port}{path}", headers=headers, data=data) as response,
        ):
            return response.status, await response.text(), dict(response.headers)


async def opened(state: AdminState) -> tuple[web.AppRunner, Door]:
    runner = make_runner(make_admin(state))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, Door(runner.addresses[0][1])


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def door(world: World) -> AsyncIterator[Door]:
    runner, door = await opened(world.state())
    yield door
    await runner.cleanup()


async def test_it_lives_and_is_ready(door: Door) -> None:
    for path in ("/livez", "/healthz"):
        assert (await door.ask(path))[:2] == (200, "ok\n")
    assert (await door.ask("/readyz"))[:2] == (200, "ready\n")
    assert (await door.ask("/readyz?verbose"))[1] == "[+]config ok\n[+]listening ok\nready\n"
    assert (await door.ask("/livez?verbose"))[1] == "[+]loop ok\nok\n"


async def test_while_draining_it_lives_but_is_not_ready(door: Door, world: World) -> None:
    world.checks.append(Check("draining", False, "3 exchanges left"))
    assert (await door.ask("/readyz"))[:2] == (503, "[-]draining failed: 3 exchanges left\nnot ready\n")
    assert (await door.ask("/readyz?verbose"))[1].startswith("[+]config ok\n")
    assert (await door.ask("/livez"))[0] == 200


async def test_head_answers_like_get_without_a_body(door: Door) -> None:
    status, text, headers = await door.ask("/livez", "HEAD")
    assert (status, text, headers["Content-Length"]) == (200, "", "3")


async def test_metrics_come_in_the_format_that_is_asked_for(door: Door, world: World) -> None:
    world.metrics.upstream("meshqu").finished("GET", Outcome.OK, 0.1)
    status, text, headers = await door.ask("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'sidecar_requests_total{method="GET",outcome="ok",upstream="meshqu"} 1.0' in text
    asked = {"Accept": "application/openmetrics-text; version=1.0.0"}
    _, text, headers = await door.ask("/metrics", headers=asked)
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=x", "text/plain; version=..", ",;=,"])
async def test_an_odd_accept_header_gets_the_classic_format(door: Door, accept: str) -> None:
    status, text, _ = await door.ask("/metrics", headers={"Accept": accept})
    assert status == 200
    assert "sidecar_build_info" in text


async def test_metrics_of_many_upstreams_are_made_beside_the_loop(door: Door, world: World) -> None:
    for number in range(100):
        world.metrics.upstream(f"u{number}").finished("GET", Outcome.OK, 0.1)
    answers = await asyncio.gather(*(door.ask("/metrics") for _ in range(5)))
    assert all(text.count("sidecar_requests_total{") == 100 for _, text, _ in answers)


async def test_the_effective_configuration_is_shown(door: Door) -> None:
    assert (await door.ask("/config"))[:2] == (200, "listen: 127.0.0.1:8080\n")


async def test_recent_exchanges_are_found(door: Door, world: World) -> None:
    world.recent.add(RECOVERED)
    world.recent.add(replace(FAILED, request_id="req-2", upstream="other"))

    async def ids(query: str) -> list[str]:
        status, text, _ = await door.ask("/debug/exchanges" + query)
        assert status == 200
        return [exchange["request_id"] for exchange in json.loads(text)["exchanges"]]

    assert await ids("") == ["req-2", "req-1"]
    assert await ids("?outcome=&upstream=&id=") == ["req-2", "req-1"]
    assert await ids("?outcome=recovered") == ["req-1"]
    assert await ids("?upstream=other") == ["req-2"]
    assert await ids("?id=req-2") == ["req-2"]
    assert await ids("?limit=1") == ["req-2"]
    assert await ids("?id=nobody") == []


async def test_an_exchange_is_shown_with_all_its_attempts(door: Door, world: World) -> None:
    world.recent.add(RECOVERED)
    [shown] = json.loads((await door.ask("/debug/exchanges"))[1])["exchanges"]
    assert [attempt["status"] for attempt in shown["attempts"]] == [503, 503, 200]


@pytest.mark.parametrize("limit", ["0", "501", "-1", "x", "１", "9" * 5000])
async def test_a_senseless_limit_is_refused(door: Door, limit: str) -> None:
    assert (await door.ask(f"/debug/exchanges?limit={limit}"))[0] == 400


async def test_the_page_has_its_numbers(door: Door, world: World) -> None:
    world.metrics.upstream("meshqu").finished("GET", Outcome.OK, 0.1)
    world.metrics.reloaded(False, 1.0)
    told = json.loads((await door.ask("/debug/numbers"))[1])
    assert told["upstreams"][0]["outcomes"] == {"ok": 1}
    assert told["config"]["ok"] is False
    assert told["checks"][0] == {"name": "config", "ok": True, "detail": ""}


async def test_the_page_is_small(door: Door) -> None:
    assert len((await door.ask("/"))[1].encode()) <= 40 << 10


async def test_the_page_knows_every_holder(door: Door) -> None:
    _, text, _ = await door.ask("/")
    assert set(re.findall(r"(\w+): \"", text.split("const HOLDS")[1].split("};")[0])) >= set(HELD_BY)


async def test_with_ten_thousand_exchanges_the_page_is_answered_in_50_ms(door: Door, world: World) -> None:
    world.recent = Recent(10_000)
    for number in range(10_000):
        world.recent.add(replace(RECOVERED, request_id=f"r{number}"))
    runner, door = await opened(replace(world.state(), trend=Trend(world.metrics)))
    loop = asyncio.get_running_loop()
    try:
        for path in ("/", "/debug/numbers", "/debug/exchanges", "/debug/exchanges?id=r0", "/debug/story?id=r0"):
            seconds = []
            for _ in range(7):
                begun = loop.time()
                assert (await door.ask(path))[0] == 200
                seconds.append(loop.time() - begun)
            assert min(seconds) < 0.05, path
    finally:
        await runner.cleanup()


async def test_the_page_loads_nothing_from_anywhere(door: Door) -> None:
    status, text, headers = await door.ask("/")
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    assert not re.findall(r"https?://|//[a-z]|<script [^>]*src|<link [^>]*href=\"(?!data:)|@import|url\(", text)
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|\son[a-z]+=\"|\sstyle=\"", text
    )


async def test_the_page_allows_exactly_its_own_style_and_script(door: Door) -> None:
    _, text, headers = await door.ask("/")
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert f"{tag}-src 'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'" in policy


async def test_the_page_knows_every_outcome(door: Door) -> None:
    _, text, _ = await door.ask("/")
    assert set(re.findall(r"(\w+): \"", text.split("const OUTCOMES")[1].split("};")[0])) >= {str(o) for o in Outcome}


@pytest.mark.parametrize("path", [*READ_PATHS, "/nothing", "/-/reload"])
async def test_every_answer_carries_the_security_headers(door: Door, path: str) -> None:
    _, _, headers = await door.ask(path)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["Server"] == "sidecar"
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:9180",
        "127.0.0.1",
        "[::1]:9180",
        "10.0.0.7:9180",
        "localhost",
        "LOCALHOST:9180",
        "localhost.",
        "app.localhost:1",
        "sidecar.internal.example:9180",
    ],
)
async def test_it_answers_to_addresses_loopback_names_and_the_configured_host(door: Door, host: str) -> None:
    for path in READ_PATHS:
        assert (await door.ask(path, headers={"Host": host}))[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:9180", "127.0.0.1.evil.example", "localhost.evil.example", "1.2.3", "[::1", "a@b.c"],
)
async def test_a_foreign_name_is_refused_everywhere(door: Door, host: str) -> None:
    for path in [*READ_PATHS, "/nothing"]:
        status, text, _ = await door.ask(path, headers={"Host": host})
        assert status == 403
        assert "configured admin host" in text
    assert (await door.ask("/-/reload", "POST", {"Host": host, "Authorization": f"Bearer {TOKEN}"}))[0] == 403


async def test_a_bare_name_inside_a_network_is_enough_for_machines_only(door: Door) -> None:
    for path in ("/livez", "/readyz", "/healthz", "/metrics"):
        assert (await door.ask(path, headers={"Host": "sidecar:9180"}))[0] == 200
    for path in ("/", "/config", "/debug/exchanges", "/debug/numbers"):
        assert (await door.ask(path, headers={"Host": "sidecar:9180"}))[0] == 403


async def test_the_host_header_is_needed_once(door: Door) -> None:
    assert b" 400 " in (await door.raw(b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n")).split(b"\r\n")[0]
    twice = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert b" 400 " in (await door.raw(twice)).split(b"\r\n")[0]
    assert b" 200 " in (await door.raw(b"GET /livez HTTP/1.0\r\n\r\n")).split(b"\r\n")[0]


@pytest.mark.parametrize("path", SWITCHES)
async def test_a_change_needs_the_token(door: Door, world: World, path: str) -> None:
    for headers in (
        {},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer größe"},
        {"Cookie": f"token={TOKEN}"},
    ):
        status, text, answered = await door.ask(path, "POST", headers, b"{}")
        assert status == 401
        assert answered["WWW-Authenticate"] == "Bearer"
        assert TOKEN not in text
    bare = (
        b"POST "
        + path.encode()
        + b" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\r\nConnection: close\r\n\r\n"
    )
    assert b" 401 " in (await door.raw(bare)).split(b"\r\n")[0]
    assert (world.reloads, world.changes) == (0, [])


async def test_reload_with_the_token_says_what_is_in_force(door: Door, world: World) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert (await door.ask("/-/reload", "POST", headers))[:2] == (200, "in force\n")
    world.result = ReloadResult(False, "sidecar.yaml:3:1 E101 unknown-key")
    assert (await door.ask("/-/reload", "POST", headers))[:2] == (422, "sidecar.yaml:3:1 E101 unknown-key\n")
    assert world.reloads == 2


async def test_without_a_configured_token_nothing_can_be_changed(world: World) -> None:
    runner, door = await opened(world.state(token=None))
    try:
        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}):
            for path in SWITCHES:
                status, text, _ = await door.ask(path, "POST", headers)
                assert status == 403
                assert "SIDECAR_ADMIN_TOKEN" in text
    finally:
        await runner.cleanup()
    assert (world.reloads, world.changes) == (0, [])


async def test_get_never_changes_anything(door: Door, world: World) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for path in SWITCHES:
        assert (await door.ask(path, "GET", headers))[0] == 405
    for path in READ_PATHS:
        assert (await door.ask(path, "POST", headers))[0] == 405
    assert (world.reloads, world.changes) == (0, [])


@pytest.mark.parametrize("site", ["cross-site", "same-site", "odd"])
async def test_a_page_of_another_site_changes_nothing_even_with_the_token(door: Door, world: World, site: str) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Sec-Fetch-Site": site}
    for path in SWITCHES:
        assert (await door.ask(path, "POST", headers))[0] == 403
        asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        status, _, answered = await door.ask(path, "OPTIONS", asked)
        assert status == 405
        assert not [name for name in answered if name.lower().startswith("access-control")]
    assert (world.reloads, world.changes) == (0, [])


MAY = {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        ("/-/open", ("open", None), "opened all upstreams: 3 exchanges were held\n"),
        ("/-/open?upstream=api", ("open", "api"), "opened api: 3 exchanges were held\n"),
        ("/-/retries/off", ("off", None, None), "api: retries are off\nunknown: retries are off\n"),
        ("/-/retries/off?for=10m&upstream=api", ("off", "api", 600.0), "api: retries are off for 600 s more\n"),
        ("/-/retries/on?upstream=unknown", ("on", "unknown"), "retries are on\n"),
    ],
)
async def test_a_switch_says_what_is_in_force(
    door: Door, world: World, path: str, change: tuple[object, ...], said: str
) -> None:
    assert (await door.ask(path, "POST", MAY))[:2] == (200, said)
    assert world.changes == [change]
    retries = (await door.ask("/-/retries"))[1]
    assert retries == (said if "off" in path else "retries are on\n")


@pytest.mark.parametrize("path", ["/-/open", "/-/retries/off", "/-/retries/on"])
async def test_an_unknown_upstream_is_told_which_there_are(door: Door, world: World, path: str) -> None:
    for name in ("nobody", "", "<b>", "a\r\nx: y", "API"):
        status, text, _ = await door.ask(f"{path}?upstream={quote(name)}", "POST", MAY)
        assert (status, text) == (404, "no upstream has this name; there are: api, unknown\n")
    assert world.changes == []


@pytest.mark.parametrize("query", ["upsteam=api", "upstream=api&upstream=api", "upstream=api&x=", "for=1m&for=2m"])
async def test_a_misspelt_question_does_not_change_all_of_them(door: Door, world: World, query: str) -> None:
    for path in ("/-/open", "/-/retries/off", "/-/retries/on"):
        assert (await door.ask(f"{path}?{query}", "POST", MAY))[0] == 400
    assert world.changes == []


@pytest.mark.parametrize("time", ["", "10", "-1m", "0s", "1d", "169h", "inf", "nan", "1e3s", "9" * 500 + "h", "１m"])
async def test_a_senseless_time_is_refused(door: Door, world: World, time: str) -> None:
    assert (await door.ask(f"/-/retries/off?for={quote(time)}", "POST", MAY))[0] == 400
    assert world.changes == []


async def test_an_unknown_path_is_one_plain_line(door: Door) -> None:
    status, text, headers = await door.ask("/<script>alert(1)</script>")
    assert status == 404
    assert text.count("\n") == 1
    assert headers["Content-Type"].startswith("text/plain")


async def test_a_fault_inside_shows_no_traceback(door: Door, world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.fault = RuntimeError("SECRET")
    with caplog.at_level(logging.DEBUG):
        status, text, _ = await door.ask("/config")
    assert status == 500
    assert "RuntimeError" in text
    assert "SECRET" not in text + caplog.text
    assert "Traceback" not in text + caplog.text


async def test_garbage_is_answered_and_logged_nowhere(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for data in (
            b"\x16\x03\x01\x02\x00garbage\r\n\r\n",
            b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"SSH-2.0-x\r\n\r\n",
        ):
            answer = await door.raw(data)
            assert not answer or b" 400 " in answer.split(b"\r\n")[0]
    assert caplog.text == ""
    assert (await door.ask("/livez"))[0] == 200


async def test_a_large_body_is_refused_or_ignored(door: Door, world: World) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    assert (await door.ask("/-/reload", "POST", headers, b"x" * 200_000))[0] in (200, 413)
    assert (await door.ask("/livez"))[0] == 200


async def test_a_hostile_exchange_is_shown_harmless(door: Door, world: World) -> None:
    world.recent.add(replace(OK, path="/<img src=x>\x1b[2J\n?key=SECRET", request_id='"><script>'))
    _, text, headers = await door.ask("/debug/exchanges")
    assert headers["Content-Type"] == "application/json"
    assert "SECRET" not in text
    assert json.loads(text)["exchanges"][0]["path"] == "/<img src=x>\\x1b[2J\\n"
