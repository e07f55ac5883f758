"""Names of scopes in words."""

from __future__ import annotations

import pytest

from sidecar.core.flow.scopes import SCOPE_KINDS, scope_kind, scope_text

DIGEST = "3fa9c1d2" + "0" * 16


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("", "upstream", "upstream"),
        ("endpoint:GET /v1/x", "endpoint", "endpoint GET /v1/x"),
        ("endpoint:GET /v1/models:predict", "endpoint", "endpoint GET /v1/models:predict"),
        (f"endpoint:GET /v1/x:{DIGEST}", "endpoint", "endpoint GET /v1/x of key 3fa9c1d2"),
        (f"key:{DIGEST}", "key", "key 3fa9c1d2"),
        ("odd:thing", "upstream", "upstream"),
    ],
)
def test_a_scope_is_told_in_words_and_a_key_only_by_its_beginning(name: str, kind: str, text: str) -> None:
    assert (scope_kind(name), scope_text(name)) == (kind, text)
    assert kind in SCOPE_KINDS
