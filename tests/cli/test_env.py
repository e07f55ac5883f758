"""``sidecar env``: blocks that can be copied as they stand."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from sidecar.cli.env import command
from sidecar.client_setup.runtimes import RUNTIMES
from sidecar.intercept.authority import create

SITE = """
listen: 0.0.0.0:8081
unknown_hosts: refuse
upstreams:
  - {name: pay-ments, origin: https://api.example, mount: /pay, hosts: [api.example]}
"""
SHELLS = ["curl", "python", "node", "java", "go"]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "sidecar.yaml"
    path.write_text(SITE, encoding="utf-8")
    return path


def env(*words: str | Path) -> Result:
    return CliRunner().invoke(command, list(map(str, words)), env={"SIDECAR_CONFIG": None})


def evaluated(block: str) -> dict[str, str]:
    """The variables that a shell has after the block, of those that begin empty."""
    script = f"{block}\nenv -0"
    done = subprocess.run(["sh", "-eu", "-c", script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=True)
    pairs = (entry.split("=", 1) for entry in done.stdout.decode().split("\0") if "=" in entry)
    return {name: value for name, value in pairs if name not in {"PATH", "PWD", "_", "SHLVL", "OLDPWD"}}


@pytest.mark.parametrize("runtime", SHELLS)
def test_a_shell_takes_the_block_as_it_stands(site: Path, runtime: str) -> None:
    result = env("--for", runtime, "-c", site)
    assert result.exit_code == 0
    found = evaluated(result.output)
    assert found["PAY_MENTS_BASE_URL"] == "http://127.0.0.1:8081/pay"
    if runtime == "java":
        assert "-Dhttp.proxyPort=8081" in found["JAVA_TOOL_OPTIONS"]
        assert "http_proxy" not in found
    else:
        assert found["http_proxy"] == found["HTTP_PROXY"] == "http://127.0.0.1:8081"
        assert found["no_proxy"] == found["NO_PROXY"]
        assert {"localhost", "127.0.0.1", "169.254.169.254"} <= set(found["no_proxy"].split(","))
        assert "https_proxy" not in found


def test_node_gets_its_switch(site: Path) -> None:
    assert evaluated(env("--for", "node", "-c", site).output)["NODE_USE_ENV_PROXY"] == "1"


def test_https_is_asked_for_in_words(site: Path) -> None:
    found = evaluated(env("--for", "go", "--https", "-c", site).output)
    assert found["https_proxy"] == found["HTTPS_PROXY"] == "http://127.0.0.1:8081"


def test_the_kubernetes_block_is_a_list_of_variables(site: Path) -> None:
    found = yaml.safe_load(env("--for", "kubernetes", "-c", site).output)
    variables = {item["name"]: item["value"] for item in found["env"]}
    assert variables["http_proxy"] == "http://127.0.0.1:8081"
    assert ".svc" in variables["NO_PROXY"].split(",")


def test_the_docker_block_is_one_command(site: Path) -> None:
    block = env("--for", "docker", "-c", site).output
    command_line = [line for line in block.splitlines() if not line.startswith("#")]
    assert command_line[0].startswith("docker run ")
    assert all(line.endswith("\\") for line in command_line[:-1])
    done = subprocess.run(
        ["sh", "-eu", "-c", 'docker() { for word; do printf "%s\\0" "$word"; done; }\n' + block],
        capture_output=True,
        check=True,
    )
    assert b"--env\0http_proxy=http://127.0.0.1:8081\0" in done.stdout


@pytest.mark.parametrize("runtime", list(RUNTIMES))
def test_every_block_says_what_happens_to_https(site: Path, runtime: str) -> None:
    assert "https:// URLs" in env("--for", runtime, "-c", site).output


def test_where_hosts_are_intercepted_the_block_brings_trust_and_https(site: Path, tmp_path: Path) -> None:
    create(tmp_path / "ca", ["api.example"], datetime.now(UTC))
    site.write_text(SITE + "intercept: {hosts: [api.example], ca: ca}\n", encoding="utf-8")
    python = evaluated(env("--for", "python", "-c", site).output)
    assert python["SSL_CERT_FILE"] == python["REQUESTS_CA_BUNDLE"] == str(tmp_path / "ca" / "bundle.pem")
    assert python["https_proxy"] == "http://127.0.0.1:8081"
    node = evaluated(env("--for", "node", "-c", site).output)
    assert node["NODE_EXTRA_CA_CERTS"] == str(tmp_path / "ca" / "ca.pem")
    assert json.dumps(node).count("bundle.pem") == 0
    assert "keytool" in env("--for", "java", "-c", site).output
    assert "ca.key" not in env("--for", "docker", "-c", site).output


def test_another_place_may_be_said(site: Path) -> None:
    found = evaluated(env("--for", "curl", "-c", site, "--proxy", "http://sidecar:8080").output)
    assert found["http_proxy"] == "http://sidecar:8080"


@pytest.mark.parametrize(
    "url", ["sidecar:8080", "https://sidecar:8080", "http://sidecar", "http://a:b@sidecar:1", "http://x:y"]
)
def test_a_place_that_is_none_is_a_usage_error(url: str) -> None:
    assert env("--for", "curl", "--proxy", url).exit_code == 2


def test_any_free_port_cannot_be_printed(tmp_path: Path) -> None:
    path = tmp_path / "sidecar.yaml"
    path.write_text("listen: 127.0.0.1:0\n", encoding="utf-8")
    result = env("--for", "curl", "-c", path)
    assert result.exit_code == 2
    assert "--proxy" in result.output
