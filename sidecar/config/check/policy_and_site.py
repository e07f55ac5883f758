"""Values compared with each other: contradictions in a policy, and names and addresses of a site that collide.

Each check is one function; each finds every instance. Counterparts: ``rows``, the checks of rows; ``schema``, the
checks of single values.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sidecar.config.check.rows import review_rows
from sidecar.config.compile.policies import Chain
from sidecar.config.schema.addresses import parse_origin
from sidecar.config.schema.row import BackoffBlock
from sidecar.config.schema.site import RouteBlock, SiteBlock, UpstreamBlock
from sidecar.config.text.document import UNKNOWN_KEY, Mark
from sidecar.config.text.files import Files
from sidecar.config.text.problems import Code, Problem
from sidecar.core.enums import IDEMPOTENT_METHODS, Jitter
from sidecar.core.settings.deployment import Address

__all__ = ["review_admin", "review_policies", "review_site"]

LOOPBACK_NAMES = frozenset({"localhost", "::1"})
WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - every address of this machine, loopback among them


def review_policies(chains: Iterable[Chain]) -> list[Problem]:
    """Every policy in use, each file's rows once."""
    chains = list(chains)
    sources = {source.path: source for chain in chains for source in chain.sources}
    problems = [problem for source in sources.values() for problem in review_rows(source)]
    for chain in chains:
        for check in (_times, _backoffs, _headers, _resent_methods, _hedges, _emptiness):
            problems += check(chain)
    return problems


def _times(chain: Chain) -> Iterator[Problem]:
    """Times that are longer than the deadline over them all, where one file says both (else the shorter simply
    wins).
    """
    nearest = chain.sources[0].block
    if not nearest.sets("deadline"):
        return
    for key, what in (("connect", "to connect"), ("head", "for the response head")):
        value = getattr(nearest.attempt, key)
        mark = nearest.attempt.value_mark(key)
        if nearest.attempt.sets(key) and value > nearest.deadline and mark:
            text = f"the time {what} is longer than the `deadline` over everything"
            yield mark.problem(Code.CONTRADICTION, text, "shorten it, or raise `deadline`")
    mark = nearest.attempt.value_mark("idle")
    if nearest.attempt.sets("idle") and nearest.attempt.idle > nearest.deadline and mark:
        yield mark.problem(Code.NO_EFFECT, "`idle` is longer than `deadline`, which ends an exchange before")
    mark = nearest.value_mark("max_wait")
    if nearest.sets("max_wait") and nearest.max_wait > nearest.deadline and mark:
        yield mark.problem(
            Code.NO_EFFECT, "`max_wait` is longer than `deadline`: so long a wait never fits into an exchange"
        )


def _backoffs(chain: Chain) -> Iterator[Problem]:
    marks = [chain.mark("backoff", key) for key in ("cap", "base")]
    if any(source.block.backoff.lost("cap", "base") for source in chain.sources):
        marks = []
    yield from _backoff(chain.settings.backoff, chain.settings.backoff, next(filter(None, marks), None))
    if chain.mark("backoff", "ratio") and chain.settings.backoff.jitter is not Jitter.PROPORTIONAL:
        yield from _idle_ratio(chain.mark("backoff", "ratio"))
    for row in chain.sources[0].block.table:
        if row.backoff is not None:
            yield from _backoff(row.backoff, chain.settings.backoff, row.value_mark("backoff"))
            if row.backoff.sets("ratio") and row.backoff.jitter is not Jitter.PROPORTIONAL:
                yield from _idle_ratio(row.backoff.key_mark("ratio"))


def _backoff(block: BackoffBlock, below: BackoffBlock, mark: Mark | None) -> Iterator[Problem]:
    base = block.base if block.sets("base") else below.base
    cap = block.cap if block.sets("cap") else below.cap
    if cap < base and mark is not None and not block.lost("cap", "base"):
        text = f"the `cap` of the backoff ({cap:g} s) is below its `base` ({base:g} s)"
        yield mark.problem(Code.CONTRADICTION, text, "raise `cap`, or lower `base`")


def _idle_ratio(mark: Mark | None) -> Iterator[Problem]:
    if mark is not None:
        yield mark.problem(Code.NO_EFFECT, "`ratio` counts only with `jitter: proportional`")


