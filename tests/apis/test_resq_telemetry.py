"""ResQ telemetry: buffered while the upstream is degraded, delivered once, by the shipped policy ``resq-telemetry``."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.demo.apis.emulator import Emulator
from sidecar.demo.apis.stage import emulated
from tests.apis.conftest import Pair
from tests.emulators.scenario import APART_SECONDS, Operation, ask, hurried
from tests.support.clock import ManualClock
from tests.support.sidecar import running
from tests.support.structured import dictionary

READING = Operation("POST", "/v1/telemetry", 202, {"celsius": 21, "of": "{n}"})
TEXT = """
listen: 127.0.0.1:0
admin: 127.0.0.1:0
outbox: {{file: outbox.db}}
upstreams:
  - name: resq-coordination
    origin: http://127.0.0.1:{port}
    mount: /resq-coordination
    policy: resq-coordination
    routes: [{{methods: [POST], path: /**/telemetry/**, policy: resq-telemetry}}]
    login:
      url: /auth/login
      json: {{username: emulated, password: env:EMULATED_SECRET}}
      token: /token
      expires_in: /expires_in
"""


@contextlib.asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Pair]:
    clock = ManualClock()
    async with (
        emulated("resq-coordination", clock.monotonic) as api,
        running(folder, TEXT.format(port=api.port), {}, clock=clock) as sidecar,
    ):
        yield Pair(api, sidecar)


def _queued(api: Emulator) -> int:
    return sum(call.path == "/v1/telemetry" and call.status == 202 for call in api.calls)


@pytest.mark.parametrize("trouble", ["UNAVAILABLE", "RATE_LIMITED", "BUSY"])
async def test_a_reading_is_stored_while_the_api_is_degraded_and_delivered_later(tmp_path: Path, trouble: str) -> None:
    async with staged(tmp_path) as (api, sidecar):
        answer = await ask("resq-coordination", sidecar, READING, 1, [trouble, "UNAVAILABLE"])
        assert answer.status == 202
        assert dictionary(answer.headers.get("Sidecar"))["outcome"] == "stored"
        assert "stored" in answer.json()
        await sidecar.until(lambda: api.applied["r-1"] == 1)


async def test_an_expired_token_is_renewed_and_nothing_stored(tmp_path: Path) -> None:
    async with staged(tmp_path) as (api, sidecar):
        answer = await ask("resq-coordination", sidecar, READING, 1, ["TOKEN_EXPIRED"])
        assert (answer.status, answer.json()) == (202, {"queued": True})
        assert api.applied["r-1"] == 1


async def test_a_reading_that_may_have_been_queued_is_not_stored(tmp_path: Path) -> None:
    async with staged(tmp_path) as (api, sidecar):
        await ask("resq-coordination", sidecar, READING, 0)
        answer = await ask("resq-coordination", sidecar, READING, 1, ["after:reset"])
        assert answer.status == 502
        assert dictionary(answer.headers.get("Sidecar"))["reason"] == "not_safe"
        assert api.applied["r-1"] == 1


async def test_five_hundred_readings_through_a_degraded_api_arrive_once_each(tmp_path: Path) -> None:
    dice = random.Random("telemetry")
    troubles = ["UNAVAILABLE", "BUSY;1", "RATE_LIMITED;2", "TOKEN_EXPIRED"]
    async with staged(tmp_path) as (api, sidecar), hurried("resq-coordination", sidecar):
        for number in range(500):
            sidecar.clock.advance(APART_SECONDS)
            plan = [dice.choice(troubles) for _ in range(dice.choice((0, 0, 1, 1)))]
            assert (await ask("resq-coordination", sidecar, READING, number, plan)).status == 202
            await sidecar.until(lambda number=number: _queued(api) > number)  # type: ignore[misc]
        assert len(api.applied) == 500
        assert set(api.applied.values()) == {1}
