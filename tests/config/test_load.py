"""What wins over what, where policies are found, what is inherited, and what the engine gets in the end."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from sidecar.config.load import Loaded, load_deployment, load_policy
from sidecar.config.show.effective import policy_settings
from sidecar.config.text.contents import digest_of
from sidecar.config.text.problems import ConfigError
from sidecar.core.decision.policy import HedgeRule, Idempotency, IdRule, Timeouts, Verdict
from sidecar.core.decision.rows import Backoff, Condition, HintSource
from sidecar.core.enums import FailureKind, Jitter, OverMax, Unit, Verb
from sidecar.core.settings.deployment import Address, Origin, Reference

GOOD = Path(__file__).parent / "good"


def write(folder: Path, **files: str) -> Path:
    """``sidecar.yaml`` from ``site``, every other name a policy; the path of the former."""
    (folder / "policies").mkdir(exist_ok=True)
    for name, text in files.items():
        path = folder / "sidecar.yaml" if name == "site" else folder / "policies" / f"{name}.yaml"
        path.write_text(text)
    return folder / "sidecar.yaml"


def load(path: Path | None, **environ: str) -> Loaded:
    return load_deployment(path, environ=environ)


def test_without_a_file_it_is_a_forward_proxy_on_loopback_with_the_shipped_policy() -> None:
    deployment = load(None).deployment
    assert deployment.listen == Address("127.0.0.1", 8080)
    assert deployment.admin == Address("127.0.0.1", 9180)
    assert deployment.upstreams == ()
    assert deployment.unknown_hosts == "pass"
    assert deployment.source == ""
    assert deployment.default_policy.name == "default"
    assert deployment.default_policy.table.rows[0].file.endswith("default.yaml")


def test_a_flag_wins_over_a_variable_over_the_file_over_the_default(tmp_path: Path) -> None:
    path = write(tmp_path, site="listen: 127.0.0.1:1\nadmin: 127.0.0.1:2\nlog: {format: json}\n")
    environ = {"SIDECAR_LISTEN": "127.0.0.1:3", "SIDECAR_ADMIN": "[::1]:4", "SIDECAR_LIMITS_HEADERS": "99"}
    loaded = load_deployment(path, environ=environ, overrides={"listen": "127.0.0.1:5", "log.sample": "0.5"})
    deployment = loaded.deployment
    assert deployment.listen.port == 5
    assert deployment.admin == Address("::1", 4)
    assert deployment.logging.format == "json"
    assert deployment.logging.sample == 0.5
    assert deployment.limits.headers == 99
    assert {key: loaded.origins[key] for key in ("listen", "admin", "log.format", "log.sample", "log.slow")} == {
        "listen": "--listen",
        "admin": "SIDECAR_ADMIN",
        "log.format": f"{path}:3",
        "log.sample": "--log-sample",
        "log.slow": "default",
    }


def test_upstreams_may_come_from_a_variable() -> None:
    text = "[{name: a, origin: 'https://a.example/base/', mount: /a}]"
    assert load(None, SIDECAR_UPSTREAMS=text).deployment.upstreams[0].origin == Origin(
        "https", "a.example", 443, "/base"
    )


def test_a_variable_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, site="listen: 127.0.0.1:77\n")
    assert load(None, SIDECAR_CONFIG=str(path)).deployment.listen.port == 77


@pytest.mark.parametrize("name", ["SIDECAR_LISTNE", "SIDECAR_", "SIDECAR_LOG", "SIDECAR_LISTEN_"])
def test_an_unknown_variable_is_an_error_that_does_not_print_its_value(name: str) -> None:
    with pytest.raises(ConfigError, match="E304") as caught:
        load(None, **{name: "s3cret"})
    assert "s3cret" not in str(caught.value)


def test_links_that_kubernetes_makes_for_a_service_of_our_name_are_not_ours() -> None:
    load(
        None,
        SIDECAR_SERVICE_HOST="10.0.0.1",
        SIDECAR_SERVICE_PORT_HTTP="80",
        SIDECAR_PORT="tcp://10.0.0.1:80",
        SIDECAR_PORT_80_TCP_ADDR="10.0.0.1",
        SIDECAR_ADMIN_SERVICE_HOST="10.0.0.2",
    )


def test_a_policy_beside_the_file_stands_before_a_shipped_one_and_may_extend_it(tmp_path: Path) -> None:
    path = write(tmp_path, site="", default="extends: default\nattempts: 2\n")
    policy = load(path).deployment.default_policy
    assert policy.attempts == 2
    assert policy.table.rows == load(None).deployment.default_policy.table.rows


def test_rows_come_before_inherited_ones_and_settings_override_key_by_key(tmp_path: Path) -> None:
    write(
        tmp_path,
        far="attempts: 9\nattempt: {connect: 1s, head: 2s}\nverdict: {header: x-retry}\n"
        "table: [{status: 5xx, then: retry}]\n",
        middle="extends: far\nattempt: {head: 3s}\nverdict: {header: x-retry, no: 'nope'}\n",
        near="extends: middle\nattempt: {idle: 4s}\nverdict: null\ntable: [{status: 503, then: pass}]\n",
    )
    near = load_policy(tmp_path / "policies" / "near.yaml").policy
    assert near.timeouts == Timeouts(1.0, 3.0, 4.0)
    assert near.attempts == 9
    assert near.verdict is None
    assert [(row.verb, len(row.statuses)) for row in near.table.rows] == [(Verb.PASS, 1), (Verb.RETRY, 100)]
    assert [Path(row.file).name for row in near.table.rows] == ["near.yaml", "far.yaml"]
    middle = load_policy(tmp_path / "policies" / "middle.yaml").policy
    assert middle.verdict == Verdict("x-retry", "true", "nope")


@pytest.mark.parametrize(
    ("near", "rule"),
    [
        ("", HedgeRule(0.9)),
        ("hedge: {after: 200ms}", HedgeRule(after_seconds=0.2)),
        ("hedge: {quantile: 0.99}", HedgeRule(0.99)),
        ("hedge: null", None),
    ],
    ids=["inherited", "a time for a share", "another share", "taken away"],
)
def test_a_hedge_is_inherited_or_replaced_as_a_whole(tmp_path: Path, near: str, rule: HedgeRule | None) -> None:
    site = "upstreams: [{name: a, origin: 'https://a.example', mount: /a, policy: near}]\n"
    path = write(tmp_path, site=site, far="extends: default\nhedge: {quantile: 0.9}\n", near=f"extends: far\n{near}\n")
    loaded = load(path)
    assert loaded.deployment.upstreams[0].policy.hedge == rule
    shown = [line.split() for line in loaded.text().splitlines() if line.startswith(("  quantile:", "  after:"))]
    wanted = {0.9: ["quantile:", "0.9"], 0.99: ["quantile:", "0.99"], 0.2: ["after:", "200ms"]}
    assert [words[:2] for words in shown] == ([] if rule is None else [wanted[rule.after_seconds or rule.quantile]])


def test_nothing_is_hedged_unless_a_policy_says_so() -> None:
    assert load(None).deployment.default_policy.hedge is None


def test_every_key_of_a_policy_reaches_the_engine() -> None:
    deployment = load(GOOD / "site.yaml").deployment
    policy = deployment.upstreams[0].policy
    assert policy.idempotency == Idempotency("X-Idempotency-Key", frozenset({"POST", "PUT", "PATCH", "DELETE"}))
    assert policy.verdict == Verdict("x-should-retry", "true", "false")
    assert policy.ids.request == IdRule("X-Request-Id", ("X-Request-Id",), ("/meta/request_id",))
    assert policy.errors.known_codes == {"insufficient_quota", "NO_ACTIVE_RULES", "NO_ACTIVE_POLICIES"}
    assert policy.errors.shape == {
        "error": {"code": "{code}", "message": "{message}", "details": {}, "hint": None},
        "correlation_id": "{correlation_id}",
    }
    assert (policy.trace, policy.attempt_header, policy.deadline_header) == ("create", "X-Attempt", "X-Deadline-Ms")
    row = policy.table.rows[3]
    assert row.statuses == {403}
    assert row.processed is False
    assert row.wait == (HintSource("header", "x-ratelimit-reset", unit=Unit.EPOCH_S, plus_seconds=1.0),)
    assert row.when == (Condition("header", "x-ratelimit-remaining", "equals", ("0",)),)
    assert policy.table.rows[5].failures == frozenset(FailureKind)


def test_upstreams_and_routes_reach_the_engine() -> None:
    meshqu, other = load(GOOD / "site.yaml").deployment.upstreams
    assert (meshqu.mount, meshqu.hosts) == ("/meshqu", ("api.meshqu.example",))
    route = meshqu.routes[0]
    assert (route.methods, route.policy.name) == (frozenset({"POST"}), "meshqu-telemetry")
    assert other.origin == Origin("http", "::1", 8443, "/base")
    assert (other.mount, other.host, other.policy.name) == ("/", "keep", "default")
    assert other.hosts == ("[::1]", "localhost:8081", "10.0.0.7")


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/v1/*", "/v1/a", True),
        ("/v1/*", "/v1/", False),
        ("/v1/*", "/v1/a/b", False),
        ("/v1/**", "/v1", True),
        ("/v1/**", "/v1/a/b", True),
        ("/v1/**", "/v10", False),
        ("/**/status", "/status", True),
        ("/**/status", "/a/b/status", True),
        ("/**", "/", True),
        ("/a.b", "/aXb", False),
        ("/v*/x", "/v2/x", True),
    ],
)
def test_a_star_is_one_segment_and_two_are_any_number(tmp_path: Path, pattern: str, path: str, matches: bool) -> None:
    upstream = (
        f"upstreams: [{{name: a, origin: 'https://a', mount: /a, routes: [{{path: '{pattern}', policy: default}}]}}]"
    )
    route = load(write(tmp_path, site=upstream)).deployment.upstreams[0].routes[0]
    assert bool(route.pattern.fullmatch(path)) is matches


def test_every_form_of_a_row_reaches_the_engine() -> None:
    policy = load_policy(GOOD / "policies" / "every-form.yaml").policy
    fields = [(source.place, source.name, source.unit, source.constant_seconds) for source in policy.wait]
    assert fields[:4] == [
        ("header", "Retry-After", Unit.RETRY_AFTER, 0.0),
        ("header", "retry-after-ms", Unit.MS, 0.0),
        ("field", "ratelimit", Unit.S, 0.0),
        ("body", "/retryAfter", Unit.S, 0.0),
    ]
    assert (policy.wait[3].clock, policy.wait[3].at_least_seconds) == ("server", 1.0)
    assert (policy.wait[4].place, policy.wait[4].constant_seconds, len(policy.wait[4].when)) == ("constant", 30.0, 2)
    row = policy.table.rows[3]
    assert row.statuses == {429}
    assert [(c.place, c.name, c.test, c.values) for c in row.when[:3]] == [
        ("body", "/error/code", "equals", ("7",)),
        ("body", "/error/fatal", "equals", ("null",)),
        ("query", "mode", "equals", ("true",)),
    ]
    pattern = row.when[3].pattern
    assert pattern is not None
    assert [bool(pattern.search(path)) for path in ("/v1/a/b", "/v2/x/status", "/v2/x/y", "/w/v1/")] == [
        True,
        True,
        False,
        False,
    ]
    assert row.backoff == Backoff(1.0, 2.0, 30.0, Jitter.PROPORTIONAL, 0.1)
    assert (row.wait, row.over_max, row.cost, row.gate) == ((), OverMax.CLAMP, 0.0, False)


def test_the_sketch_of_four_retries_up_to_thirty_seconds_can_be_written(tmp_path: Path) -> None:
    write(tmp_path, p="attempts: 5\nbackoff: {base: 250ms, factor: 2, cap: 30s, jitter: additive}\nextends: default\n")
    policy = load_policy(tmp_path / "policies" / "p.yaml").policy
    assert policy.backoff == Backoff(0.25, 2.0, 30.0, Jitter.ADDITIVE)


def test_an_own_certificate_authority_is_read_and_watched(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    site = "upstreams: [{name: a, origin: 'https://a.example', mount: /a, ca_file: ca.pem}]\n"
    loaded = load(write(tmp_path, site=site))
    assert loaded.deployment.upstreams[0].origin.ca_file == str(tmp_path / "ca.pem")
    assert tmp_path / "ca.pem" in loaded.files


def test_the_digest_changes_with_a_content_and_with_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path, site="", default="extends: default\n")
    before = load(path).digest
    path.touch()
    assert load(path).digest == before
    write(tmp_path, default="extends: default\nattempts: 3\n")
    assert load(path).digest != before


def test_what_is_shown_loads_again_as_the_same(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    loaded = load(GOOD / "site.yaml")
    for part in loaded.text().split("---\n"):
        name = part.split("\n", 1)[0].removeprefix("# policy ").split(":")[0]
        target = tmp_path / "policies" / f"{name}.yaml" if part.startswith("# policy") else tmp_path / "sidecar.yaml"
        target.write_text(part)
    again = load(tmp_path / "sidecar.yaml")
    assert again.site.model_dump() == loaded.site.model_dump()
    for chain, other in zip(loaded.chains, again.chains, strict=True):
        assert chain.settings.model_dump(exclude={"extends", "table"}) == other.settings.model_dump(
            exclude={"extends", "table"}
        )
        kept = {
            setting.text for setting in policy_settings(chain) if setting.keys[0] == "table" and not setting.is_buried
        }
        assert {setting.text for setting in policy_settings(other) if setting.keys[0] == "table"} == kept


def test_each_value_is_shown_with_its_origin() -> None:
    loaded = load(GOOD / "site.yaml", SIDECAR_LISTEN="127.0.0.1:1")
    assert loaded.origins["listen"] == "SIDECAR_LISTEN"
    assert loaded.origins["upstreams.0.origin"].endswith("good/site.yaml:6")
    assert loaded.origins["upstreams.0.connections"] == "default"
    assert loaded.origins["policies.meshqu-telemetry.deadline"].endswith("meshqu-telemetry.yaml:2")
    assert loaded.origins["policies.meshqu-telemetry.attempt.connect"].endswith("meshqu.yaml:5")
    assert loaded.origins["policies.meshqu-telemetry.table.0"].endswith("meshqu-telemetry.yaml:6")


def test_reading_the_same_files_again_gives_the_same_digest() -> None:
    loaded = load(GOOD / "site.yaml")
    assert digest_of(loaded.files) == loaded.digest
    assert digest_of(loaded.files[:1]) != loaded.digest


def test_a_login_keeps_its_secrets_as_references() -> None:
    (_, other) = load_deployment(GOOD / "site.yaml", environ={}).deployment.upstreams
    login = other.login
    assert login is not None
    assert (login.origin.port, login.origin.base_path, login.target, login.replace) == (8443, "", "/auth/login", True)
    assert login.body == {
        "username": Reference("env", "SOME_USER"),
        "password": Reference("file", str(GOOD / "secrets" / "password")),
        "remember": True,
        "scopes": ["a", "on"],
    }


def test_resending_after_a_login_costs_no_budget_unless_the_row_says_so(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("table:\n  - {status: 401, then: login}\n  - {status: 402, then: login, cost: 3}\n")
    rows = load_policy(path).policy.table.rows
    assert [row.cost for row in rows] == [0.0, 3.0]


def test_codes_that_the_policy_names_are_known(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "errors: {code: [/code], known: [GONE]}\n"
        "table:\n  - {status: 409, when: {body: /code, in: [TAKEN]}, then: pass}\n  - {status: 5xx, then: retry}\n"
    )
    assert load_policy(path).policy.errors.known_codes == {"GONE", "TAKEN"}
