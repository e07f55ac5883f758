"""``then: reread``: a GET decides whether a refusal is handed over or the request sent again. DESIGN section 6."""

from __future__ import annotations

import gzip
import json

import pytest

from sidecar.proxy.exchange.actions import path_to_read
from tests.behaviour.conftest import Make
from tests.support.structured import dictionary as whole_dictionary
from tests.support.upstream import Step, Upstream, close, hang, head_bytes, say, say_raw

POLICY = """
table:
  - status: 409
    then: reread
    processed: false
    reread: {path: PATH, resend_when: {body: /status, in: [pending_approval]}}
"""
CONFLICT = b'{"error":"conflict"}'


def dictionary(value: str | None) -> dict[str, object]:
    """The ``Sidecar`` field without the seconds that it took to ask somebody else."""
    return {name: told for name, told in whole_dictionary(value).items() if name != "waited"}


def policy(path: str = "same") -> str:
    return POLICY.replace("PATH", path)


def state(status: str) -> bytes:
    return json.dumps({"id": 7, "status": status}).encode()


async def test_a_state_that_allows_it_leads_to_another_send(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, policy())
    upstream.script(say(409, CONFLICT), say(200, state("pending_approval")), say(200, b"approved"))
    answer = await sidecar.ask("POST", "/api/missions/7", [("Authorization", "Bearer mine")], b'{"approve":true}')
    assert (answer.status, answer.body) == (200, b"approved")
    assert dictionary(answer.headers.get("Sidecar")) == {"outcome": "recovered", "attempts": 2}
    assert [request.method for request in upstream.requests] == ["POST", "GET", "POST"]
    assert upstream.requests[0].body == upstream.requests[2].body == b'{"approve":true}'


async def test_any_other_state_hands_the_conflict_over_untouched(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, policy())
    upstream.script(say(409, CONFLICT, headers=[("X-Odd", "1"), ("x-odd", "2")]), say(200, state("approved")))
    answer = await sidecar.ask("POST", "/api/missions/7", body=b"{}")
    assert (answer.status, answer.body, answer.headers.all("X-Odd")) == (409, CONFLICT, ["1", "2"])
    assert dictionary(answer.headers.get("Sidecar")) == {
        "outcome": "passed",
        "attempts": 1,
        "reason": "not_retryable",
    }
    assert len(upstream.requests) == 2


async def test_the_look_carries_the_apps_headers_and_nothing_of_its_body(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, policy() + "idempotency: {header: X-Key, methods: [POST]}\n")
    upstream.script(say(409), say(200, state("approved")))
    sent = [
        ("Authorization", "Bearer mine"),
        ("X-Tenant", "t1"),
        ("X-Request-Id", "order-7"),
        ("Content-Type", "application/json"),
        ("If-Match", '"3"'),
        ("Accept-Encoding", "br"),
        ("Connection", "X-Private"),
        ("X-Private", "1"),
    ]
    answer = await sidecar.ask("POST", "/api/missions/7?force=1", sent, b"{}")
    post, look = upstream.requests
    assert (look.method, look.target, look.body_bytes, look.framing) == ("GET", "/missions/7", 0, "none")
    assert look.headers.all("Authorization") == ["Bearer mine"]
    assert look.headers.all("X-Tenant") == ["t1"]
    assert look.headers.all("X-Request-Id") == post.headers.all("X-Request-Id") == ["order-7"]
    assert look.headers.all("X-Correlation-Id") == post.headers.all("X-Correlation-Id")
    for absent in ("Content-Type", "Content-Length", "If-Match", "Accept-Encoding", "X-Private", "X-Key"):
        assert absent not in look.headers, absent
    assert answer.headers.get("X-Key") == post.headers.get("X-Key")


async def test_a_template_names_another_path(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, policy("/v2/state/$2"))
    upstream.script(say(409, CONFLICT), say(200, state("pending_approval")), say(200))
    await sidecar.ask("POST", "/api/missions/7/approve", body=b"{}")
    assert upstream.requests[1].target == "/v2/state/7"


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        ("same", "/a/b", "/a/b"),
        ("parent", "/missions/7/approve", "/missions/7"),
        ("parent", "/missions/7/approve/", "/missions/7"),
        ("parent", "/approve", None),
        ("/x/$1", "/a/b", "/x/a"),
        ("/x/$2/$1", "/a%2Fc/b", "/x/b/a%2Fc"),
        ("/x/$3", "/a/b", None),
        ("/x/$2", "/a//b", None),
        ("/fixed", "/a", "/fixed"),
    ],
)
def test_the_path_to_read_is_made_of_the_requests_own(template: str, path: str, expected: str | None) -> None:
    assert path_to_read(template, path) == expected


async def test_a_path_that_cannot_be_made_hands_the_conflict_over(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, policy("/x/$5"))
    upstream.script(say(409, CONFLICT))
    answer = await sidecar.ask("POST", "/api/missions/7", body=b"{}")
    assert (answer.status, answer.body, len(upstream.requests)) == (409, CONFLICT, 1)