def _headers(chain: Chain) -> Iterator[Problem]:
    """Two things written into one header."""
    policy = chain.settings
    written = {
        ("ids", "request", "header"): policy.ids.request.header,
        ("ids", "correlation", "header"): policy.ids.correlation.header,
        ("idempotency", "header"): policy.idempotency.header if policy.idempotency else None,
        ("attempt_header",): policy.attempt_header,
        ("deadline_header",): policy.deadline_header,
    }
    seen: dict[str, tuple[str, ...]] = {}
    for keys, name in written.items():
        if name is None:
            continue
        if other := seen.get(name.lower()):
            mark = chain.mark(*keys) or chain.mark(*other)
            text = f"`{'.'.join(keys)}` and `{'.'.join(other)}` are both the header `{name}`"
            if mark is not None:
                yield mark.problem(Code.CONTRADICTION, text, "give each its own")
        seen.setdefault(name.lower(), keys)


def _resent_methods(chain: Chain) -> Iterator[Problem]:
    block = chain.sources[0].block
    mark = block.value_mark("resend_methods")
    if mark is None or not block.resend_methods:
        return
    risky = [method for method in block.resend_methods if method not in IDEMPOTENT_METHODS]
    if risky:
        yield mark.problem(
            Code.RESEND_METHODS,
            f"{', '.join(risky)}: requests that may have been applied are sent again, without a key",
            "an upstream that honours keys is safer with `idempotency`",
        )
    else:
        text = "these methods are idempotent and may be repeated anyway"
        yield mark.problem(Code.NO_EFFECT, text, "remove the key")


def _hedges(chain: Chain) -> Iterator[Problem]:
    """A hedge that could never be sent."""
    policy = chain.settings
    mark = chain.mark("hedge")
    if policy.hedge is None or mark is None:
        return
    if policy.attempts == 1:
        text = "with `attempts: 1` there is never a second send"
        yield mark.problem(Code.NO_EFFECT, text, "raise `attempts`, or remove `hedge`")
    after, mark = policy.hedge.after, chain.mark("hedge", "after")
    if after is None or mark is None:
        return
    if after >= policy.attempt.head:
        text = (
            f"`after` is not below the time for the response head ({policy.attempt.head:g} s): no attempt takes so long"
        )
        yield mark.problem(Code.NO_EFFECT, text, "shorten `after`, or raise `attempt: {head: …}`")
    elif 2 * after >= policy.deadline:
        text = f"`after` is half of `deadline` ({policy.deadline:g} s) or more: too late for a second send"
        yield mark.problem(Code.NO_EFFECT, text, "shorten `after`, or raise `deadline`")


def _emptiness(chain: Chain) -> Iterator[Problem]:
    source = chain.sources[0]
    if not chain.rows and not source.block.is_tainted and not source.block.lost(UNKNOWN_KEY):
        text = "this policy has no row, so that nothing is ever retried"
        yield source.document.mark().problem(Code.NO_EFFECT, text, "add a `table`, or `extends: default`")


def review_site(site: SiteBlock, files: Files, folder: Path) -> list[Problem]:
    """Names and addresses; ``folder`` is that of ``sidecar.yaml``."""
    problems: list[Problem] = []
    for check in (_repeated, _ways_in, _routes, _addresses, _openness, _clear_logins):
        problems += check(site)
    for upstream in site.upstreams:
        problems += _certificates(upstream, files, folder)
    return problems


def _repeated(site: SiteBlock) -> Iterator[Problem]:
    seen: dict[tuple[str, str], UpstreamBlock] = {}
    for upstream in site.upstreams:
        hosts = [("hosts", host) for host in upstream.hosts or ()]
        mount = [("mount", upstream.mount)] if upstream.mount else []
        for key, value in [("name", upstream.name), *mount, *hosts]:
            first = seen.setdefault((key, value), upstream)
            mark = upstream.value_mark(key)
            if mark is not None and (first is not upstream or hosts.count((key, value)) > 1):
                text = f"`{value}` is already in the `{key}` of the upstream `{first.name}`"
                yield mark.problem(Code.REPEATED_NAME, text, "each must lead to one upstream")


def _ways_in(site: SiteBlock) -> Iterator[Problem]:
    for upstream in site.upstreams:
        mark = upstream.key_mark("name")
        if upstream.mount is None and upstream.hosts is None and mark and not upstream.lost("mount", "hosts"):
            text = f"no request can reach the upstream `{upstream.name}`"
            yield mark.problem(Code.MISSING_KEY, text, f"add `mount: /{upstream.name}` or `hosts: […]`")


