"""The ring keeps the last records and finds them again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.core.enums import Outcome
from sidecar.observe.recent import Recent
from tests.observe.samples import FAILED, OK, RECOVERED


def test_the_oldest_falls_out_and_the_newest_comes_first() -> None:
    recent = Recent(3)
    for number in range(5):
        recent.add(replace(OK, request_id=f"r{number}"))
    assert len(recent) == 3
    assert [record.request_id for record in recent.find()] == ["r4", "r3", "r2"]
    assert [record.request_id for record in recent.find(limit=1)] == ["r4"]


def test_records_are_found_by_outcome_upstream_and_every_id() -> None:
    recent = Recent(10)
    other = replace(FAILED, upstream="other", request_id="r2", upstream_request_id="theirs", correlation_id="c2")
    recent.add(RECOVERED)
    recent.add(other)
    assert recent.find(outcome="failed") == [other]
    assert recent.find(outcome=Outcome.RECOVERED) == [RECOVERED]
    assert recent.find(upstream="meshqu") == [RECOVERED]
    assert recent.find(request_id="theirs") == recent.find(request_id="c2") == [other]
    assert recent.find(outcome="failed", upstream="meshqu") == []


def test_a_ring_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Recent(0)
