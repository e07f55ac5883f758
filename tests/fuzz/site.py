"""The configuration of a run: YAML text, loaded as the sidecar loads it, and kept for the next run that is alike."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.inside import ConfigError, Deployment, deployment_of
from tests.fuzz.plans import Site

__all__ = ["ADMIN_PORT", "ELSEWHERE", "PORT", "UPSTREAM", "deployment"]

UPSTREAM = ("127.0.0.1", 9000)
ELSEWHERE = ("203.0.113.9", 80)
"""A host that no upstream names."""
PORT, ADMIN_PORT = 8080, 9180

_TABLES = {
    "default": "",
    "pass": "  - {status: 429, then: retry, processed: false}\n  - {failure: any, then: pass}\n",
    "store": "  - {status: 503, then: retry, processed: false, gate: false}\n  - {failure: any, then: store}\n",
    "hinted": "  - {status: 429, then: retry, processed: false, gate: false}\n"
    "  - {status: 503, then: retry, processed: false, gate: false}\n  - {failure: any, then: retry}\n",
}


def deployment(folder: Path, site: Site, how: str) -> Deployment:
    key = (folder, site, how)
    if key not in _known:
        if len(_known) > 2000:
            _known.clear()
        _known[key] = _loaded(folder, site, how)
    found = _known[key]
    if isinstance(found, ConfigError):
        raise found
    return found


_known: dict[tuple[Path, Site, str], Deployment | ConfigError] = {}


def _loaded(folder: Path, site: Site, how: str) -> Deployment | ConfigError:
    (folder / "policies").mkdir(exist_ok=True)
    (folder / "sidecar.yaml").write_text(_site_text(folder, site, how))
    (folder / "policies" / "p.yaml").write_text(_policy_text(site, how))
    try:
        return deployment_of(folder / "sidecar.yaml")
    except ConfigError as exc:
        if how != "broken":
            raise
        return exc


def _site_text(folder: Path, site: Site, how: str) -> str:
    name = "other" if how == "renamed" else "up"
    text = f"listen: 127.0.0.1:{PORT}\nadmin: 127.0.0.1:{ADMIN_PORT}\nlog: {{format: json, sample: 1}}\n"
    if site.outbox:
        text += f"outbox: {{file: {folder}/outbox.db, max_age: {site.max_age:g}s}}\n"
    if how == "broken":
        return text + "upstreams: 7\n"
    if how == "without":
        return text + "upstreams: []\n"
    return (
        text
        + f"upstreams:\n  - name: {name}\n    origin: http://{UPSTREAM[0]}:{UPSTREAM[1]}\n    mount: /up\n"
        + "    hosts: [up.example]\n    policy: p\n"
        + (
            "    routes:\n      - {methods: [POST, PUT, PATCH, DELETE], path: /s/**, policy: p, store: always}\n"
            if site.outbox
            else ""
        )
    )


def _policy_text(site: Site, how: str) -> str:
    attempts, base = (site.attempts, site.base) if how != "policy" else (site.attempts + 1, site.base * 2)
    text = (
        f"extends: default\ndeadline: {site.deadline:g}s\nattempts: {attempts}\n"
        f"attempt: {{connect: 500ms, head: {min(site.head, site.deadline):g}s, idle: {site.idle:g}s}}\n"
        f"backoff: {{base: {base:g}s, cap: 5s, jitter: full}}\n"
    )
    if site.hedge is not None:
        text += f"hedge: {{after: {site.hedge:g}s}}\n"
    if site.keys:
        text += "idempotency: {header: Idempotency-Key, methods: [POST, PUT, PATCH, DELETE], format: uuid}\n"
    if _TABLES[site.table]:
        text += "table:\n" + _TABLES[site.table]
    return text
