"""``then: login``: one login for any number of 401s, each retried once. DESIGN section 6; RFC 6749 section 4.4."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from tests.behaviour.conftest import Make
from tests.support.clock import ManualClock
from tests.support.sidecar import Running, yaml_for
from tests.support.structured import dictionary as whole_dictionary
from tests.support.upstream import Connection, Received, Step, Upstream, hang, head_bytes, say, say_raw

POLICY = "table: [{status: 401, then: login, processed: false}]"
LOGIN = """
    login:
      url: /auth/login
      json: {username: env:TEST_USER, password: env:TEST_PASSWORD, scopes: [read, write]}
      token: /token
      expires_in: /expires_in
"""
SECRET = "hunter2-of-the-test"


def dictionary(value: str | None) -> dict[str, object]:
    """The ``Sidecar`` field without the seconds that it took to ask somebody else."""
    return {name: told for name, told in whole_dictionary(value).items() if name != "waited"}


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_USER", "robot")
    monkeypatch.setenv("TEST_PASSWORD", SECRET)


class Guarded:
    """An API that answers 401 without the newest token."""

    def __init__(self, upstream: Upstream, life_seconds: float | None = 3600) -> None:
        self.tokens = 0
        self.life_seconds = life_seconds
        self.effects: list[bytes] = []
        self.logins: list[Received] = []
        self.login_step: Callable[[], Step] | None = None
        upstream.otherwise = lambda _: self.step

    @property
    def token(self) -> str:
        return f"token-{self.tokens}"

    async def step(self, connection: Connection) -> None:
        request = await connection.read_head()
        if request.target == "/auth/login":
            await connection.read_body()
            self.logins.append(request)
            await self._log_in(connection)
            return
        await connection.read_body()
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            await self._answer(connection, 401, b'{"error":"Token expired"}')
            return
        self.effects.append(bytes(request.body))
        await self._answer(connection, 200, b"done")

    async def _log_in(self, connection: Connection) -> None:
        self.tokens += 1
        answer: dict[str, object] = {"token": self.token}
        if self.life_seconds is not None:
            answer["expires_in"] = self.life_seconds
        await self._answer(connection, 200, json.dumps(answer).encode())

    async def _answer(self, connection: Connection, status: int, body: bytes) -> None:
        fields = [
            ("Content-Length", str(len(body))),
            ("Content-Type", "application/json"),
            ("X-Odd", "a"),
            ("x-odd", "b"),
        ]
        await connection.send(head_bytes(status, fields) + body)


def api_requests(upstream: Upstream) -> list[Received]:
    return [request for request in upstream.requests if request.target != "/auth/login"]


async def test_a_refused_request_is_sent_again_after_a_login(make: Make, upstream: Upstream) -> None:
    api = Guarded(upstream)
    sidecar = await make(upstream, POLICY, more=LOGIN)
    answer = await sidecar.ask("POST", "/api/orders", body=b"order 1")
    assert (answer.status, answer.body, api.effects) == (200, b"done", [b"order 1"])
    assert dictionary(answer.headers.get("Sidecar")) == {"outcome": "recovered", "attempts": 2}
    (login,) = api.logins
    assert json.loads(bytes(login.body)) == {"username": "robot", "password": SECRET, "scopes": ["read", "write"]}
    assert login.headers.get("Content-Type") == "application/json"
    assert [request.headers.get("Authorization") for request in api_requests(upstream)] == [None, "Bearer token-1"]
    assert [attempt.then for attempt in (await sidecar.record()).attempts] == ["login", None]
    assert await sidecar.metric('sidecar_logins_total{upstream="api"}') == 1
    assert await sidecar.metric('sidecar_login_failures_total{upstream="api"}') == 0


async def test_the_token_serves_the_requests_after_it(make: Make, upstream: Upstream) -> None:
    api = Guarded(upstream)
    sidecar = await make(upstream, POLICY, more=LOGIN)
    for number in range(3):
        assert (await sidecar.ask("GET", f"/api/{number}")).status == 200
    assert (len(api.logins), len(api_requests(upstream))) == (1, 4)


async def test_two_hundred_refusals_at_once_cause_one_login(make: Make, upstream: Upstream) -> None:
    api = Guarded(upstream)
    sidecar = await make(upstream, POLICY, more=LOGIN, quick="attempt: {head: 10s}")  # so many at once take their time
    assert (await sidecar.ask("GET", "/api/first")).status == 200
    api.tokens += 1  # revoked
    answers = await asyncio.gather(*(sidecar.ask("POST", "/api/x", body=b"%d" % number) for number in range(200)))
    assert {answer.status for answer in answers} == {200}
    assert len(api.logins) == 2
    assert sorted(map(int, filter(None, api.effects))) == list(range(200))


async def test_a_token_is_renewed_ahead_of_its_end_and_nobody_waits(
    make: Make, upstream: Upstream, clock: ManualClock
) -> None:
    api = Guarded(upstream, life_seconds=100)
    sidecar = await make(upstream, POLICY, more=LOGIN)
    await sidecar.ask("GET", "/api/1")
    clock.advance(70)
    await sidecar.ask("GET", "/api/2")
    assert len(api.logins) == 1
    clock.advance(15)
    answer = await sidecar.ask("GET", "/api/3")
    assert answer.status in (200,)
    await upstream.until(lambda: len(api.logins) == 2)
    answer = await sidecar.ask("GET", "/api/4")
    assert dictionary(answer.headers.get("Sidecar"))["outcome"] in ("ok", "recovered")
    assert (await sidecar.ask("GET", "/api/5")).status == 200
    assert len(api.logins) == 2


async def test_a_second_refusal_is_handed_over(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, POLICY, more=LOGIN)
    refusal = b'{"error":"Token expired"}'
    upstream.script(say(401, refusal), say(200, b'{"token":"t"}'), say(401, refusal))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.body) == (401, refusal)
    assert dictionary(answer.headers.get("Sidecar")) == {"outcome": "exhausted", "attempts": 2, "reason": "attempts"}
    assert len(upstream.requests) == 3


HTML = b"<!doctype html><title>Sign in</title>"
BAD_LOGINS: dict[str, tuple[Callable[[], Step], str]] = {
    "refused": (lambda: say(403, b'{"error":"no"}'), "answered 403"),
    "redirect": (lambda: say(302, headers=[("Location", "/elsewhere")]), "answered 302"),
    "html": (lambda: say(200, HTML, headers=[("Content-Type", "text/html")]), "no text at /token"),
    "empty": (lambda: say(200, b""), "no text at /token"),
    "no token": (lambda: say(200, b'{"access":"x"}'), "no text at /token"),
    "token is no text": (lambda: say(200, b'{"token":{"a":1}}'), "no text at /token"),
    "token of 1 MiB": (lambda: say(200, b'{"token":"' + b"x" * (1 << 20) + b'"}'), "above 65536 bytes"),
    "token of 32 KiB": (lambda: say(200, b'{"token":"' + b"x" * (32 << 10) + b'"}'), "longer than 16384"),
    "token with a line end": (lambda: say(200, b'{"token":"a\\r\\nX-Evil: 1"}'), "no header may hold"),
    "token not ascii": (lambda: say(200, '{"token":"é"}'.encode()), "no header may hold"),
    "not utf-8": (lambda: say(200, b'{"token":"\xff\xfe"}'), "no text at /token"),
    "deep": (lambda: say(200, b"[" * 60_000), "no text at /token"),
    "cut": (lambda: say_raw(head_bytes(200, [("Content-Length", "50")]) + b'{"token":"a"', last=True), "cut"),
    "no http": (lambda: say_raw(b"SSH-2.0-OpenSSH_9\r\n", wait=True), "ended without"),
    "hangs": (hang, "in time"),
    "hangs in mid-body": (lambda: hang(send=head_bytes(200, [("Content-Length", "50")]) + b"{"), "in time"),
}


@pytest.mark.parametrize("name", BAD_LOGINS)
async def test_a_failed_login_hands_over_the_refusal_untouched(make: Make, upstream: Upstream, name: str) -> None:
    step, why = BAD_LOGINS[name]
    sidecar = await make(upstream, POLICY, more=LOGIN + "      timeout: 200ms\n")
    refusal = b'{"error":"Token expired"}'
    upstream.script(say(401, refusal, headers=[("WWW-Authenticate", "Bearer"), ("X-Odd", "1"), ("x-odd", "2")]), step())
    answer = await sidecar.ask("POST", "/api/orders", body=b"x")
    assert (answer.status, answer.body) == (401, refusal)
    assert answer.headers.all("X-Odd") == ["1", "2"]
    assert dictionary(answer.headers.get("Sidecar")) == {
        "outcome": "exhausted",
        "attempts": 1,
        "reason": "login_failed",
    }
    assert await sidecar.metric('sidecar_login_failures_total{upstream="api"}') == 1
    assert await sidecar.metric('sidecar_retries_suppressed_total{upstream="api",reason="login_failed"}') == 1
    assert why in sidecar.log.getvalue()
    assert SECRET not in sidecar.log.getvalue()


async def test_after_a_failed_login_none_is_tried_for_a_while(
    make: Make, upstream: Upstream, clock: ManualClock
) -> None:
    """Wrong credentials must not lock the account, nor turn every request into a login."""
    sidecar = await make(upstream, POLICY, more=LOGIN)
    logins = 0

    async def step(connection: Connection) -> None:
        nonlocal logins
        request = await connection.read_request()
        logins += request.target == "/auth/login"
        await connection.send(head_bytes(401, [("Content-Length", "0")]))

    upstream.otherwise = lambda _: step
    for expected in (1, 1, 1):
        assert (await sidecar.ask("GET", "/api/x")).status == 401
        assert logins == expected
    clock.advance(1.1)
    await sidecar.ask("GET", "/api/x")
    assert logins == 2
    clock.advance(1.1)
    await sidecar.ask("GET", "/api/x")
    assert logins == 2


async def test_fifty_refusals_at_once_cause_one_failed_login(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, POLICY, more=LOGIN)

    async def step(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(head_bytes(401, [("Content-Length", "0")]))

    upstream.otherwise = lambda _: step
    answers = await asyncio.gather(*(sidecar.ask("GET", "/api/x") for _ in range(50)))
    assert {dictionary(answer.headers.get("Sidecar"))["reason"] for answer in answers} == {"login_failed"}
    assert sum(request.target == "/auth/login" for request in upstream.requests) == 1


async def test_an_app_with_a_credential_of_its_own_keeps_it(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, POLICY, more=LOGIN)
    upstream.script(say(401, b"no"))
    answer = await sidecar.ask("GET", "/api/x", [("authorization", "Bearer mine")])
    assert (answer.status, answer.body) == (401, b"no")
    assert dictionary(answer.headers.get("Sidecar")) == {
        "outcome": "passed",
        "attempts": 1,
        "reason": "not_retryable",
    }
    assert [request.headers.all("Authorization") for request in upstream.requests] == [["Bearer mine"]]


async def test_apply_replace_puts_ours_in_its_place(make: Make, upstream: Upstream) -> None:
    api = Guarded(upstream)
    sidecar = await make(upstream, POLICY, more=LOGIN + "      apply: replace\n")
    answer = await sidecar.ask("GET", "/api/x", [("Authorization", "Bearer placeholder")])
    assert answer.status == 200
    assert [request.headers.all("Authorization") for request in api_requests(upstream)] == [[], ["Bearer token-1"]]
    assert len(api.logins) == 1


async def test_without_a_login_the_refusal_is_the_apps(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, POLICY)
    upstream.script(say(401, b"no"))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.body) == (401, b"no")
    assert dictionary(answer.headers.get("Sidecar"))["reason"] == "not_retryable"


async def test_oauth_client_credentials_go_as_a_form(make: Make, upstream: Upstream, tmp_path: Path) -> None:
    """RFC 6749 section 4.4.2; the secret from a file, its final line end left out."""
    (tmp_path / "secret").write_text("s3cr&t=x\n", encoding="utf-8")
    login = f"""
    login:
      url: /v3/auth/token
      form: {{grant_type: client_credentials, client_id: env:TEST_USER, client_secret: "file:{tmp_path}/secret"}}
      token: /access_token
      send: {{header: X-Api-Key, scheme: ""}}
