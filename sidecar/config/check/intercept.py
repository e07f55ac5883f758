"""The block ``intercept``: whether the files that it names exist, and what must be done before.

``sidecar.intercept`` checks, when it opens the authority, whether its certificate covers the hosts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sidecar.config.schema.site import SiteBlock
from sidecar.config.schema.validate import read_block
from sidecar.config.text.document import Mark
from sidecar.config.text.files import Files
from sidecar.config.text.problems import Code, ConfigError, Problem
from sidecar.core.settings.deployment import Intercept

__all__ = ["review_intercept", "wanted_intercept"]

CERTIFICATE = "ca.pem"


def review_intercept(site: SiteBlock, files: Files, folder: Path) -> Iterator[Problem]:
    """``folder`` is that of ``sidecar.yaml``."""
    block = site.intercept
    if block is None or block.is_tainted:
        return
    hosts = block.value_mark("hosts")
    for host in sorted({host for host in block.hosts if block.hosts.count(host) > 1}):
        if hosts is not None:
            yield hosts.problem(Code.REPEATED_NAME, f"`{host}` stands twice in `hosts`", "once is enough")
    mark = block.value_mark("ca")
    if mark is not None:
        yield from _authority(mark, files.read(folder / block.ca / CERTIFICATE))


def _authority(mark: Mark, data: bytes | Problem) -> Iterator[Problem]:
    if isinstance(data, Problem):
        text = f"there is no authority in `ca`: {data.message}"
        yield mark.problem(Code.UNREADABLE, text, f"make it with `sidecar ca init`; looked for {data.file}")
    elif b"-----BEGIN CERTIFICATE-----" not in data:
        yield mark.problem(Code.BAD_VALUE, f"`{CERTIFICATE}` in `ca` does not hold a certificate in PEM form")


def wanted_intercept(path: Path) -> Intercept | None:
    """What ``sidecar.yaml`` says of interception, whether or not its authority exists yet. Raises ``ConfigError``."""
    files = Files()
    document = files.parse(path)
    site, found = read_block(SiteBlock, document)
    problems = [problem for problem in (*document.problems, *found) if not problem.is_warning]
    if site is None or problems:
        raise ConfigError(problems, files.paths)
    block = site.intercept
    return None if block is None else Intercept(tuple(block.hosts), str(path.parent / block.ca))
