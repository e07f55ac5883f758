"""The shared state of all upstreams in one store: made when a configuration is applied, closed when it is gone."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable

from sidecar.core.settings.deployment import Origin, SharedRule
from sidecar.observe.log import EventLog
from sidecar.observe.metrics import SharedMeters
from sidecar.shared.parts import Part
from sidecar.shared.store import Store
from sidecar.shared.upstream_sync import UpstreamSync

__all__ = ["StoreSync"]


class StoreSync:
    """One store, one ``UpstreamSync`` for each upstream."""

    def __init__(
        self,
        rule: SharedRule,
        events: EventLog,
        meters: SharedMeters,
        monotonic: Callable[[], float],
        chance: Callable[[], float],
        sender: str,
    ) -> None:
        self._store = Store(rule, events, meters, chance)
        self._monotonic = monotonic
        self._chance = chance
        self._sender = sender
        self._members: dict[str, UpstreamSync] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def is_up(self) -> bool:
        return self._store.is_up

    def start(self) -> None:
        """Connect in the background: no request waits for the store."""
        self._store.start()

    def apply(self, parts: Iterable[Part]) -> None:
        """Share the state of these upstreams; what has stayed the same is left alone."""
        before, self._members = self._members, {}
        for part in parts:
            name = _name_of(part.name, part.origin)
            member = before.pop(name, None)
            if member is not None and member.limiter is not part.limiter:
                before[name] = member
                member = None
            if member is None:
                member = UpstreamSync(self._store, name, self._sender, part, self._monotonic, self._chance)
            member.budget = part.budget
            part.holding.peer = member
            self._members[name] = member
        for member in before.values():
            task = asyncio.get_running_loop().create_task(member.close())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Stop sharing."""
        for member in self._members.values():
            await member.close()
        self._members.clear()
        await asyncio.gather(*self._leaving)
        await self._store.close()


def _name_of(upstream: str, origin: Origin) -> str:
    """Names in the store: upstreams of equal names with different origins do not meet."""
    place = f"{origin.scheme}://{origin.authority}{origin.base_path}"
    return f"{upstream}.{hashlib.blake2b(place.encode(), digest_size=4).hexdigest()}"
