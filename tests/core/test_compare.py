"""Two configurations compared: what is judged differently is told, what is not is not, and the work is bounded."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.decision.attempt import Attempt
from sidecar.core.decision.expression import Expression
from sidecar.core.decision.policy import BudgetRule, Idempotency, Policy
from sidecar.core.decision.rows import Condition, HintSource, Row
from sidecar.core.decision.table import Table
from sidecar.core.dryrun.compare import MOST_PLAYS, Comparison, Difference, SettingChange, Situation, compare
from sidecar.core.dryrun.compare_text import comparison_object, comparison_text, is_same, ranges_text, summary_text
from sidecar.core.enums import FailureKind, Reason, Unit, Verb
from sidecar.core.settings.deployment import Address, Deployment, Origin, Route, Upstream
from tests.core.making import ANY_FAILURE, ANY_STATUS, answered, failed, policies, policy, row, steady

HERE = Address("127.0.0.1", 8080)
IDEMPOTENT = ("GET", "HEAD", "PUT", "DELETE")
ALL = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def api(judge: Policy, *routes: Route, name: str = "api") -> Upstream:
    return Upstream(name, Origin("http", "127.0.0.1", 1), judge, mount=f"/{name}", routes=routes)


def site(judge: Policy, *routes: Route, **more: Any) -> Deployment:
    return Deployment(HERE, HERE, (api(judge, *routes),), policy(), unknown_hosts="refuse", **more)


def compared(old: Policy, new: Policy, *situations: Situation) -> Comparison:
    return compare(site(old), site(new), situations=situations)


def told(found: Comparison) -> list[tuple[str, ...]]:
    return [
        (" ".join(each.methods), ranges_text(each.results), each.given, verb_of(each, "before"), verb_of(each, "after"))
        for each in found.differences
    ]


def verb_of(difference: Difference, side: str) -> str:
    decision = getattr(difference, side).decision
    return "-" if decision is None else f"{decision.verb} {decision.reason or ''}".strip()


def test_a_new_row_is_told_by_status_and_method() -> None:
    found = compared(policy(), policy(row(Verb.PASS, 503)))
    assert told(found) == [
        ("GET HEAD PUT DELETE", "503", "", "retry", "pass not_retryable"),
        ("POST PATCH", "503", "", "pass not_safe", "pass not_retryable"),
    ]
    assert found.differences[0].where == ("api",)
    assert found.judged > 100


def test_statuses_methods_and_upstreams_that_change_alike_are_one_difference() -> None:
    old, new = policy(attempts=5), policy(attempts=3)
    before, after = (
        Deployment(HERE, HERE, (api(each), api(each, name="other")), each, unknown_hosts="pass") for each in (old, new)
    )
    found = compare(before, after)
    retried = found.differences[0]
    assert retried.where == ("api", "other", "unknown")
    assert (retried.methods, ranges_text(retried.results)) == (ALL, "429")
    assert [each.after.decision and each.after.decision.attempts_left for each in found.differences] == [2] * 4


def test_a_wait_that_changes_is_a_difference_and_a_line_that_moves_is_none() -> None:
    slow = replace(policy().backoff, base_seconds=2.0)
    found = compared(policy(), policy(backoff=slow))
    before, after = found.differences[0].before.decision, found.differences[0].after.decision
    assert before is not None
    assert after is not None
    assert before.wait is not None
    assert after.wait is not None
    assert (before.wait.max_seconds, after.wait.max_seconds) == (0.25, 2.0)
    moved = replace(policy(), table=Table(tuple(replace(each, file="y", line=9) for each in policy().table.rows)))
    assert is_same(compared(policy(), moved))


def test_a_longest_wait_is_seen_by_an_answer_with_a_hint() -> None:
    found = compared(policy(), policy(max_wait_seconds=2.0))
    assert ("GET HEAD PUT DELETE", "503", "Retry-After: 5", "retry", "pass wait_too_long") in told(found)


def test_a_header_that_only_one_of_both_reads_is_tried() -> None:
    reads = policy(wait=(HintSource("header", "X-Wait", unit=Unit.MS),))
    found = compared(policy(wait=()), reads)
    assert any(given == "X-Wait: 5000" for _, _, given, _, _ in told(found))


def test_the_conditions_of_a_row_are_met_by_a_made_up_answer() -> None:
    body = Condition("body", "/error/code", "equals", ("quota",))
    header = Condition("header", "X-Left", "in", ("0", "1"))
    asked = Condition("request_header", "X-Kind")
    query = Condition("query", "page", "equals", ("1 2",))
    new = policy(row(Verb.PASS, 429, when=(body, header, asked, query)))
    found = compared(policy(), new)
    assert told(found) == [(" ".join(ALL), "429", found.differences[0].given, "retry", "pass not_retryable")]
    assert found.differences[0].given.startswith("body /error/code is `quota`")


def test_what_cannot_be_made_up_is_said() -> None:
    text = Condition("header", "X-Why", "matches", pattern=Expression("a+b"))
    new = policy(replace(row(Verb.PASS, 429, when=(text,)), file="x.yaml", line=4))
    found = compared(policy(), new)
    assert (found.differences, found.unmade_rows) == ((), ("x.yaml:4",))
    assert "x.yaml:4" in comparison_text(replace(found, settings=(SettingChange("a", None, "b"),)))


def test_a_key_makes_a_post_repeatable() -> None:
    keyed = policy(idempotency=Idempotency("Idempotency-Key", frozenset({"POST"})))
    methods = {each[0] for each in told(compared(policy(), keyed))}
    assert methods == {"POST"}


def test_routes_are_told_apart_by_their_paths() -> None:
    strict = replace(policy(row(Verb.PASS, 503)), name="strict")
    route = Route(strict, frozenset({"GET"}), "/v1/*/x", re.compile("/v1/[^/]+/x"))
    found = compare(site(policy()), site(policy(), route))
    assert [(each.where, each.methods, each.after.policy) for each in found.differences] == [
        (("api /v1/*/x",), ("GET",), "strict")
    ]


def test_what_is_stored_unsent_is_told_without_an_answer() -> None:
    pattern = re.compile("/.*")
    kept = Route(policy(), frozenset(), "/**", pattern, store_first=True)
    found = compare(site(policy()), site(policy(), kept))
    stored = [each for each in found.differences if not each.results]
    assert [(each.methods, each.before.words, each.after.words) for each in stored] == [
        (("POST", "PUT", "PATCH", "DELETE"), "sent while the app waits", "stored before it is sent")
    ]


def test_upstreams_come_and_go() -> None:
    old = Deployment(HERE, HERE, (api(policy()), api(policy(), name="old")), policy())
    new = Deployment(HERE, HERE, (api(policy()), api(policy(), name="new")), policy())
    found = compare(old, new)
    assert (found.added, found.removed) == (("new",), ("old",))
    assert not is_same(found)
    assert "upstream new" in comparison_text(found)


def test_given_exchanges_are_judged_by_both() -> None:
    answers = (answered(503), answered(503), answered(200))
    seen = Situation("exchange 1", "api", "GET", "/", answers)
    alien = Situation("exchange 2", "gone", "GET", "/", answers)
    named = Situation("test", "", "GET", "/", (failed(FailureKind.RESET),), policy="made")
    found = compared(policy(), policy(attempts=1), seen, alien, named)
    assert [(each.situation.name, each.answer) for each in found.told] == [("exchange 1", 1), ("test", 1)]
    last = found.told[0].after.decision
    assert last is not None
    assert last.reason is Reason.ATTEMPTS
    assert (found.given, found.not_judged) == (2, ("exchange 2",))


def test_a_send_that_is_not_made_any_more_is_told_at_the_answer_before() -> None:
    seen = Situation("exchange", "api", "GET", "/", (answered(503), answered(503), answered(200)))
    found = compared(policy(attempts=3), policy(attempts=2), seen)
    assert found.told[0].answer == 2


def test_five_hundred_rows_are_compared_in_bounded_work() -> None:
    def large(codes: range) -> Policy:
        rows = (row(Verb.PASS, 429, when=(Condition("body", "/code", "equals", (f"c{n}",)),)) for n in codes)
        return policy(*rows, row(Verb.PASS, 418, when=(Condition("header", "X", "equals", ("y",)),)))

    found = compared(large(range(500)), large(range(1, 501)))
    assert 3_000 < found.judged <= MOST_PLAYS
    assert found.unjudged == 0
    assert sorted({given for _, _, given, _, _ in told(found)}) == ["body /code is `c0`", "body /code is `c500`"]


def test_beyond_the_bound_the_rest_is_counted() -> None:
    rows = tuple(row(Verb.PASS, 429, when=(Condition("header", "X", "equals", (f"{n}",)),)) for n in range(MOST_PLAYS))
    found = compared(policy(), policy(*rows))
    assert found.judged == MOST_PLAYS
    assert found.unjudged > 0
    assert "not compared" in comparison_text(found)


def test_what_settings_refer_to_is_compared_without_being_shown() -> None:
    new = site(policy())
    first = replace(new.upstreams[0], origin=replace(new.upstreams[0].origin, trust="PEM-TEXT"))
    found = compare(new, replace(new, upstreams=(first,)))
    assert not is_same(found)
    assert "PEM-TEXT" not in comparison_text(found) + str(comparison_object(found))


def test_a_deployment_is_the_same_as_itself_wherever_it_was_read() -> None:
    found = compare(site(policy(), source="a"), site(policy(), source="b"))
    assert is_same(found)
    assert summary_text(found) == "nothing is different"
    assert comparison_text(found) == "the same: no setting differs"


def test_words_and_object_tell_the_same() -> None:
    changes = (
        SettingChange("listen", "a:1", "a:2", needs_restart=True),
        SettingChange("x.table", None, "{then: pass}"),
    )
    found = compare(site(policy()), site(policy(row(Verb.PASS, 503))), changes)
    text = comparison_text(found)
    assert "a:1 → a:2  (needs a restart)" in text
    assert "needs a restart to take effect: listen" in text
    shown = comparison_object(found)
    assert (shown["same"], shown["needs_restart"], shown["differences_in_all"]) == (False, ["listen"], 2)
    assert summary_text(found) == "2 settings, 2 differences in judgement"


def test_the_budget_is_no_judgement_of_one_answer() -> None:
    assert not compared(policy(), policy(budget=BudgetRule(0.5))).differences


@settings(steady, max_examples=20)
@given(policies, policies, st.sampled_from(["GET", "POST"]), st.sampled_from([200, 404, 429, 500, 503]))
def test_a_plain_answer_that_is_judged_differently_is_always_told(
    old: Policy, new: Policy, method: str, status: int
) -> None:
    """Whatever the policies: what the exchange would show, the comparison shows."""
    seen = Situation("seen", "api", method, "/", (Attempt(1, status),))
    found = compare(site(old), site(new), situations=(seen,))
    shown = {(one, result) for each in found.differences for one in each.methods for result in each.results}
    if found.told and found.all_differences == len(found.differences):
        assert (method, status) in shown


def test_every_status_and_failure_can_differ() -> None:
    everything = Row(Verb.PASS, statuses=ANY_STATUS, failures=ANY_FAILURE)
    found = compared(policy(), replace(policy(), table=Table((everything,))))
    results = {result for each in found.differences if not each.given for result in each.results}
    assert results == {429, *range(500, 600), *FailureKind}
