"""Not an open door: who may use it, what may be asked for, and which addresses are never dialled."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.config.load import ConfigError, load_deployment
from sidecar.upstream.resolver import AddressInfo
from tests.behaviour.conftest import Make
from tests.support.client import Client
from tests.support.client import connect as dial
from tests.support.plain import names
from tests.support.sidecar import Running
from tests.support.upstream import Upstream, refused_port

QUIET = {"default": "attempts: 3\ntable: [{failure: any, then: retry}]"}
OPEN = "listen: 0.0.0.0:0"
CREDENTIAL = {"DOOR": "app:open sesame"}
RIGHT = "Basic " + base64.b64encode(b"app:open sesame").decode()


def opened(upstream: Upstream | None, access: str) -> str:
    """``sidecar.yaml`` of a sidecar that others can reach."""
    lines = [OPEN, "admin: 127.0.0.1:0", access]
    if upstream is not None:
        lines.append(f"upstreams: [{{name: api, origin: 'http://127.0.0.1:{upstream.port}', mount: /api}}]")
    return "\n".join(lines)


@contextlib.asynccontextmanager
async def inside(sidecar: Running) -> AsyncIterator[Client]:
    async with dial("127.0.0.1", sidecar.sidecar.address.port) as client:
        yield client


NEVER = [
    "169.254.169.254",
    "169.254.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[2002:a9fe:a9fe::]",
    "[64:ff9b::a9fe:a9fe]",
    "0xa9fea9fe",
    "0xa9.0xfe.0xa9.0xfe",
    "2852039166",
    "0251.0376.0251.0376",
    "169.254.43518",
]


@pytest.mark.parametrize("host", NEVER)
async def test_link_local_and_metadata_addresses_are_never_dialled(make: Make, upstream: Upstream, host: str) -> None:
    sidecar = await make(upstream, policies=QUIET)
    answer = await sidecar.ask("GET", f"http://{host}/latest/meta-data/", host=host)
    assert (answer.status, answer.json()["code"]) == (403, "address")
    assert "destination_ip_prohibited" in str(answer.headers.get("proxy-status"))
    record = await sidecar.record()
    assert (record.outcome, record.reason, record.attempts) == ("rejected", None, ())
    assert sidecar.clock.waits == []


async def test_a_name_is_judged_by_every_address_that_it_resolves_to(make: Make, upstream: Upstream) -> None:
    lookup = names({"rebound.test": ["127.0.0.1", "169.254.169.254"], "fine.test": ["127.0.0.1"]})
    sidecar = await make(upstream, policies=QUIET, lookup=lookup)
    answer = await sidecar.ask("GET", f"http://rebound.test:{upstream.port}/", host="x")
    assert (answer.status, answer.json()["outcome"]) == (403, "rejected")
    assert (await sidecar.ask("GET", f"http://fine.test:{upstream.port}/", host="x")).status == 200


async def test_a_name_that_changes_its_mind_is_judged_by_what_is_dialled(make: Make, upstream: Upstream) -> None:
    """DNS rebinding: the first answer is harmless; the one that would be dialled after it is forgotten is not."""
    known = {"rebinding.test": ["127.0.0.1"]}
    sidecar = await make(upstream, policies={"default": "attempts: 1"}, lookup=names(known))
    dead = refused_port()
    assert (await sidecar.ask("GET", f"http://rebinding.test:{dead}/", host="x")).status == 502
    known["rebinding.test"] = ["169.254.169.254"]
    assert (await sidecar.ask("GET", f"http://rebinding.test:{dead}/", host="x")).status == 403


async def test_even_a_configured_upstream_leads_to_no_metadata_service(make: Make, upstream: Upstream) -> None:
    text = "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nupstreams: [{name: m, origin: 'http://m.test', mount: /m}]"
    sidecar = await make(upstream, text=text, policies=QUIET, lookup=names({"m.test": ["169.254.169.254"]}))
    assert (await sidecar.ask("GET", "/m/latest/")).status == 403


async def test_loopback_is_dialled_for_loopback_alone(make: Make, upstream: Upstream) -> None:
    """Behind an open door others would reach what listens here for nobody else; a configured upstream may."""
    closed = await make(upstream, policies=QUIET)
    target = f"http://127.0.0.1:{upstream.port}/"
    assert (await closed.ask("GET", target, host="x")).status == 200
    sidecar = await make(upstream, text=opened(upstream, "access: {destinations: [127.0.0.1, localhost]}"))
    async with inside(sidecar) as client:
        for host in ("127.0.0.1", "localhost"):
            answer = await client.ask("GET", f"http://{host}:{upstream.port}/", host="x")
            assert (answer.status, answer.json()["code"]) == (403, "address")
        assert (await client.ask("GET", "/api/")).status == 200


OURS = ["127.0.0.1", "127.9.9.9", "localhost", "[::1]", "[::]", "0.0.0.0", "[::ffff:127.0.0.1]", "127.1", "0x7f000001"]  # noqa: S104


@pytest.mark.parametrize("host", OURS)
async def test_behind_an_open_door_this_machine_is_out_of_reach(make: Make, upstream: Upstream, host: str) -> None:
    sidecar = await make(upstream, text=opened(None, "access: {credential: env:DOOR}"), environ=CREDENTIAL)
    async with inside(sidecar) as client:
        sent = [("Proxy-Authorization", RIGHT)]
        answer = await client.ask("GET", f"http://{host}:{upstream.port}/", sent, host="x")
        assert (answer.status, answer.json()["outcome"]) == (403, "rejected")
    assert upstream.requests == []


async def test_a_machines_own_address_is_its_own_whatever_its_name(make: Make, upstream: Upstream) -> None:
    lookup = names({"here.test": ["192.0.2.7"], "there.test": ["192.0.2.8"]})
    text = opened(None, "access: {destinations: ['*.test']}")
    sidecar = await make(upstream, text=text, policies={"default": "attempts: 1"}, lookup=lookup)
    guard = sidecar.sidecar._pools.guard
    guard.has_address = lambda address: address == "192.0.2.7"
    async with inside(sidecar) as client:
        answer = await client.ask("GET", "http://here.test/", host="x")
        assert (answer.status, answer.json()["code"]) == (403, "address")
    guard.check("192.0.2.8", 80, configured=False)


@pytest.mark.parametrize(
    "access",
    ["unknown_hosts: refuse", "access: {destinations: [api.example]}", "access: {credential: env:DOOR}"],
)
def test_an_open_door_with_a_rule_loads(tmp_path: Path, access: str) -> None:
    path = tmp_path / "sidecar.yaml"
    path.write_text(f"listen: 0.0.0.0:8080\n{access}\n")
    assert load_deployment(path, environ=CREDENTIAL).warnings == ()


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:8080", "192.0.2.7:8080", "sidecar.internal:8080"])
def test_an_open_door_without_a_rule_is_an_error(tmp_path: Path, listen: str) -> None:
    path = tmp_path / "sidecar.yaml"
    path.write_text(f'listen: "{listen}"\n')
    with pytest.raises(ConfigError) as caught:
        load_deployment(path, environ={})
    assert [problem.code.name for problem in caught.value.problems] == ["OPEN_PROXY"]
    assert "credential" in str(caught.value)


async def test_only_named_destinations_may_be_asked_for(make: Make, upstream: Upstream) -> None:
    known = ("a.test", "b.c.test", "c.test", "d.test")
    lookup = names({name: ["127.0.0.1"] for name in known})
    top = f'access: {{destinations: [a.test, "*.c.test", "d.test:{upstream.port}"]}}'
    sidecar = await make(upstream, top=top, lookup=lookup)
    found = {}
    for name in (*known, "e.test"):
        found[name] = (await sidecar.ask("GET", f"http://{name}:{upstream.port}/", host="x")).status
    assert found == {"a.test": 200, "b.c.test": 200, "c.test": 403, "d.test": 200, "e.test": 403}
    assert (await sidecar.ask("GET", "/api/")).status == 200
    assert (await sidecar.ask("GET", "http://api.example/", host="api.example")).status == 200


async def test_a_credential_is_asked_for_and_goes_no_further(make: Make, upstream: Upstream) -> None:
    top = "access: {credential: env:DOOR}\nlog: {sample: 1}"
    sidecar = await make(upstream, top=top, environ=CREDENTIAL)
    async with sidecar.client() as client:
        answer = await client.ask("GET", "http://api.example/x", host="api.example")
        assert answer.status == 407
        assert answer.headers.get("proxy-authenticate") == 'Basic realm="sidecar", charset="UTF-8"'
        assert answer.json()["outcome"] == "rejected"
        sent = [("Proxy-Authorization", RIGHT)]
        assert (await client.ask("GET", "http://api.example/x", sent, host="api.example")).status == 200
        # Base URLs lead to configured upstreams only: whoever may connect may use them.
        assert (await client.ask("GET", "/api/x")).status == 200
    assert "proxy-authorization" not in upstream.requests[0].headers
    shown = sidecar.log.getvalue() + repr(sidecar.sidecar.deployment)
    assert "sesame" not in shown
    assert RIGHT[6:] not in shown


@pytest.mark.parametrize(
    "value",
    [
        "Basic " + base64.b64encode(b"app:wrong").decode(),
        "Basic " + base64.b64encode(b"app:open sesame!").decode(),
        "Basic",
        "Basic %%%",
        "Bearer abc",
        "",
        RIGHT + ", " + RIGHT,
    ],
)
async def test_a_wrong_credential_is_407(make: Make, upstream: Upstream, value: str) -> None:
    sidecar = await make(upstream, top="access: {credential: env:DOOR}", environ=CREDENTIAL)
    for method, target in (("GET", "http://api.example/x"), ("CONNECT", "api.example:443")):
        answer = await sidecar.ask(method, target, [("Proxy-Authorization", value)], host="x")
        assert answer.status == 407
    assert upstream.requests == []


async def test_a_credential_from_a_file_is_read_again_with_the_configuration(
    make: Make, upstream: Upstream, tmp_path: Path
) -> None:
    secret = tmp_path / "door"
    secret.write_text("app:open sesame\n")
    sidecar = await make(upstream, top=f"access: {{credential: file:{secret}}}")
    sent = [("Proxy-Authorization", RIGHT)]
    assert (await sidecar.ask("GET", "http://api.example/", sent, host="x")).status == 200
    before = load_deployment(sidecar.path, environ={})
    secret.write_text("app:another\n")
    after = load_deployment(sidecar.path, environ={})
    assert before.digest != after.digest
    sidecar.sidecar.apply(after.deployment)
    assert (await sidecar.ask("GET", "http://api.example/", sent, host="x")).status == 407


async def test_credentials_in_a_url_become_a_field(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, top="log: {sample: 1}")
    answer = await sidecar.ask("GET", "http://us%40er:pa%3Ass@api.example/x?y", host="api.example")
    assert answer.status == 200
    request = upstream.requests[0]
    assert request.target == "/x?y"
    assert request.headers.get("host") == upstream.authority
    assert request.headers.get("authorization") == "Basic " + base64.b64encode(b"us@er:pa:ss").decode()
    assert "pa%3Ass" not in sidecar.log.getvalue()
    assert base64.b64encode(b"us@er:pa:ss").decode() not in sidecar.log.getvalue()
    assert (await sidecar.record()).path == "http://api.example/x"


async def test_an_authorization_that_the_app_sends_itself_goes_before_the_urls(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    sent = [("Authorization", "Bearer own")]
    answer = await sidecar.ask("GET", f"http://user:pass@127.0.0.1:{upstream.port}/x", sent, host="x")
    assert answer.status == 200
    assert upstream.requests[0].headers.all("authorization") == ["Bearer own"]
    assert upstream.requests[0].target == "/x"


async def test_an_address_that_becomes_forbidden_does_not_hide_what_was_tried(make: Make, upstream: Upstream) -> None:
    known = {"rebinding.test": ["127.0.0.1"]}
    look_up = names(known)

    async def lookup(host: str, port: int) -> list[AddressInfo]:
        found = await look_up(host, port)
        known["rebinding.test"] = ["169.254.169.254"]
        return found

    sidecar = await make(upstream, policies=QUIET, lookup=lookup)
    answer = await sidecar.ask("GET", f"http://rebinding.test:{refused_port()}/", host="x")
    assert answer.status == 502
    assert "destination_ip_prohibited" in str(answer.headers.get("proxy-status"))
    record = await sidecar.record()
    assert [str(attempt.failure) for attempt in record.attempts] == ["refused", "unreachable"]
    assert (record.outcome, record.reason) == ("failed", "attempts")


@pytest.mark.parametrize("host", ["169%2e254.169.254", "169%2E254%2E169%2E254:80", "api%2eexample"])
async def test_a_percent_encoded_host_is_refused(make: Make, upstream: Upstream, host: str) -> None:
    """An outbound proxy that decodes would take it for another one."""
    sidecar = await make(upstream, policies=QUIET)
    answer = await sidecar.ask("GET", f"http://{host}/latest/", host="x")
    assert (answer.status, answer.json()["code"]) == (400, "host")
    assert (await sidecar.ask("GET", "/api/x", host=host)).status == 400
