"""What ``deploy/`` ships, held against the code and against what the pages claim."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.config.load import load_deployment
from sidecar.observe.families import FAMILIES

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
OPERATOR = "monitoring.coreos.com"
"""Its kinds are not in the schemas of Kubernetes."""


def documents(path: Path) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(path.read_text(encoding="utf-8")) if found]


def merged(base: Any, patch: Any) -> Any:
    """A strategic merge, as far as it is used here: lists of named things by name, the patch's own first."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return {key: merged(base.get(key), patch[key]) if key in patch else base[key] for key in {*base, *patch}}
    if isinstance(base, list) and isinstance(patch, list):
        names = {each.get("name") for each in patch if isinstance(each, dict)}
        return [*patch, *(each for each in base if each.get("name") not in names)]
    return patch


def with_component(name: str) -> dict[str, Any]:
    """The example's Deployment as the component leaves it."""
    (app,) = documents(KUBERNETES / "example" / "app.yaml")
    (patch,) = documents(KUBERNETES / name / "patch.yaml")
    patch["metadata"]["name"] = app["metadata"]["name"]
    whole: dict[str, Any] = merged(app, patch)
    return whole


def all_manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        for found in documents(path):
            kind = found.get("kind", "")
            if (
                kind in ("Kustomization", "Component", "")
                or path.name == "patch.yaml"
                or OPERATOR in found["apiVersion"]
            ):
                continue
            yield f"{path.relative_to(KUBERNETES)}:{kind}", found
    for name in ("sidecar", "sidecar-before-1.29"):
        yield name, with_component(name)


def test_every_file_that_a_kustomization_names_is_there() -> None:
    for path in KUBERNETES.rglob("kustomization.yaml"):
        (found,) = documents(path)
        named = [*found.get("resources", ()), *found.get("components", ())]
        named += [patch["path"] for patch in found.get("patches", ())]
        named += [file for each in found.get("configMapGenerator", ()) for file in each["files"]]
        for name in named:
            assert (path.parent / name).exists(), f"{path.relative_to(ROOT)} names {name}"


def pods() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Each pod that runs the sidecar, and its container."""
    for name, manifest in all_manifests():
        pod = manifest.get("spec", {}).get("template", {}).get("spec")
        for each in [*(pod or {}).get("initContainers", ()), *(pod or {}).get("containers", ())] if pod else ():
            if each["image"].startswith("retry-sidecar:"):
                yield name, pod, each


def test_the_pods_are_those_that_the_page_names() -> None:
    assert [name for name, _, _ in pods()] == [
        "gateway/gateway.yaml:Deployment",
        "job/job.yaml:Job",
        "sidecar",
        "sidecar-before-1.29",
    ]


def test_every_sidecar_is_given_time_to_drain_and_no_rights() -> None:
    drain_seconds = load_deployment(None, environ={}).deployment.limits.drain_seconds
    for name, pod, container in pods():
        waits = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [""])[-1]
        slept = re.search(r"sleep\((\d+)\)", waits)
        needed = drain_seconds + (int(slept[1]) if slept else 0)
        assert pod["terminationGracePeriodSeconds"] >= needed + 5, name
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"], name
        assert security["runAsNonRoot"], name
        assert not security["allowPrivilegeEscalation"], name
        assert security["capabilities"] == {"drop": ["ALL"]}, name
        assert container["resources"]["limits"].keys() == {"memory"}, f"{name}: a CPU limit would throttle requests"
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert "subPath" not in mounts["/etc/sidecar"], f"{name}: a subPath is never reloaded"
        assert "/tmp" in mounts, f"{name}: bodies need a place on a read-only root"  # noqa: S108


def test_a_native_sidecar_starts_before_the_app_and_ends_with_the_job() -> None:
    for name, pod, container in pods():
        if name in ("sidecar", "job/job.yaml:Job"):
            assert container in pod["initContainers"], name
            assert container["restartPolicy"] == "Always", name
            assert "startupProbe" in container, f"{name}: the app must not start before it is ready"
    before = with_component("sidecar-before-1.29")["spec"]["template"]["spec"]["containers"]
    assert before[0]["name"] == "retry-sidecar", "containers start in order, and wait for postStart"
    assert "postStart" in before[0]["lifecycle"]


def test_an_admin_port_that_others_reach_has_a_token() -> None:
    for name, _, container in pods():
        environment = {each["name"]: each for each in container.get("env", ())}
        assert ("SIDECAR_ADMIN" in environment) == ("SIDECAR_ADMIN_TOKEN" in environment), name


@pytest.mark.parametrize(
    "path",
    [*sorted(KUBERNETES.rglob("sidecar.yaml")), DEPLOY / "compose" / "sidecar.yaml"],
    ids=lambda path: path.parent.name,
)
def test_a_shipped_configuration_is_sound(path: Path) -> None:
    loaded = load_deployment(path, environ={"SIDECAR_ADMIN_TOKEN": "a-token-of-some-length"})
    assert not loaded.warnings
    assert loaded.deployment.upstreams


def test_compose_starts_the_app_after_the_sidecar_and_in_its_network() -> None:
    (compose,) = documents(DEPLOY / "compose.yaml")
    services = compose["services"]
    assert services["app"]["network_mode"] == "service:sidecar"
    assert services["app"]["depends_on"] == {"sidecar": {"condition": "service_healthy"}}
    assert "network_mode" not in services["sidecar"]
    drain_seconds = load_deployment(None, environ={}).deployment.limits.drain_seconds
    assert int(services["sidecar"]["stop_grace_period"].removesuffix("s")) > drain_seconds
    for service in services.values():
        for volume in service.get("volumes", ()):
            assert (DEPLOY / volume.split(":")[0]).exists(), volume


def families_in(text: str) -> set[str]:
    found = re.findall(r"(?<!:)\bsidecar_[a-z_]+", text)
    return {re.sub(r"_(?:bucket|sum|count)$", "", name) for name in found}


def known_families() -> set[str]:
    return (
        {family.name for family in FAMILIES} | {f"{family.name}_total" for family in FAMILIES} | {"sidecar_build_info"}
    )


def test_rules_and_dashboard_ask_for_metrics_that_there_are() -> None:
    recorded = {"sidecar_failed", "sidecar_saved", "sidecar_attempts_per_request"}
    for path in (DEPLOY / "prometheus" / "rules.yaml", DEPLOY / "grafana" / "retry-sidecar.json"):
        unknown = families_in(path.read_text(encoding="utf-8")) - known_families() - recorded
        assert not unknown, f"{path.name} asks for {sorted(unknown)}"


def test_the_rules_of_the_operator_are_those_of_prometheus() -> None:
    (operator,) = documents(KUBERNETES / "monitoring" / "prometheus-rule.yaml")
    (rules,) = documents(DEPLOY / "prometheus" / "rules.yaml")
    assert operator["spec"] == rules


def test_every_alert_has_its_paragraph_in_the_runbook() -> None:
    (rules,) = documents(DEPLOY / "prometheus" / "rules.yaml")
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    alerts = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    assert alerts
    for rule in alerts:
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page == "docs/runbook.md", rule["alert"]
        assert anchor in anchors, rule["alert"]


def test_the_dashboard_is_valid_json_with_panels_that_do_not_overlap() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "retry-sidecar.json").read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    assert [panel["title"] for panel in dashboard["panels"][:4]] == ["Saved", "Cost", "Gave up", "Held now"]
