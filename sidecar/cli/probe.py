"""``python -m sidecar.cli.probe``: ``sidecar health`` for a container's health check, which runs every few seconds.

It imports a socket and little else, so that a check costs some 30 ms of a core and not 150. Same exit codes, same line.
The admin address is that of ``SIDECAR_ADMIN``, else of the file that every verb takes (``site``), else the default.
Only the one line of the file that names it is read; any other spelling is left to the real loader. Counterpart:
``sidecar.admin``.
"""

from __future__ import annotations

import os
import socket
import sys
import time

__all__ = ["DEFAULT_ADMIN", "NotHttp", "admin_line", "ask", "main", "reachable", "site", "split", "why"]

DEFAULT_ADMIN = "127.0.0.1:9180"
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - listening there means: ask on loopback
_MOST_BYTES = 8192
_TIMEOUT_SECONDS = 2.0


class NotHttp(Exception):
    """The answer was not HTTP."""


def main() -> int:
    """0 if it lives, else 1 with one line that says why; 2 if the address cannot be read here."""
    try:
        written = os.environ.get("SIDECAR_ADMIN") or admin_line(site())
        host, port = split(written or DEFAULT_ADMIN)
    except (OSError, ValueError):
        # Beyond this small reader: the command reads the file as `serve` does, and says what is wrong with it.
        os.execv(sys.executable, [sys.executable, "-m", "sidecar", "health"])  # noqa: S606 - this interpreter
    try:
        status, text = ask(reachable(host), port, "/livez", _TIMEOUT_SECONDS)
    except (OSError, NotHttp) as error:
        status, text = 0, f"no answer from http://{host}:{port}/livez: {why(error)}"
    sys.stdout.write(f"{text}\n")
    return 0 if status == 200 else 1


def site() -> str | None:
    """As ``config.text.files.default_site``, which costs more to import than all of this: ``SIDECAR_CONFIG``, else
    ``sidecar.yaml`` here, else None.
    """
    return os.environ.get("SIDECAR_CONFIG") or ("sidecar.yaml" if os.path.isfile("sidecar.yaml") else None)


def admin_line(path: str | None) -> str | None:
    """The top-level key ``admin``, if it is written in one plain line; None where the file has none.

    OSError: there is no such file. ValueError: it may be written in another form.
    """
    if not path:
        return None
    found = None
    with open(path, encoding="utf-8") as file:  # pathlib costs as much as all the rest
        for line in file:
            if line.startswith("admin:"):
                found = line[len("admin:") :].partition(" #")[0].strip().strip("\"'")
            elif line.lstrip().startswith(("{", '"admin"', "'admin'", "? ")):
                raise ValueError(path)
    return found


def split(address: str) -> tuple[str, int]:
    """``HOST:PORT``, an IPv6 address in brackets. ValueError for anything else."""
    host, colon, digits = address.rpartition(":")
    if not colon or not digits.isascii() or not digits.isdigit() or not 0 < int(digits) < 65536:
        raise ValueError(address)
    if host.startswith("[") != host.endswith("]") or (":" in host and not host.startswith("[")):
        raise ValueError(address)
    host = host.strip("[]")
    if not host or any(character.isspace() or character in "/@[]{}&*!|>" for character in host):
        raise ValueError(address)
    return host, int(digits)


def reachable(host: str) -> str:
    """The address to ask where a sidecar listens on every address."""
    return _WILDCARDS.get(host, host)


def ask(host: str, port: int, path: str, timeout_seconds: float) -> tuple[int, str]:
    """Status and text (one line) of a GET. Raises OSError, ``NotHttp``; bounded by ``timeout_seconds``."""
    until = time.monotonic() + timeout_seconds
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    received = b""
    with socket.create_connection((host, port), timeout_seconds) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {place}\r\n\r\n".encode("ascii", "replace"))
        while len(received) < _MOST_BYTES:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
            piece = connection.recv(_MOST_BYTES)
            if not piece:
                break
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(b" ", 2)
    if not words[0].startswith(b"HTTP/1.") or len(words) < 2 or len(words[1]) != 3 or not words[1].isdigit():
        raise NotHttp
    return int(words[1]), " · ".join(body.decode("utf-8", "backslashreplace").split("\n")).strip(" ·")


def why(error: Exception) -> str:
    """In words."""
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "not an HTTP answer"


if __name__ == "__main__":
    sys.exit(main())
