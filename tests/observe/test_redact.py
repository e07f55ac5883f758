"""Secrets are found by name, by place and by form; what cannot be searched is not kept."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.observe.redact import HIDDEN, redacted_body, redacted_field


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "Proxy-Authorization",
        "cookie",
        "Set-Cookie",
        "X-Api-Key",
        "X-Auth-Token",
        "X-Amz-Signature",
        "Ocp-Apim-Subscription-Key",
        "DD-APPLICATION-KEY",
        "Fastly-Key",
        "X-Auth",
        "X-Vault-Unseal",
        "X-CSRFToken",
        "apikey",
    ],
)
def test_fields_that_carry_credentials_are_hidden(name: str) -> None:
    assert redacted_field(name, "s3cr3t") == HIDDEN


@pytest.mark.parametrize(
    "name",
    [
        "X-RateLimit-Remaining-Tokens",
        "Author",
        "Surrogate-Key",
        "X-Request-Id",
        "X-Idempotency-Key",
        "Idempotency-Key",
        "Content-Type",
        "Retry-After",
    ],
)
def test_fields_that_tell_the_story_are_kept(name: str) -> None:
    assert redacted_field(name, "told") == "told"


def test_a_bearer_token_is_hidden_wherever_it_stands() -> None:
    assert redacted_field("X-Forwarded-Scheme", "Bearer abc.def-123") == f"Bearer {HIDDEN}"
    assert redacted_body(b"sent Bearer abcdef99", "text/plain", ()) == (f"sent Bearer {HIDDEN}", "")


def test_members_that_carry_credentials_are_hidden_at_any_depth_and_figures_are_kept() -> None:
    hidden = dict.fromkeys(("pwd", "accessKey", "jwt", "dbPassword", "SID", "refresh_token", "x-api-key"), "s3cr3t")
    shown = {"total_tokens": "12", "author": "me", "passed": "yes", "design": "x", "keyboard": "qwerty"}
    kept, _ = redacted_body(orjson.dumps({"a": [{**hidden, **shown}]}), "application/json", ())
    assert kept == {"a": [{**dict.fromkeys(hidden, HIDDEN), **shown}]}


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("Location", "https://u:pw@x/cb?access_token=s", f"https://x/cb?{HIDDEN}"),
        ("Location", "/cb?code=s#id_token=s", f"/cb?{HIDDEN}"),
        ("Referer", "https://y/?t=s", f"https://y/?{HIDDEN}"),
        (
            "Link",
            '<https://y/a?t=s>; rel="next", </b#s>; rel="x"',
            f'<https://y/a?{HIDDEN}>; rel="next", </b#{HIDDEN}>; rel="x"',
        ),
        ("X-Next", "see https://y/a?t=s now", f"see https://y/a?{HIDDEN} now"),
        ("X-Said", "what? nothing", "what? nothing"),
    ],
)
def test_of_a_url_only_what_is_no_secret_is_kept(name: str, value: str, shown: str) -> None:
    assert redacted_field(name, value) == shown
    assert redacted_body(orjson.dumps({"x": "https://y/?t=s"}), "application/json", ())[0] == {
        "x": f"https://y/?{HIDDEN}"
    }


def test_forms_are_hidden_by_name() -> None:
    body = b"grant_type=client_credentials&client_secret=s3cr3t&empty="
    text, remark = redacted_body(body, "application/x-www-form-urlencoded", ())
    assert (text, remark) == ("grant_type=client_credentials&client_secret=%5Bredacted%5D&empty=", "")


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"{broken", "application/json"),
        (b"\xff\xfe", "text/plain"),
        (b"x" * 300_000, "text/plain"),
        (b'{"a":' * 100_000, "application/json"),
    ],
)
def test_what_cannot_be_searched_is_not_kept(body: bytes, media_type: str) -> None:
    kept, remark = redacted_body(body, media_type, ())
    assert kept is None
    assert remark.startswith("not kept: ")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.binary(max_size=200) | st.text().map(lambda text: text.encode("utf-8", "replace")), st.text(max_size=20))
def test_it_never_raises_whatever_the_body(body: bytes, media_type: str) -> None:
    redacted_body(body, media_type, ("/a/*/b", "", "/0"))


@given(json_values)
def test_a_value_under_a_pointer_is_gone_whatever_stands_around_it(value: object) -> None:
    document = {"keep": value, "list": [{"x": "SENTINEL-VALUE"}, value]}
    kept, _ = redacted_body(orjson.dumps(document), "application/json", ("/list/*/x",))
    assert "SENTINEL-VALUE" not in repr(kept)
