"""Jobs in a real Slurm of one node: the executor alone, and behind a platform whose tokens live for two seconds."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mantik.server.compute.executors import CannotRunError, NoRoomError
from mantik.server.compute.executors.slurm import SlurmExecutor
from mantik.server.compute.executors.slurm_commands import Slurm as Commands
from mantik.server.compute.job_environment import login_cache
from mantik.server.compute.jobs import State, now
from mantik.server.compute.testimony import Started
from mantik.testing import wait_until
from tests.integrations.slurm import Slurm, why_no_slurm

from .machine_room import DEADLINE, NO_PLATFORM, MachineRoom
from .projects import SKINNY
from .running_backend import RunningBackend

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.server.compute.executors import Observation
    from mantik.server.compute.jobs import Job

NO_SLURM = why_no_slurm()
pytestmark = pytest.mark.skipif(NO_SLURM is not None, reason=str(NO_SLURM))

REFUSED = "Slurm refuses it: sbatch: error: invalid partition specified:"
ALL = {"Queue": "all"}
OPEN = f"{SKINNY}import os, mlflow\nmlflow.start_run()\nmlflow.log_metric('loss', 0.5)\n"
ENDLESS = {"train.py": OPEN + "import time\nprint('runs')\ntime.sleep(600)\n"}
# Runs until somebody makes the file.
GATED = OPEN + "import pathlib, time\nprint('runs')\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.1)\n"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Start a Slurm that the commands of this process and of its children find."""
    with Slurm(tmp_path_factory.mktemp("slurm")) as running, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("SLURM", "SBATCH"))]:
            patch.delenv(name)
        patch.setenv("SLURM_CONF", running.environment["SLURM_CONF"])
        yield running


@pytest.fixture(scope="module")
def backend(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBackend]:
    """A platform that runs jobs in it."""
    data = tmp_path_factory.mktemp("backend") / "data"
    backend = RunningBackend(data, "--compute", "slurm", "--token-lifetime", "2")
    yield backend
    backend.stop()


class SlurmRoom(MachineRoom):
    """Jobs in Slurm, without a platform, and with little patience."""

    def new_executor(self) -> SlurmExecutor:  # type: ignore[override]
        """Return an executor as it is after a restart of the service."""
        return SlurmExecutor(NO_PLATFORM, pause=0.2, patience=2.0)

    def job(self, command: str, *arguments: object, resources: object = ALL, **rest: object) -> Job:
        """Return a job for the partition that there is."""
        return super().job(command, *arguments, resources=resources, **rest)  # type: ignore[arg-type]

    def up(self, *, resources: object = ALL) -> Job:
        """Return a job that runs, and does not end by itself."""
        job = self.start(self.job("echo up; sleep 600", resources=resources))
        self.wait_for(job, "up")
        return job

    def end(self, job: Job, deadline: float = DEADLINE) -> Observation:
        """Return what is seen of a job when it has ended; it is not looked at again, as in the service."""

        def over() -> Observation | None:
            seen = self.look(job)
            return seen if seen.state.is_over else None

        seen = wait_until(over, deadline=deadline, what=f"the end of:\n{self.log(job)}")
        assert seen
        return seen

    def cancelled(self, job: Job) -> Observation:
        """Cancel a job as its user does, and return what is seen of it in the end."""
        job = replace(job, cancel_requested_at=now())
        self.executor.cancel(job, self.folders(job))
        return self.end(job)


@contextlib.contextmanager
def slurm_room(slurm: Slurm, folder: Path) -> Iterator[SlurmRoom]:
    """Make an executor, in a folder whose name is an option, a pattern of Slurm's and a shell's command."""
    room = SlurmRoom(folder / "a %j $(touch pwned) 'b'" / "compute")
    yield room
    for job in room.jobs:
        found = Commands().find(f"mantik-{job.job_id}")
        if found is not None and not found.is_over:
            slurm.cancel(found.number)
    # Without cgroups this Slurm leaves alone what a killed wrapper has left.
    room.clear(signal.SIGKILL)


@pytest.fixture
def room(slurm: Slurm, tmp_path: Path) -> Iterator[SlurmRoom]:
    """An executor of one's own."""
    with slurm_room(slurm, tmp_path) as room:
        yield room


