"""Addresses, origins, host names, mounts and path patterns: text → values, refused with a reason.

Nothing is resolved or opened here. Used by ``site``. Counterpart: ``proxy.routing.router``, which reads request
targets.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal, NamedTuple, cast
from urllib.parse import SplitResult, urlsplit

from sidecar.config.schema.fields import clip, kind_of, refuse
from sidecar.config.text.problems import Code
from sidecar.core.settings.deployment import Address, Origin

__all__ = [
    "HostPort",
    "compile_path",
    "judge_path",
    "parse_address",
    "parse_host",
    "parse_mount",
    "parse_origin",
    "parse_path",
]

_LABELS = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*\.?")
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()+,;=:@%*-]*)+")
"""RFC 3986 section 3.3, with ``*`` as the wildcard."""
_ANY_SEGMENTS = "(?:/[^/]*+)"
_ENDS = r"(?=/|\Z)"
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class HostPort(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(value: object) -> Address:
    """``127.0.0.1:8080``, ``[::1]:8080``, ``localhost:0``."""
    if isinstance(value, Address):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        raise refuse(Code.BAD_VALUE, f"`{value}` names no host", f"write `127.0.0.1:{value}`")
    text = _text(value, "an address")
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit():
        tail = text.lstrip(":") if text.lstrip(":").isdigit() else "8080"
        raise refuse(
            Code.BAD_VALUE, f"`{clip(text)}` is not HOST:PORT", f"write it as `127.0.0.1:{tail}` or `[::1]:{tail}`"
        )
    if len(port) > 5 or int(port) > 65535:
        raise refuse(Code.OUT_OF_RANGE, f"the port {clip(port)} is above 65535")
    return Address(_bare_host(host), int(port))


def parse_origin(value: object) -> Origin:
    """``https://host[:port][/base]``; no user, query or fragment."""
    if isinstance(value, Origin):
        return value
    text = _text(value, "an origin")
    if not text.startswith(("http://", "https://")):
        bare = text.split("://")[-1]
        raise refuse(
            Code.BAD_VALUE,
            f"`{clip(text)}` does not begin with `http://` or `https://`",
            f"write `https://{clip(bare)}`",
        )
    parts = _split(text)
    _refuse_extras(parts, text)
    scheme = cast(Literal["http", "https"], parts.scheme)
    try:
        port = parts.port
    except ValueError:
        raise refuse(Code.OUT_OF_RANGE, f"the port of `{clip(text)}` is not a number up to 65535") from None
    if port == 0:
        raise refuse(Code.OUT_OF_RANGE, "nothing listens on port 0")
    host = parts.netloc if port is None else parts.netloc.rpartition(":")[0]
    base = parts.path.rstrip("/")
    if base:
        judge_path(base, "a base path")
    return Origin(scheme, _bare_host(host), port or (443 if scheme == "https" else 80), base)


def _split(text: str) -> SplitResult:
    if any(c.isspace() or not c.isprintable() or c == "\\" for c in text):
        raise refuse(Code.BAD_VALUE, "an origin holds no spaces or backslashes")
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise refuse(Code.BAD_VALUE, f"`{clip(text)}` is not an address: {error}") from None
    if parts.netloc.endswith(":"):
        raise refuse(Code.BAD_VALUE, f"`{clip(text)}` has a colon and no port")
    return parts


def _refuse_extras(parts: SplitResult, text: str) -> None:
    if "@" in parts.netloc:
        raise refuse(
            Code.BAD_VALUE,
            "an origin carries no user or password",
            "credentials do not belong into this file; the app's own headers are sent on as they are",
        )
    if "?" in text or "#" in text:
        raise refuse(Code.BAD_VALUE, "an origin has no query and no fragment", "end it before `?` or `#`")


def parse_host(value: object) -> str:
    """A name as it stands in ``http://NAME/``; a port belongs to it only if requests carry one."""
    text = _text(value, "a host name")
    if "://" in text or "/" in text:
        bare = text.split("://")[-1].split("/")[0]
        raise refuse(Code.BAD_VALUE, f"`{clip(text)}` is more than a host name", f"write `{clip(bare)}`")
    if text != text.lower():
        raise refuse(Code.BAD_VALUE, f"`{clip(text)}` has capitals", f"write `{clip(text.lower())}`")
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return _bracketed(_bare_host(text))
    if not port.isascii() or not port.isdigit() or len(port) > 5 or not 0 < int(port) < 65536:
        raise refuse(Code.BAD_VALUE, f"`{clip(port)}` is not a port", "IPv6 addresses stand in brackets")
    return f"{_bracketed(_bare_host(host))}:{port}"


