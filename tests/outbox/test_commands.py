"""``sidecar outbox``: what it shows, what it never shows, what it changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sidecar.cli.main import main
from sidecar.core.settings.deployment import OutboxRule
from sidecar.outbox.items import Item
from sidecar.outbox.sqlite import SqliteOutbox

FIELDS = (
    b"Host: a.example\r\nAuthorization: Bearer s3cr3t\r\nCookie: sid=s3cr3t\r\nX-Api-Key: s3cr3t\r\n"
    b"X-Idempotency-Key: k-1\r\nX-Evil: \x1b[2J\r\n"
)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = str(tmp_path / "outbox.db")
    outbox_file = SqliteOutbox.open(path)
    for name, upstream in (("a", "api"), ("b", "api"), ("c", "other")):
        outbox_file.add(
            Item(name * 32, upstream, "POST", "/v1/x?token=s3cr3t", FIELDS, b"the body", 1000.0), OutboxRule(path)
        )
    outbox_file.mark_dead("b" * 32, "not_retryable", 422, "422", 2000.0)
    outbox_file.close()
    return path


def run(file: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["outbox", "--file", file, *arguments], catch_exceptions=False)


def test_list_tells_each_request_and_the_totals(file: str) -> None:
    result = run(file, "list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["a" * 32, "waiting"], ["b" * 32, "dead"], ["c" * 32, "waiting"]]
    assert "not_retryable 422" in lines[1]
    assert result.stderr.startswith("2 waiting, 1 dead, ")
    assert "s3cr3t" not in result.output


def test_list_narrows_and_speaks_json(file: str) -> None:
    assert [json.loads(line)["stored"] for line in run(file, "list", "--format", "json").stdout.splitlines()] == [
        name * 32 for name in "abc"
    ]
    assert run(file, "list", "--dead").stdout.startswith("b" * 32)
    assert run(file, "list", "--upstream", "other").stdout.startswith("c" * 32)


def test_show_hides_credentials_and_steers_no_terminal(file: str) -> None:
    result = run(file, "show", "a" * 32)
    assert result.exit_code == 0
    assert "X-Idempotency-Key: k-1" in result.output
    assert "Authorization: [redacted]" in result.output
    assert "s3cr3t" not in result.output
    assert "\x1b" not in result.output
    assert "the body" not in result.output
    assert run(file, "show", "a" * 32, "--body").output.endswith("the body")


def test_retry_puts_a_dead_letter_back_and_only_that(file: str) -> None:
    assert run(file, "retry", "b" * 32).exit_code == 0
    outbox_file = SqliteOutbox.open(file)
    found = outbox_file.find("b" * 32)
    assert found is not None
    assert found.dead_at is None
    outbox_file.close()
    again = run(file, "retry", "b" * 32)
    assert (again.exit_code, "was not dead" in again.output) == (1, True)


def test_drop_forgets(file: str) -> None:
    assert run(file, "drop", "--dead").output == f"{'b' * 32} dropped\n"
    assert run(file, "drop", "a" * 32).exit_code == 0
    outbox_file = SqliteOutbox.open(file)
    assert outbox_file.ids() == ["c" * 32]
    outbox_file.close()


@pytest.mark.parametrize("arguments", [["drop"], ["retry"], ["drop", "--dead", "a"]])
def test_what_is_meant_must_be_named(file: str, arguments: list[str]) -> None:
    assert run(file, *arguments).exit_code == 2


def test_an_unknown_receipt_is_said_in_a_sentence(file: str) -> None:
    result = run(file, "show", "x\x1b")
    assert result.exit_code == 1
    assert result.output.startswith("Error: there is no x\\x1b in the outbox")


def test_the_file_is_found_through_the_configuration(tmp_path: Path, file: str) -> None:
    config = tmp_path / "sidecar.yaml"
    config.write_text("outbox: {file: outbox.db}\n")
    result = CliRunner().invoke(main, ["outbox", "-c", str(config), "list"])
    assert result.stdout.startswith("a" * 32)
    config.write_text("listen: 127.0.0.1:0\n")
    result = CliRunner().invoke(main, ["outbox", "-c", str(config), "list"])
    assert (result.exit_code, "has no `outbox`" in result.output) == (1, True)


def test_a_damaged_file_is_said_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    path.write_bytes(b"x" * 10_000)
    result = run(str(path), "list")
    assert result.exit_code == 1
    assert "is damaged" in result.output
    assert "Traceback" not in result.output