@pytest.fixture(scope="module")
def asking(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SlurmRoom, Job]]:
    """An executor, and a job that asks for many things; it runs until the last test about it."""
    resources = {**ALL, "Nodes": 1, "CPUs": 1, "Runtime": "510s", "Memory": "1K"}
    with slurm_room(slurm, tmp_path_factory.mktemp("asking")) as room:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_BACKEND_STORE_URI", "secret-of-the-service")
            job = room.start(room.job("env; pwd; echo up; sleep 600", resources=resources))
        room.wait_for(job, "\nup\n")
        yield room, job


@pytest.fixture(scope="module")
def limited(slurm: Slurm, backend: RunningBackend) -> Job:
    """A job with a time limit of Slurm's, which counts minutes and looks twice in one; it is up to the last test."""
    job = backend.submit("python train.py", ENDLESS, resources={**ALL, "Runtime": "10m"})
    backend.wait_for(job, "runs")
    slurm.update(f"JobId={number(backend, job)}", "TimeLimit=1")
    return job


def number(backend: RunningBackend, job: Job) -> str:
    """Return Slurm's number of a job."""
    found = wait_until(lambda: backend.job(job.job_id).executor_id, deadline=DEADLINE, what="a number")
    assert found
    return found


def test_queue_outlives_tokens(limited: Job, slurm: Slurm, backend: RunningBackend) -> None:
    """A job that waits longer than its token lives says why, and tracks then; one that is cancelled never runs."""
    reason = "it waits in Slurm: PartitionDown"
    slurm.update("PartitionName=all", "State=DOWN")
    try:
        waiting = backend.submit("python train.py", {"train.py": GATED}, resources=ALL)
        cancelled = backend.submit("touch ran", resources=ALL)
        for job in (waiting, cancelled):
            assert slurm.wait(number(backend, job), "PENDING")["Reason"] == "PartitionDown"
            wait_until(lambda job=job: backend.job(job.job_id).reason == reason, deadline=DEADLINE, what=reason)
            assert backend.job(job.job_id).state is State.QUEUED
            assert backend.run(job).status == "SCHEDULED"
        backend.cancel(cancelled)
        ended = backend.end(cancelled)
        assert (ended.state, ended.started_at, ended.reason) == (State.CANCELLED, None, "")
        assert backend.run(cancelled).status == "KILLED"
        assert slurm.facts(number(backend, cancelled))["JobState"] == "CANCELLED"
        assert not (backend.folders(cancelled).project / "ran").exists()
        cache = login_cache(backend.folders(waiting), backend.url, "ada")

        def is_expired() -> bool:
            login = cache.load()
            assert login
            return login.has_expired(time.time())

        wait_until(is_expired, deadline=DEADLINE, what="the end of the token")
    finally:
        slurm.update("PartitionName=all", "State=UP")
    wait_until(lambda: backend.job(waiting.job_id).state is State.RUNNING, deadline=DEADLINE, what="RUNNING")
    assert backend.job(waiting.job_id).reason == ""
    (backend.folders(waiting).project / "go").touch()
    assert backend.end(waiting).state is State.SUCCEEDED, backend.log(waiting)
    run = backend.run(waiting)
    assert (run.status, run.metrics["loss"]) == ("FINISHED", 0.5)
    facts = {"executor": "slurm", "queue": "all", "nodes": os.uname().nodename.partition(".")[0], "state": "SUCCEEDED"}
    assert run.tags.items() >= {f"mantik.job.{name}": value for name, value in facts.items()}.items()
    assert float(run.tags["mantik.job.wait_seconds"]) > 2
    assert float(run.tags["mantik.job.run_seconds"]) > 0


def test_ends_are_true(limited: Job, slurm: Slurm, backend: RunningBackend) -> None:
    """Cancelled, over its time limit, killed, refused: job and run say so, and what was logged before is there."""
    cancelled = backend.submit("python train.py", ENDLESS, resources=ALL)
    backend.wait_for(cancelled, "runs")
    backend.cancel(cancelled)
    late = backend.submit("sleep 600", resources={**ALL, "Runtime": "3s"})
    killed = backend.submit("kill -9 $$", resources=ALL)
    refused = backend.submit("true", resources={"Queue": "gpus;$(reboot)"})
    by_signal = "its program was ended by SIGKILL, by somebody or for want of memory"
    in_words = f"{REFUSED} gpus;$(reboot) sbatch: error: Batch job submission failed: Invalid partition name specified"
    expected = (
        (cancelled, State.CANCELLED, "KILLED", "", 0.5),
        (late, State.TIMED_OUT, "FAILED", "time limit: it was ended after 3s", None),
        (killed, State.FAILED, "FAILED", by_signal, None),
        (refused, State.FAILED, "FAILED", in_words, None),
    )
    for job, *what in expected:
        ended, run = backend.end(job), backend.run(job)
        assert [ended.state, run.status, ended.reason, run.metrics.get("loss")] == what, backend.log(job)
    assert slurm.facts(number(backend, cancelled))["JobState"] in {"CANCELLED", "COMPLETING"}


