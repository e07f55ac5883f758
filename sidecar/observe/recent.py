"""The last exchanges, kept in memory for ``/debug/exchanges`` and the page.

Bounded by number; it never grows with traffic and never outlives the process. The counterpart is ``record``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

from sidecar.observe.record import ExchangeRecord

__all__ = ["Recent"]


class Recent:
    """The last ``maxlen`` records, newest first when read."""

    __slots__ = ("_records", "add", "maxlen")

    def __init__(self, maxlen: int = 500) -> None:
        if maxlen < 1:
            raise ValueError(f"maxlen is {maxlen}; keep at least one record")
        self.maxlen = maxlen
        self._records: deque[ExchangeRecord] = deque(maxlen=maxlen)
        self.add = self._records.append
        """Add one record; the oldest is dropped."""

    def __len__(self) -> int:
        return len(self._records)

    def find(
        self,
        *,
        outcome: str | None = None,
        upstream: str | None = None,
        request_id: str | None = None,
        limit: int | None = None,
    ) -> list[ExchangeRecord]:
        """The records that match every given argument, newest first, at most ``limit``.

        ``request_id`` is compared with every id of a record, so that an id from an upstream's ticket finds it too.
        """
        return list(islice(self._matching(outcome, upstream, request_id), limit))

    def _matching(self, outcome: str | None, upstream: str | None, request_id: str | None) -> Iterator[ExchangeRecord]:
        for record in reversed(self._records):
            if outcome is not None and record.outcome != outcome:
                continue
            if upstream is not None and record.upstream != upstream:
                continue
            if request_id is not None and request_id not in _ids(record):
                continue
            yield record


def _ids(record: ExchangeRecord) -> tuple[str | None, ...]:
    return (
        record.request_id,
        record.correlation_id,
        record.trace_id,
        record.upstream_request_id,
        record.upstream_correlation_id,
    )
