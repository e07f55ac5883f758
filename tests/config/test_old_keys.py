"""Keys that have a better name by now: the old one is read as before, and `check` names the new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.load import load_policy
from sidecar.config.text.problems import Code, ConfigError

OLD = "breaker: {failures: 0.25, of_at_least: 7, within: 3s}\nbudget: {floor: 120/m}\n"
NEW = "breaker: {failure_ratio: 0.25, min_requests: 7, window: 3s}\nbudget: {min_per_second: 2}\n"
ROWS = "table: [{status: 5xx, then: retry}]\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text + ROWS, encoding="utf-8")
    return path


def test_an_old_name_means_what_the_new_one_means(tmp_path: Path) -> None:
    old = load_policy(written(tmp_path, OLD))
    new = load_policy(written(tmp_path, NEW))
    assert (old.policy.breaker, old.policy.budget) == (new.policy.breaker, new.policy.budget)
    assert old.policy.breaker.failures == 0.25
    assert old.policy.budget.floor_per_second == 2.0


def test_each_old_name_is_one_warning_at_its_place_that_names_the_new_one(tmp_path: Path) -> None:
    warnings = load_policy(written(tmp_path, OLD)).warnings
    assert [(each.code, each.line) for each in warnings] == [(Code.OLD_KEY, 1)] * 3 + [(Code.OLD_KEY, 2)]
    said = " ".join(each.message for each in warnings)
    assert all(f"`{name}`" in said for name in ("failure_ratio", "min_requests", "window", "min_per_second"))
    assert not load_policy(written(tmp_path, NEW)).warnings


def test_both_names_at_once_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load_policy(written(tmp_path, "budget: {floor: 1/s, min_per_second: 2}\n"))
    assert [each.code for each in raised.value.problems] == [Code.REPEATED_KEY]
