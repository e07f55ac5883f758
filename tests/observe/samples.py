"""Records that the tests of this room tell about."""

from __future__ import annotations

from dataclasses import replace

from sidecar.core.enums import FailureKind, Outcome, Reason, WaitFrom
from sidecar.observe.record import AttemptRecord, ExchangeRecord

RECOVERED = ExchangeRecord(
    request_id="req-1",
    correlation_id="corr-1",
    trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    upstream="meshqu",
    policy="default",
    method="GET",
    path="/v1/x",
    outcome=Outcome.RECOVERED,
    status=200,
    attempts=(
        AttemptRecord(1, status=503, duration_seconds=0.01),
        AttemptRecord(2, status=503, waited_seconds=0.26, wait_from=WaitFrom.BACKOFF, duration_seconds=0.02),
        AttemptRecord(3, status=200, waited_seconds=0.61, wait_from=WaitFrom.HINT, duration_seconds=0.03),
    ),
    started_at=1_700_000_000.5,
    duration_seconds=1.1,
    waited_seconds=0.87,
    request_bytes=0,
    response_bytes=12,
)

OK = replace(
    RECOVERED,
    outcome=Outcome.OK,
    attempts=(AttemptRecord(1, status=200, duration_seconds=0.004),),
    duration_seconds=0.0042,
    waited_seconds=0.0,
)

FAILED = replace(
    RECOVERED,
    method="POST",
    outcome=Outcome.FAILED,
    reason=Reason.NOT_SAFE,
    status=502,
    attempts=(AttemptRecord(1, failure=FailureKind.RESET, duration_seconds=0.2),),
    duration_seconds=0.2,
    waited_seconds=0.0,
)

REJECTED = replace(FAILED, outcome=Outcome.REJECTED, reason=Reason.GATE, status=503, attempts=())
