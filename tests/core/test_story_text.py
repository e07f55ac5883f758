"""The story of an exchange, as lines for a person."""

from __future__ import annotations

from sidecar.core.decision.attempt import Attempt, Headers
from sidecar.core.dryrun.replay import request_of
from sidecar.core.dryrun.story import ExchangeView, tell
from sidecar.core.dryrun.story_text import story_text
from tests.core.making import NOW, answered, get, policy


def story(*answers: Attempt, **more: object) -> ExchangeView:
    made = policy(**more)
    return tell("api", made, request_of(made, "GET", "/", "", Headers()), answers, NOW.wall)


def test_a_deadline_may_end_the_longest_waits_sooner() -> None:
    told = story(answered(503), attempts=9, deadline_seconds=3.0)
    assert told.fewest < len(told.line)
    assert f"{told.fewest} … {len(told.line)} sends" in story_text(told, get(), lambda row: [])


def test_answers_that_nothing_would_bring_are_told() -> None:
    told = story(answered(404), answered(503), answered(200))
    assert (len(told.told), told.unheard) == (1, 2)
    assert "2 further answers would never come" in story_text(told, get(), lambda row: [])


def test_what_an_upstream_sent_steers_no_terminal() -> None:
    text = story_text(story(answered(503, ("Retry-After", "\x1b[31msoon" + "x" * 500))), get(), lambda row: [])
    assert "\x1b" not in text
    assert "\\x1b[31msoon" in text
    assert max(map(len, text.split("\n"))) < 220
