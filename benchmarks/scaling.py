"""Does a request cost more when the configuration is big? Instructions per request, counted by callgrind.

The same small GET through a sidecar with 5 and with 500 rows in its table, with 1 and with 1,000 upstreams,
without and with 200 routes that do not match. ``python -m benchmarks.scaling`` prints each over the plain one.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.counts import count, program_missing
from benchmarks.peers import Peer, Place, by_name
from benchmarks.report import table
from benchmarks.running import upstream_running

__all__ = ["VARIANTS"]

HEAD = "listen: 127.0.0.1:@PORT@\nadmin: 127.0.0.1:@ADMIN@\nupstreams:\n"
LAST = "  - {name: bench, origin: 'http://127.0.0.1:@UPSTREAM@', mount: /, policy: bench%s}\n"
POLICY = "extends: default\n"


@dataclasses.dataclass(frozen=True)
class Variant:
    title: str
    configuration: str
    policy: str = POLICY
    path: str = "/small"


def _rows(number: int) -> str:
    """That many rows, each able to match: error statuses, told apart by a header."""
    rows = [
        f"  - {{status: {400 + n % 200}, when: {{header: x-case, equals: 'c{n}'}}, then: pass}}\n"
        for n in range(number)
    ]
    return POLICY + "table:\n" + "".join(rows)


def _upstreams(number: int) -> str:
    rows = [
        f"  - {{name: u{n}, origin: 'http://127.0.0.1:@UPSTREAM@', mount: /u{n}, policy: bench}}\n"
        for n in range(number)
    ]
    return HEAD + "".join(rows)


def _routes(pattern: Callable[[int], str]) -> str:
    routes = ", ".join(f"{{path: '{pattern(n)}', policy: bench}}" for n in range(200))
    return HEAD + LAST % f", routes: [{routes}]"


VARIANTS = (
    Variant("plain: one upstream, the default table", HEAD + LAST % ""),
    Variant("5 more rows", HEAD + LAST % "", _rows(5)),
    Variant("500 more rows", HEAD + LAST % "", _rows(500)),
    Variant("one upstream, mounted", _upstreams(1), path="/u0/small"),
    Variant("1,000 upstreams, mounted", _upstreams(1000), path="/u500/small"),
    Variant("200 routes, told apart by prefix", _routes(lambda n: f"/never{n}/**")),
    Variant("200 routes that begin with a wildcard", _routes(lambda n: f"/*/never{n}")),
)


def _peer(variant: Variant, sidecar: Peer) -> Peer:
    """The sidecar with this configuration in place of the usual one."""

    def command(program: str, place: Place) -> list[str]:
        usual = sidecar.command(program, place)
        text = variant.configuration
        for word, value in {"PORT": place.port, "ADMIN": place.admin, "UPSTREAM": place.upstream}.items():
            text = text.replace(f"@{word}@", str(value))
        Path(usual[-1]).write_text(text)
        (place.folder / "policies" / "bench.yaml").write_text(variant.policy)
        return usual

    return dataclasses.replace(sidecar, command=command, first_path=variant.path)


def measured() -> list[tuple[str, float]]:
    (sidecar,) = by_name("sidecar")
    found = []
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name, upstream_running(Path(name)) as upstream:
        for variant in VARIANTS:
            value = count(_peer(variant, sidecar), ("GET", variant.path, 0), upstream, Path(name))
            print(f"  {variant.title}: {value:,.0f}", flush=True)
            found.append((variant.title, value))
    return found


def main() -> int:
    if missing := program_missing():
        print(missing)
        return 1
    try:
        found = measured()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"Could not count: {error}")
        return 1
    plain = found[0][1]
    rows = [[title, f"{value:,.0f}", f"{value / plain:.3f}"] for title, value in found]
    print("\n" + table(["configuration", "instructions/request", "× plain"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
