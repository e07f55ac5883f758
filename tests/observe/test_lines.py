"""The output may block, fill up, break or be closed: the caller never notices, and every lost line is counted."""

from __future__ import annotations

import io
import os
import pty
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

from sidecar.observe.log_writer import LineWriter

LINE = b"x" * 99


@pytest.fixture
def pipe() -> Iterator[tuple[int, IO[str]]]:
    """The reading end, and the writing end as a text stream."""
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    yield reading, stream
    with suppress(OSError):
        os.close(reading)
    with suppress(OSError, ValueError):
        stream.close()


def read_all(descriptor: int) -> bytes:
    """Everything until the last writer has closed."""
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read()


def test_lines_arrive_whole_and_in_order(pipe: tuple[int, IO[str]]) -> None:
    reading, stream = pipe
    writer = LineWriter(stream)
    for number in range(1000):
        writer.write(b"%d" % number)
    writer.close(10)
    stream.close()
    assert read_all(reading).split() == [b"%d" % number for number in range(1000)]
    assert writer.dropped == 0


def test_a_pipe_that_nobody_reads_blocks_nobody_and_loses_are_counted(pipe: tuple[int, IO[str]]) -> None:
    reading, stream = pipe
    writer = LineWriter(stream, queue_bytes=10_000)
    for _ in range(5_000):  # half a megabyte: more than a pipe and the queue hold together
        writer.write(LINE)
    lost = writer.dropped
    assert 0 < lost < 5_000
    collected: list[bytes] = []
    reader = threading.Thread(target=lambda: collected.append(read_all(reading)))
    reader.start()
    writer.close(10)
    stream.close()
    reader.join(10)
    lines = collected[0].split(b"\n")[:-1]
    assert set(lines) == {LINE}
    assert len(lines) + writer.dropped == 5_000


def test_closing_before_a_stuck_output_takes_no_longer_than_allowed(pipe: tuple[int, IO[str]]) -> None:
    reading, stream = pipe
    writer = LineWriter(stream)
    for _ in range(5_000):
        writer.write(LINE)
    writer.close(0.05)
    writer.write(LINE)
    assert writer.dropped >= 1
    os.close(reading)  # lets the writing thread end


def test_a_reader_that_has_gone_away_is_counted_not_raised(pipe: tuple[int, IO[str]]) -> None:
    reading, stream = pipe
    os.close(reading)
    writer = LineWriter(stream)
    writer.write(LINE)
    writer.close(10)
    assert writer.dropped == 1


def test_a_full_disk_is_counted_not_raised() -> None:
    with open("/dev/full", "w") as stream:
        writer = LineWriter(stream)
        writer.write(LINE)
        writer.write(LINE)
        writer.close(10)
    assert writer.dropped == 2


def test_a_shared_file_that_somebody_made_non_blocking_loses_nothing(pipe: tuple[int, IO[str]]) -> None:
    reading, stream = pipe
    os.set_blocking(stream.fileno(), False)
    writer = LineWriter(stream)
    for _ in range(5_000):
        writer.write(LINE)
    collected: list[bytes] = []
    reader = threading.Thread(target=lambda: collected.append(read_all(reading)))
    reader.start()
    writer.close(10)
    stream.close()
    reader.join(10)
    assert collected[0] == (LINE + b"\n") * 5_000
    assert writer.dropped == 0


def test_a_line_after_a_broken_write_begins_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open("/dev/full", "w") as full, path.open("w") as good:
        writer = LineWriter(full)
        writer._put_out([b"torn"])
        assert writer._descriptor is not None
        os.dup2(good.fileno(), writer._descriptor)  # the disk has room again
        writer._put_out([b"next"])
        writer._put_out([b"last"])
        writer.close()
    assert path.read_bytes() == b"\nnext\nlast\n"
    assert writer.dropped == 1


def test_an_output_that_does_not_exist_takes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    writer = LineWriter(sys.stdout)
    writer.write(LINE)
    writer.close()
    assert writer.dropped == 1
    assert not writer.is_terminal


def test_a_closed_stream_takes_everything() -> None:
    stream = io.StringIO()
    stream.close()
    writer = LineWriter(stream)
    writer.write(LINE)
    assert writer.dropped == 1


def test_a_stream_in_memory_is_written_at_once() -> None:
    stream = io.StringIO()
    writer = LineWriter(stream)
    writer.write("größe".encode())
    assert stream.getvalue() == "größe\n"
    writer.close()
    writer.write(LINE)
    assert writer.dropped == 1


def test_the_stream_may_be_closed_by_others_without_harm(tmp_path: Path) -> None:
    path = tmp_path / "log"
    stream = path.open("w")
    writer = LineWriter(stream)
    stream.close()
    with (tmp_path / "other").open("w"):  # takes the number that the stream had
        writer.write(b"line")
        writer.close(10)
    assert path.read_bytes() == b"line\n"
    assert (tmp_path / "other").read_bytes() == b""


def test_a_terminal_is_recognised() -> None:
    parent, child = pty.openpty()
    with os.fdopen(child, "w") as stream:
        assert LineWriter(stream).is_terminal
    os.close(parent)