def parse_mount(value: object) -> str:
    """``/name``: begins with a slash and does not end with one; ``/`` alone is everything."""
    text = _text(value, "a mount")
    if text == "/":
        return text
    if not text.startswith("/"):
        raise refuse(Code.BAD_VALUE, "a mount begins with a slash", f"write `/{clip(text)}`")
    if text.endswith("/"):
        raise refuse(Code.BAD_VALUE, "a mount does not end with a slash", f"write `{clip(text.rstrip('/') or '/')}`")
    judge_path(text, "a mount")
    if "*" in text:
        raise refuse(Code.BAD_VALUE, "a mount has no wildcard", "patterns belong to `routes`")
    return text


def parse_path(value: object) -> str:
    """A path pattern: ``*`` is one segment, ``**`` any number."""
    text = _text(value, "a path pattern")
    if not text.startswith("/"):
        raise refuse(Code.BAD_VALUE, "a path begins with a slash", f"write `/{clip(text)}`")
    judge_path(text, "a path pattern")
    if any("**" in segment and segment != "**" for segment in text.split("/")):
        raise refuse(Code.BAD_VALUE, "`**` stands alone between slashes", "as in `/v1/**` or `/**/status`")
    if text.count("**") > 4:
        raise refuse(Code.BAD_VALUE, "more than four `**` in one path", "write several routes")
    return text


def compile_path(path: str) -> re.Pattern[str]:
    """``/v1/**`` -> a pattern to be matched in full; ``/v1`` itself and ``/v1/`` match it too.

    Greedy wildcard matching (R. Cox, "Glob Matching Can Be Simple And Fast Too", 2017): what stands between two
    wildcards is taken where it comes first, and never elsewhere. So no wildcard is tried twice (atomic groups), and a
    path costs at most its length times the pattern's, whatever it is.
    """
    first, *others = ["".join(map(_segment, block)) for block in _blocks(path)]
    if not others:
        return re.compile(first)
    *middle, last = others
    return re.compile(first + "".join(f"(?>{_ANY_SEGMENTS}*?{block})" for block in middle) + f"{_ANY_SEGMENTS}*{last}")


def _blocks(path: str) -> list[list[str]]:
    """The segments between each ``**`` and the next."""
    blocks: list[list[str]] = [[]]
    for segment in path.split("/")[1:]:
        if segment == "**":
            blocks.append([])
        else:
            blocks[-1].append(segment)
    return blocks


def _segment(written: str) -> str:
    """One segment with its slash; ``*`` is any text in it, and on its own at least one character."""
    if written == "*":
        return "/[^/]++"
    first, *others = map(re.escape, written.split("*"))
    if not others:
        return f"/{first}{_ENDS}"
    *middle, last = others
    return f"/{first}" + "".join(f"(?>[^/]*?{part})" for part in middle) + f"[^/]*{last}{_ENDS}"


def judge_path(text: str, what: str) -> None:
    """Refuse a text that is no path of a URL, percent-encoded and without dot segments."""
    if not _PATH.fullmatch(text) or _BAD_ESCAPE.search(text):
        raise refuse(
            Code.BAD_VALUE, f"`{clip(text)}` cannot be {what}", "a path as it stands in a URL, percent-encoded"
        )
    segments = text.split("/")[1:]
    if "." in segments or ".." in segments:
        raise refuse(Code.BAD_VALUE, f"`{clip(text)}` has a `.` or `..` segment", "write the path out")
    if "" in segments[:-1]:
        raise refuse(Code.BAD_VALUE, f"`{clip(text)}` has an empty segment (`//`)", "write one slash")


def _bare_host(text: str) -> str:
    """A host name or address, judged; brackets of IPv6 removed."""
    if text.startswith("[") and text.endswith("]"):
        return _judge_ip(text[1:-1], text)
    if ":" in text:
        raise refuse(Code.BAD_VALUE, f"`{clip(text)}` has too many colons", "IPv6 stands in brackets: `[::1]`")
    host = text.lower()
    if not host.isascii():
        raise refuse(Code.BAD_VALUE, f"`{clip(text)}` is not ASCII", _punycode(host))
    if not _LABELS.fullmatch(host) or len(host) > 253:
        raise refuse(Code.BAD_VALUE, f"`{clip(text)}` is not a host name or address")
    if re.fullmatch(r"[0-9.]+", host):
        return _judge_ip(host, text)
    return host


def _judge_ip(address: str, text: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        raise refuse(Code.BAD_VALUE, f"`{clip(text)}` is not an IP address") from None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _punycode(host: str) -> str:
    try:
        return f"write `{host.encode('idna').decode('ascii')}`"
    except UnicodeError:
        return "write its punycode form (`xn--…`)"


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise refuse(Code.WRONG_TYPE, f"must be {what}, not {kind_of(value)}")
    return value
