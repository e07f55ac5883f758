"""The admin token: from ``SIDECAR_ADMIN_TOKEN``, or from the file that ``SIDECAR_ADMIN_TOKEN_FILE`` names.

It is never a flag (other users of a machine can read those) and never in the YAML. It is never shown. Counterpart:
``guard.authorise``, which compares it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["TokenError", "read_token"]

_LIMIT = 4096


class TokenError(ValueError):
    """The token cannot be used; the text says why."""


def read_token(environ: Mapping[str, str]) -> str | None:
    """The token without surrounding white space; None if none is set. Raises ``TokenError``."""
    name = environ.get("SIDECAR_ADMIN_TOKEN_FILE")
    text = environ.get("SIDECAR_ADMIN_TOKEN")
    if name and text:
        raise TokenError("SIDECAR_ADMIN_TOKEN and SIDECAR_ADMIN_TOKEN_FILE are both set; keep one.")
    token = (_from_file(Path(name)) if name else text or "").strip()
    if name and not token:
        raise TokenError(f"SIDECAR_ADMIN_TOKEN_FILE: {name} is empty; write the token into it.")
    if not token.isascii() or not token.isprintable():
        raise TokenError("The admin token must be printable ASCII: it travels in a header.")
    return token or None


def _from_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise TokenError(f"SIDECAR_ADMIN_TOKEN_FILE: cannot read {path}: {reason}.") from error
