"""A peer that runs in front of an upstream, from its start to its end, and the upstream itself.

Knows how long a peer took to its first answer and what memory it holds at rest. Loads are ``load``'s.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.http1 import wait_for_answer
from benchmarks.peers import Peer, Place, free_port, upstream_command
from benchmarks.process import CORE_LOAD, CORE_PROXY, Process

__all__ = ["Running", "peer_running", "upstream_running"]

SETTLE_SECONDS = 0.5
"""Between the first answer and the reading of memory at rest."""


@dataclass(frozen=True)
class Running:
    peer: Peer
    port: int
    process: Process
    start_seconds: float
    """From the start of the process to its first answer of 200."""
    rss_rest_bytes: int


@contextmanager
def upstream_running(folder: Path, drip: int = 0) -> Iterator[int]:
    """nginx as the upstream; the value is its port. ``drip``: the port of what stands behind ``/drip``."""
    place = Place(folder, free_port(), drip or free_port())
    with Process(upstream_command(place), CORE_LOAD, folder / "upstream.log") as process:
        wait_for_answer("/small", place.port, process.is_running)
        yield place.port


@contextmanager
def peer_running(
    peer: Peer, folder: Path, upstream: int, *, port: int = 0, parked: bool = False, under: Sequence[str] = ()
) -> Iterator[Running]:
    """The peer on its core, ``under`` another command if one is given (valgrind).

    TimeoutError when it does not answer; its output is in FOLDER/NAME.log.
    """
    program = peer.find()
    if program is None:
        raise RuntimeError(f"{peer.name} is not installed ({peer.how_to_get})")
    name = peer.name.replace(" ", "-")
    place = Place(folder / name, port or free_port(), upstream, free_port(), parked)
    place.folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    environ = {"HOME": str(place.folder), "XDG_DATA_HOME": str(place.folder), **dict(peer.environ)}
    with Process([*under, *peer.command(program, place)], CORE_PROXY, log, environ) as process:
        start_seconds = _first_answer(process, peer.first_path, place.port, log) - process.started_at
        time.sleep(SETTLE_SECONDS)
        yield Running(peer, place.port, process, start_seconds, process.rss_bytes())


def _first_answer(process: Process, path: str, port: int, log: Path) -> float:
    try:
        return wait_for_answer(path, port, process.is_running)
    except TimeoutError as error:
        last_words = log.read_text(errors="replace")[-400:].strip()
        raise TimeoutError(f"{error}; its output ended with: {last_words or 'nothing'}") from None
