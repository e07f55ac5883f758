"""An app on aiohttp; a second argument makes it read the proxy variables."""

from __future__ import annotations

import asyncio
import sys

import aiohttp


async def main(url: str, *, trust_env: bool) -> bool:
    async with aiohttp.ClientSession(trust_env=trust_env) as session, session.get(url) as answer:
        print(answer.status, await answer.text())
        return answer.ok


sys.exit(not asyncio.run(main(sys.argv[1], trust_env=len(sys.argv) > 2)))
