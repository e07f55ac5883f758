"""Each real client, through each way in: the upstream says 503 once, and the client sees what is claimed of it.

The cells of the table in docs/ways-in.md are those that pass here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.core.enums import Outcome
from tests.clients.conftest import Stage
from tests.clients.matrix import BASE, CLIENTS, IGNORED, OPAQUE, ORIGINATION, RECOVERED, ROOT, WAYS, Client, written
from tests.clients.services import serving
from tests.support.upstream import say

PAGE = ROOT / "docs" / "ways-in.md"
TOOLS = {"curl": "curl", "wget": "wget", "git": "git", "apt": "apt-get"}
"""Client -> its program, where that is none of Python's or Node's."""


async def recovered(stage: Stage, client: Client, way: str) -> None:
    """It saw only success; the 503 was met by the sidecar, and the request sent once more."""
    stage.upstream.script(*[say(404)] * client.before, say(503))
    call = stage.call(way)
    code, said = await stage.run(client, call)
    assert code == 0, said
    record = await stage.record(client.before + 1)
    assert (record.outcome, record.upstream) == (Outcome.RECOVERED, "api")
    first, again = stage.upstream.requests[client.before : client.before + 2]
    assert first.target == again.target
    assert all("Via" in request.headers for request in stage.upstream.requests)


async def opaque(stage: Stage, client: Client, way: str) -> None:
    """It came through a tunnel: the 503 was its own to meet, and nobody sent its request again."""
    stage.upstream.script(*[say(404)] * client.before, say(503))
    code, said = await stage.run(client, stage.call(way))
    assert code != 0 or client.before, said
    first = stage.upstream.requests[client.before]
    assert "Via" not in first.headers
    assert [request.target for request in stage.upstream.requests].count(first.target) == 1
    assert (await stage.running.record()).outcome is Outcome.TUNNELLED


async def ignored(stage: Stage, client: Client, way: str) -> None:
    """Told of the proxy, it goes straight to the upstream."""
    call = stage.call(way)
    there = stage.plain if way == ORIGINATION else stage.upstream
    scheme = "http" if there is stage.plain else "https"
    direct = type(call)(way, f"{scheme}://localhost:{there.port}", stage.authority_file, call.folder)
    await stage.run(client, direct)
    assert not stage.running.records
    assert not stage.running.sidecar.listener.connections


JUDGES: dict[str, Callable[..., object]] = {RECOVERED: recovered, OPAQUE: opaque, IGNORED: ignored}


def here(client: Client) -> bool:
    """Everything but apt can be had everywhere; where there is no Debian, there is no apt."""
    return client.name != "apt" or Path("/etc/debian_version").exists()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("client", [client for client in CLIENTS if here(client)], ids=lambda client: client.name)
async def test_a_client_sees_what_the_table_says(
    stage: Stage, client: Client, way: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    tool = TOOLS.get(client.name)
    assert tool is None or shutil.which(tool), f"{tool} is missing: .ci/run installs it, or your package manager does"
    cell = client.cells[way]
    behind = tmp_path / "behind"
    behind.mkdir()
    async with serving(client.service, stage.upstream, behind):
        judged = JUDGES[cell](stage, client, way)
        await judged  # type: ignore[misc]
    record_property("client", (client.name, way, cell))


async def test_curl_does_not_read_the_upper_case_name(stage: Stage) -> None:
    """For http:// URLs: HTTP_PROXY could be forged by a CGI request's Proxy field (CVE-2016-5385)."""
    curl = next(client for client in CLIENTS if client.name == "curl")
    shouting = Client("curl", "", lambda call: ["env", "-u", "http_proxy", *curl.command(call)])
    await ignored(stage, shouting, ORIGINATION)


async def test_a_base_url_takes_the_mount_off_and_origination_leaves_the_target_alone(stage: Stage) -> None:
    curl = next(client for client in CLIENTS if client.name == "curl")
    spelt = Client("curl", "", lambda call: [*curl.command(call)[:-1], f"{call.url}/a%2Fb?x=%20"])
    code, said = await stage.run(spelt, stage.call(BASE))
    assert code == 0, said
    assert stage.upstream.requests[0].target == "/a%2Fb?x=%20"


def test_the_table_in_the_documents_is_the_one_that_is_proven_here() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert written(text) == text, "python -m tests.clients.matrix docs/ways-in.md"
