"""A name is judged by its parts; of a URL only what is no secret is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.secret_names import HIDDEN, bare_urls, is_secret_name


@pytest.mark.parametrize(
    "name",
    [
        "Ocp-Apim-Subscription-Key",
        "DD-APPLICATION-KEY",
        "Fastly-Key",
        "accessKey",
        "AWSSecretKey",
        "db_pwd",
        "jwt",
        "phpsessionid",
        "authtoken",
        "X-Auth",
        "Set-Cookie2",
        "clientCredentials",
        "card_number",
        "api-key",
    ],
)
def test_a_part_of_a_name_says_it(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["Idempotency-Key", "total_tokens", "author", "compass", "Surrogate-Key", "Accept", ""]
)
def test_a_name_that_only_looks_alike_is_shown(name: str) -> None:
    assert not is_secret_name(name)


@given(st.text())
def test_any_text_is_taken_and_nothing_is_left_behind_a_question_mark_of_a_url(text: str) -> None:
    is_secret_name(text)
    bare_urls(text)
    assert bare_urls(f"https://u:p@x.example/a?k={'s' * 9}") == f"https://x.example/a?{HIDDEN}"
