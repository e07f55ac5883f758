"""``sidecar diff``: two configurations as files, in one command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sidecar.cli.main import main

SHIPPED = Path(__file__).resolve().parents[2] / "config"
SITE = "listen: 127.0.0.1:8080\nupstreams:\n  - {name: api, origin: 'http://127.0.0.1:1', mount: /api, policy: own}\n"
OWN = "extends: default\nattempts: 3\n"
CASES = """policy: own
cases:
  - {name: a 503 is sent again, request: {method: GET}, answers: [{status: 503}], expect: {decision: retry}}
"""
EXCHANGE = {
    "request_id": "r-1",
    "upstream": "api",
    "method": "GET",
    "path": "/api/v1/x",
    "attempts": [{"n": 1, "status": 503, "seconds": 0.1}, {"n": 2, "status": 200, "waited": 7.0, "from": "hint"}],
}


def write(folder: Path, site: str = SITE, own: str = OWN) -> Path:
    (folder / "policies" / "tests").mkdir(parents=True)
    (folder / "sidecar.yaml").write_text(site)
    (folder / "policies" / "own.yaml").write_text(own)
    return folder


def diff(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["diff", *map(str, words)])


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return write(tmp_path / "old")


def test_a_copy_is_the_same(old: Path, tmp_path: Path) -> None:
    shutil.copytree(old, tmp_path / "copy")
    for new in (old, tmp_path / "copy", tmp_path / "copy" / "sidecar.yaml"):
        result = diff(old, new)
        assert (result.exit_code, result.output) == (0, "the same: no setting differs\n")


def test_it_says_what_is_different(old: Path, tmp_path: Path) -> None:
    site = SITE.replace("8080", "8081") + "  - {name: new, origin: 'http://127.0.0.1:2', mount: /new}\n"
    new = write(tmp_path / "new", site, OWN + "table:\n  - {status: 503, then: pass}\n")
    (old / "policies" / "tests" / "own.yaml").write_text(CASES)
    result = diff(old, new)
    assert result.exit_code == 1
    said = result.output
    assert "  listen " in said
    assert "127.0.0.1:8080 → 127.0.0.1:8081  (needs a restart)" in said
    assert "+ {status: 503, then: pass}" in said
    assert "upstreams.new.origin" in said
    assert "+ upstream new" in said
    assert "  api  GET HEAD PUT DELETE  503\n    old  retry, wait 0 … 0.25 s, backoff, 2 left  [own, " in said
    assert "own.yaml:3 a 503 is sent again" in said
    assert said.endswith("needs a restart to take effect: listen\n")


def test_two_policies_are_compared_whatever_their_names(old: Path, tmp_path: Path) -> None:
    new = tmp_path / "other.yaml"
    new.write_text((SHIPPED / "policies" / "default.yaml").read_text())
    result = diff(SHIPPED / "policies" / "default.yaml", new)
    assert (result.exit_code, result.output.startswith("the same: no setting differs, and ")) == (0, True)
    result = diff(new, old / "policies" / "own.yaml")
    assert result.exit_code == 1
    assert "attempts" in result.output
    assert diff(old, new).exit_code == 2


def test_exchanges_of_a_log_a_report_and_the_admin_port_are_judged(old: Path, tmp_path: Path) -> None:
    new = write(tmp_path / "new", own=OWN + "max_wait: 5s\n")
    files = {
        "ring.json": json.dumps({"kept": 500, "exchanges": [EXCHANGE]}),
        "report.json": json.dumps(EXCHANGE | {"request": {}, "answer": {}}),
        "log.jsonl": json.dumps({"event": "started"}) + "\n" + json.dumps(EXCHANGE) + "\nno JSON\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        result = diff(old, new, "--exchanges", tmp_path / name, "--format", "json")
        assert result.exit_code == 1, result.output
        (told,) = json.loads(result.stdout)["situations"]["different"]
        assert (told["name"], told["answer"]) == ("exchange r-1", 1)
        assert told["old"]["wait"]["from"] == "hint"
        assert told["new"]["reason"] == "wait_too_long"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"exchanges": 5}',
        '{"attempts": 5}',
        '{"attempts": [{"status": "x"}], "path": "http://["}',
        '{"attempts": [null]}',
        '{"attempts": [{"status": 1e400}]}',
        '[{"attempts": [{"n": 1}], "upstream": []}]',
    ],
)
def test_a_file_of_something_else_is_no_traceback(old: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    result = diff(old, old, "--exchanges", tmp_path / "x.json")
    assert result.exit_code in (0, 2)
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "exchange" in result.output


def test_what_cannot_be_read_is_a_sentence(old: Path, tmp_path: Path) -> None:
    assert diff(old, tmp_path / "nowhere.yaml").exit_code == 78
    assert diff(old, old, "--exchanges", tmp_path / "nowhere").exit_code == 2
    tests = old / "policies" / "tests" / "own.yaml"
    tests.write_text(CASES)
    assert diff(old, tests).exit_code == 2
    tests.write_text("policy: own\ncases: 5\n")
    result = diff(old, old)
    assert result.exit_code == 0
    assert "are left out" in result.output


def test_five_hundred_rows_are_quick(old: Path, tmp_path: Path) -> None:
    rows = [f"  - {{status: 429, when: {{body: /code, equals: c{n}}}, then: pass}}\n" for n in range(500)]
    old = write(tmp_path / "a", own=OWN + "table:\n" + "".join(rows))
    new = write(tmp_path / "b", own=OWN + "table:\n" + "".join(rows[1:]))
    result = diff(old, new)
    assert "- {status: 429, when: [{body: /code, equals: c0}], then: pass}" in result.output
    assert result.output.count("given") == 0
    assert "429 with body /code is `c0`" in result.output
