"""A stored request is durable before it is answered, and arrives: in order, once, whatever happens in between."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import pytest

from sidecar.core.settings.deployment import OutboxRule
from sidecar.outbox.items import Item
from sidecar.outbox.sqlite import SqliteOutbox
from tests.behaviour.conftest import Make
from tests.support.sidecar import Running
from tests.support.structured import dictionary
from tests.support.upstream import Connection, Live, Step, Upstream, hang, head_bytes, refused_port, reset, say

OUTBOX = "outbox: {file: outbox.db}"
ALWAYS = "    routes: [{methods: [POST, PUT], policy: test, store: always}]"
KEYED = "idempotency: {header: X-Idempotency-Key}"
WHEN_DOWN = f"{KEYED}\ntable: [{{status: 5xx, then: store}}, {{failure: any, then: store}}]"
BACKOFF = "attempts: 2\n"


def items_of(sidecar: Running) -> list[Item]:
    outbox_file = SqliteOutbox.open(str(sidecar.path.parent / "outbox.db"), create=False)
    try:
        return [item for item_id in outbox_file.ids() if (item := outbox_file.find(item_id)) is not None]
    finally:
        outbox_file.close()


async def until_items(sidecar: Running, waiting: int, dead: int = 0) -> list[Item]:
    """Returns when the outbox holds so many of each."""
    async with asyncio.timeout(60):
        while True:
            items = items_of(sidecar)
            if (sum(i.dead_at is None for i in items), sum(i.dead_at is not None for i in items)) == (waiting, dead):
                return items
            await sidecar.admin("/livez")


def down(upstream: Upstream) -> None:
    upstream.otherwise = lambda _: say(503, b"down")


async def test_a_stored_request_is_answered_202_with_a_receipt_and_then_delivered(
    make: Make, upstream: Upstream
) -> None:
    sidecar = await make(upstream, KEYED, more=ALWAYS, top=OUTBOX)
    fields = [("Content-Type", "application/json"), ("Authorization", "Bearer of-the-app"), ("X-Request-Id", "r-1")]
    answer = await sidecar.ask("POST", "/api/v1/telemetry?x=1", [*fields, ("Sidecar-Timeout", "3s")], b'{"a":1}')
    assert answer.status == 202
    receipt = json.loads(answer.body)["stored"]
    assert len(receipt) == 32
    assert dictionary(answer.headers.get("Sidecar"))["outcome"] == "stored"
    assert answer.headers.get("X-Request-Id") == "r-1"
    request = await upstream.received(1)
    assert (request.method, request.target) == ("POST", "/v1/telemetry?x=1")
    await until_items(sidecar, 0)
    assert request.body == b'{"a":1}'
    assert request.headers.get("Authorization") == "Bearer of-the-app"
    assert request.headers.get("X-Request-Id") == "r-1"
    assert request.headers.get("X-Idempotency-Key") == answer.headers.get("X-Idempotency-Key")
    assert request.headers.get("Sidecar-Timeout") is None
    assert [record.outcome for record in sidecar.records] == ["stored"]
    assert await sidecar.metric('sidecar_requests_total{upstream="api",method="POST",outcome="stored"}') == 1
    assert await sidecar.metric('sidecar_outbox_delivered_total{upstream="api"}') == 1


async def test_a_route_that_stores_leaves_the_others_alone(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, KEYED, more=ALWAYS, top=OUTBOX)
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.body) == (200, b"ok")
    assert items_of(sidecar) == []


async def test_a_row_stores_only_when_the_upstream_is_down(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, WHEN_DOWN + "\n" + BACKOFF, top=OUTBOX)
    upstream.script(say(201, b"made"), say(503, b"down"))
    assert (await sidecar.ask("POST", "/api/x", body=b"1")).status == 201
    answer = await sidecar.ask("POST", "/api/x", body=b"2")
    assert (answer.status, dictionary(answer.headers.get("Sidecar"))["attempts"]) == (202, 1)
    await until_items(sidecar, 0)
    assert [request.body for request in upstream.requests] == [b"1", b"2", b"2"]
    keys = [request.headers.get("X-Idempotency-Key") for request in upstream.requests]
    assert keys[1] == keys[2] == answer.headers.get("X-Idempotency-Key")
    assert keys[0] != keys[1]


async def test_nothing_is_stored_that_may_have_been_applied_and_has_no_key(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, "table: [{failure: any, then: store}]", top=OUTBOX)
    upstream.script(reset())
    answer = await sidecar.ask("POST", "/api/x", body=b"1")
    assert answer.status == 502
    assert (await sidecar.record()).reason == "not_safe"
    assert items_of(sidecar) == []


async def test_what_was_never_sent_is_stored_without_a_key(make: Make) -> None:
    sidecar = await make(refused_port(), "table: [{failure: any, then: store}]", top=OUTBOX)
    sidecar.clock.hold()
    answer = await sidecar.ask("POST", "/api/x", body=b"1")
    assert answer.status == 202
    assert len(items_of(sidecar)) == 1


async def test_deliveries_come_in_order_and_one_at_a_time(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, KEYED + "\n" + BACKOFF, more=ALWAYS, top=OUTBOX)
    upstream.script(*(say(503) for _ in range(7)))
    for number in range(20):
        assert (await sidecar.ask("POST", "/api/x", body=str(number).encode())).status == 202
    await until_items(sidecar, 0)
    bodies = [int(request.body) for request in upstream.requests]
    assert bodies == sorted(bodies)
    assert set(bodies) == set(range(20))
    for number in range(20):
        keys = {r.headers.get("X-Idempotency-Key") for r in upstream.requests if int(r.body) == number}
        assert len(keys) == 1


async def test_a_hint_is_not_undercut_between_rounds(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, KEYED + "\n" + BACKOFF, more=ALWAYS, top=OUTBOX)
    seen: list[float] = []

    def answer(_: Connection) -> Step:
        seen.append(sidecar.clock.monotonic())
        return say(503, headers=[("Retry-After", "600")]) if len(seen) == 1 else say(200)

    upstream.otherwise = answer
    await sidecar.ask("POST", "/api/x", body=b"1")
    await until_items(sidecar, 0)
    assert seen[1] - seen[0] >= 600


async def test_a_refusal_that_is_stored_keeps_its_hint(make: Make, upstream: Upstream) -> None:
    """A row may store what was refused: the first delivery is a send like any other."""
    sidecar = await make(upstream, f"{KEYED}\ntable: [{{status: 503, then: store}}]", top=OUTBOX)
    upstream.otherwise = lambda _: say(503, headers=[("Retry-After", "600")])
    sidecar.clock.hold()
    began_at = sidecar.clock.wall()
    assert (await sidecar.ask("POST", "/api/x", body=b"1")).status == 202
    (item,) = await until_items(sidecar, 1)
    assert item.due_at >= began_at + 600
    assert item.aside, "what waits so long holds up nobody behind it"
    assert len(upstream.requests) == 1


async def test_what_the_table_hands_over_is_a_dead_letter_and_the_next_goes_on(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, KEYED, more=ALWAYS, top=OUTBOX)
    upstream.script(say(422, b'{"error":"bad"}'))
    await sidecar.ask("POST", "/api/x", body=b"1")
    await sidecar.ask("POST", "/api/x", body=b"2")
    (dead,) = await until_items(sidecar, 0, 1)
    assert (dead.dead_reason, dead.dead_status, dead.body) == ("not_retryable", 422, b"1")
    assert await sidecar.metric('sidecar_outbox_dead_total{upstream="api"}') == 1
    assert "outbox_dead" in sidecar.log.getvalue()


async def test_what_is_too_old_is_a_dead_letter(make: Make, upstream: Upstream) -> None:
    down(upstream)
    sidecar = await make(upstream, KEYED + "\n" + BACKOFF, more=ALWAYS, top="outbox: {file: outbox.db, max_age: 1h}")
    sidecar.clock.hold()
    await sidecar.ask("POST", "/api/x", body=b"1")
    await sidecar.clock.sleeping()
    sidecar.clock.advance(3700)
    (dead,) = await until_items(sidecar, 0, 1)
    assert dead.dead_reason == "expired"


@pytest.mark.parametrize(
    ("limit", "body"),
    [("max_count: 2", b"x"), ("max_bytes: 2000B", b"x" * 400)],
)
async def test_a_full_outbox_refuses_in_the_shape_of_the_upstream(
    make: Make, upstream: Upstream, limit: str, body: bytes
) -> None:
    shape = 'errors: {shape: {error: {code: "{code}", message: "{message}"}}}'
    top = f"outbox: {{file: outbox.db, {limit}}}"
    sidecar = await make(refused_port(), f"{KEYED}\n{shape}", more=ALWAYS, top=top)
    sidecar.clock.hold()
    assert [(await sidecar.ask("POST", "/api/x", body=body)).status for _ in range(2)] == [202, 202]
    answer = await sidecar.ask("POST", "/api/x", body=body)
    assert answer.status == 503
    assert json.loads(answer.body)["error"]["code"] == "OUTBOX_FULL"
    assert dictionary(answer.headers.get("Sidecar"))["outcome"] == "rejected"
    assert len(items_of(sidecar)) == 2


async def test_the_receipt_takes_the_upstreams_success_shape(make: Make, upstream: Upstream) -> None:
    shape = 'stored_shape: {data: {id: "{stored}"}, meta: {request_id: "{request_id}", service: "{service}"}}'
    sidecar = await make(upstream, f"{KEYED}\n{shape}", more=ALWAYS, top=OUTBOX)
    answer = await sidecar.ask("POST", "/api/x", [("X-Request-Id", "r-9")], b"1")
    document = json.loads(answer.body)
    assert document["meta"] == {"request_id": "r-9", "service": "api"}
    assert len(document["data"]["id"]) == 32


async def test_a_body_that_comes_in_pieces_is_stored_whole(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, KEYED, more=ALWAYS, top=OUTBOX)
    chunks = [bytes([65 + i % 26]) * 100_000 for i in range(30)]
    answer = await sidecar.ask("POST", "/api/x", chunks=chunks)
    assert answer.status == 202
    await until_items(sidecar, 0)
    assert upstream.requests[0].body == b"".join(chunks)
    assert upstream.requests[0].headers.get("Transfer-Encoding") is None


async def test_an_app_that_waits_for_100_continue_is_told_to_go_on(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, KEYED, more=ALWAYS, top=OUTBOX)
    async with sidecar.client() as client:
        head = "POST /api/x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        await client.send(head.encode())
        assert (await client.one_head()).status == 100
        await client.send(b"abc")
        assert (await client.answer("POST")).status == 202
    await until_items(sidecar, 0)
    assert upstream.requests[0].body == b"abc"


async def test_a_body_larger_than_may_be_held_is_refused(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, f"{KEYED}\nbody: {{memory: 1KiB, disk: 2KiB}}", more=ALWAYS, top=OUTBOX)
    sized = await sidecar.ask("POST", "/api/x", body=b"x" * 5000)
    chunked = await sidecar.ask("POST", "/api/x", chunks=[b"x" * 1000] * 5)
    assert [sized.status, chunked.status] == [413, 413]
    assert upstream.requests == []
    assert items_of(sidecar) == []


async def test_an_app_that_leaves_in_the_middle_of_its_body_has_stored_nothing(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, KEYED, more=ALWAYS, top=OUTBOX)
    async with sidecar.client() as client:
        await client.send(b"POST /api/x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc")
        client.reset()
    assert (await sidecar.record()).outcome == "client_gone"
    assert items_of(sidecar) == []


async def test_the_file_is_the_owners_alone_and_holds_nothing_of_what_was_delivered(
    make: Make, upstream: Upstream
) -> None:
    sidecar = await make(upstream, KEYED, more=ALWAYS, top=OUTBOX)
    await sidecar.ask("POST", "/api/x", [("Authorization", "Bearer s3cr3t-token")], b"private-body")
    await until_items(sidecar, 0)
    folder = sidecar.path.parent
    for path in folder.glob("outbox.db*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
    await sidecar.sidecar.stop()
    assert b"s3cr3t-token" not in (folder / "outbox.db").read_bytes()
    assert b"private-body" not in (folder / "outbox.db").read_bytes()
    assert "s3cr3t" not in sidecar.log.getvalue()


async def test_readiness_tells_of_the_outbox_and_never_fails_for_it(make: Make, upstream: Upstream) -> None:
    sidecar = await make(refused_port(), KEYED, more=ALWAYS, top=OUTBOX)
    sidecar.clock.hold()
    await sidecar.ask("POST", "/api/x", body=b"1")

    async def told() -> str:
        return (await sidecar.admin("/readyz?verbose")).body.decode()

    async with asyncio.timeout(60):
        while "1 waiting" not in await told():
            pass
    answer = await sidecar.admin("/readyz?verbose")
    assert answer.status == 200
    assert "[+]outbox ok: 1 waiting, 0 dead" in answer.body.decode()
    assert await sidecar.metric('sidecar_outbox_items{upstream="api"}') == 1


async def test_without_an_outbox_the_answer_is_handed_over(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, WHEN_DOWN)
    upstream.script(say(503, b"down"))
    answer = await sidecar.ask("POST", "/api/x", body=b"1")
    assert (answer.status, answer.body) == (503, b"down")


async def test_what_waits_survives_a_restart_and_keeps_its_key(make: Make, upstream: Upstream, tmp_path: Path) -> None:
    shared = f"outbox: {{file: {tmp_path / 'shared.db'}}}"
    first = await make(upstream, KEYED + "\n" + BACKOFF, more=ALWAYS, top=shared)
    down(upstream)
    first.clock.hold()
    answers = [await first.ask("POST", "/api/x", body=str(number).encode()) for number in range(3)]
    await upstream.received(1)
    await first.clock.sleeping()
    await first.sidecar.stop()
    first.clock.release()
    before = len(upstream.requests)
    upstream.otherwise = lambda _: say(200)
    second = await make(upstream, KEYED + "\n" + BACKOFF, more=ALWAYS, top=shared)
    await upstream.until(lambda: len(upstream.requests) == before + 3)
    delivered = upstream.requests[before:]
    assert [request.body for request in delivered] == [b"0", b"1", b"2"]
    assert [r.headers.get("X-Idempotency-Key") for r in delivered] == [
        a.headers.get("X-Idempotency-Key") for a in answers
    ]
    await second.sidecar.drain(1)


async def test_a_send_of_unknown_end_is_not_repeated_without_a_key(
    make: Make, upstream: Upstream, tmp_path: Path
) -> None:
    path = str(tmp_path / "shared.db")
    outbox_file = SqliteOutbox.open(path)
    fields = b"Host: sidecar.test\r\n"
    item = Item("a" * 32, "api", "POST", "/x", fields, b"1", 4e9)
    put = Item("b" * 32, "api", "PUT", "/x", fields, b"2", 4e9)
    for each in (item, put):
        outbox_file.add(each, OutboxRule(path))
        outbox_file.begin(each.id)
    outbox_file.close()
    await make(upstream, top=f"outbox: {{file: {path}}}")
    await upstream.received(1)
    assert [request.body for request in upstream.requests] == [b"2"]


async def test_draining_lets_a_delivery_end_and_begins_no_other(make: Make, upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    sidecar = await make(upstream, KEYED, more=ALWAYS, top=f"outbox: {{file: {path}}}")
    live = Live()
    upstream.script(live)
    for number in range(2):
        await sidecar.ask("POST", "/api/x", body=str(number).encode())
    connection = await live.here()
    await connection.read_request()
    draining = asyncio.create_task(sidecar.sidecar.drain(5))
    await sidecar.until(lambda: sidecar.sidecar.services.draining)
    await connection.send(head_bytes(200, [("Content-Length", "0")]))
    live.over()
    await draining
    await sidecar.sidecar.stop()
    outbox_file = SqliteOutbox.open(str(path))
    (left,) = outbox_file.ids()
    found = outbox_file.find(left)
    assert found is not None
    assert found.body == b"1"
    outbox_file.close()
    assert len(upstream.requests) == 1


async def test_a_delivery_logs_in_where_the_upstream_has_a_login(make: Make, upstream: Upstream) -> None:
    login = "    login: {url: /login, method: POST, json: {}, token: /token}"
    sidecar = await make(
        upstream, KEYED + "\ntable: [{status: 401, then: login}]", more=f"{ALWAYS}\n{login}", top=OUTBOX
    )

    async def answer(connection: Connection) -> None:
        request = await connection.read_request()
        body = b'{"token":"fresh"}' if request.target == "/login" else b""
        known = request.target == "/login" or request.headers.get("Authorization") == "Bearer fresh"
        await connection.send(head_bytes(200 if known else 401, [("Content-Length", str(len(body)))]) + body)

    upstream.otherwise = lambda _: answer
    await sidecar.ask("POST", "/api/x", body=b"1")
    await until_items(sidecar, 0)
    assert [request.target for request in upstream.requests][-2:] == ["/login", "/x"]
    assert b"fresh" not in (sidecar.path.parent / "outbox.db").read_bytes()


async def test_an_endless_answer_does_not_hold_up_the_lane(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, KEYED, more=ALWAYS, top=OUTBOX)
    upstream.script(hang(send=head_bytes(200, [("Content-Type", "text/event-stream")]) + b"x" * 300_000))
    for number in range(2):
        await sidecar.ask("POST", "/api/x", body=str(number).encode())
    await until_items(sidecar, 0)
    assert [request.body for request in upstream.requests] == [b"0", b"1"]


async def test_a_key_that_comes_to_be_honoured_later_is_the_same_in_every_round(
    make: Make, upstream: Upstream, tmp_path: Path
) -> None:
    path = str(tmp_path / "shared.db")
    outbox_file = SqliteOutbox.open(path)
    outbox_file.add(Item("a" * 32, "api", "POST", "/x", b"Host: sidecar.test\r\n", b"1", 4e9), OutboxRule(path))
    outbox_file.close()
    upstream.script(*(say(503) for _ in range(5)))
    await make(upstream, KEYED + "\n" + BACKOFF, top=f"outbox: {{file: {path}}}")
    await upstream.received(6)
    keys = {request.headers.get("X-Idempotency-Key") for request in upstream.requests}
    assert keys == {"aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"}


async def test_a_request_for_a_host_of_no_upstream_is_never_stored(make: Make, upstream: Upstream) -> None:
    policies = {"default": "extends: default\ntable: [{failure: any, then: store}]"}
    sidecar = await make(upstream, top=OUTBOX, policies=policies)
    answer = await sidecar.ask("POST", f"http://127.0.0.1:{refused_port()}/x", body=b"1")
    assert answer.status == 502
    assert items_of(sidecar) == []


async def test_who_reads_gets_the_answer_and_not_a_receipt(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, WHEN_DOWN, top=OUTBOX)
    upstream.script(say(503, b"down"))
    answer = await sidecar.ask("GET", "/api/x")
    assert (answer.status, answer.body) == (503, b"down")
    record = await sidecar.record()
    assert (record.outcome, record.reason) == ("passed", "not_retryable")
    assert items_of(sidecar) == []


async def test_what_the_breaker_holds_back_is_stored_too(make: Make) -> None:
    breaker = "breaker: {failure_ratio: 0.5, min_requests: 2, window: 60s, when_open: fail}"
    sidecar = await make(refused_port(), f"{WHEN_DOWN}\n{breaker}", top=OUTBOX)
    sidecar.clock.hold()
    answers = [await sidecar.ask("POST", "/api/x", body=str(number).encode()) for number in range(6)]
    assert [answer.status for answer in answers] == [202] * 6
    assert dictionary(answers[-1].headers.get("Sidecar"))["attempts"] == 0
    assert [item.body for item in items_of(sidecar)] == [b"0", b"1", b"2", b"3", b"4", b"5"]


async def test_a_breaker_that_closes_again_lets_the_outbox_drain(make: Make, upstream: Upstream) -> None:
    breaker = "breaker: {failure_ratio: 0.5, min_requests: 2, window: 60s, when_open: fail}"
    sidecar = await make(upstream, f"{WHEN_DOWN}\n{breaker}", top=OUTBOX)
    upstream.script(*(say(503) for _ in range(8)))
    sidecar.clock.hold()
    for number in range(4):
        assert (await sidecar.ask("POST", "/api/x", body=str(number).encode())).status == 202
    sidecar.clock.release()
    await until_items(sidecar, 0)
    delivered = [request.body for request in upstream.requests[8:]]
    assert list(dict.fromkeys(map(bytes, delivered))) == [b"0", b"1", b"2", b"3"]


async def test_a_disk_for_bodies_that_cannot_be_written_is_told_at_the_start_and_at_readiness(
    make: Make, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent-directory")
    sidecar = await make(upstream)
    assert "spool_trouble" in sidecar.log.getvalue()
    answer = await sidecar.admin("/readyz?verbose")
    assert answer.status == 200
    assert "bodies ok: the disk takes none, only memory holds them: No such file or directory" in answer.body.decode()
