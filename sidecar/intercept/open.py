"""Opens interception in an installation that may lack ``cryptography``.

It is imported when it is needed; without the extra, a sentence says what to install.
"""

from __future__ import annotations

import importlib
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["CannotIntercept", "contexts_for"]


class CannotIntercept(Exception):
    """Tunnels cannot be intercepted as configured; the text says why and what to do."""


def contexts_for(folder: str, hosts: tuple[str, ...], wall: Callable[[], float]) -> Callable[[str], ssl.SSLContext]:
    """Host → TLS as that host, by the authority in ``folder``. Raises ``CannotIntercept``.

    ``wall`` tells the seconds since the epoch.
    """
    try:
        authority = importlib.import_module("sidecar.intercept.authority")
        leaves = importlib.import_module("sidecar.intercept.leaves")
    except ImportError:
        text = "`intercept` is configured and its extra is not installed: pip install 'retry-sidecar[intercept]'"
        raise CannotIntercept(text) from None
    try:
        opened = authority.Authority.open(Path(folder), hosts, datetime.fromtimestamp(wall(), UTC))
    except authority.UnfitAuthority as exc:
        raise CannotIntercept(str(exc)) from None
    found: Callable[[str], ssl.SSLContext] = leaves.Leaves(opened, wall).context
    return found
