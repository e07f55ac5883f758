"""The fixed point of the quick check: the proxy that one writes in an hour with aiohttp.

``web.Application`` and ``ClientSession``, nothing else: no retry, no ids, no metrics. It stays as it is;
what changes is the sidecar's ratio to it. ``python -m benchmarks.bare PORT UPSTREAM_PORT``.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web

__all__ = ["application"]

SMALL_BYTES = 64 << 10
"""A response up to this is read whole before it is passed on, the cheaper way; a larger one is streamed."""
NOT_PASSED_ON = frozenset({"connection", "keep-alive", "transfer-encoding", "host", "date", "server"})

origin_key = web.AppKey("origin", str)
session_key = web.AppKey("session", aiohttp.ClientSession)


def application(origin: str) -> web.Application:
    app = web.Application(client_max_size=0)
    app[origin_key] = origin
    app.cleanup_ctx.append(_session)
    app.router.add_route("*", "/{path:.*}", _handle)
    return app


async def _session(app: web.Application) -> AsyncIterator[None]:
    connector = aiohttp.TCPConnector(limit=1000)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        app[session_key] = session
        yield


async def _handle(request: web.Request) -> web.StreamResponse:
    headers = {name: value for name, value in request.headers.items() if name.lower() not in NOT_PASSED_ON}
    body = request.content if request.can_read_body else None
    url = request.app[origin_key] + request.raw_path
    session = request.app[session_key]
    async with session.request(request.method, url, headers=headers, data=body, allow_redirects=False) as answer:
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in NOT_PASSED_ON}
        if answer.content_length is not None and answer.content_length <= SMALL_BYTES:
            return web.Response(status=answer.status, headers=kept, body=await answer.read())
        return await _stream(request, answer, kept)


async def _stream(request: web.Request, answer: aiohttp.ClientResponse, headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(request)
    async for chunk in answer.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


def main() -> None:
    port, upstream = int(sys.argv[1]), int(sys.argv[2])
    web.run_app(
        application(f"http://127.0.0.1:{upstream}"),
        host="127.0.0.1",
        port=port,
        access_log=None,
        print=lambda _: None,
        backlog=8192,
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main()
