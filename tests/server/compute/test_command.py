from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from mantik.cli.commands import mantik
from mantik.exceptions import ConfigurationError
from mantik.server.compute.config import ComputeConfig
from mantik.server.compute.options import reachable_by_jobs
from mantik.testing import wait_until
from mantik.testing.processes import running_processes
from tests.server.running import DEADLINE, RunningPlatform, run_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AWAY = "slurm_load_partitions: Unable to contact slurm controller (connect failure)"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--compute", "cluster"], "Invalid value for '--compute'"),
        (["--compute-slots", "0"], "Invalid value for '--compute-slots'"),
        (["--compute-queue-limit", "x"], "Invalid value for '--compute-queue-limit'"),
        (["--compute-keep-days", "0"], "Invalid value for '--compute-keep-days'"),
        (["--compute-archive-limit", "100"], "'100' is no size, expected a number and a unit, e.g. 100MiB."),
        (["--public-url", "mlflow.lab.example"], "--public-url=... is no http(s) URL"),
        (["--public-url", "https://ada:pw@mlflow.lab.example"], "--public-url contains user information"),
        (["--public-url", "https://mlflow.lab.example/x"], "has a path"),
        (["--compute", "local", "--allowed-hosts", "mlflow.lab.example"], "Give it with --public-url"),
    ],
)
def test_option_that_cannot_be_meant_is_an_error(tmp_path: Path, options: list[str], text: str) -> None:
    """Before anything is started, with what was expected."""
    done = CliRunner().invoke(mantik, ["server", "--port", "0", "--data", str(tmp_path / "data"), *options])
    assert done.exit_code in {1, 2}
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


@pytest.mark.thorough
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


def test_set_up_reaches_the_processes(tmp_path: Path) -> None:
    """What the command was told comes out of the environment as it went in; what cannot be meant is an error."""
    config = ComputeConfig(tmp_path / "c", "slurm", 3, 1234, 5, "https://mlflow.lab.example", 30)
    for each in (config, replace(config, keep_days=None)):
        assert ComputeConfig.from_environment(each.to_environment()) == each
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


def test_address_of_this_machine_alone_is_none_for_other_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm's commands are looked for, and so are its machines: jobs on another one do not reach the platform here."""
    config = ComputeConfig(tmp_path, "slurm")
    here, url = socket.gethostname(), "http://127.0.0.1:5000"
    monkeypatch.setenv("PATH", slurm(tmp_path / "one", here))
    assert reachable_by_jobs(config, url).url == url
    monkeypatch.setenv("PATH", slurm(tmp_path / "two", f"{here}\\nn1"))
    with pytest.raises(ConfigurationError, match=r"Jobs on n1 cannot reach .* at http://127.0.0.1:5000.* --public-url"):
        reachable_by_jobs(config, url)
    public = "https://mlflow.lab.example"
    assert reachable_by_jobs(replace(config, url=public), url).url == public
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(mantik, ["server", "--data", str(tmp_path / "data"), "--compute", "slurm"])
    assert "--compute slurm needs Slurm's commands, and there is no sbatch" in done.stderr


@pytest.fixture
def without_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningPlatform]:
    """A platform that was started while Slurm's controller does not answer."""
    monkeypatch.setenv("PATH", slurm(tmp_path / "bin", ""))
    (tmp_path / "bin" / "sinfo").write_text(f"#!/bin/sh\necho '{AWAY}' >&2\nexit 1\n")
    running = RunningPlatform(tmp_path / "data", "--compute", "slurm")
    yield running
    running.process.kill()
    running.process.communicate()


def test_platform_with_jobs_and_its_dispatcher(without_answer: RunningPlatform) -> None:
    """Both start while Slurm is away, which is said; the dispatcher is started again when it dies, and ends with it."""
    running, data = without_answer, without_answer.config.data
    running.add_user("alice")
    answer = running.get("/compute-backend/jobs", running.access_token("alice"))
    assert answer.status_code == 200, answer.text
    soon(lambda: len(dispatchers(data)) == 1, "one dispatcher")
    (first,) = dispatchers(data)
    os.kill(first, signal.SIGKILL)
    soon(lambda: len(set(dispatchers(data)) - {first}) == 1, "another dispatcher")
    # Even by this signal.
    os.kill(running.process.pid, signal.SIGKILL)
    soon(lambda: not dispatchers(data) and not running.server_processes(), "the end of all processes")
    _, said = running.process.communicate(timeout=DEADLINE)
    assert f"Warning: Slurm does not say which machines it has: {AWAY}" in said
    assert f"Only jobs on this machine reach the platform at {running.url}." in said
    assert "--public-url" in said


def test_platform_without_jobs_has_no_dispatcher(tmp_path: Path) -> None:
    """And no folder for jobs: nobody runs programs of others by accident."""
    running = RunningPlatform(tmp_path / "data")
    running.add_user("alice")
    answer = running.get("/compute-backend/jobs", running.access_token("alice"))
    assert answer.status_code == 503
    assert not dispatchers(running.config.data)
    assert not running.config.compute.exists()
    running.stop()