def _routes(site: SiteBlock) -> Iterator[Problem]:
    for upstream in site.upstreams:
        for index, route in enumerate(upstream.routes):
            for earlier in upstream.routes[:index]:
                mark, first = route.key_mark(""), earlier.key_mark("")
                if mark and first and _covers(earlier, route) and not (earlier.is_tainted or route.is_tainted):
                    text = f"this route can never match: the one on line {first.line + 1} takes its requests"
                    yield mark.problem(Code.DEAD_ROW, text, "the first route that matches decides")
                    break


def _covers(earlier: RouteBlock, route: RouteBlock) -> bool:
    methods = not earlier.methods or (route.methods and set(route.methods) <= set(earlier.methods))
    return bool(methods) and earlier.path in {"/**", route.path}


def _addresses(site: SiteBlock) -> Iterator[Problem]:
    if site.listen == site.admin and site.listen.port and not site.lost("listen", "admin"):
        mark = site.value_mark("admin") if site.sets("admin") else site.value_mark("listen")
        if mark is not None:
            yield mark.problem(Code.CONTRADICTION, "`listen` and `admin` are the same address")
    for upstream in site.upstreams:
        mark = upstream.value_mark("origin")
        for key, ours in (("listen", site.listen), ("admin", site.admin)):
            theirs = Address(upstream.origin.host, upstream.origin.port)
            if mark is not None and _same_place(ours, theirs):
                text = f"the origin is the sidecar's own `{key}` address: requests would go round in a loop"
                yield mark.problem(Code.CONTRADICTION, text, "name the API's real address")


def _same_place(ours: Address, theirs: Address) -> bool:
    if ours.port == 0 or ours.port != theirs.port:
        return False
    is_here = _is_loopback(ours.host) or ours.host in WILDCARDS
    return ours.host == theirs.host or (is_here and _is_loopback(theirs.host))


def _is_loopback(host: str) -> bool:
    return host in LOOPBACK_NAMES or host.startswith("127.")


def _openness(site: SiteBlock) -> Iterator[Problem]:
    mark = site.value_mark("listen")
    access = site.access
    closed = site.unknown_hosts == "refuse"
    closed = closed or (access is not None and bool(access.credential or access.destinations or access.is_tainted))
    if mark is not None and not closed and not _is_loopback(site.listen.host):
        yield mark.problem(
            Code.OPEN_PROXY,
            "whoever reaches this address could reach any host through it",
            "listen on loopback, or write `unknown_hosts: refuse`, `access: {destinations: […]}` or "
            "`access: {credential: env:NAME}`",
        )


def review_admin(site: SiteBlock, environ: Mapping[str, str]) -> Iterator[Problem]:
    """An admin port that other machines can reach needs a token: the page, the records and the switches ask for it."""
    mark = site.value_mark("admin") if site.sets("admin") else None
    has_token = any(environ.get(name) for name in ("SIDECAR_ADMIN_TOKEN", "SIDECAR_ADMIN_TOKEN_FILE"))
    if mark is not None and not has_token and not _is_loopback(site.admin.host):
        yield mark.problem(
            Code.OPEN_ADMIN,
            "others can reach this admin address, and no token is set",
            "set SIDECAR_ADMIN_TOKEN_FILE (or SIDECAR_ADMIN_TOKEN), or keep `admin` on loopback; "
            "/livez, /readyz, /healthz and /metrics need no token",
        )


def _clear_logins(site: SiteBlock) -> Iterator[Problem]:
    for upstream in site.upstreams:
        login = upstream.login
        mark = login.value_mark("url") if login is not None else None
        if login is None or mark is None or upstream.lost("origin"):
            continue
        place = upstream.origin if login.url.startswith("/") else parse_origin(login.url)
        if place.scheme == "http" and not _is_loopback(place.host):
            yield mark.problem(
                Code.CLEAR_LOGIN, "this login sends its credentials unencrypted", "name an `https://` address"
            )


def _certificates(upstream: UpstreamBlock, files: Files, folder: Path) -> Iterator[Problem]:
    mark = upstream.value_mark("ca_file")
    if upstream.ca_file is None or mark is None:
        return
    if upstream.origin.scheme == "http":
        yield mark.problem(Code.CONTRADICTION, "`ca_file` does nothing for an `http://` origin", "use `https://`")
        return
    data = files.read(folder / upstream.ca_file)
    if isinstance(data, Problem):
        yield mark.problem(Code.UNREADABLE, f"`ca_file`: {data.message}", f"looked for {data.file}")
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=data.decode("ascii"))
    except (ssl.SSLError, ValueError):
        text = "`ca_file` does not hold certificates in PEM form"
        yield mark.problem(Code.BAD_VALUE, text, "it begins with -----BEGIN CERTIFICATE-----")
