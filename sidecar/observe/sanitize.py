"""Foreign text made fit to be shown: one line, no control character, bounded, no credential in a URL.

Every text that came over a network passes here before it is logged or shown (CWE-117, CWE-532). It never raises,
whatever the text. Counterpart: ``fields``, which knows the bound of each field.
"""

from __future__ import annotations

import re

__all__ = ["clean", "clean_message", "clean_path"]

PATH_LIMIT = 2048

# The search is bounded by the cut before it, so that a long message cannot cost more than a short one.
_URL = re.compile(r"\b(https?|wss?)://([^\s\"'<>]*)", re.IGNORECASE)


def clean(text: str, limit: int) -> str:
    """``text`` with everything unprintable escaped, cut after ``limit`` characters with an ellipsis.

    Escaped are control characters, line separators, direction overrides and lone surrogates, in Python's
    notation (``\\x1b``).
    """
    if len(text) > limit:
        text = text[:limit] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def clean_path(path: str) -> str:
    """A path for showing: without query and fragment, cut after 2 KiB."""
    return clean(path.partition("?")[0].partition("#")[0], PATH_LIMIT)


def clean_message(text: str, limit: int) -> str:
    """An upstream's message for showing: URLs in it lose user-info, query and fragment."""
    return clean(_URL.sub(_bare_url, text[: limit + 1]), limit)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _bare_url(match: re.Match[str]) -> str:
    rest = match[2].partition("?")[0].partition("#")[0]
    authority, slash, path = rest.partition("/")
    return f"{match[1]}://{authority.rpartition('@')[2]}{slash}{path}"
