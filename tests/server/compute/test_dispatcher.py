"""Dispatchers beside a server that has none of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mantik.server.compute.dispatcher import dispatcher_for
from mantik.server.compute.folders import JobFolders
from mantik.server.compute.jobs import Job, State
from mantik.server.compute.process import DispatcherProcess
from mantik.server.compute.processes import marked, send
from mantik.server.compute.testimony import Ended
from mantik.server.tokens import TokenIssuer
from mantik.testing import FaultProxy, Refuse, wait_until

from .intake import Intake
from .machine_room import mlproject
from .projects import CONFIG, archive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEADLINE = 90.0


@pytest.fixture(scope="module")
def intake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Intake]:
    """A server that takes jobs and runs none."""
    intake = Intake(tmp_path_factory.mktemp("intake") / "data")
    yield intake
    intake.process.stop()
    for folder in intake.compute.jobs.iterdir():
        send(marked("MANTIK_JOB_ID", folder.name, session=None, since=0), signal.SIGKILL)


def submitted(intake: Intake, command: str, **resources: object) -> Job:
    """Submit a job with this entry point."""
    config = json.dumps({"Resources": {"Queue": "batch", **resources}})
    answer = intake.submit(archive({"MLproject": mlproject(command), CONFIG: config}), mlflow_parameters="{}")
    assert answer.status_code == 201, answer.text
    return job_now(intake, answer.json()["job_id"])


def job_now(intake: Intake, job_id: str) -> Job:
    """Return a job as it is now."""
    job = intake.jobs.get(job_id)
    assert job
    return job


def ended(intake: Intake, job: Job) -> Job:
    """Return a job when it is over."""
    wait_until(lambda: intake.jobs.is_over(job.job_id), deadline=DEADLINE, what=f"the end of {job}")
    return job_now(intake, job.job_id)


def wait_for_file(intake: Intake, job: Job, name: str) -> Path:
    """Wait for a file of a job's project."""
    path = JobFolders(intake.compute.folder, job.job_id).project / name
    wait_until(path.exists, deadline=DEADLINE, what=f"{name} of {job}")
    return path


def run_status(intake: Intake, job: Job) -> str:
    """Return the status of a job's run."""
    return {run["run_id"]: run["status"] for run in intake.runs()}[job.run_id]


@contextlib.contextmanager
def dispatching(intake: Intake, **changes: object) -> Iterator[None]:
    """Run a dispatcher in a thread."""
    config = replace(intake.compute, **{"url": intake.process.url, **changes})  # type: ignore[arg-type]
    dispatcher, stop = dispatcher_for(intake.config, config), threading.Event()
    thread = threading.Thread(target=dispatcher.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def environment(intake: Intake) -> dict[str, str]:
    """Return the variables of a dispatcher's process, which finds a lifeline at its standard input."""
    config = replace(intake.config, lifeline=0)
    compute = replace(intake.compute, url=intake.process.url)
    return {**os.environ, **config.to_environment(), **compute.to_environment()}


class Tethered:
    """A dispatcher at the end of a lifeline that can be cut."""

    def __init__(self, intake: Intake, log: Path) -> None:
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mantik.server.compute.dispatcher"],
                env=environment(intake),
                stdin=subprocess.PIPE,
                stderr=file,
                start_new_session=True,
            )

    def wait_for(self, text: str) -> None:
        """Wait until it has logged a text."""
        wait_until(lambda: text in self._log.read_text(), deadline=DEADLINE, what=f"{text!r} in the log")

    def cut(self) -> int:
        """Cut the lifeline, and return how the process ended."""
        assert self.process.stdin
        self.process.stdin.close()
        return self.process.wait(DEADLINE)


