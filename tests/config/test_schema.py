"""The JSON Schema and the reference tables say what the loader does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped,unused-ignore]
import pytest

from sidecar.config.show.json_schema import SCHEMAS, json_schema
from sidecar.config.show.reference import rewritten
from sidecar.config.text.document import parse, plain

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
POLICIES = [*(ROOT / "config" / "policies").glob("*.yaml"), *(HERE / "good" / "policies").glob("*.yaml")]
CASES = sorted((ROOT / "config" / "policies" / "tests").glob("*.yaml"))
SITES = [ROOT / "config" / "sidecar.yaml", HERE / "good" / "site.yaml"]


def values(path: Path) -> Any:
    return plain(parse(path.name, path.read_bytes()).root)


@pytest.mark.parametrize("kind", list(SCHEMAS))
def test_the_schema_is_a_schema(kind: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema(kind))


@pytest.mark.parametrize("path", sorted(POLICIES), ids=lambda path: path.stem)
def test_good_policies_satisfy_it(path: Path) -> None:
    jsonschema.Draft202012Validator(json_schema("policy")).validate(values(path))


@pytest.mark.parametrize("path", sorted(SITES), ids=lambda path: path.stem)
def test_good_sites_satisfy_it(path: Path) -> None:
    jsonschema.Draft202012Validator(json_schema("sidecar")).validate(values(path))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_good_policy_tests_satisfy_it(path: Path) -> None:
    jsonschema.Draft202012Validator(json_schema("tests")).validate(values(path))


@pytest.mark.parametrize(
    "name",
    [
        "policy-unknown-key",
        "policy-unknown-key-in-row",
        "policy-empty-value",
        "policy-bare-number-duration",
        "policy-bare-number-size",
        "policy-missing-then",
        "policy-unknown-verb",
        "policy-yes-is-text",
        "site-unknown-key",
        "site-bare-port",
        "site-upstream-without-origin",
        "tests-unknown-key",
        "tests-unknown-expectation",
        "tests-no-cases",
        "tests-no-method",
        "tests-unknown-reason",
        "tests-unknown-failure",
        "tests-status-class",
        "tests-bare-number-wait",
        "tests-header-list",
        "tests-path-with-query",
    ],
)
def test_mistakes_of_single_values_do_not(name: str) -> None:
    kind = {"policy": "policy", "site": "sidecar", "tests": "tests"}[name.partition("-")[0]]
    validator = jsonschema.Draft202012Validator(json_schema(kind))
    assert not validator.is_valid(values(HERE / "bad" / f"{name}.yaml"))


def test_the_reference_in_the_docs_is_made_from_the_models() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert rewritten(page) == page, "run: python -m sidecar.config.show.reference docs/configuration.md"