USELESS: dict[str, Step] = {
    "an error that looks right": say(500, state("pending_approval")),
    "not found": say(404),
    "html": say(200, b"<html>pending_approval</html>"),
    "not utf-8": say(200, b'{"status":"pending_approval\xff"}'),
    "too large": say(200, state("pending_approval") + b" " * (1 << 20)),
    "redirect": say(302, state("pending_approval"), headers=[("Location", "/elsewhere")]),
    "hangs": hang(),
    "closes": close(),
    "cut": say_raw(head_bytes(200, [("Content-Length", "500")]) + state("pending_approval"), last=True),
}


@pytest.mark.parametrize("name", USELESS)
async def test_a_look_that_tells_nothing_hands_the_conflict_over(make: Make, upstream: Upstream, name: str) -> None:
    sidecar = await make(upstream, policy())
    upstream.script(say(409, CONFLICT, last=True), USELESS[name])
    upstream.otherwise = lambda _: USELESS[name]
    answer = await sidecar.ask("POST", "/api/missions/7", body=b"{}")
    assert (answer.status, answer.body) == (409, CONFLICT)
    assert {request.method for request in upstream.requests[1:]} == {"GET"}


async def test_a_compressed_state_is_read(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, policy())
    packed = gzip.compress(state("pending_approval"))
    upstream.script(say(409), say(200, packed, headers=[("Content-Encoding", "gzip")]), say(200, b"fine"))
    assert (await sidecar.ask("POST", "/api/missions/7", body=b"{}")).body == b"fine"


async def test_a_pooled_connection_that_has_died_is_no_answer_to_the_look(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, policy())
    upstream.script(say(409), close(), say(200, state("pending_approval")), say(200, b"fine"))
    assert (await sidecar.ask("POST", "/api/missions/7", body=b"{}")).body == b"fine"
    assert [request.method for request in upstream.requests] == ["POST", "GET", "GET", "POST"]


async def test_it_looks_once_per_exchange(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, policy())
    upstream.script(say(409, b"one"), say(200, state("pending_approval")), say(409, b"two"))
    answer = await sidecar.ask("POST", "/api/missions/7", body=b"{}")
    assert (answer.status, answer.body) == (409, b"two")
    assert dictionary(answer.headers.get("Sidecar")) == {"outcome": "exhausted", "attempts": 2, "reason": "attempts"}
    assert len(upstream.requests) == 3


async def test_a_post_without_a_permission_is_not_even_looked_at(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, policy().replace("    processed: false\n", ""))
    upstream.script(say(409, CONFLICT))
    answer = await sidecar.ask("POST", "/api/missions/7", body=b"{}")
    assert dictionary(answer.headers.get("Sidecar"))["reason"] == "not_safe"
    assert len(upstream.requests) == 1


async def test_a_large_conflict_is_still_handed_over_whole(make: Make, upstream: Upstream) -> None:
    """It is more than is kept: it stays on its own connection while the state is read on another."""
    sidecar = await make(upstream, policy())
    large = b"x" * 300_000
    upstream.script(say(409, large), say(200, state("approved")))
    answer = await sidecar.ask("POST", "/api/missions/7", body=b"{}")
    assert (answer.status, answer.body) == (409, large)


ANSWERING = """
table:
  - status: 409
    then: reread
    processed: false
    reread:
      resend_when: {body: /status, in: [pending_approval]}
      answer_when: {body: /status, in: [approved]}
"""


@pytest.mark.parametrize("size", [20, 300_000], ids=["kept", "still coming"])
async def test_only_where_the_row_asks_for_it_the_state_is_the_answer(
    make: Make, upstream: Upstream, size: int
) -> None:
    sidecar = await make(upstream, ANSWERING)
    upstream.script(say(409, b"x" * size), say(200, state("approved"), headers=[("X-State", "1")]))
    answer = await sidecar.ask("POST", "/api/missions/7", body=b"{}")
    assert (answer.status, answer.body, answer.headers.get("X-State")) == (200, state("approved"), "1")
    assert dictionary(answer.headers.get("Sidecar")) == {"outcome": "recovered", "attempts": 1}
    assert len(answer.headers.all("X-Request-Id")) == 1


async def test_a_chunked_state_is_an_answer_too(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, ANSWERING)
    upstream.script(say(409), say(200, chunks=[state("approved")[:5], state("approved")[5:]]))
    answer = await sidecar.ask("POST", "/api/missions/7", body=b"{}")
    assert (answer.status, answer.body) == (200, state("approved"))


async def test_a_state_that_neither_condition_knows_hands_the_conflict_over(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, ANSWERING)
    upstream.script(say(409, CONFLICT), say(200, state("cancelled")))
    answer = await sidecar.ask("POST", "/api/missions/7", body=b"{}")
    assert (answer.status, answer.body) == (409, CONFLICT)


async def test_it_looks_as_often_as_the_row_says(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, policy().replace("{path: same,", "{path: same, times: 2,"))
    pending = say(200, state("pending_approval"))
    upstream.script(say(409), pending, say(409), pending, say(409, b"three"))
    answer = await sidecar.ask("POST", "/api/missions/7", body=b"{}")
    assert (answer.status, answer.body, len(upstream.requests)) == (409, b"three", 5)
