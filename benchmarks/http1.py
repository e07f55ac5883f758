"""The little HTTP/1.1 that a load generator needs: a request as bytes, one answer out of a buffer.

Only what the peers and the upstream really send: a head, then ``Content-Length`` or chunks. Not a parser
for strangers; the sidecar's own is ``sidecar.wire``, and this must not depend on it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Answer", "get", "request_bytes", "take_answer", "wait_for_answer"]


@dataclass(frozen=True)
class Answer:
    status: int
    head: bytes
    """Lower case, from the status line to the blank line."""
    body: bytes

    def header(self, name: str) -> str:
        """The first value of a field; empty when it is absent."""
        _, found, rest = self.head.partition(b"\r\n" + name.lower().encode() + b":")
        return rest.partition(b"\r\n")[0].strip().decode("latin-1") if found else ""


def request_bytes(path: str, port: int, method: str = "GET", fields: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{fields}\r\n".encode()


def take_answer(buffer: bytearray) -> Answer | None:
    """The first whole answer, taken out of the buffer; None while it is not whole. ValueError without a length."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(buffer[: end + 2]).lower()
    if b"\r\ntransfer-encoding: chunked" in head:
        last = buffer.find(b"\r\n0\r\n\r\n", end + 2)
        if last < 0:
            return None
        stop = last + 7
    else:
        _, found, rest = head.partition(b"\r\ncontent-length:")
        if not found:
            raise ValueError(f"an answer without a length: {head[:200]!r}")
        stop = end + 4 + int(rest.partition(b"\r\n")[0])
        if len(buffer) < stop:
            return None
    answer = Answer(int(head[9:12]), head, bytes(buffer[end + 4 : stop]))
    del buffer[:stop]
    return answer


def get(path: str, port: int, timeout_seconds: float = 10.0) -> Answer:
    """One GET on a connection of its own. OSError when it cannot be had."""
    with socket.create_connection(("127.0.0.1", port), timeout_seconds) as connection:
        connection.sendall(request_bytes(path, port))
        buffer = bytearray()
        while (answer := take_answer(buffer)) is None:
            chunk = connection.recv(65536)
            if not chunk:
                raise ConnectionError("closed before the answer was whole")
            buffer += chunk
        return answer


def wait_for_answer(path: str, port: int, is_running: Callable[[], bool], limit_seconds: float = 30.0) -> float:
    """Tries every 2 ms until a GET is answered with 200; the moment (``perf_counter``) at which it was.

    TimeoutError after ``limit_seconds``, or as soon as ``is_running`` says no.
    """
    until = time.perf_counter() + limit_seconds
    while time.perf_counter() < until and is_running():
        try:
            if get(path, port, 1.0).status == 200:
                return time.perf_counter()
        except OSError:
            pass
        time.sleep(0.002)
    why = f"in {limit_seconds:g} s" if is_running() else "before it ended"
    raise TimeoutError(f"port {port} did not answer GET {path} with 200 {why}")
