"""What stands behind the sidecar for clients that want more than one page: an index, a repository, S3.

Each is a step for ``support.upstream``: one request in, one answer out.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.upstream import Connection, Received, Step, Upstream, say

HERE = Path(__file__).resolve().parent

__all__ = ["serving"]


@contextlib.asynccontextmanager
async def serving(service: str, upstream: Upstream, folder: Path) -> AsyncIterator[None]:
    """From now on ``upstream`` is that service, once its script is used up."""
    if service == "moto":
        async with _moto() as port:
            upstream.otherwise = lambda _: _relayed(port)
            yield
        return
    makers = {"plain": _plain, "index": _index, "git": _repository, "debian": _debian}
    step = makers[service](folder)
    upstream.otherwise = lambda _: step
    yield


def _plain(folder: Path) -> Step:
    return say(200, b"fine")


def _files(folder: Path) -> Step:
    """Files below ``folder``; a path that ends with a slash is its ``index.html``."""

    async def step(connection: Connection) -> None:
        request = await connection.read_request()
        name = request.target.lstrip("/").partition("?")[0]
        path = folder / (name + "index.html" if name.endswith("/") or not name else name)
        if path.is_file():
            kind = "text/html" if path.suffix == ".html" else "application/octet-stream"
            answer = say(200, path.read_bytes(), headers=[("Content-Type", kind)], read="nothing")
        else:
            answer = say(404, read="nothing")
        await answer(connection)

    return step


def _index(folder: Path) -> Step:
    """A simple index (PEP 503) with one wheel."""
    page = folder / "simple" / "demo"
    page.mkdir(parents=True)
    wheel = "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(page / wheel, "w") as archive:
        archive.writestr("demo.py", "")
        archive.writestr("demo-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
        archive.writestr("demo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nTag: py3-none-any\n")
        archive.writestr("demo-1.0.dist-info/RECORD", "")
    (page / "index.html").write_text(f'<!doctype html><a href="{wheel}">{wheel}</a>', encoding="ascii")
    return _files(folder)


def _debian(folder: Path) -> Step:
    """A flat repository without packages."""
    top = folder / "debian"
    top.mkdir()
    (top / "Packages").touch()
    empty = hashlib.sha256(b"").hexdigest()
    release = f"Origin: here\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {empty} 0 Packages\n"
    (top / "Release").write_text(release, encoding="ascii")
    return _files(folder)


def _repository(folder: Path) -> Step:
    """``git http-backend`` over a repository with one commit."""
    quiet = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b.example",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b.example",
    }
    for arguments in (["init", "--quiet", "work"], ["-C", "work", "commit", "--quiet", "--allow-empty", "-m", "one"]):
        subprocess.run(["git", *arguments], cwd=folder, env=quiet, check=True)
    subprocess.run(["git", "clone", "--quiet", "--bare", "work", "repo.git"], cwd=folder, env=quiet, check=True)

    async def step(connection: Connection) -> None:
        request = await connection.read_request()
        await _cgi(connection, request, quiet | {"GIT_PROJECT_ROOT": str(folder), "GIT_HTTP_EXPORT_ALL": "1"})

    return step


async def _cgi(connection: Connection, request: Received, environ: dict[str, str]) -> None:
    """RFC 3875, as far as ``git http-backend`` needs it."""
    path, _, query = request.target.partition("?")
    headers = request.headers
    environ |= {
        "REQUEST_METHOD": request.method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_TYPE": headers.get("Content-Type") or "",
        "HTTP_CONTENT_ENCODING": headers.get("Content-Encoding") or "",
        "GIT_PROTOCOL": headers.get("Git-Protocol") or "",
        "REMOTE_ADDR": "127.0.0.1",
    }
    child = await asyncio.create_subprocess_exec(
        "git", "http-backend", env=environ, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await child.communicate(bytes(request.body))
    head, _, body = output.partition(b"\r\n\r\n")
    fields = [tuple(line.split(": ", 1)) for line in head.decode("latin-1").splitlines()]
    status = next((int(value.split()[0]) for name, value in fields if name == "Status"), 200)
    await say(status, body, headers=[(n, v) for n, v in fields if n != "Status"], read="nothing")(connection)


@contextlib.asynccontextmanager
async def _moto() -> AsyncIterator[int]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "apps" / "moto_upstream.py"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(30):
            line = await child.stdout.readline()
        assert line, "moto's server did not start"
        yield int(line)
    finally:
        child.kill()
        await child.wait()


def _relayed(port: int) -> Step:
    """The request as it came, to another server on loopback; its answer back; then the connection ends."""

    async def step(connection: Connection) -> None:
        request = await connection.read_request()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = request.head[:-2] + b"Connection: close\r\n\r\n"
        writer.write(head + bytes(request.raw_body))
        await connection.send(await reader.read(-1))
        writer.close()
        await writer.wait_closed()
        connection.close()

    return step
