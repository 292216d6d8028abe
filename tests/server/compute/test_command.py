from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mantik.exceptions import ConfigurationError
from mantik.server.compute.config import ComputeConfig
from mantik.testing import wait_until
from mantik.testing.processes import running_processes
from tests.server.running import DEADLINE, RunningPlatform, run_command

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--compute", "cluster"], "Invalid value for '--compute'"),
        (["--compute-slots", "0"], "Invalid value for '--compute-slots'"),
        (["--compute-queue-limit", "x"], "Invalid value for '--compute-queue-limit'"),
        (["--compute-archive-limit", "100"], "'100' is no size, expected a number and a unit, e.g. 100MiB."),
        (["--public-url", "mlflow.lab.example"], "--public-url=... is no http(s) URL"),
        (["--public-url", "https://ada:pw@mlflow.lab.example"], "--public-url contains user information"),
        (["--public-url", "https://mlflow.lab.example/x"], "has a path"),
        (["--compute", "local", "--allowed-hosts", "mlflow.lab.example"], "Give it with --public-url"),
    ],
)
def test_option_that_cannot_be_meant_is_an_error(tmp_path: Path, options: list[str], text: str) -> None:
    """Before anything is started, with what was expected."""
    done = run_command("--port", "0", "--data", str(tmp_path / "data"), *options)
    assert done.returncode in {1, 2}
    assert text in done.stderr or text.replace("=...", "='mlflow.lab.example'") in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def slurm(folder: Path, nodes: str) -> str:
    """Make a folder with Slurm's commands, of which only the list of nodes does anything, and return a PATH with it."""
    folder.mkdir()
    for name in ("sbatch", "squeue", "scancel", "scontrol"):
        (folder / name).write_text("#!/bin/sh\nexit 1\n")
    (folder / "sinfo").write_text(f"#!/bin/sh\nprintf '{nodes}\\n'\n")
    for path in folder.iterdir():
        path.chmod(0o700)
    return f"{folder}:{os.environ['PATH']}"


def test_slurm_has_to_be_there_and_to_reach_the_platform(tmp_path: Path) -> None:
    """Its commands are looked for, and an address of this machine alone is none for its nodes."""
    arguments = ["--port", "0", "--data", str(tmp_path / "data"), "--compute", "slurm"]
    (tmp_path / "empty").mkdir()
    done = run_command(*arguments, PATH=str(tmp_path / "empty"))
    assert "--compute slurm needs Slurm's commands, and there is no sbatch" in done.stderr
    done = run_command(*arguments, PATH=slurm(tmp_path / "bin", "n1\\nn2"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "Jobs on n1 cannot reach the platform at http://127.0.0.1" in done.stderr
    assert "--public-url" in done.stderr


def test_platform_starts_while_slurm_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its controller may come up later: the platform serves meanwhile, and says what it does not know."""
    monkeypatch.setenv("PATH", slurm(tmp_path / "bin", ""))
    away = "slurm_load_partitions: Unable to contact slurm controller (connect failure)"
    (tmp_path / "bin" / "sinfo").write_text(f"#!/bin/sh\necho '{away}' >&2\nexit 1\n")
    running = RunningPlatform(tmp_path / "data", "--compute", "slurm")
    running.add_user("alice")
    answer = running.get("/compute-backend/jobs", running.access_token("alice"))
    running.process.send_signal(signal.SIGTERM)
    _, said = running.process.communicate(timeout=DEADLINE)
    assert answer.status_code == 200, answer.text
    assert f"Warning: Slurm does not say which machines it has: {away}" in said
    assert f"Only jobs on this machine reach the platform at {running.url}." in said
    assert "--public-url" in said


def test_set_up_reaches_the_processes(tmp_path: Path) -> None:
    """What the command was told comes out of the environment as it went in; what cannot be meant is an error."""
    config = ComputeConfig(tmp_path / "c", "slurm", 3, 1234, 5, "https://mlflow.lab.example")
    assert ComputeConfig.from_environment(config.to_environment()) == config
    assert ComputeConfig.from_environment({"MANTIK_SERVER_DATA": "/srv"}) == ComputeConfig(Path("/srv/compute"))
    for name, value in (("MANTIK_SERVER_COMPUTE", "x"), ("MANTIK_SERVER_COMPUTE_SLOTS", "x")):
        with pytest.raises(ConfigurationError, match=name):
            ComputeConfig.from_environment({name: value})


def dispatchers(data: Path) -> list[int]:
    """Return the ids of the dispatchers of a platform."""
    found = []
    for process in running_processes():
        # One may end while it is looked at.
        with contextlib.suppress(OSError):
            folder = Path(f"/proc/{process.pid}")
            is_ours = f"MANTIK_SERVER_DATA={data}\0".encode() in (folder / "environ").read_bytes()
            if is_ours and b"mantik.server.compute.dispatcher" in (folder / "cmdline").read_bytes():
                found.append(process.pid)
    return found


def soon(condition: Callable[[], object], what: str) -> None:
    """Wait for something that happens by itself."""
    wait_until(condition, deadline=DEADLINE, what=what)


def test_dispatcher_lives_as_long_as_the_command(tmp_path: Path) -> None:
    """It is started with it, started again when it dies, and ends with it, even by SIGKILL."""
    running = RunningPlatform(tmp_path / "data", "--compute", "local")
    data = running.config.data
    soon(lambda: len(dispatchers(data)) == 1, "one dispatcher")
    (first,) = dispatchers(data)
    os.kill(first, signal.SIGKILL)
    soon(lambda: len(set(dispatchers(data)) - {first}) == 1, "another dispatcher")
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait()
    soon(lambda: not dispatchers(data) and not running.server_processes(), "the end of all processes")
    running.process.communicate()


def test_platform_without_jobs_has_no_dispatcher(tmp_path: Path) -> None:
    """And no folder for jobs: nobody runs programs of others by accident."""
    running = RunningPlatform(tmp_path / "data")
    running.add_user("alice")
    answer = running.get("/compute-backend/jobs", running.access_token("alice"))
    assert answer.status_code == 503
    assert not dispatchers(running.config.data)
    assert not running.config.compute.exists()
    running.stop()