"""
    sidecar = await make(upstream, POLICY, more=login)
    upstream.script(say(401), say(200, b'{"access_token":"abc","token_type":"bearer"}'), say(200, b"ok"))
    assert (await sidecar.ask("GET", "/api/x")).body == b"ok"
    form = upstream.requests[1]
    assert form.headers.get("Content-Type") == "application/x-www-form-urlencoded"
    assert parse_qs(bytes(form.body).decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["robot"],
        "client_secret": ["s3cr&t=x"],
    }
    assert upstream.requests[2].headers.get("X-Api-Key") == "abc"
    assert "Authorization" not in upstream.requests[2].headers


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("env:NOT_SET_ANYWHERE", "the variable NOT_SET_ANYWHERE is not set"),
        ("file:missing", "cannot be read"),
        ("file:.", "is not a file"),
    ],
)
async def test_a_secret_that_cannot_be_read_is_told_by_its_place(
    make: Make, upstream: Upstream, value: str, why: str
) -> None:
    sidecar = await make(upstream, POLICY, more=LOGIN.replace("env:TEST_PASSWORD", value))
    upstream.script(say(401, b"no"))
    answer = await sidecar.ask("GET", "/api/x")
    assert dictionary(answer.headers.get("Sidecar"))["reason"] == "login_failed"
    assert why in sidecar.log.getvalue()
    assert len(upstream.requests) == 1


async def test_a_login_elsewhere_goes_there_and_nowhere_else(make: Make, upstream: Upstream) -> None:
    async with Upstream.start() as identity:
        identity.script(say(200, b'{"token":"abc"}'))
        login = LOGIN.replace("/auth/login", f"http://127.0.0.1:{identity.port}/token")
        sidecar = await make(upstream, POLICY, more=login)
        upstream.script(say(401), say(200, b"ok"))
        assert (await sidecar.ask("GET", "/api/x")).body == b"ok"
        assert [request.target for request in identity.requests] == ["/token"]
        assert identity.requests[0].headers.get("Host") == identity.authority


async def test_one_connection_is_enough_for_the_request_and_its_login(make: Make, upstream: Upstream) -> None:
    """The refused response must not hold the place that nobody else may have."""
    Guarded(upstream)
    sidecar = await make(upstream, POLICY, more="    connections: 1\n" + LOGIN)
    answers = await asyncio.gather(*(sidecar.ask("GET", f"/api/{number}") for number in range(5)))
    assert {answer.status for answer in answers} == {200}


async def test_a_long_upload_logs_in_first(make: Make, upstream: Upstream) -> None:
    """An upload that is refused in its middle could not be sent again."""
    api = Guarded(upstream)
    sidecar = await make(upstream, POLICY, more=LOGIN)
    answer = await sidecar.ask("POST", "/api/upload", chunks=[b"a" * 1000, b"b" * 1000])
    assert (answer.status, len(api.logins)) == (200, 1)
    assert dictionary(answer.headers.get("Sidecar")) == {"outcome": "ok", "attempts": 1}


async def test_a_post_is_not_sent_again_where_a_401_may_come_after_an_effect(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "table: [{status: 401, then: login}]", more=LOGIN)
    upstream.script(say(401, b"no"))
    answer = await sidecar.ask("POST", "/api/orders", body=b"x")
    assert dictionary(answer.headers.get("Sidecar"))["reason"] == "not_safe"
    assert len(upstream.requests) == 1


async def test_a_login_is_bounded_by_the_deadline_of_the_request(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, POLICY, more=LOGIN)
    upstream.script(say(401, b"no"), hang())
    answer = await sidecar.ask("GET", "/api/x", [("Sidecar-Timeout", "300ms")])
    assert (answer.status, answer.body) == (401, b"no")


async def test_the_token_survives_a_reload(make: Make, upstream: Upstream) -> None:
    api = Guarded(upstream)
    sidecar = await make(upstream, POLICY, more=LOGIN)
    await sidecar.ask("GET", "/api/1")
    sidecar.sidecar.apply(sidecar.sidecar.deployment)
    assert (await sidecar.ask("GET", "/api/2")).status == 200
    assert len(api.logins) == 1


async def test_no_secret_and_no_token_stands_anywhere(make: Make, upstream: Upstream) -> None:
    api = Guarded(upstream)
    sidecar = await make(upstream, POLICY, more=LOGIN)
    answers = [await sidecar.ask("GET", "/api/1"), await sidecar.ask("GET", "/api/2")]
    seen = sidecar.log.getvalue() + "".join(answer.head.decode() for answer in answers)
    for page in ("/metrics", "/config", "/debug/exchanges", "/"):
        seen += (await sidecar.admin(page)).body.decode()
    seen += repr(sidecar.sidecar.deployment)
    assert SECRET not in seen
    assert api.token not in seen


async def test_an_app_that_leaves_during_a_login_does_not_stop_it_for_the_others(
    make: Make, upstream: Upstream
) -> None:
    sidecar: Running = await make(upstream, POLICY, more=LOGIN)
    release = asyncio.Event()

    async def slow(connection: Connection) -> None:
        await connection.read_request()
        await release.wait()
        await connection.send(head_bytes(200, [("Content-Length", "13")]) + b'{"token":"t"}')

    upstream.script(say(401), slow, say(200, b"ok"))
    async with sidecar.client() as leaving:
        await leaving.send(b"GET /api/1 HTTP/1.1\r\nHost: a\r\n\r\n")
        await upstream.received(2)
        leaving.reset()
    await sidecar.record()
    release.set()
    await sidecar.until(lambda: "login" in sidecar.log.getvalue())
    assert (await sidecar.ask("GET", "/api/2")).body == b"ok"
    assert upstream.requests[2].headers.get("Authorization") == "Bearer t"


async def test_a_login_that_serves_many_pays_for_no_more_retries_than_the_budget_has(
    make: Make, upstream: Upstream
) -> None:
    """Each is judged by the same tokens before the login; who comes after they are paid gets its 401."""
    all_here, refused = asyncio.Event(), 0

    async def answer(connection: Connection) -> None:
        nonlocal refused
        request = await connection.read_request()
        if request.target == "/auth/login":
            body = b'{"token":"fresh"}'
            await connection.send(head_bytes(200, [("Content-Length", str(len(body)))]) + body)
            return
        is_known = request.headers.get("Authorization") is not None
        if not is_known:
            refused += 1
            if refused == 40:
                all_here.set()
            await all_here.wait()
        await connection.send(head_bytes(200 if is_known else 401, [("Content-Length", "0")]))

    upstream.otherwise = lambda _: answer
    policy = f"{POLICY[:-2]}, cost: 1}}]\nbudget: {{ratio: 0, min_per_second: 1}}"
    sidecar = await make(upstream, policy, more=LOGIN, quick="attempt: {head: 10s}")
    answers = await asyncio.gather(*(sidecar.ask("POST", "/api/x", body=b"%d" % number) for number in range(40)))
    statuses = [answer.status for answer in answers]
    retries = len(api_requests(upstream)) - 40
    assert 0 < retries <= 12  # ten seconds of the floor, and what is earned meanwhile
    assert (statuses.count(200), statuses.count(401)) == (retries, 40 - retries)
    reasons = {dictionary(a.headers.get("Sidecar")).get("reason") for a in answers if a.status == 401}
    assert reasons == {"budget"}


@pytest.mark.parametrize("kind", ["json", "form"])
async def test_a_secret_that_is_no_text_is_a_failed_login_and_never_shown(
    make: Make, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("TEST_PASSWORD", os.fsdecode(b"p\xfcss-of-the-test"))
    upstream.otherwise = lambda _: say(401, b"no")
    login = f"    login: {{url: /auth/login, {kind}: {{u: env:TEST_PASSWORD}}, token: /token}}"
    sidecar = await make(upstream, POLICY, more=login)
    for _ in range(2):
        answer = await sidecar.ask("GET", "/api/x")
        assert (answer.status, answer.body) == (401, b"no")
        assert dictionary(answer.headers.get("Sidecar"))["reason"] == "login_failed"
    said = sidecar.log.getvalue()
    assert "the variable TEST_PASSWORD is not UTF-8" in said
    assert "ss-of-the-test" not in said
    assert await sidecar.metric('sidecar_login_failures_total{upstream="api"}') == 1


@pytest.mark.parametrize(
    "path", ["/../x", "/a/../../x", "/%2e%2e/x", "/.%2E/x", "/..%2fx", "/..\\x", "/a%2f..%5C..%2fx", "/./../x"]
)
async def test_no_path_leads_out_of_a_base_path_with_our_credential_on_it(
    make: Make, upstream: Upstream, path: str
) -> None:
    api = Guarded(upstream)
    text = yaml_for(upstream, more=LOGIN).replace(f":{upstream.port}", f":{upstream.port}/base", 1)
    sidecar = await make(upstream, POLICY, text=text)
    assert (await sidecar.ask("GET", "/api/a/../b/x..y?q=/../..")).status == 200
    before = len(upstream.requests)
    answer = await sidecar.ask("GET", f"/api{path}")
    assert (answer.status, len(upstream.requests)) == (400, before)
    assert len(api.logins) == 1
