"""Who stands the storms: the sidecar as it is shipped, Envoy as documented, Envoy with a retry budget, HAProxy.

Nobody is tuned to a storm. The configurations are in ``benchmarks/configs/storms-*``; programs and versions are
``benchmarks.peers``'s to know.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from benchmarks.peers import PEERS, Peer, Place

__all__ = ["STANDING", "named"]

NO_BUDGET = "max_retries: 1000"
BUDGET = "retry_budget: {budget_percent: {value: 20.0}}"


def _sidecar(program: str, place: Place) -> list[str]:
    return [program, "-P", "-m", "sidecar", "serve", "-c", str(place.write("storms-sidecar.yaml"))]


def _envoy(program: str, place: Place) -> list[str]:
    configuration = str(place.write("storms-envoy.yaml"))
    return [program, "-c", configuration, "--concurrency", "1", "--disable-hot-restart", "-l", "off"]


def _envoy_with_budget(program: str, place: Place) -> list[str]:
    command = _envoy(program, place)
    written = place.folder / "storms-envoy.yaml"
    text = written.read_text()
    assert text.count(NO_BUDGET) == 1
    written.write_text(text.replace(NO_BUDGET, BUDGET))
    return command


def _haproxy(program: str, place: Place) -> list[str]:
    return [program, "-db", "-q", "-f", str(place.write("storms-haproxy.cfg"))]


_known = {peer.name: peer for peer in PEERS}
STANDING: tuple[Peer, ...] = (
    replace(_known["sidecar"], command=_sidecar),
    replace(_known["envoy"], command=_envoy),
    replace(_known["envoy"], name="envoy-budget", command=_envoy_with_budget),
    replace(_known["haproxy"], command=_haproxy),
)


def named(names: Iterable[str]) -> list[Peer]:
    """The peers of these names, in the table's order; all for none. An unknown name is a ValueError."""
    wanted = set(names)
    unknown = wanted - {peer.name for peer in STANDING}
    if unknown:
        known = ", ".join(peer.name for peer in STANDING)
        raise ValueError(f"no peer is called {', '.join(sorted(unknown))}; there are: {known}")
    return [peer for peer in STANDING if not wanted or peer.name in wanted]
