"""``sidecar health``: 0 or 1, one line, whatever it finds at the other end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sidecar.cli.health import command


class Answers(BaseHTTPRequestHandler):
    """An admin port that lives and is not ready."""

    def do_GET(self) -> None:
        status, text = {"/livez": (200, b"ok\n"), "/readyz": (503, b"[-]draining failed\nnot ready\n")}.get(
            self.path, (404, b"404\n")
        )
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Silent."""


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join(10)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def health(*words: str, env: dict[str, str | None] | None = None) -> Result:
    clean = {"SIDECAR_ADMIN": None, "SIDECAR_CONFIG": None, "HTTP_PROXY": "http://127.0.0.1:1"}
    return CliRunner().invoke(command, list(words), env={**clean, **(env or {})})


def test_a_living_sidecar_is_0(port: int) -> None:
    result = health("--url", f"http://127.0.0.1:{port}")
    assert (result.exit_code, result.output) == (0, "ok\n")


def test_one_that_is_not_ready_is_1_and_says_why(port: int) -> None:
    result = health("--url", f"http://127.0.0.1:{port}/", "--ready")
    assert result.exit_code == 1
    assert "answered 503: [-]draining failed · not ready" in result.output
    assert result.output.count("\n") == 1


def test_a_path_in_the_url_is_asked_as_it_stands(port: int) -> None:
    assert health("--url", f"http://127.0.0.1:{port}/readyz").exit_code == 1
    assert "404" in health("--url", f"http://127.0.0.1:{port}/other").output


def test_the_environment_names_the_address_and_a_wildcard_means_loopback(port: int) -> None:
    assert health(env={"SIDECAR_ADMIN": f"127.0.0.1:{port}"}).exit_code == 0
    assert health(env={"SIDECAR_ADMIN": f"0.0.0.0:{port}"}).exit_code == 0
    assert health("--ready", env={"SIDECAR_ADMIN": f"localhost:{port}"}).exit_code == 1


def test_nobody_there_is_1(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    result = health("--url", f"http://127.0.0.1:{port}")
    assert result.exit_code == 1
    assert f"no answer from http://127.0.0.1:{port}/livez: Connection refused" in result.output


def test_silence_is_1_after_the_timeout(listener: socket.socket) -> None:
    result = health("--url", f"http://127.0.0.1:{listener.getsockname()[1]}", "--timeout", "0.05")
    assert result.exit_code == 1
    assert "it took too long" in result.output


def test_something_that_is_not_http_is_1(listener: socket.socket) -> None:
    def speak() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"SSH-2.0-x\r\n")

    thread = threading.Thread(target=speak)
    thread.start()
    result = health("--url", f"http://127.0.0.1:{listener.getsockname()[1]}")
    thread.join(10)
    assert result.exit_code == 1
    assert "not an HTTP answer" in result.output


@pytest.mark.parametrize("url", ["127.0.0.1:9180", "https://x", "http://", "http://x:port", "http://[::1", ""])
def test_a_url_that_cannot_be_is_a_usage_error(url: str) -> None:
    result = health("--url", url, env={"SIDECAR_ADMIN": "nonsense"})
    assert result.exit_code == 2
    assert "Traceback" not in result.output


@pytest.mark.parametrize("address", ["nonsense", "x:0", ":1", "x:99999", "[::1"])
def test_an_address_that_cannot_be_is_a_usage_error(address: str) -> None:
    result = health(env={"SIDECAR_ADMIN": address})
    assert result.exit_code == 2
    assert "SIDECAR_ADMIN" in result.output


@pytest.mark.parametrize(
    "written", ["admin: {}", "admin:   '{}' # here", 'listen: 127.0.0.1:1\nadmin: "{}"', "{{admin: '{}'}}"]
)
def test_the_address_is_that_of_the_configuration(port: int, tmp_path: Path, written: str) -> None:
    path = tmp_path / "sidecar.yaml"
    path.write_text(written.format(f"127.0.0.1:{port}") + "\n")
    assert health(env={"SIDECAR_CONFIG": str(path)}).exit_code == 0
    done = probe(SIDECAR_CONFIG=str(path))
    assert (done.returncode, done.stdout) == (0, "ok\n")


def test_without_a_named_file_it_is_that_of_this_directory(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sidecar.yaml").write_text(f"admin: 127.0.0.1:{port}\n")
    assert health().exit_code == 0
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    assert (probe().returncode, probe().stdout) == (0, "ok\n")


def test_a_container_s_check_is_the_command_without_its_price(listener: socket.socket, tmp_path: Path) -> None:
    port = listener.getsockname()[1]
    listener.close()
    done = probe(SIDECAR_ADMIN=f"0.0.0.0:{port}")
    assert done.returncode == 1
    assert "Connection refused" in done.stdout
    assert probe(SIDECAR_ADMIN="nonsense").returncode == 2
    assert probe(SIDECAR_CONFIG=str(tmp_path / "missing.yaml")).returncode == 78
    imported = "import sys, sidecar.cli.probe; print({'click', 'yaml', 'pydantic', 'http', 'ssl'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-I", "-c", imported], capture_output=True, text=True).stdout == "set()\n"


def probe(**environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    command = [sys.executable, "-m", "sidecar.cli.probe"]
    return subprocess.run(command, env={**clean, **environ}, capture_output=True, text=True)
