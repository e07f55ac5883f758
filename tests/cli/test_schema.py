"""``sidecar schema`` prints a JSON Schema that a validator takes."""

from __future__ import annotations

import json

import jsonschema  # type: ignore[import-untyped,unused-ignore]
import pytest
from click.testing import CliRunner

from sidecar.cli.main import main


@pytest.mark.parametrize("arguments", [[], ["policy"], ["sidecar"], ["tests"]])
def test_it_prints_a_schema(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, ["schema", *arguments])
    assert result.exit_code == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(result.output))


def test_another_name_is_a_matter_of_usage() -> None:
    assert CliRunner().invoke(main, ["schema", "other"]).exit_code == 2
