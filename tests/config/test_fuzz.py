"""Whatever a file holds, the answer is a deployment or a ConfigError with a text; never anything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sidecar.config.load import load_deployment, load_policy
from sidecar.config.policy_tests import load_cases
from sidecar.config.schema.policy import PolicyBlock
from sidecar.config.schema.site import SiteBlock
from sidecar.config.schema.tests import TestsBlock
from sidecar.config.schema.validate import block_in, fields_by_key
from sidecar.config.text.problems import ConfigError

ALWAYS = settings(
    deadline=None, derandomize=True, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
YAML_TEXT = st.text(alphabet="{}[]:,-&*!|>'\"%@`#?~<=.\n\t abxyz019é\x85\u2028\ud7ff", max_size=80)


def keys_of(model: object) -> set[str]:
    assert isinstance(model, type)
    found = fields_by_key(model)
    inner = [block_in(field.annotation) for field in found.values()]
    return set(found).union(*(keys_of(block) for block in inner if block is not None))


KEYS = sorted(keys_of(PolicyBlock) | keys_of(SiteBlock) | keys_of(TestsBlock))
WORDS = ["retry-after", "5xx", "any", "retry", "pass", "60s", "1MiB", "10/s", "default", "/a", "POST", "s", "https://a"]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)


def load_each(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    for load in (
        lambda: load_deployment(path, environ={}),
        lambda: load_policy(path),
        lambda: load_cases([path], None, environ={}),
    ):
        told = "sound"
        try:
            load()
        except ConfigError as error:
            told = str(error)
        assert told


@ALWAYS
@given(st.binary(max_size=200))
@example(b"")
@example(b"\xff\xfe")
@example(b"a: !<tag:x> 1")
@example(b"? ")
@example(b"--- ---")
@example(b"%TAG ! x\n---\na: 1")
def test_bytes_never_raise_anything_else(tmp_path: Path, data: bytes) -> None:
    load_each(tmp_path / "f.yaml", data)


@ALWAYS
@given(YAML_TEXT)
def test_text_never_raises_anything_else(tmp_path: Path, text: str) -> None:
    load_each(tmp_path / "f.yaml", text.encode("utf-8", "replace"))


@ALWAYS
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_known_keys_with_any_values_never_raise_anything_else(tmp_path: Path, tree: dict[str, object]) -> None:
    load_each(tmp_path / "f.yaml", json.dumps(tree).encode())


@ALWAYS
@given(st.text(max_size=30), st.text(max_size=30))
def test_variables_never_raise_anything_else(name: str, value: str) -> None:
    environ = {
        f"SIDECAR_{name}": value,
        "SIDECAR_LISTEN": value,
        "SIDECAR_UPSTREAMS": value,
        "SIDECAR_LOG_SAMPLE": value,
    }
    with pytest.raises(ConfigError) as caught:
        load_deployment(None, environ=environ)
    assert str(caught.value)
