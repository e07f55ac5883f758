"""``sidecar doctor``: each planted mistake is found, by its code, and nothing else is claimed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sidecar.client_setup.runtimes import Trust, trust_variables
from sidecar.client_setup.variables import proxy_variables
from sidecar.config.load import load_deployment
from sidecar.doctor.context import CheckContext, SidecarAddresses
from sidecar.doctor.findings import CheckKind
from sidecar.doctor.reach import reach_checks
from sidecar.intercept.authority import create
from tests.behaviour.conftest import Make
from tests.support.sidecar import Running
from tests.support.upstream import Upstream, refused_port, say

ROOT = Path(__file__).resolve().parents[3]
GONE = ""
"""In place of a value: the variable is not set."""


@dataclass(frozen=True)
class Diagnosis:
    exit_code: int
    said: str

    @property
    def codes(self) -> set[str]:
        return {finding["code"] for finding in json.loads(self.said)["findings"]}


def healthy(sidecar: Running) -> dict[str, str]:
    proxy = f"http://127.0.0.1:{sidecar.sidecar.address.port}"
    return proxy_variables(proxy, https=False)


async def doctor(
    sidecar: Running, environ: Mapping[str, str], *words: str, prefix: str = "", form: str = "json"
) -> Diagnosis:
    """Run beside an app with this environment."""
    address, admin = sidecar.sidecar.address, sidecar.sidecar.admin_address
    command = [sys.executable, "-m", "sidecar", "doctor", "-c", str(sidecar.path), "--format", form, "--timeout", "5"]
    if "--proxy" not in words:
        command += ["--proxy", f"http://{address.host}:{address.port}"]
    command += ["--admin", f"http://{admin.host}:{admin.port}", *words]
    child = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        f"{prefix} exec {shlex.join(command)}",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **{k: v for k, v in environ.items() if v != GONE}},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, errors = await child.communicate()
    assert child.returncode in (0, 1), errors.decode()
    assert not errors, errors.decode()
    return Diagnosis(child.returncode, output.decode())


@pytest.fixture
async def sidecar(make: Make, upstream: Upstream) -> Running:
    return await make(upstream)


async def test_a_sound_set_up_has_nothing_wrong(sidecar: Running) -> None:
    found = await doctor(sidecar, healthy(sidecar), form="text")
    assert (found.exit_code, found.said) == (0, "nothing is wrong\n")


ELSEWHERE = "http://127.0.0.1:9"

MISTAKES = {
    "only the upper-case name": ({"http_proxy": GONE}, {"D102"}),
    "only the lower-case name": ({"HTTP_PROXY": GONE}, {"D102"}),
    "two names that differ": ({"NO_PROXY": "localhost,127.0.0.1"}, {"D103"}),
    "no scheme": ({"http_proxy": "127.0.0.1:8080", "HTTP_PROXY": "127.0.0.1:8080"}, {"D104"}),
    "a proxy by https": ({"http_proxy": "https://127.0.0.1:8080", "HTTP_PROXY": "https://127.0.0.1:8080"}, {"D104"}),
    "another proxy": ({"http_proxy": ELSEWHERE, "HTTP_PROXY": ELSEWHERE}, {"D105"}),
    "everything left out": ({"no_proxy": "*", "NO_PROXY": "*"}, {"D106"}),
    "the upstream left out": (
        {"no_proxy": "localhost,127.0.0.1,.example", "NO_PROXY": "localhost,127.0.0.1,.example"},
        {"D106"},
    ),
    "loopback not left out": ({"no_proxy": GONE, "NO_PROXY": GONE}, {"D107"}),
    "metadata not left out": (
        {"no_proxy": "localhost,127.0.0.1", "NO_PROXY": "localhost,127.0.0.1", "AWS_REGION": "eu-west-1"},
        {"D108"},
    ),
    "nothing set": (dict.fromkeys(("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"), GONE), {"D111"}),
    "a trust file that is gone": ({"SSL_CERT_FILE": "/nonexistent/ca.pem"}, {"D501"}),
    "an SDK that retries": ({"AWS_MAX_ATTEMPTS": "3"}, {"D601"}),
    "an SDK that retries by its mode": ({"AWS_RETRY_MODE": "standard"}, {"D601"}),
    "pip that retries": ({"PIP_RETRIES": "5"}, {"D601"}),
}


@pytest.mark.parametrize("name", MISTAKES)
async def test_a_planted_mistake_is_found_and_no_other_is_claimed(sidecar: Running, name: str) -> None:
    planted, codes = MISTAKES[name]
    found = await doctor(sidecar, healthy(sidecar) | planted)
    assert found.codes == codes
    assert found.exit_code == int(any(a.is_error for a in CheckKind if a.code in codes))


async def test_a_mistake_is_told_in_words_with_a_fix(sidecar: Running) -> None:
    found = await doctor(sidecar, healthy(sidecar) | {"http_proxy": GONE}, form="text")
    assert found.said.splitlines()[0].startswith("error D102 one-case-only: HTTP_PROXY is set and http_proxy is not")
    assert found.said.splitlines()[1] == '  fix: export http_proxy="$HTTP_PROXY"'


async def test_a_password_in_a_proxy_variable_is_not_printed(sidecar: Running) -> None:
    proxy = "https://app:hidden-word@127.0.0.1:1"
    found = await doctor(sidecar, healthy(sidecar) | {"http_proxy": proxy, "HTTP_PROXY": proxy})
    assert "hidden-word" not in found.said


async def test_node_without_its_switch_is_found(sidecar: Running) -> None:
    assert (await doctor(sidecar, healthy(sidecar), "--for", "node")).codes == {"D110"}
    switched = healthy(sidecar) | {"NODE_USE_ENV_PROXY": "1"}
    assert (await doctor(sidecar, switched, "--for", "node")).codes == set()


async def test_https_that_is_only_tunnelled_is_a_warning(sidecar: Running) -> None:
    proxy = f"http://127.0.0.1:{sidecar.sidecar.address.port}"
    found = await doctor(sidecar, proxy_variables(proxy, https=True))
    assert (found.exit_code, found.codes) == (0, {"D109"})


async def test_a_sidecar_that_does_not_run_is_found(sidecar: Running) -> None:
    proxy = f"http://127.0.0.1:{refused_port()}"
    found = await doctor(sidecar, proxy_variables(proxy, https=False), "--proxy", proxy)
    assert found.codes == {"D201"}


async def test_something_else_on_its_port_is_found(sidecar: Running, upstream: Upstream) -> None:
    proxy = f"http://127.0.0.1:{upstream.port}"
    found = await doctor(sidecar, proxy_variables(proxy, https=False), "--proxy", proxy)
    assert found.codes == {"D202"}


async def test_a_failed_reload_is_found(sidecar: Running) -> None:
    sidecar.sidecar.metrics.reloaded(False, 0.0)
    assert (await doctor(sidecar, healthy(sidecar))).codes == {"D204"}


async def test_a_shared_store_that_is_not_there_is_found(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream, top=f"shared: redis://127.0.0.1:{refused_port()}")
    meters = sidecar.sidecar.metrics.shared
    assert meters is not None
    await sidecar.until(lambda: meters.errors["connection"] > 0)
    found = await doctor(sidecar, healthy(sidecar))
    assert found.codes == {"D206"}
    assert "(connection)" in found.said
    assert found.exit_code == 0


async def test_an_upstream_that_is_down_is_found(make: Make) -> None:
    sidecar = await make(refused_port())
    assert (await doctor(sidecar, healthy(sidecar))).codes == {"D302"}


async def test_a_certificate_that_nobody_vouches_for_is_found(make: Make, tls_upstream: Upstream) -> None:
    sidecar = await make(tls_upstream, scheme="https")
    assert (await doctor(sidecar, healthy(sidecar))).codes == {"D303"}


async def test_a_clock_that_is_off_is_found_by_the_upstreams_date(sidecar: Running, upstream: Upstream) -> None:
    upstream.otherwise = lambda _: say(200, headers=[("Date", "Thu, 01 Jan 2015 00:00:00 GMT")])
    found = await doctor(sidecar, healthy(sidecar))
    assert found.codes == {"D401"}
    assert "ahead of" in found.said


def test_a_name_that_does_not_resolve_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*args: object, **more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    path = tmp_path / "sidecar.yaml"
    path.write_text("upstreams: [{name: api, origin: https://api.example, mount: /api}]", encoding="utf-8")
    deployment = load_deployment(path, environ={}).deployment
    closed = SidecarAddresses("127.0.0.1", refused_port())
    around = CheckContext({}, deployment, closed, closed, None, lambda: 0.0, 1.0, 65536)
    found = [finding.ailment for check in reach_checks for finding in check(around)]
    assert CheckKind.UNKNOWN_NAME in found


async def test_too_few_files_are_found(sidecar: Running) -> None:
    assert (await doctor(sidecar, healthy(sidecar), prefix="ulimit -n 256;")).codes == {"D701"}


async def test_a_broken_configuration_is_found(sidecar: Running) -> None:
    sidecar.path.write_text("listne: 127.0.0.1:1\nadmin: 5\n", encoding="utf-8")
    found = await doctor(sidecar, healthy(sidecar))
    assert (found.exit_code, found.codes) == (1, {"D001"})
    assert "and 1 more" in found.said


async def test_an_app_that_retries_by_itself_is_found_by_its_own_command(sidecar: Running) -> None:
    script = """if True:
        import sys, urllib.error, urllib.request
        for _ in range(3):
            try:
                urllib.request.urlopen(sys.argv[1])
            except urllib.error.HTTPError as refused:
                assert refused.code == 503
            else:
                break
    """
    found = await doctor(sidecar, healthy(sidecar), "--", sys.executable, "-c", script, "{}")
    assert found.codes == {"D601"}
    assert "3 times" in found.said
    calm = await doctor(sidecar, healthy(sidecar), "--", "curl", "--silent", "{}")
    assert calm.codes == set()


@contextlib.asynccontextmanager
async def doubling(port: int) -> AsyncIterator[int]:
    """A proxy in front of the sidecar that sends what failed once more."""

    async def once(head: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return answer

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            answer = await once(head)
            if b" 503 " in answer:
                answer = await once(head)
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_second_layer_of_retries_is_found_by_the_probe(make: Make, upstream: Upstream) -> None:
    sidecar = await make(upstream)
    async with doubling(sidecar.sidecar.address.port) as port:
        proxy = f"http://127.0.0.1:{port}"
        found = await doctor(sidecar, proxy_variables(proxy, https=False), "--proxy", healthy(sidecar)["http_proxy"])
    assert found.codes == {"D105", "D602"}


async def opened(make: Make, upstream: Upstream, authority_file: str, folder: Path) -> tuple[Running, dict[str, str]]:
    """A sidecar that intercepts, and the environment of an app that comes by a tunnel and trusts it not yet."""
    create(folder / "ca", ["api.example"], datetime.now(UTC))
    top = f"intercept: {{hosts: [api.example], ca: {folder / 'ca'}}}"
    sidecar = await make(upstream, scheme="https", more=f"    ca_file: {authority_file}", top=top)
    return sidecar, proxy_variables(f"http://127.0.0.1:{sidecar.sidecar.address.port}", https=True)


async def test_an_app_that_does_not_trust_the_authority_is_found(
    make: Make, tls_upstream: Upstream, authority_file: str, tmp_path: Path
) -> None:
    sidecar, environ = await opened(make, tls_upstream, authority_file, tmp_path)
    assert (await doctor(sidecar, environ, "--for", "python")).codes == {"D502"}
    trust = trust_variables(Trust(str(tmp_path / "ca" / "ca.pem"), str(tmp_path / "ca" / "bundle.pem")))["python"]
    assert (await doctor(sidecar, environ | trust, "--for", "python")).codes == set()


async def test_a_key_that_everybody_may_read_is_found(
    make: Make, tls_upstream: Upstream, authority_file: str, tmp_path: Path
) -> None:
    sidecar, environ = await opened(make, tls_upstream, authority_file, tmp_path)
    (tmp_path / "ca" / "ca.key").chmod(0o644)
    trust = {"CURL_CA_BUNDLE": str(tmp_path / "ca" / "bundle.pem")}
    assert (await doctor(sidecar, environ | trust)).codes == {"D503"}
