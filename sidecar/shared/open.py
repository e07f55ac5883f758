"""Opens sharing in an installation that may lack ``redis``.

It is imported when it is needed; without the extra, a sentence says what to install.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from sidecar.core.settings.deployment import SharedRule
from sidecar.observe.log import EventLog
from sidecar.observe.metrics import SharedMeters
from sidecar.shared.parts import Sync

__all__ = ["CannotShare", "open_sync"]


class CannotShare(Exception):
    """The store cannot be used as configured; the text says why and what to do."""


def open_sync(
    rule: SharedRule,
    events: EventLog,
    meters: SharedMeters,
    monotonic: Callable[[], float],
    chance: Callable[[], float],
    sender: str,
) -> Sync:
    """The part of every upstream. Raises ``CannotShare``. ``sender``: a name that no other replica has."""
    try:
        room = importlib.import_module("sidecar.shared.sync")
    except ImportError:
        text = "`shared` is configured and its extra is not installed: pip install 'retry-sidecar[redis]'"
        raise CannotShare(text) from None
    opened: Sync = room.StoreSync(rule, events, meters, monotonic, chance, sender)
    return opened
