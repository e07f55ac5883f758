"""The page at ``/``: one HTML file that loads nothing from anywhere.

Its policy allows exactly its own style and script, by their hashes (CSP level 3), and requests to this port alone. It
is read once, when the port opens. Counterpart: ``page.html``.
"""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from aiohttp import web

__all__ = ["Page"]

_FILE = Path(__file__).with_name("page.html")


class Page:
    def __init__(self) -> None:
        self._text = _FILE.read_text(encoding="utf-8")
        self._policy = "; ".join(
            (
                "default-src 'none'",
                f"style-src {_hashes('style', self._text)}",
                f"script-src {_hashes('script', self._text)}",
                "connect-src 'self'",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            )
        )

    async def show(self, _request: web.Request) -> web.Response:
        return web.Response(
            text=self._text, content_type="text/html", headers={"Content-Security-Policy": self._policy}
        )


def _hashes(tag: str, html: str) -> str:
    contents = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in contents)
