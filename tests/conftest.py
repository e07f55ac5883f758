"""What holds for every test: nothing leaves loopback, and no property fails because the machine is busy."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support import words

settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("any machine")


def _loopback_only(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect":
        return
    address = arguments[1]
    if isinstance(address, tuple) and address and not str(address[0]).startswith(("127.", "::1", "localhost")):
        raise RuntimeError(f"a test tried to reach {address}: tests stay on loopback")


sys.addaudithook(_loopback_only)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of clients, from what each test has found (``tests/clients``)."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name == "client":
                client, way, cell = value
                found[client][way] = cell
    if not found:
        return
    ways = list(dict.fromkeys(way for cells in found.values() for way in cells))
    terminalreporter.section("real clients, through each way in")
    terminalreporter.write_line("".join(f"{word:24}" for word in ("client", *ways)).rstrip())
    for client, cells in sorted(found.items()):
        row = (client, *(cells.get(way, "") for way in ways))
        terminalreporter.write_line("".join(f"{word:24}" for word in row).rstrip())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every-word", action="store_true", help="fail where no sidecar said a word of the closed lists")


def pytest_testnodedown(node: Any) -> None:
    """What the sidecars of another process have said (xdist calls it, where it divides the tests)."""
    words.said.update(map(tuple, getattr(node, "workeroutput", {}).get("words", ())))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["words"] = sorted((str(name), str(word)) for name, word in words.said)
    elif session.config.getoption("--every-word") and (unsaid := words.unsaid(words.said)):
        sys.stderr.write("\nNo sidecar of any test has said:\n  " + "\n  ".join(unsaid) + "\n")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
