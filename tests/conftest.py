"""What holds for every test: nothing leaves loopback."""

from __future__ import annotations

import sys
from typing import Any


def _loopback_only(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect":
        return
    address = arguments[1]
    if isinstance(address, tuple) and address and not str(address[0]).startswith(("127.", "::1", "localhost")):
        raise RuntimeError(f"a test tried to reach {address}: tests stay on loopback")


sys.addaudithook(_loopback_only)
