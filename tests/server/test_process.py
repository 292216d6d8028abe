from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
import requests

from mantik.server.process import ServerOptions, ServerProcess, start
from mantik.testing import wait_until

from .running import COMMAND, DEADLINE, PASSWORD, RunningPlatform, run_command

if TYPE_CHECKING:
    from pathlib import Path


def test_ready_line_is_all_that_scripts_see(tmp_path: Path) -> None:
    """One line on standard output and a friendly text on standard error; two workers share key and users.

    When the command dies by SIGKILL all of it stops, and the data is free again.
    """
    running = RunningPlatform(tmp_path / "data", "--workers", "2")
    assert running.ready_line == f"ready {running.url}\n"
    assert running.url.startswith("http://127.0.0.1:")
    assert requests.get(f"{running.url}/api/mantik/health", timeout=DEADLINE).text == "I'm healthy!"
    assert len(running.server_processes()) >= 4
    assert running.process.stderr
    assert "users none yet" in "".join(running.process.stderr.readline() for _ in range(5))
    running.add_user("alice")
    for _ in range(8):
        # A new connection each time: the workers take turns.
        answer = running.get("/api/3.0/mlflow/server-info", running.access_token("alice"))
        assert answer.status_code == 200
    assert {stat.S_IMODE(path.stat().st_mode) for path in running.config.data.iterdir()} <= {0o600, 0o700}
    assert "GET /api/mantik/health" in running.config.log.read_text()
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait()
    wait_until(lambda: not running.server_processes(), deadline=DEADLINE, what="the server processes end")
    rest, _ = running.process.communicate()
    assert rest == ""
    assert_settings_hold(tmp_path)


def assert_settings_hold(folder: Path) -> None:
    """What its user has set as a client does not reach the server; secrets are no arguments; hosts are checked."""
    uri = f"sqlite:///{folder}/elsewhere.db"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN", "MANTIK_PASSWORD", "MLFLOW_STATIC_PREFIX"):
            patch.setenv(name, "/foreign")
        again = RunningPlatform(folder / "data", "--backend-store-uri", uri, "--allowed-hosts", "platform.example")
    processes = [f"/proc/{pid}" for pid in again.server_processes()]
    assert len(processes) >= 2
    for process in processes:
        with open(f"{process}/environ", "rb") as environ, open(f"{process}/cmdline", "rb") as arguments:  # noqa: PTH123
            assert b"/foreign" not in environ.read()
            assert uri.encode() not in arguments.read()
    assert (folder / "elsewhere.db").exists()
    assert_hosts_are_checked(again)
    again.process.send_signal(signal.SIGINT)
    assert again.process.communicate(timeout=DEADLINE)[0] == ""
    assert again.process.returncode == 0
    assert again.server_processes() == []


def assert_hosts_are_checked(running: RunningPlatform) -> None:
    """Only the allowed host is served; under it MLflow's page works in a browser, another site's does not."""
    refused = running.get("/api/3.0/mlflow/server-info", running.access_token("alice"))
    assert (refused.status_code, refused.text.partition(" - ")[0]) == (403, "Invalid Host header")
    own = {"Host": "platform.example", "Origin": "https://platform.example"}
    with requests.Session() as browser:
        form = {"username": "alice", "password": PASSWORD}
        signed_in = browser.post(
            f"{running.url}/mantik/sign-in", data=form, headers=own, timeout=DEADLINE, allow_redirects=False
        )
        cookie = {"Cookie": signed_in.headers["Set-Cookie"].split(";")[0]}
        search = f"{running.url}/ajax-api/2.0/mlflow/experiments/search"
        body = {"max_results": 5}
        assert browser.post(search, json=body, headers={**own, **cookie}, timeout=DEADLINE).status_code == 200
        foreign = {**own, **cookie, "Origin": "https://other.example"}
        assert browser.post(search, json=body, headers=foreign, timeout=DEADLINE).status_code == 403