def test_controller_and_dispatcher_restart_while_a_job_runs(
    limited: Job, slurm: Slurm, backend: RunningBackend
) -> None:
    """The job goes on; what ends without a controller has ended; what is submitted meanwhile waits."""
    job = backend.submit("python train.py", {"train.py": GATED}, resources=ALL)
    backend.wait_for(job, "runs")
    slurm.stop_controller()
    try:
        waiting = backend.submit("true", resources=ALL)
        log = backend.data / "server.log"
        wait_until(lambda: "Slurm does not answer; it is asked again" in log.read_text(), deadline=DEADLINE)
        os.kill(wait_until(backend.dispatcher, deadline=DEADLINE, what="a dispatcher"), signal.SIGKILL)
        (backend.folders(job).project / "go").touch()
        job = backend.end(job)
        run = backend.run(job)
        assert (job.state, run.status, run.metrics["loss"]) == (State.SUCCEEDED, "FINISHED", 0.5)
        assert not backend.job(waiting.job_id).state.is_over
    finally:
        slurm.start_controller()
    assert backend.end(waiting).state is State.SUCCEEDED
    assert backend.job(limited.job_id).state in {State.RUNNING, State.TIMED_OUT}


def test_job_gets_what_it_asks_for(asking: tuple[SlurmRoom, Job], slurm: Slurm) -> None:
    """Resources are options of Slurm, the log is where it belongs, and the service's secrets stay with it."""
    room, job = asking
    facts = slurm.facts(job.executor_id or "")
    assert (
        facts.items()
        >= {
            "JobName": f"mantik-{job.job_id}",
            "Partition": "all",
            "TimeLimit": "00:09:00",
            "NumNodes": "1",
            "NumCPUs": "1",
            "CPUs/Task": "1",
            "MinMemoryNode": "1M",
            "Requeue": "0",
        }.items()
    )
    seen = room.look(job)
    assert (seen.state, seen.nodes) == (State.RUNNING, facts["NodeList"])
    assert f"\nSLURM_JOB_NAME=mantik-{job.job_id}\n" in room.log(job)
    assert f"\n{room.folders(job).project}\n" in room.log(job)
    assert "secret-of-the-service" not in room.log(job)
    assert room.folders(job).log.stat().st_mode & 0o077 == 0
    assert not list(room.folder.parent.parent.rglob("pwned"))


def test_job_that_slurm_has_forgotten(asking: tuple[SlurmRoom, Job], caplog: pytest.LogCaptureFixture) -> None:
    """A number that is another job's is not taken for this one; without records nobody knows how it ended."""
    room, other = asking
    unknown = replace(room.job("true"), executor_id=other.executor_id, state=State.STARTING)
    with caplog.at_level(logging.ERROR):
        seen = room.end(unknown)
        room.executor.cancel(unknown, room.folders(unknown))
    assert (seen.state, seen.reason) == (
        State.LOST,
        "Slurm no longer knows it, and its processes have not said how they ended",
    )
    assert room.look(other).state is State.RUNNING
    assert not caplog.records


