from __future__ import annotations

import contextlib
import socket
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mantik.exceptions import LoginRefusedError, PlatformError, PlatformUnreachableError
from mantik.testing import Platform, ReadBack, wait_until
from mantik.testing.processes import family, running_processes
from tests.server.compute.projects import FILES, archive, form

if TYPE_CHECKING:
    import requests


def write(platform: Platform, session: requests.Session, endpoint: str, content: dict[str, object]) -> None:
    """Write with plain REST."""
    user = {"username": platform.username, "password": platform.password}
    login = session.post(f"{platform.url}/api/mantik/tokens/create", json=user, timeout=30)
    answer = session.post(
        f"{platform.url}/api/2.0/mlflow/{endpoint}",
        json=content,
        headers={"Authorization": f"Bearer {login.json()['AccessToken']}"},
        timeout=30,
    )
    answer.raise_for_status()


def jobs_processes(mark: bytes) -> set[int]:
    """Return the processes that sleep for a job."""
    found = set()
    for process in running_processes():
        # One may end while it is looked at.
        with contextlib.suppress(OSError):
            folder = Path(f"/proc/{process.pid}")
            is_sleep = (folder / "cmdline").read_bytes().startswith(b"sleep\x004321")
            if is_sleep and mark in (folder / "environ").read_bytes():
                found.add(process.pid)
    return found


def submit(platform: Platform, session: requests.Session) -> bytes:
    """Submit a job that sleeps, and return what its processes have in their environment."""
    project = {**FILES, "MLproject": "entry_points: {main: {command: 'exec sleep 4321'}}"}
    body, headers = form(archive(project), mlflow_parameters="{}")
    user = {"username": platform.username, "password": platform.password}
    login = session.post(f"{platform.url}/api/mantik/tokens/create", json=user, timeout=30).json()
    headers["Authorization"] = f"Bearer {login['AccessToken']}"
    answer = session.post(f"{platform.url}/compute-backend/submit/0", data=body, headers=headers, timeout=30)
    assert answer.status_code == 201, answer.text
    return f"MANTIK_JOB_ID={answer.json()['job_id']}".encode()


def test_a_platform_survives_an_outage_and_leaves_nothing(
    tmp_path: Path, session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SIGKILL the same port serves the same data, and jobs go on; after stop only the given folder is left."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://from-the-caller")
    monkeypatch.setenv("MANTIK_PASSWORD", "from-the-caller")
    with Platform(tmp_path / "data", username="grace", workers=2, compute="local", compute_slots=1) as platform:
        url = platform.url
        write(platform, session, "experiments/create", {"name": "before the outage"})
        mark = submit(platform, session)
        job = wait_until(lambda: jobs_processes(mark), deadline=60, what="the job's program")

        platform.kill()
        assert not platform.running
        with pytest.raises(PlatformUnreachableError):
            platform.read_back.experiments()
        assert jobs_processes(mark) == job

        platform.restart()
        assert platform.running
        assert platform.url == url
        assert platform.read_back.experiment("before the outage").lifecycle_stage == "active"
        assert jobs_processes(mark) == job
        processes = family(platform.pid)
        assert len(processes) > 3
        assert not [process for process in processes if b"from-the-caller" in environment_of(process.pid)]

    assert not platform.running
    assert not set(processes) & set(running_processes())
    assert not jobs_processes(mark)
    assert (tmp_path / "data" / "server.log").exists()


def test_the_settings_reach_the_server(tmp_path: Path, session: requests.Session) -> None:
    """The token lifetime is the server's; users can log in that were added before the start and after it."""
    Platform(tmp_path).add_user("grace", "another good password")
    with Platform(tmp_path, username="grace", password="another good password", token_lifetime=90) as platform:
        user = {"username": "grace", "password": "another good password"}
        login = session.post(f"{platform.url}/api/mantik/tokens/create", json=user, timeout=30)
        life = datetime.fromisoformat(login.json()["ExpiresAt"]) - datetime.now(tz=timezone.utc)
        assert 30 < life.total_seconds() <= 91
        assert platform.read_back.experiment("Default")

        platform.add_user("hedy", "frequency hopping 1942")
        assert ReadBack(platform.url, "hedy", "frequency hopping 1942").experiment("Default")
        with pytest.raises(LoginRefusedError, match="hedy"):
            ReadBack(platform.url, "hedy", "a wrong password").experiments()
        with pytest.raises(PlatformError, match="hedy"):
            platform.add_user("hedy", "frequency hopping 1942")


def test_the_environment_is_that_of_a_client(mantik_platform: Platform) -> None:
    """Three variables make a client; the password is in no repr."""
    assert mantik_platform.environment() == {
        "MANTIK_USERNAME": "ada",
        "MANTIK_PASSWORD": mantik_platform.password,
        "MLFLOW_TRACKING_URI": mantik_platform.url,
    }
    assert mantik_platform.password not in repr(mantik_platform)
    assert mantik_platform.password not in repr(mantik_platform.read_back)
    with pytest.raises(RuntimeError, match="running already"):
        mantik_platform.start()


def test_a_port_that_is_taken_is_said_with_the_servers_own_words() -> None:
    """A server that cannot start is an error with what the server printed, and its temporary folder is removed."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        platform = Platform(port=taken.getsockname()[1])
        with pytest.raises(PlatformError, match=r"the platform ended with status [1-9](?s:.)*It printed:(?s:.)*in use"):
            platform.start()

    assert not platform.running
    with pytest.raises(RuntimeError, match="no data folder"):
        _ = platform.data


def test_before_the_start_there_is_no_address() -> None:
    """Asking a platform that was never started for its address says what to do."""
    platform = Platform()

    with pytest.raises(RuntimeError, match=r"start\(\)"):
        _ = platform.url
    platform.stop()


def environment_of(pid: int) -> bytes:
    """Return the environment with which a process was started, empty where the system does not tell."""
    file = Path(f"/proc/{pid}/environ")
    return file.read_bytes() if file.exists() else b""
