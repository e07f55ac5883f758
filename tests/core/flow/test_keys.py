"""Scopes: what each of them learns, their names, and that there are never too many."""

from __future__ import annotations

import pytest

from sidecar.core.flow.gate import left_seconds
from sidecar.core.flow.keys import MOST_KEYS, Keys, KeyState, Kind, Result, endpoint_of, kind_of, scopes_of
from sidecar.core.flow.queue import Ticket

NOW = 100.0


def state(accepted: int, refused: int, opens_at: float | None = NOW + 1, kind: Kind = "refused") -> KeyState:
    made = KeyState()
    made.evidence.add(NOW - 0.5, accepted, 0)
    made.evidence.add(NOW, 0, refused)
    made.close(Result(kind, 0.01, opens_at), NOW, 0.0, 0)
    return made


def test_where_nearly_all_is_refused_the_gate_closes_until_the_hint_ends() -> None:
    made = state(1, 20)
    assert left_seconds(made.gate, NOW) == pytest.approx(1)
    assert made.rate is not None
    assert made.rate.slow_start


def test_where_much_is_accepted_the_rate_is_limited_to_it_and_nobody_waits_for_the_hint() -> None:
    made = state(30, 20)
    assert left_seconds(made.gate, NOW) == 0
    assert made.rate is not None
    assert made.rate.rate >= 30


def test_one_that_takes_nothing_and_asks_for_quiet_is_down_and_not_too_slow() -> None:
    assert state(0, 20, kind="busy").rate is None


def test_a_long_hint_is_looked_behind() -> None:
    made = state(0, 20, NOW + 600)
    assert not made.may_go(NOW + 4)
    assert made.may_go(NOW + 5)
    made.take(NOW + 5)
    assert not made.may_go(NOW + 14)
    assert made.may_go(NOW + 15)
    assert made.told(Result("ok", 0.01), NOW + 15.1)
    assert left_seconds(made.gate, NOW + 15.1) == 0


def test_what_did_not_help_is_let_go_and_left_alone_longer_each_time() -> None:
    made = state(30, 20)
    made.let_go(NOW)
    assert made.is_cooling(NOW + 29)
    assert not made.is_cooling(NOW + 31)
    made.let_go(NOW + 40)
    assert made.is_cooling(NOW + 99)


def test_a_limit_that_nobody_needs_is_over() -> None:
    made = state(30, 20)
    made.relax(NOW + 1)
    assert made.rate is not None
    made.relax(NOW + 6)
    assert made.rate is None


@pytest.mark.parametrize("hint", [0.0, -1.0, NOW, float("nan"), float("inf"), NOW + 1e9])
def test_an_absurd_hint_closes_nothing_for_more_than_an_hour(hint: float) -> None:
    assert 0 <= left_seconds(state(0, 20, hint).gate, NOW) <= 3600


def test_a_hundred_thousand_scopes_cost_no_more_than_a_few_thousand() -> None:
    keys = Keys()
    keys.use("waits").queue.put(Ticket(200.0))
    for n in range(100_000):
        keys.use(str(n)).evidence.add(NOW, 0, 1)
        keys.forget(NOW)
        assert len(keys) <= MOST_KEYS + 1
    assert keys.get("waits") is not None, "somebody waits there"
    assert keys.get("0") is None, "the oldest goes first"
    assert keys.get("99999") is not None


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/", "GET /"),
        ("/v1/items/17", "GET /v1/items/*"),
        ("/v2/oauth2/user123", "GET /v2/oauth2/*"),
        ("/items/0f3a", "GET /items/*"),
        ("/a/b/c/d/e", "GET /a/b/c"),
        ("", "GET /"),
        ("/" + "x" * 1000, "GET /*"),
    ],
)
def test_an_endpoint_is_the_shape_of_a_path(path: str, shape: str) -> None:
    assert endpoint_of("GET", path) == shape


def test_scopes_go_from_narrow_to_wide() -> None:
    assert scopes_of("GET /", "", is_keyed=False) == ("endpoint:GET /", "")
    assert scopes_of("GET /", "k", is_keyed=False) == ("endpoint:GET /", "key:k", "")
    assert scopes_of("GET /", "k", is_keyed=True) == ("endpoint:GET /:k", "key:k", "")


@pytest.mark.parametrize(
    ("status", "holds", "hinted", "kind"),
    [
        (200, True, False, "ok"),
        (404, True, False, "ok"),
        (429, True, True, "refused"),
        (429, False, True, "ok"),
        (503, True, True, "busy"),
        (503, True, False, "failed"),
        (500, True, True, "failed"),
        (None, True, False, "failed"),
    ],
)
def test_the_one_classification(status: int | None, holds: bool, hinted: bool, kind: str) -> None:
    assert kind_of(status, holds=holds, hinted=hinted) == kind