def test_cancellation_by_others_is_told_as_one(asking: tuple[SlurmRoom, Job], slurm: Slurm) -> None:
    """What ended a job from outside is the reason, also where the wrapper only knows that it was told to stop.

    It is in Slurm's records as well.
    """
    room, job = asking
    slurm_job = Commands().find(f"mantik-{job.job_id}")
    assert slurm_job
    slurm.cancel(slurm_job.number)
    seen = room.end(job)
    assert (seen.state, seen.reason) == (
        State.CANCELLED,
        "it was cancelled in Slurm, by somebody other than its user here",
    )
    recorded = wait_until(
        lambda: Commands().record(slurm_job.number, slurm_job.name), deadline=DEADLINE, what="the record"
    )
    assert recorded
    assert (recorded.state, recorded.nodes, recorded.started_at) == ("CANCELLED", slurm_job.nodes, slurm_job.started_at)


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"GPUsPerNode": 1}, "Invalid generic resource (gres) specification"),
        ({"NodeConstraints": "a100&`id`"}, "Invalid feature specification"),
        ({"Reservation": "--wrap=id"}, "Requested reservation is invalid"),
        ({"Memory": "100TiB"}, "Memory specification can not be satisfied"),
    ],
)
def test_refusal_is_in_the_words_of_slurm(room: SlurmRoom, resources: dict[str, object], words: str) -> None:
    """What Slurm cannot give fails at once, and a value is nothing but a value."""
    with pytest.raises(CannotRunError) as refused:
        room.start(room.job("touch ran", resources={**ALL, **resources}))
    assert str(refused.value).startswith("Slurm refuses it: sbatch: error: ")
    assert words in str(refused.value)


def test_job_is_submitted_once_however_often_it_is_started(room: SlurmRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Slurm cannot be asked, it goes back into the queue; where an answer is lost, Slurm is asked for it.

    It is asked for as long as it does not answer. A start that is repeated by the next process finds the job, while it
    runs and when it is over.
    """
    job = room.job("echo run >>runs")
    with monkeypatch.context() as away:
        away.setenv("PATH", str(room.folder))
        with pytest.raises(NoRoomError, match="sbatch cannot be run"):
            room.start(job)
    folder = room.folder / "bin"
    folder.mkdir(parents=True)
    is_lost = "echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1\n"
    (folder / "sbatch").write_text(f'#!/bin/sh\nPATH=${{PATH#*:}} sbatch "$@"; {is_lost}')
    is_silent = "[ -e answers ] || { touch answers; echo Socket timed out >&2; exit 1; }\n"
    (folder / "squeue").write_text(f'#!/bin/sh\ncd "${{0%/*}}"\n{is_silent}PATH=${{PATH#*:}} exec squeue "$@"\n')
    for name in ("sbatch", "squeue"):
        (folder / name).chmod(0o755)
    with monkeypatch.context() as unsure:
        unsure.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        started = wait_until(lambda: _started(room, job), deadline=DEADLINE, what="the start")
    assert started
    assert (folder / "answers").exists()
    room.executor = room.new_executor()
    assert room.start(started).executor_id == started.executor_id
    assert room.end(started).state is State.SUCCEEDED
    assert room.start(started).executor_id == started.executor_id
    assert room.file(job, "runs") == "run\n"
    assert [each.name for each in Commands().jobs().values()].count(f"mantik-{job.job_id}") == 1


def _started(room: SlurmRoom, job: Job) -> Job | None:
    try:
        return room.start(job)
    except NoRoomError:
        return None


def test_killed_wrapper_is_not_waited_for_for_ever(room: SlurmRoom) -> None:
    """Slurm says that the job has failed, and after some patience with the wrapper the job is lost."""
    job = room.up()
    started = Started.load(room.folders(job))
    assert started
    os.kill(started.wrapper.pid, signal.SIGKILL)
    seen = room.end(job)
    assert (seen.state, seen.is_delivered, seen.started_at) == (State.LOST, False, started.at)
    assert seen.reason.startswith("its processes vanished (FAILED, ")
    assert seen.ended_at
    assert seen.ended_at >= started.at[:19]


def test_time_limit_of_slurm_is_told_as_one(limited: Job, backend: RunningBackend) -> None:
    """A job that Slurm ends at its limit, with a signal like any other, is TIMED_OUT and has its records."""
    ended, run = backend.end(limited), backend.run(limited)
    assert (ended.state, ended.reason) == (State.TIMED_OUT, "time limit: Slurm ended it (TIMEOUT)")
    assert (run.status, run.metrics["loss"]) == ("FAILED", 0.5)
    assert run.tags["mantik.job.reason"] == ended.reason


def test_job_of_a_failed_node_says_so(room: SlurmRoom, slurm: Slurm) -> None:
    """A node that fails takes its job along, and the job says so."""
    job = room.up()
    node = slurm.facts(job.executor_id or "")["NodeList"]
    slurm.update(f"NodeName={node}", "State=DOWN", "Reason=test")
    seen = room.end(job)
    assert (seen.state, seen.reason, seen.nodes) == (State.FAILED, "a node failed (NODE_FAIL)", node)
