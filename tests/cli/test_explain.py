"""``sidecar explain``: the live engine's answer, offline, as text and as the JSON object that tools rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sidecar.cli.main import main

SITE = """
listen: 127.0.0.1:8080
upstreams:
  - name: meshqu
    origin: https://api.meshqu.example
    mount: /meshqu
    hosts: [api.meshqu.example]
    policy: meshqu
    routes: [{methods: [POST], path: /v1/telemetry/**, policy: telemetry}]
  - {name: deep, origin: "https://deep.example", mount: /meshqu/deep}
  - {name: other, origin: "https://other.example", hosts: ["other.example:8443", "[::1]"]}
"""
MESHQU = """
extends: default
idempotency: {header: X-Idempotency-Key, methods: [PUT, PATCH]}
errors: {code: [/error/code]}
table:
  - {status: 429, when: {body: /error/code, in: [insufficient_quota]}, then: pass}
"""


HEDGED = "hedge: {after: 200ms}\nidempotency: {header: X-Key, methods: [POST]}\n"


@pytest.fixture(name="site")
def _site(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "meshqu.yaml").write_text(MESHQU)
    (tmp_path / "policies" / "telemetry.yaml").write_text("extends: default\nattempts: 2\n")
    path = tmp_path / "sidecar.yaml"
    path.write_text(SITE)
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["explain", *arguments])


def explain(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.output)
    return told


def test_a_hint_is_a_minimum() -> None:
    told = explain("GET", "http://x.example/", "--status", "503", "--header", "Retry-After: 20")
    assert list(told)[:9] == [
        "upstream",
        "policy",
        "row",
        "decision",
        "reason",
        "wait",
        "safe_because",
        "attempts_left",
        "gate",
    ]
    assert (told["decision"], told["wait"]["from"], told["wait"]["min_seconds"]) == ("retry", "hint", 20.0)
    assert (told["upstream"], told["policy"], told["safe_because"]) == ("unknown", "default", "idempotent")
    assert told["row"]["file"].endswith("default.yaml")


def test_a_post_that_may_have_been_applied_is_passed() -> None:
    told = explain("POST", "http://x.example/", "--status", "503")
    assert (told["decision"], told["reason"], told["wait"]) == ("pass", "not_safe", None)


@pytest.mark.parametrize(
    ("failure", "decision", "because"),
    [("refused", "retry", "never_sent"), ("resolve", "retry", "never_sent"), ("reset", "pass", None)],
)
def test_a_failure_before_the_send_is_safe_for_any_method(failure: str, decision: str, because: str | None) -> None:
    told = explain("POST", "http://x.example/", "--failure", failure)
    assert (told["decision"], told["safe_because"]) == (decision, because)


@pytest.mark.parametrize(
    ("url", "upstream"),
    [
        ("http://api.meshqu.example/v1/x", "meshqu"),
        ("https://API.meshqu.example/v1/x", "meshqu"),
        ("http://api.meshqu.example:8443/v1/x", "unknown"),
        ("http://127.0.0.1:8080/meshqu/v1/x", "meshqu"),
        ("http://localhost:8080/meshqu", "meshqu"),
        ("http://127.0.0.1:8080/meshqu/deep/x", "deep"),
        ("http://other.example:8443/", "other"),
        ("http://[::1]/", "other"),
    ],
)
def test_the_url_finds_the_upstream_by_host_or_by_mount(site: Path, url: str, upstream: str) -> None:
    assert explain("GET", url, "--status", "500", "-c", str(site))["upstream"] == upstream


def test_a_name_finds_it_too_and_routes_count(site: Path) -> None:
    url = "http://x.example/v1/telemetry/a"
    told = explain("POST", url, "--status", "429", "--upstream", "meshqu", "-c", str(site))
    assert (told["policy"], told["attempts_left"]) == ("telemetry", 1)
    assert explain("GET", url, "--status", "429", "--upstream", "meshqu", "-c", str(site))["policy"] == "meshqu"


def test_a_body_is_looked_into(site: Path, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text('{"error": {"code": "insufficient_quota"}}')
    flags = ("GET", "http://api.meshqu.example/", "--status", "429", "-c", str(site))
    assert explain(*flags)["decision"] == "retry"
    assert explain(*flags, "--body", str(body))["decision"] == "pass"


def test_a_body_that_cannot_be_decoded_is_not_looked_into_and_that_is_told(site: Path, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text('{"error": {"code": "insufficient_quota"}}')
    flags = ("GET", "http://api.meshqu.example/", "--status", "429", "-c", str(site), "--body", str(body))
    told = explain(*flags, "--header", "Content-Encoding: br")
    assert (told["decision"], told["body_unread"]) == ("retry", "br")
    assert "body unread" in run(*flags, "--header", "Content-Encoding: br").output
    assert explain(*flags, "--header", "Content-Encoding: gzip")["decision"] == "pass"
    assert "body_unread" not in explain(*flags[:3], "503", *flags[4:], "--header", "Content-Encoding: br")


def test_a_key_makes_it_safe_by_the_app_or_by_the_policy(site: Path) -> None:
    flags = ("http://api.meshqu.example/", "--status", "503", "-c", str(site))
    own = ("--request-header", "x-idempotency-key: a")
    assert explain("POST", *flags)["reason"] == "not_safe"
    assert explain("PATCH", *flags)["safe_because"] == explain("PATCH", *flags, *own)["safe_because"] == "keyed"
    assert explain("POST", *flags, *own)["reason"] == "not_safe"


def test_dates_are_measured_against_the_given_time() -> None:
    told = explain(
        "GET",
        "http://x.example/",
        "--status",
        "503",
        "--header",
        "Retry-After: Fri, 29 Sep 2023 16:26:47 GMT",
        "--now",
        "1696004797",
    )
    assert (told["wait"]["from"], told["wait"]["min_seconds"]) == ("hint", 10.0)


def test_the_last_attempt_is_the_last() -> None:
    told = explain("GET", "http://x.example/", "--status", "503", "--attempt", "5")
    assert (told["decision"], told["reason"], told["attempts_left"]) == ("pass", "attempts", 0)


def test_the_app_may_shorten_the_deadline() -> None:
    flags = ("GET", "http://x.example/", "--status", "503", "--header", "Retry-After: 20")
    assert explain(*flags, "--request-header", "Sidecar-Timeout: 5s")["reason"] == "deadline"


def test_the_text_is_for_people() -> None:
    result = run("GET", "http://x.example/", "--status", "503")
    assert result.exit_code == 0
    assert result.output.startswith("retry: send again\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("GET", "http://x.example/"),
        ("GET", "http://x.example/", "--status", "503", "--failure", "reset"),
        ("GET", "x.example", "--status", "503"),
        ("GET", "http://[::1/", "--status", "503"),
        ("GET", "http://x:99999/", "--status", "503"),
        ("GET", "http://x.example/", "--status", "42"),
        ("GET", "http://x.example/", "--failure", "timeout"),
        ("GET", "http://x.example/", "--status", "503", "--header", "Retry-After"),
        ("GET", "http://x.example/", "--status", "503", "--upstream", "nobody"),
        ("GET", "http://x.example/", "--status", "503", "--body", "nowhere"),
    ],
)
def test_what_makes_no_sense_is_a_matter_of_usage(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("request_", "hedged"),
    [
        (("GET",), True),
        (("PATCH",), False),
        (("POST", "--request-header", "X-Key: 1"), True),
        (("GET", "--attempt", "2"), False),
    ],
    ids=["idempotent", "unkeyed", "keyed", "no first send"],
)
def test_a_first_send_that_may_be_hedged_is_told_as_such(site: Path, request_: tuple[str, ...], hedged: bool) -> None:
    (site.parent / "policies" / "meshqu.yaml").write_text(f"extends: default\n{HEDGED}")
    method, *more = request_
    result = run(method, "http://api.meshqu.example/v1/x", "--status", "200", *more, "-c", str(site))
    assert result.exit_code == 0
    assert ("a second goes beside it" in result.output) is hedged
    assert ("longer than 0.2 s" in result.output) is hedged


def test_a_mount_that_is_not_there_is_answered_as_by_the_running_sidecar(site: Path) -> None:
    told = explain("GET", "http://127.0.0.1:8080/meshquito", "--status", "500", "-c", str(site))
    assert (told["decision"], told["refused"]["status"], told["refused"]["kind"]) == ("pass", 404, "mount")
    text = run("GET", "http://127.0.0.1:8080/meshquito", "--status", "500", "-c", str(site)).output
    assert text.startswith("refused: the sidecar answers 404 itself")
    assert "/meshqu/deep" in text


def test_a_host_that_is_refused_is_refused_here_too(site: Path) -> None:
    site.write_text(SITE + "unknown_hosts: refuse\n")
    assert explain("GET", "http://x.example/", "--status", "500", "-c", str(site))["refused"]["status"] == 403


def test_every_step_is_told_with_its_row_quoted(site: Path) -> None:
    text = run("GET", "http://api.meshqu.example/", "--status", "503", "-c", str(site)).output
    assert "| - {status: [500, 502, 503, 504], then: retry}" in text
    told = [line.split()[1] for line in text.split("\n") if line.startswith("  ✓ ")]
    assert told == ["table", "verdict", "safety", "attempts", "max_wait", "deadline"]


def test_of_each_wait_source_it_is_told_why_it_was_not_the_one() -> None:
    flags = ("GET", "http://x.example/", "--status", "503", "--header", "Retry-After: soon")
    text = run(*flags, "--header", "Retry-After-Ms: 1500").output
    assert "✗ header Retry-After (seconds or HTTP-date): unreadable: `soon`" in text
    assert "✓ header Retry-After-Ms (milliseconds): 1.5 s (it says `1500`)" in text
    assert "not asked: one before it was usable" in text
    states = [source["state"] for source in explain(*flags)["sources"]]
    assert states == ["unreadable", "absent", "guard_failed"]


def test_several_answers_in_a_row() -> None:
    flags = ("GET", "http://x.example/", "--status", "503", "--then", "429 Retry-After: 3", "--then", "200")
    told = explain(*flags)
    assert (told["decision"], told["reason"]) == ("pass", None)
    assert [(m["status"], m["decision"]) for m in told["time_line"]] == [(503, "retry"), (429, "retry"), (200, "pass")]
    assert told["worst_case"]["sends"] == 3
    text = run(*flags).output
    assert "attempt 2, 429: retry: send again" in text
    assert "3  at 3 … 3.75 s         200  pass" in text


def test_a_failure_may_come_in_between() -> None:
    told = explain("GET", "http://x.example/", "--failure", "refused", "--then", "reset", "--then", "200")
    assert [moment["failure"] for moment in told["time_line"]] == ["refused", "reset", None]


def test_the_worst_case_and_the_amplification_are_told() -> None:
    text = run("GET", "http://x.example/", "--status", "503").output
    assert "5 sends, over after 0 … 3.75 s if answers come at once; 60 s at worst (deadline 60 s)" in text
    assert "amplification: 5 × for one request; the budget allows all requests together 1.25 ×" in text


def test_a_policy_can_be_asked_without_any_site(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("attempts: 2\ntable:\n  - status: 418\n    then: retry\n    processed: false\n")
    told = explain("POST", "http://x.example/", "--status", "418", "--policy", str(path))
    assert (told["policy"], told["decision"], told["safe_because"]) == ("mine", "retry", "not_processed")
    text = run("POST", "http://x.example/", "--status", "418", "--policy", str(path)).output
    assert "3 | - status: 418" in text
    assert "5 |     processed: false".replace("    ", "  ", 1) in text
    assert explain("GET", "http://x.example/", "--status", "503", "--policy", "default")["policy"] == "default"


def test_warnings_about_other_policies_are_no_answer(site: Path) -> None:
    (site.parent / "policies" / "telemetry.yaml").write_text("extends: default\nresend_methods: [POST]\nattemps: 2\n")
    result = run("GET", "http://api.meshqu.example/", "--status", "503", "-c", str(site))
    assert result.exit_code == 78
    assert "W201" not in result.output
    assert "E101" in result.output


@pytest.mark.parametrize(
    "more",
    [("--then", "soon"), ("--then", "503", "--attempt", "2"), ("--policy", "default", "--upstream", "x")],
)
def test_answers_that_make_no_sense(more: tuple[str, ...]) -> None:
    assert run("GET", "http://x.example/", "--status", "503", *more).exit_code == 2


def test_there_is_no_colour_but_at_a_terminal() -> None:
    assert "\x1b" not in run("GET", "http://x.example/", "--status", "503").output
