"""The admin token: where it may come from, and what is wrong when it cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.admin.token import TokenError, read_token


def test_there_may_be_none() -> None:
    assert read_token({}) is None
    assert read_token({"SIDECAR_ADMIN_TOKEN": ""}) is None


def test_it_comes_from_the_environment_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    assert read_token({"SIDECAR_ADMIN_TOKEN": " from-env "}) == "from-env"
    assert read_token({"SIDECAR_ADMIN_TOKEN_FILE": str(file)}) == "from-file"


def test_what_cannot_be_used_is_said_without_showing_it(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_bytes(b"\n")
    binary.write_bytes(b"\xff\xfe")
    for environ, complaint in (
        ({"SIDECAR_ADMIN_TOKEN": "SECRET", "SIDECAR_ADMIN_TOKEN_FILE": "x"}, "keep one"),
        ({"SIDECAR_ADMIN_TOKEN_FILE": str(tmp_path / "nowhere")}, "No such file"),
        ({"SIDECAR_ADMIN_TOKEN_FILE": str(empty)}, "is empty"),
        ({"SIDECAR_ADMIN_TOKEN_FILE": str(binary)}, "not text"),
        ({"SIDECAR_ADMIN_TOKEN": "SECRETö"}, "printable ASCII"),
        ({"SIDECAR_ADMIN_TOKEN": "SECRET\nX: y"}, "printable ASCII"),
    ):
        with pytest.raises(TokenError, match=complaint) as caught:
            read_token(environ)
        assert "SECRET" not in str(caught.value)
