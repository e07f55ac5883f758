"""The closed lists, as the design fixes them."""

from __future__ import annotations

from sidecar.core.enums import IDEMPOTENT_METHODS, FailureKind, Outcome, Reason, Verb


def test_the_outcomes_are_the_closed_list() -> None:
    words = "ok recovered passed exhausted failed rejected stored tunnelled client_gone"
    assert [word.value for word in Outcome] == words.split()


def test_the_reasons_are_the_closed_list() -> None:
    words = (
        "not_retryable attempts deadline wait_too_long not_safe body_too_large spool_failed body_consumed "
        "response_started budget breaker gate rate concurrency server_says_no login_failed draining switched_off"
    )
    assert [word.value for word in Reason] == words.split()


def test_the_failures_are_the_closed_list() -> None:
    words = "resolve refused unreachable tls connect_timeout head_timeout reset closed protocol body_cut"
    assert [word.value for word in FailureKind] == words.split()


def test_the_verbs_are_the_closed_list() -> None:
    assert [word.value for word in Verb] == ["pass", "retry", "login", "reread", "store"]


def test_post_patch_and_connect_are_not_idempotent() -> None:
    assert {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"} == IDEMPOTENT_METHODS
