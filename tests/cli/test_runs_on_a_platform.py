"""``mantik runs`` as users type it, against a platform that runs jobs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from mantik.testing import FaultProxy, LoseAcknowledgement, Platform, wait_until
from tests.scripts import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MLPROJECT = """\
name: tiny
entry_points:
  main:
    parameters:
      code: {type: float, default: 0}
    command: "python job.py {code}"
  wait:
    command: "python wait.py"
"""
JOB = """\
import pathlib, sys
pathlib.Path("out").mkdir()
pathlib.Path("out", "model.txt").write_text("trained")
print("epoch 1 is over", flush=True)
sys.exit(int(sys.argv[1]))
"""
WAIT = """\
import signal
print("waiting", flush=True)
signal.pause()
"""
SUBMIT = ("submit", "project", "--experiment-id", "0", "--backend-config", "config.yaml")


class User:
    """Somebody at a shell, in a folder with a project."""

    def __init__(self, platform: Platform, home: Path) -> None:
        self.home = home
        self.environment = clean_environment(platform.environment(), home)
        project = home / "project"
        project.mkdir()
        config = "Resources: {Queue: batch}\n"
        files = {"MLproject": MLPROJECT, "job.py": JOB, "wait.py": WAIT, "config.yaml": config}
        for name, content in files.items():
            (project / name).write_text(content, encoding="utf-8")

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        """Start ``mantik runs``."""
        return subprocess.Popen(
            [sys.executable, "-m", "mantik", "runs", *arguments],
            env={**self.environment, **settings},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def runs(self, *arguments: str, code: int = 0, **settings: str) -> tuple[str, str]:
        """Run ``mantik runs`` to its end, which has to be this exit code; return output and errors."""
        process = self.start(*arguments, **settings)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == code, errors
        return output, errors


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """Start a platform that runs jobs as processes."""
    with Platform(compute="local", compute_slots=2) as platform:
        yield platform


@pytest.fixture(scope="module")
def user(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> User:
    """Return a user of the platform."""
    return User(platform, tmp_path_factory.mktemp("user"))


@pytest.fixture(scope="module")
def done(user: User) -> dict[str, Any]:
    """Submit a job that succeeds, for scripts, and return how it ended."""
    output, errors = user.runs(*SUBMIT, "--run-name", "first", "--follow", "--json")
    submitted, ended = map(json.loads, output.splitlines())
    assert submitted["job_id"] == submitted["unicore_job_id"] == ended["job_id"]
    assert submitted["run_id"] == ended["run_id"]
    assert "epoch 1 is over\n" in errors
    assert errors.endswith(f"Job {ended['job_id']} is SUCCEEDED\n")
    return dict(ended)


def test_a_job_that_succeeds(done: dict[str, Any], platform: Platform) -> None:
    """`submit --follow` ends with 0, and the run is FINISHED under the name that was given."""
    assert (done["state"], done["exit_code"], done["run_name"]) == ("SUCCEEDED", 0, "first")
    run = platform.read_back.run(done["run_id"])
    assert (run.status, run.name) == ("FINISHED", "first")


def test_an_answer_that_is_lost(user: User, platform: Platform) -> None:
    """A job is there once, and its user is told of it, where the connection breaks after the upload."""
    before = {run.run_id for run in platform.read_back.runs("Default")}
    with FaultProxy(platform.url) as proxy:
        lost = proxy.fault(LoseAcknowledgement(), path="/compute-backend/submit/0")
        urls = {name: text.replace(platform.url, proxy.url) for name, text in user.environment.items()}
        output, errors = user.runs(*SUBMIT, "--json", **urls)
        assert lost.hits == 1
    assert "Looking for up to 60 s whether there is a job." in errors
    submitted = json.loads(output)
    assert {run.run_id for run in platform.read_back.runs("Default")} - before == {submitted["run_id"]}
    assert "epoch 1 is over\n" in user.runs("logs", submitted["job_id"], "--follow")[0]


def test_a_job_that_fails(user: User, platform: Platform) -> None:
    """`submit --follow` ends with the exit code of the job's program; its output is the output."""
    output, errors = user.runs(*SUBMIT, "-P", "code=3", "--follow", code=3)
    assert "epoch 1 is over\n" in output
    submitted, ended = re.search(r"Job (\S+) was submitted: run (\w+)", errors), errors.splitlines()[-1]
    assert submitted is not None
    assert ended == f"Job {submitted[1]} is FAILED: its program ended with exit code 3"
    assert f"{platform.url}/#/experiments/0/runs/{submitted[2]}\n" in errors
    assert platform.read_back.run(submitted[2]).status == "FAILED"
    assert user.runs("logs", submitted[1], "--follow", code=3)[0] == output