def test_jobs_take_the_slots_they_ask_for_in_their_order(intake: Intake) -> None:
    """A job that needs more slots than are free is waited for, and not overtaken; it has as many CPUs."""
    with dispatching(intake, slots=2):
        first = submitted(intake, "touch up; while [ ! -e go ]; do sleep 0.1; done")
        wait_for_file(intake, first, "up")
        show = "python -c 'import os; print(os.environ[\"OMP_NUM_THREADS\"], len(os.sched_getaffinity(0)))' >cpus"
        wide, last = submitted(intake, show, CPUs=2), submitted(intake, "true")
        (JobFolders(intake.compute.folder, first.job_id).project / "go").touch()
        jobs = [ended(intake, job) for job in (first, wide, last)]
    assert [job.state for job in jobs] == [State.SUCCEEDED] * 3
    times = [job.started_at or "" for job in jobs]
    assert times == sorted(times)
    assert (jobs[0].ended_at or "") <= times[1]
    assert (jobs[1].ended_at or "") <= times[2]
    cpus = min(2, len(os.sched_getaffinity(0)))
    assert (JobFolders(intake.compute.folder, wide.job_id).project / "cpus").read_text() == f"{cpus} {cpus}\n"


def test_end_is_told_when_somebody_listens(intake: Intake) -> None:
    """While the platform refuses connections a job is not over, and says so; then its end is told, and then it is."""
    with FaultProxy(intake.process.url) as proxy:
        proxy.fault(Refuse())
        with dispatching(intake, url=proxy.url):
            job = submitted(intake, "exit 3")
            folders = JobFolders(intake.compute.folder, job.job_id)
            wait_until(lambda: Ended.load(folders), deadline=DEADLINE, what="the end of the program")
            refused = len(proxy.requests)
            wait_until(lambda: len(proxy.requests) >= refused + 2, deadline=DEADLINE, what="two refused reports")
            assert not intake.jobs.is_over(job.job_id)
            told = f"it has ended, which is told later: the platform does not answer at {proxy.url} ("
            assert job_now(intake, job.job_id).reason.startswith(told)
            assert run_status(intake, job) == "SCHEDULED"
            proxy.clear()
            job = ended(intake, job)
    assert (job.state, job.exit_code, job.reason) == (State.FAILED, 3, "its program ended with exit code 3")
    assert run_status(intake, job) == "FAILED"


def test_jobs_survive_their_dispatcher(intake: Intake, tmp_path: Path) -> None:
    """One that is stopped leaves its jobs running; the next, which waited, adopts them, and ends with its lifeline."""
    one = DispatcherProcess(environment(intake), tmp_path / "one.log")
    job = submitted(intake, "touch up; while [ ! -e go ]; do sleep 0.1; done; echo run >>runs")
    up = wait_for_file(intake, job, "up")
    two = Tethered(intake, tmp_path / "two.log")
    two.wait_for("Another dispatcher has the queue")
    one.stop()
    (up.parent / "go").touch()
    job = ended(intake, job)
    assert (job.state, run_status(intake, job)) == (State.SUCCEEDED, "FINISHED")
    assert (up.parent / "runs").read_text() == "run\n"
    assert two.cut() == 0


def test_trouble_of_one_job_is_not_that_of_the_next(intake: Intake) -> None:
    """Jobs with files that cannot be used, with a configuration of another version, and with a lost run fail alone."""
    no_folder, changed, no_run = (submitted(intake, "true") for _ in range(3))
    state = JobFolders(intake.compute.folder, no_folder.job_id).state
    state.touch()
    _write(intake, changed, backend_config='{"Resources": {"Queue": "batch", "Runtime": "soon"}}')
    _write(intake, no_run, run_id="0" * 32)
    sound = submitted(intake, "true")
    with dispatching(intake):
        jobs = [ended(intake, job) for job in (no_folder, changed, no_run, sound)]
    assert [job.state for job in jobs] == [State.FAILED, State.FAILED, State.SUCCEEDED, State.SUCCEEDED]
    assert "'soon' is no duration" in jobs[1].reason
    assert [run_status(intake, job) for job in (no_folder, changed, sound)] == ["FAILED", "FAILED", "FINISHED"]