def test_command_that_is_killed_early_leaves_nothing(tmp_path: Path) -> None:
    """A kill while the server is still loading is noticed as well."""
    process = subprocess.Popen([*COMMAND, "--port", "0", "--data", str(tmp_path)], stderr=subprocess.DEVNULL)
    seen = _Seen(tmp_path, process)
    wait_until(lambda: bool(seen.server_processes()), deadline=DEADLINE, what="a server process starts")
    process.kill()
    process.wait()
    wait_until(lambda: not seen.server_processes(), deadline=DEADLINE, what="the server processes end")


class _Seen(RunningPlatform):
    """Looks for the server processes of a command that is not ready."""

    def __init__(self, data: Path, process: subprocess.Popen[bytes]) -> None:
        from mantik.server.config import ServerConfig

        self.config = ServerConfig(data)
        self.process = process  # type: ignore[assignment]


def test_second_platform_on_the_same_data_is_refused(platform: RunningPlatform) -> None:
    """Two commands do not run on one directory."""
    done = run_command("--port", "0", "--data", str(platform.config.data))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: Another platform is running on ")


def test_taken_port_is_an_error(platform: RunningPlatform, tmp_path: Path) -> None:
    """The error names the port and the way out, at once."""
    port = platform.url.rpartition(":")[2]
    done = run_command("--port", port, "--data", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: The server cannot listen on 127.0.0.1 port {port}: ")


def test_file_is_no_directory(tmp_path: Path) -> None:
    """A ``--data`` that is a file is an error that says so."""
    file = tmp_path / "file"
    file.touch()
    for path, text in ((file, "is not a directory"), (file / "below", "cannot be made")):
        done = run_command("--port", "0", "--data", str(path))
        assert (done.returncode, done.stdout) == (1, "")
        assert text in done.stderr
        assert "Traceback" not in done.stderr


def test_server_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    """The end of the log is in the error."""
    done = run_command("--port", "0", "--data", str(tmp_path), "--backend-store-uri", "nonsense://x")
    assert (done.returncode, done.stdout) == (1, "")
    assert "The server did not start. The last lines of" in done.stderr
    assert "nonsense" in done.stderr


def test_lost_port_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another program takes the free port in the meantime, the next one is tried."""
    from mantik.server import process as module
    from mantik.server.config import ServerConfig

    config = ServerConfig(tmp_path / "data")
    config.prepare_data()
    options = ServerOptions("127.0.0.1", 0, f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "artifacts"), 1)
    free_port = module._free_port  # noqa: SLF001 - the race happens right after it
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        ports = [thief.getsockname()[1]]
        monkeypatch.setattr(module, "_free_port", lambda host, port: ports.pop() if ports else free_port(host, port))
        server = start(config, options, lambda: False)
    assert isinstance(server, ServerProcess)
    assert not ports
    server.stop()


def test_log_holds_no_secrets(platform: RunningPlatform) -> None:
    """Neither passwords nor tokens are in the log, whether they were good or bad."""
    tokens = platform.create_tokens("alice").json()
    platform.get("/api/3.0/mlflow/server-info", tokens["AccessToken"])
    platform.get("/api/3.0/mlflow/server-info", "bad-token-1234")
    platform.create_tokens("dave", "bad-password-1234")
    log = platform.config.log.read_text()
    assert "POST /api/mantik/tokens/create" in log
    for secret in (PASSWORD, "bad-password-1234", "bad-token-1234", *(tokens[k] for k in tokens if k != "ExpiresAt")):
        assert secret not in log


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("192.168.1.2", False), ("lab.example", False)],
)
def test_a_platform_for_other_machines_is_told_from_a_local_one(host: str, local: bool) -> None:  # noqa: FBT001
    """Whoever listens beyond this machine is told that the way there is unencrypted."""
    assert ServerOptions(host, 5000, "sqlite://", "artifacts", 1).is_local is local
