"""``sidecar simulate``: a table, a page that needs nothing else, pictures, numbers; a sentence for every mistake."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sidecar.cli.main import main


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["simulate", *arguments])


def test_the_table_sets_the_sides_beside_each_other() -> None:
    result = simulate("--upstream-model", "outage", "--seconds", "9", "--rate", "50")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert [line[11:40].strip() for line in lines[2:]] == [
        "sidecar",
        "fixed retries, no budget",
        "fixed retries, 20 % budget",
    ]


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert simulate("--upstream-model", "quota", "--upstream-model", "outage", "--html", str(page)).exit_code == 0
    text = page.read_text()
    assert text.count("<svg") == 2 * 3 * 3
    assert "http://" not in text
    assert "https://" not in text
    assert "<script" not in text
    assert "nan" not in text


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    assert simulate("--upstream-model", "flaky", "--png", str(picture)).exit_code == 0
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert width > height > 100


def test_the_numbers_are_json_with_every_series() -> None:
    result = simulate("--upstream-model", "outage", "--against", "none", "--json", "-")
    assert result.exit_code == 0
    (found,) = json.loads(result.stdout)
    assert found["figures"]["ok_share"] == 1
    assert sum(found["offered"]) == found["figures"]["requests"] == 3000
    assert sum(found["succeeded"]) == 3000


def test_several_policies_stand_side_by_side(tmp_path: Path) -> None:
    hasty = tmp_path / "hasty.yaml"
    hasty.write_text("extends: default\nattempts: 2\n")
    result = simulate("--upstream-model", "flaky", "--policy", "default", "--policy", str(hasty), "--against", "none")
    assert result.exit_code == 0, result.output
    assert "sidecar, default" in result.output
    assert "sidecar, hasty" in result.output


def test_many_sidecars_run_with_and_without_sharing() -> None:
    result = simulate(
        "--upstream-model", "quota", "--clients", "200", "--rate", "60", "--seconds", "5", "--against", "none"
    )
    assert "200 each alone" in result.output
    assert "200 sharing" in result.output


def test_a_file_may_describe_a_storm_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "deploy.json"
    path.write_text('{"model": "outage", "parameters": {"begins": 1, "ends": 2}, "rate": 50, "seconds": 4}')
    result = simulate("--upstream-model", str(path), "--against", "none")
    assert result.exit_code == 0, result.output
    assert "deploy" in result.output


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[]", 'needs a "model"'),
        ('{"model": "fog"}', 'needs a "model"'),
        ('{"model": "outage", "speed": 1}', 'has no "speed"'),
        ('{"model": "outage", "parameters": {"burst": 1}}', 'has no "burst"'),
        ('{"model": "outage", "parameters": []}', '"parameters" is an object'),
        ('{"model": "quota", "parameters": {"style": "morse"}}', '"style" is one of'),
        ('{"model": "outage", "rate": "fast"}', '"rate" is a number'),
        ('{"model": "outage", "rate": 0}', '"rate" is more than 0'),
        ('{"model": "outage", "rate": 1e300}', '"rate" is a number'),
        ('{"model": "flaky", "workers": 1.5}', '"workers" is a whole number'),
    ],
)
def test_a_file_that_describes_none_is_told_so(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "storm.json"
    path.write_text(text)
    result = simulate("--upstream-model", str(path))
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


def test_an_unknown_storm_and_an_unknown_policy_are_told_by_name() -> None:
    unknown = simulate("--upstream-model", "fog")
    assert unknown.exit_code == 2
    assert "fog" in unknown.output
    assert simulate("--policy", "no-such-policy").exit_code == 78


def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    result = simulate("--upstream-model", "flaky", "--html", str(tmp_path / "no" / "page.html"))
    assert result.exit_code == 1
    assert "cannot be written" in result.output
