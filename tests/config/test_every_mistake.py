"""One run shows every mistake: more than thirty-three, planted over a site and its policies, also two in one block.

A mistake must neither hide another beside it nor be answered with a second one that only follows from it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sidecar.config.load import ConfigError, load_deployment, load_policy

SITE = """\
listen: 0.0.0.0:8080                       # E203: an open proxy
admin: 127.0.0.1:99999                     # E105
unknown_host: pass                         # E101
unknown_hosts: maybe                       # E104
limits: {head: 64, headers: 0, idle: never}   # E106 # E105 # E107
log: {format: xml, sample: 2}              # E104 # E105
upstreams:
  - name: Payments                         # E107
    origin: ftp://api.example.com          # E107
    policy: nowhere                        # E302
    mount: /pay
  - {name: b, origin: https://b.example.com, mount: /pay, timeout: 5s}   # E301 # E101
  - {name: c, origin: http://127.0.0.1:8080, mount: /c, policy: first, policy: first}   # E202 # E004
  - {name: d, origin: https://d.example.com, conections: 5}   # E102 # E101
  - {origin: https://e.example.com, mount: /e, login: {url: /login, token: /token, method: post}}   # E102 # E107 # E108
"""
FIRST = """\
extends: default
deadline: 10                               # E106
attempts: "5"                              # E103
attempt: {connect: 5s, head: 1m, haed: 2s}   # E101
backoff: {base: 10s, cap: 1s, jiter: none}   # E202 # E101
verdict: {header: x-retry, yes: "1", no: "1", maybe: "2"}   # E202 # E101
hedge: {quantile: 0.9, after: 1s, at: 5s}  # E202 # E101
idempotency: {methods: [POST, get]}        # E102 # E107
body: {memory: .inf, disk: !!str 1MiB, <<: 5}   # E005 # E005 # E005
wait: [{header: X-Wait}, {constant: 5s, unit: s, field: t}]   # E102 # E108 # E108
table:
  - {status: 5xx, then: retry, attempts: 1, wiat: []}   # E202 # E101
  - {status: 503, then: retry}             # E201
  - {failure: reset, then: login, processed: false, cost: many}   # E202 # E202 # E103
  - {status: 429, failure: any, then: reread, when: {header: x, equals: a, matches: "("}}   # E108 # E108 # E107
  - {status: 600-200, then: rety}          # E107 # E104
  - {status: 404, then: retry, when: {body: error.code, iz: x}}   # E107 # E101
"""


@pytest.fixture(name="site")
def _site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "first.yaml").write_text(FIRST)
    (tmp_path / "sidecar.yaml").write_text(SITE)
    monkeypatch.chdir(tmp_path)
    return Path("sidecar.yaml")


def planted(name: str, text: str) -> list[tuple[str, int, str]]:
    return [
        (name, number, code)
        for number, line in enumerate(text.split("\n"), 1)
        for code in re.findall(r"# (E\d+)", line)
    ]


def test_every_mistake_is_shown_in_one_run_and_nothing_else(site: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load_deployment(site, environ={})
    shown = sorted((p.file, p.line, p.code.value[0]) for p in raised.value.problems if not p.is_warning)
    wanted = sorted([*planted("sidecar.yaml", SITE), *planted("policies/first.yaml", FIRST)])
    assert len(wanted) >= 33
    assert [each for each in wanted if each not in shown] == [], f"{len(wanted)} were planted:\n{raised.value}"
    assert shown == wanted


@pytest.mark.parametrize(
    ("policy", "codes"),
    [
        ("verdict: {header: x, yes: [1], no: 'true'}\n", ["E103"]),
        ("hedge: {after: soon}\n", ["E107"]),
        ("backoff: {base: 40s, cap: soon}\n", ["E107"]),
        ("wait: [{header: X-Wait, unit: lightyears}]\n", ["E104"]),
        ("table:\n  - {status: 503, then: .inf}\n", ["E005"]),
        ("table:\n  - {status: 503, when: {header: !x a}, then: pass}\n  - {status: 503, then: retry}\n", ["E005"]),
        ("wait: [*nothing]\n", ["E005"]),
        (
            "table:\n  - {status: 503, when: {header: 'a b', equals: x}, then: pass}\n  - {status: 503, then: retry}\n",
            ["E107"],
        ),
        ("table:\n  - {status: 503, then: reread, reread: {path: 5}}\n", ["E108", "E103"]),
        ("idempotency: {header: 'a b', methods: [get]}\n", ["E107", "E107"]),
        ("table:\n  - {then: retry, status: }\n", ["E103"]),
    ],
)
def test_nothing_is_said_that_only_follows(tmp_path: Path, policy: str, codes: list[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: default\n{policy}")
    with pytest.raises(ConfigError) as raised:
        load_policy(path)
    found = [p.code.value[0] for p in raised.value.problems if not p.is_warning]
    assert found == codes, str(raised.value)
