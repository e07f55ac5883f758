"""docs/metrics.md says what the code does: its generated parts are made here and compared.

After a change to a family, a field or a word: ``python tests/observe/test_documentation.py`` writes them anew.
"""

from __future__ import annotations

import re
from pathlib import Path

from sidecar.core.enums import FailureKind, HedgeEnd, Outcome, Reason, WaitFrom
from sidecar.core.flow.scopes import SCOPE_KINDS
from sidecar.observe.families import (
    DURATION_BUCKETS,
    FAMILIES,
    FLOW_PARTS,
    HEDGE_CANCELLED,
    HELD_BY,
    OVERHEAD_BUCKETS,
    WAITED_FROM,
    label_values,
    reference_table,
)
from sidecar.observe.fields import ATTEMPT_FIELDS, FIELDS, HELD_FIELDS

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def table(head: tuple[str, str], rows: dict[str, str]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {meaning} |" for name, meaning in rows.items())])


def buckets(bounds: tuple[float, ...]) -> str:
    return " ".join(f"{bound:.6f}".rstrip("0").rstrip(".") for bound in bounds)


def generated(text: str) -> str:
    """``text`` with every generated part as the code has it now."""
    parts = {
        "families": reference_table(),
        "labels": table(("label", "values"), label_values()),
        "fields": table(("field", "meaning"), FIELDS),
        "held fields": table(("field", "meaning"), HELD_FIELDS),
        "attempt fields": table(("field", "meaning"), ATTEMPT_FIELDS),
    }
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- {name}: generated[^\n]*-->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = pattern.subn(lambda match, part=part: f"{match[1]}\n{part}\n\n{match[2]}", text)  # type: ignore[misc]
        assert count == 1, f"docs/metrics.md has no place for: {name}"
    text = re.sub(r"(waits, in seconds: ).*", rf"\g<1>{buckets(DURATION_BUCKETS)}.", text)
    return re.sub(r"(Buckets of `overhead_seconds`: ).*", rf"\g<1>{buckets(OVERHEAD_BUCKETS)}.", text)


def test_generated_parts_of_the_page_are_current() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == generated(text), "run: python tests/observe/test_documentation.py"


def test_every_family_says_what_it_means_and_which_question_it_answers() -> None:
    for family in FAMILIES:
        assert family.name.startswith("sidecar_")
        assert family.meaning.endswith(".")
        assert family.question.endswith("?")
        assert (family.kind == "counter") == family.name.endswith("_total")


def test_families_and_labels_are_those_of_the_contract() -> None:
    assert {family.name: family.labels for family in FAMILIES} == {
        "sidecar_requests_total": ("upstream", "method", "outcome"),
        "sidecar_attempts_total": ("upstream", "result"),
        "sidecar_retries_total": ("upstream", "cause"),
        "sidecar_hedges_total": ("upstream", "result"),
        "sidecar_retries_suppressed_total": ("upstream", "reason"),
        "sidecar_shadow_decisions_total": ("upstream", "actual", "shadow"),
        "sidecar_upstream_errors_total": ("upstream", "code"),
        "sidecar_logins_total": ("upstream",),
        "sidecar_login_failures_total": ("upstream",),
        "sidecar_request_duration_seconds": ("upstream", "outcome"),
        "sidecar_attempt_duration_seconds": ("upstream",),
        "sidecar_wait_seconds": ("upstream", "from"),
        "sidecar_overhead_seconds": (),
        "sidecar_inflight_requests": (),
        "sidecar_held_requests": ("upstream", "by"),
        "sidecar_gates_closed": ("upstream", "scope"),
        "sidecar_rate_limit_per_second": ("upstream",),
        "sidecar_concurrency_limit": ("upstream",),
        "sidecar_flow_changes_total": ("upstream", "by", "to"),
        "sidecar_breaker_state": ("upstream",),
        "sidecar_budget_tokens": ("upstream",),
        "sidecar_retries_off": ("upstream",),
        "sidecar_attempts_lost_total": ("upstream",),
        "sidecar_opened_total": ("upstream",),
        "sidecar_buffered_bytes": (),
        "sidecar_tunnels_total": (),
        "sidecar_open_tunnels": (),
        "sidecar_accept_paused": (),
        "sidecar_accept_pauses_total": (),
        "sidecar_protocol_errors_total": ("kind",),
        "sidecar_log_dropped_total": (),
        "sidecar_outbox_items": ("upstream",),
        "sidecar_outbox_dead_items": ("upstream",),
        "sidecar_outbox_oldest_age_seconds": ("upstream",),
        "sidecar_outbox_delivered_total": ("upstream",),
        "sidecar_outbox_dead_total": ("upstream",),
        "sidecar_shared_store_up": (),
        "sidecar_shared_store_errors_total": ("fault",),
        "sidecar_traced_total": ("state",),
        "sidecar_config_last_reload_successful": (),
        "sidecar_config_last_reload_success_timestamp_seconds": (),
        "sidecar_build_info": ("version", "python", "loop", "aiohttp"),
    }


def test_closed_lists_are_those_of_words() -> None:
    values = {label: set(re.findall(r"`([^`]+)`", text)) for label, text in label_values().items()}
    assert values["outcome"] == {str(word) for word in Outcome}
    assert values["reason"] == {str(word) for word in Reason}
    assert values["from"] == set(WAITED_FROM) > {str(word) for word in WaitFrom} | set(FLOW_PARTS)
    assert values["scope"] == set(SCOPE_KINDS)
    assert values["cause"] == {"other", *(str(word) for word in FailureKind)}
    ends = {"sidecar_hedges_total", *(str(word) for word in HedgeEnd)}
    assert values["result"] == values["cause"] | ends | {HEDGE_CANCELLED}
    assert values["by"] - {"sidecar_flow_changes_total"} == set(HELD_BY)
    assert set(HELD_BY) == {*FLOW_PARTS, "wait", "login", "connection"}


if __name__ == "__main__":
    PAGE.write_text(generated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
