"""Files for large bodies: lent, taken back, bounded in number and size."""

from __future__ import annotations

import os

import pytest

from sidecar.proxy.client.spool import KEPT_BYTES, KEPT_FILES, Spool


def test_a_file_that_was_given_back_is_lent_again() -> None:
    spool = Spool()
    first = spool.take()
    spool.give_back(first)
    assert spool.take() == first
    spool.give_back(first)
    spool.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first)


def test_a_large_file_gives_its_space_back() -> None:
    spool = Spool()
    file = spool.take()
    os.ftruncate(file, KEPT_BYTES * 2)
    spool.give_back(file)
    assert os.fstat(file).st_size == KEPT_BYTES
    spool.close()


def test_only_so_many_are_kept() -> None:
    spool = Spool()
    files = [spool.take() for _ in range(KEPT_FILES + 2)]
    for file in files:
        spool.give_back(file)
    for file in files[KEPT_FILES:]:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(file)
    spool.close()


def test_nobody_else_can_open_one() -> None:
    spool = Spool()
    file = spool.take()
    assert os.fstat(file).st_nlink == 0
    spool.give_back(file)
    spool.close()


def test_a_disk_that_takes_nothing_says_why_until_it_takes_something(monkeypatch: pytest.MonkeyPatch) -> None:
    spool, told = Spool(), list[str]()
    spool.on_trouble = told.append
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent-directory")
    spool.try_out()
    assert told == [spool.trouble] == ["No such file or directory"]
    monkeypatch.setattr("tempfile.tempdir", None)
    spool.try_out()
    assert spool.trouble == ""
    spool.close()