def test_looking_at_a_job(done: dict[str, Any], user: User) -> None:
    """`list`, `status`, `info` and `logs` show it, by its id and by that of its run."""
    job_id, run_id = done["job_id"], done["run_id"]
    row = next(line for line in user.runs("list")[0].splitlines() if line.startswith(job_id))
    assert row.split("\t")[2:] == ["batch", "SUCCEEDED", run_id]
    listed = [json.loads(line) for line in user.runs("list", "--json", "-t", "1000")[0].splitlines()]
    assert done in listed
    assert user.runs("status", run_id) == ("SUCCEEDED\n", "")
    assert yaml.safe_load(user.runs("info", run_id)[0]) == done
    assert "epoch 1 is over\n" in user.runs("logs", job_id)[0]


def test_fetching_files(done: dict[str, Any], user: User) -> None:
    """`download` brings a file, and refuses to bring it where one of that name is."""
    download = ("download", done["job_id"], "--remote-path", "out/model.txt", "--local-path", "here")
    assert user.runs(*download)[0] == "here/model.txt\n"
    fetched = user.home / "here" / "model.txt"
    assert fetched.read_text(encoding="utf-8") == "trained"
    fetched.write_text("mine", encoding="utf-8")
    output, errors = user.runs(*download, code=1)
    assert (output, errors) == (
        "",
        "Error: here/model.txt is there already; nothing was downloaded. Move it, or name another folder.\n",
    )
    assert fetched.read_text(encoding="utf-8") == "mine"


def test_ending_a_job(user: User, platform: Platform) -> None:
    """`cancel` ends a running job: who follows it gets its end, and the run is KILLED."""
    submitted = json.loads(user.runs(*SUBMIT, "--entry-point", "wait", "--json")[0])
    job_id, run_id = submitted["job_id"], submitted["run_id"]
    following = user.start("logs", job_id, "--follow")
    assert following.stdout is not None
    assert any(line == "waiting\n" for line in following.stdout)
    assert user.runs("status", job_id) == ("RUNNING\n", "")
    assert user.runs("cancel", job_id) == (f"Job {job_id} is being cancelled.\n", "")
    _, errors = following.communicate(timeout=60)
    assert following.returncode != 0
    assert f"Job {job_id} is CANCELLED" in errors
    wait_until(lambda: platform.read_back.run(run_id).status == "KILLED", deadline=60, what="the end of the run")


@pytest.mark.parametrize("command", ["status", "logs", "cancel", "download"])
def test_a_job_that_is_not_there(command: str, user: User, platform: Platform) -> None:
    """An id that nobody has is one sentence in the platform's words."""
    output, errors = user.runs(command, "no-such-job", code=1)
    assert output == ""
    assert errors == (
        f"Error: The compute backend at {platform.url} says (HTTP 404): "
        "There is no such job, or it is somebody else's\n"
    )


def test_a_platform_without_jobs(mantik_platform: Platform, tmp_path: Path) -> None:
    """A platform that was started without a compute backend says so, before anything is uploaded."""
    output, errors = User(mantik_platform, tmp_path).runs(*SUBMIT, code=1)
    assert output == ""
    assert errors.startswith(f"Error: {mantik_platform.url} takes no jobs: ")
    assert "--compute local" in errors
    assert len(errors.splitlines()) == 1
