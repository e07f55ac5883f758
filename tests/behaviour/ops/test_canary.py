"""Secrets pushed through every path appear in nothing that the sidecar shows: log, metrics, page, story, report.

Each has a name of its own, so that a leak tells by which path it came. What app and upstream say to each other is
theirs; all the rest is searched, with reports and their bodies switched on.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.behaviour.conftest import Make
from tests.support.client import request_bytes
from tests.support.upstream import Upstream, reset, say

WINDOWS = (
    "/",
    "/metrics",
    "/config",
    "/readyz?verbose",
    "/debug/numbers",
    "/debug/exchanges?limit=500",
    "/-/retries",
)
SENT = {
    "Authorization": "Bearer canary-bearer",
    "Proxy-Authorization": "Basic canary-proxy",
    "Cookie": "session=canary-cookie",
    "X-Api-Key": "canary-api-key",
    "X-Auth-Token": "canary-auth-token",
    "Sidecar-Secret": "canary-sidecar-field",
}


LOGIN = """
    login:
      url: /login
      method: POST
      json: {username: env:CANARY_USER, password: env:CANARY_PASSWORD}
      token: /token
      send: {header: X-Session, scheme: Bearer}
      apply: absent
"""


async def test_no_secret_is_shown_anywhere(make: Make, upstream: Upstream, tmp_path: Path) -> None:
    environ = {"CANARY_USER": "canary-user", "CANARY_PASSWORD": "canary-password"}
    policy = """
report: {bodies: true, keep: 50}
errors: {code: [/error/code], message: [/error/message]}
table:
  - {status: 401, then: login}
  - {status: 507, then: store}
"""
    sidecar = await make(
        upstream,
        policy,
        more=LOGIN,
        top=f"outbox: {{file: {tmp_path / 'outbox.db'}}}",
        environ=environ,
    )
    fields = list(SENT.items())
    body = b'{"password":"canary-body-password","token":"canary-body-token","api_key":"canary-body-key"}'
    told = b'{"error":{"code":"bad","message":"see https://canary-user-info:canary-pw@x/?k=canary-in-message"}}'
    cookie = [("Set-Cookie", "sid=canary-set-cookie"), ("Content-Type", "application/json")]
    upstream.script(
        say(422, told, headers=cookie),
        reset(),
        say(503, told),
        say(503, told),
        say(401),
        say(200, b'{"token":"canary-login-token"}'),
        say(401),
        say(507),
    )
    target = "/api/x?token=canary-query&password=canary-query-password"
    await sidecar.ask("POST", target, [*fields, ("Content-Type", "application/json")], body)
    await sidecar.ask("POST", target, fields, body)
    await sidecar.ask("GET", target, [*fields, ("Sidecar-Timeout", "1s")])
    await sidecar.ask("GET", target, fields)
    await sidecar.ask("PUT", target, fields, body)
    await sidecar.ask("GET", "http://canary-url-user:canary-url-password@api.example/x?canary-url-query")
    async with sidecar.client() as client:
        await client.send(request_bytes("GET", target) + b"\x00canary-malformed\r\n\r\n")
        await client.send(b"GET canary-target-garbage HTTP/9.9\r\nAuthorization: canary-garbage\r\n\r\n")
    await sidecar.change("/-/retries/off?upstream=canary-upstream")
    shown = {"log": sidecar.log.getvalue()}
    for path in WINDOWS:
        shown[path] = (await sidecar.admin(path)).body.decode()
    openmetrics = [("Accept", "application/openmetrics-text; version=1.0.0")]
    shown["openmetrics"] = (await sidecar.admin("/metrics", openmetrics)).body.decode()
    for number, record in enumerate(sidecar.records):
        for path in ("/debug/report", "/debug/story"):
            shown[f"{path} {number}"] = (await sidecar.admin(f"{path}?id={record.request_id}")).body.decode()
    assert len(sidecar.records) >= 5
    assert sum("fields" in text for where, text in shown.items() if where.startswith("/debug/report")) >= 5
    assert json.loads(shown["/debug/exchanges?limit=500"])["exchanges"]
    encoded = base64.b64encode(b"canary-url-user:canary-url-password").decode()
    leaks = [
        (where, text[max(0, at - 80) : at + 60])
        for where, text in shown.items()
        for needle in ("canary-", "canary_", encoded[:20])
        if (at := text.find(needle)) >= 0
    ]
    assert not leaks