def test_jobs_of_another_executor_are_left_alone(intake: Intake) -> None:
    """A platform that is told to use Slurm instead leaves a local job as it is, and says so; then it is adopted."""
    with dispatching(intake):
        job = submitted(intake, "touch up; while [ ! -e go ]; do sleep 0.1; done")
        up = wait_for_file(intake, job, "up")
        wait_until(lambda: job_now(intake, job.job_id).state is State.RUNNING, deadline=DEADLINE, what="RUNNING")
    with dispatching(intake, executor="slurm"):
        reason = "it belongs to the executor 'local', which is not in use"
        wait_until(lambda: job_now(intake, job.job_id).reason == reason, deadline=DEADLINE, what=reason)
        assert job_now(intake, job.job_id).state is State.RUNNING
    assert run_status(intake, job) == "RUNNING"
    with dispatching(intake):
        wait_until(lambda: not job_now(intake, job.job_id).reason, deadline=DEADLINE, what="no reason")
        (up.parent / "go").touch()
        job = ended(intake, job)
    assert (job.state, job.executor, job.reason) == (State.SUCCEEDED, "local", "")


def test_job_that_another_executor_may_have_started_is_not_started_again(intake: Intake) -> None:
    """A dispatcher that was killed during a hand-over to Slurm left no number; the job takes no slots of local ones."""
    job = submitted(intake, "echo run >>runs")
    claimed = intake.jobs.claim_next()
    assert claimed
    assert claimed.job_id == job.job_id
    intake.jobs.update(job.job_id, executor="slurm")
    with dispatching(intake, slots=1):
        other = ended(intake, submitted(intake, "true"))
    job = job_now(intake, job.job_id)
    assert other.state is State.SUCCEEDED
    assert (job.state, job.reason) == (State.STARTING, "it belongs to the executor 'slurm', which is not in use")
    assert not (JobFolders(intake.compute.folder, job.job_id).project / "runs").exists()
    intake.jobs.update(job.job_id, executor="local")
    with dispatching(intake):
        assert ended(intake, job).state is State.SUCCEEDED


def test_job_is_marked_while_it_is_handed_over(intake: Intake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its executor is known before it has a number there, and is taken back where nothing was handed over."""
    sbatch, asked, go = (tmp_path / name for name in ("sbatch", "asked", "go"))
    wait = f"touch {asked}; while [ ! -e {go} ]; do sleep 0.1; done"
    sbatch.write_text(f"#!/bin/sh\n{wait}\necho 'Batch job submission failed: connect failure' >&2\nexit 1\n")
    sbatch.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with dispatching(intake, executor="slurm"):
        job = submitted(intake, "true")
        wait_until(asked.exists, deadline=DEADLINE, what="sbatch")
        handed = job_now(intake, job.job_id)
        go.touch()
        wait_until(lambda: not job_now(intake, job.job_id).executor, deadline=DEADLINE, what="the job in the queue")
    assert (handed.state, handed.executor, handed.executor_id) == (State.STARTING, "slurm", None)
    with dispatching(intake):
        job = ended(intake, job)
    assert (job.state, job.executor) == (State.SUCCEEDED, "local")


def _write(intake: Intake, job: Job, **columns: str) -> None:
    """Write into the database what nobody writes."""
    import sqlite3

    with contextlib.closing(sqlite3.connect(intake.compute.database)) as database, database:
        for name, value in columns.items():
            database.execute(f"UPDATE jobs SET {name} = ? WHERE job_id = ?", (value, job.job_id))  # noqa: S608


def test_login_is_of_the_user_and_for_the_job(intake: Intake) -> None:
    """What a job finds in its home is a login of its user's that is bound to the job, readable by nobody else."""
    with dispatching(intake):
        job = submitted(intake, "cat $MANTIK_HOME/tokens/*.json >login; stat -c %a $MANTIK_HOME/tokens/*.json >mode")
        job = ended(intake, job)
    project = JobFolders(intake.compute.folder, job.job_id).project
    login = json.loads((project / "login").read_text())
    issuer = TokenIssuer(intake.config.signing_key.read_bytes(), 3600.0)
    for use in ("access", "refresh"):
        claims = issuer.check(login[f"{use}_token"], use)  # type: ignore[arg-type]
        assert (claims.user_id, claims.username, claims.job) == (job.user_id, "alice", job.job_id)
    assert (project / "mode").read_text() == "600\n"
