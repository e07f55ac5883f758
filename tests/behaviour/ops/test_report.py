"""A failed exchange can be told in full, and nothing that is secret is ever kept to be told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.observe.reports import markdown
from tests.behaviour.conftest import Make
from tests.support.sidecar import Running
from tests.support.upstream import Upstream, cut_body, refused_port, reset, say

ON = "report: {bodies: true, redact: [/card/number, /items/*/pin_code]}"


async def report(sidecar: Running, wanted: str) -> dict[str, Any]:
    answer = await sidecar.admin(f"/debug/report?id={wanted}")
    assert answer.status == 200, answer.body
    told: dict[str, Any] = json.loads(answer.body)
    return told


async def test_a_report_has_what_support_asks_for(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, ON + "\nattempts: 2")
    fields = [("X-Request-Id", "ours-1"), ("Content-Type", "application/json"), ("Authorization", "Bearer s3cr3t")]
    upstream.script(say(503, b"{}"), say(503, b'{"error":"down"}', headers=[("X-Request-Id", "theirs-1")]))
    await sidecar.ask("PUT", "/api/v1/x?token=s3cr3t&page=2", fields, b'{"a":1,"password":"s3cr3t"}')
    told = await report(sidecar, "ours-1")
    assert (told["method"], told["path"], told["status"]) == ("PUT", "/api/v1/x", 503)
    assert told["query"] == "token=…&page=…"
    assert [attempt["status"] for attempt in told["attempts"]] == [503, 503]
    assert told["request"]["body"] == {"a": 1, "password": "[redacted]"}
    assert told["answer"]["body"] == {"error": "down"}
    assert ["Authorization", "[redacted]"] in told["request"]["fields"]
    assert ["X-Request-Id", "theirs-1"] in told["answer"]["fields"]
    assert "s3cr3t" not in json.dumps(told)
    text = markdown(told)
    for wanted in ("`PUT`", "`/v1/x`".replace("/v1", "/api/v1"), "`503`", "ours-1", '"error": "down"', "## Attempts"):
        assert wanted in text


async def test_secrets_are_gone_before_anything_is_kept(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, ON)
    body = {
        "card": {"number": "4111", "name": "n"},
        "items": [{"pin_code": "0000", "b": 1}, {"pin_code": "1111"}],
        "deep": [{"client_secret": "hidden", "note": "Bearer abcdefgh1234"}],
    }
    upstream.script(
        say(
            400,
            b'{"access_token":"hidden","echo":{"card":1},"card":{"number":"4111"}}',
            headers=[("Set-Cookie", "s=1")],
        )
    )
    fields = [("X-Request-Id", "r"), ("Cookie", "sid=hidden"), ("X-Api-Key", "hidden")]
    await sidecar.ask("POST", "/api/x", fields, json.dumps(body).encode())
    kept = await report(sidecar, "r")
    assert kept["request"]["body"] == {
        "card": {"number": "[redacted]", "name": "n"},
        "items": [{"pin_code": "[redacted]", "b": 1}, {"pin_code": "[redacted]"}],
        "deep": [{"client_secret": "[redacted]", "note": "Bearer [redacted]"}],
    }
    assert kept["answer"]["body"] == {
        "access_token": "[redacted]",
        "echo": {"card": 1},
        "card": {"number": "[redacted]"},
    }
    everything = repr(sidecar.sidecar.listener.reports._rings)
    for secret in ("hidden", "4111", "0000", "1111", "s=1"):
        assert secret not in everything


async def test_bodies_are_not_kept_unless_the_policy_says_so(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    upstream.script(say(500, b"private"), say(200))
    await sidecar.ask("POST", "/api/x", [("X-Request-Id", "r")], b"private")
    kept = await report(sidecar, "r")
    assert (kept["status"], kept["request"]["body"], kept["answer"]["body"]) == (500, None, None)
    assert "report: {bodies: true}" in kept["request"]["remark"]
    assert sidecar.sidecar.listener.reports._rings == {}


async def test_a_report_block_without_bodies_keeps_every_failure_without_bodies(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "report: {keep: 2}")
    upstream.otherwise = lambda _: say(404, b"private")
    for number in range(3):
        await sidecar.ask("GET", "/api/x", [("X-Request-Id", f"r{number}")])
    assert (await sidecar.admin("/debug/report?id=r0")).status == 404
    kept = await report(sidecar, "r2")
    assert (kept["status"], kept["answer"]["body"]) == (404, None)


@pytest.mark.parametrize("size", [100_000, 400_000])
async def test_bodies_that_come_in_pieces_are_kept_up_to_a_bound(make: Make, upstream: Upstream, size: int) -> None:
    sidecar = await make(upstream, ON)
    text = json.dumps({"long": "x" * size}).encode()
    pieces = [text[at : at + 30_000] for at in range(0, len(text), 30_000)]
    upstream.script(say(400, headers=[("Content-Type", "application/json")], chunks=pieces))
    answer = await sidecar.ask("POST", "/api/x", [("X-Request-Id", "r")], chunks=pieces)
    assert answer.body == text
    kept = await report(sidecar, "r")
    for side in ("request", "answer"):
        if size < 256 << 10:
            assert kept[side]["body"] == {"long": "x" * size}
        else:
            assert (kept[side]["body"], "are too many" in kept[side]["remark"]) == (None, True)


async def test_what_cannot_be_searched_is_not_kept(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, ON)
    upstream.script(say(400, b"<html>"))
    await sidecar.ask("POST", "/api/x", [("X-Request-Id", "r"), ("Content-Type", "text/plain")], b"pin=1234")
    kept = await report(sidecar, "r")
    assert (kept["request"]["body"], kept["answer"]["body"]) == (None, None)
    assert "not JSON" in kept["request"]["remark"]


async def test_a_failure_without_an_answer_is_reported_too(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, ON)
    upstream.script(reset())
    await sidecar.ask("POST", "/api/x", [("X-Request-Id", "r")], b'{"a":1}')
    kept = await report(sidecar, "r")
    assert (kept["status"], kept["reason"], kept["request"]["body"]) == (502, "not_safe", {"a": 1})
    assert kept["answer"]["remark"] == "none: the sidecar answered itself"
    assert kept["attempts"][0]["failure"] == "reset"


async def test_an_id_of_nobody_is_said_in_a_sentence(make: Make) -> None:
    sidecar = await make(refused_port())
    assert (await sidecar.admin("/debug/report?id=x")).status == 404
    assert (await sidecar.admin("/debug/report")).status == 400


async def test_markdown_of_a_strangers_cannot_end_its_block(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "report: {bodies: true}")
    evil = b"```\n# not a heading\n````\n\x1b[2J"
    upstream.script(say(400, evil, headers=[("Content-Type", "text/plain")]))
    await sidecar.ask("GET", "/api/|x`", [("X-Request-Id", "r")])
    text = markdown(await report(sidecar, "r"))
    assert "\n`````\n```\n# not a heading\n````\n" in text
    assert "\x1b" not in text


async def test_a_cut_answer_changes_nothing_for_the_app(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, ON)
    upstream.script(cut_body(b"part", length=100))
    answer = await sidecar.ask("GET", "/api/x")
    assert answer.cut is not None
