"""Trainings whose job starts again: requeued by Lightning or by Slurm, in a real Slurm and with what Slurm sends."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest

from mantik.testing import FaultProxy, Refuse, wait_until
from tests.integrations.slurm import Slurm, why_no_slurm
from tests.integrations.trainings import ended
from tests.scripts import clean_environment

from .trainings import BATCHES, assert_same_checkpoints, script, steps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import Platform
    from mantik.testing.holdings import Run
    from tests.integrations.trainings import Training, Trainings

    from .trainings import LightningTrainings

NO_SLURM = why_no_slurm()
in_slurm = pytest.mark.skipif(NO_SLURM is not None, reason=str(NO_SLURM))

# What a process of a job with one task finds; Lightning's `SLURMEnvironment` looks at the first six.
ENVIRONMENT = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_CLUSTER_NAME": "machine",
    "SLURM_JOB_NODELIST": "node",
}
# Slurm's controller: takes the request and ends the attempt, or refuses; and tells which of both.
SCONTROL = """#!/bin/sh
cd "$(dirname "$0")"
restarts=${SLURM_RESTART_COUNT:-0}
if [ "$1" != requeue ]; then
  [ -e restarts ] && restarts=$(cat restarts)
  echo "JobId=$SLURM_JOB_ID JobName=train JobState=RUNNING Requeue=1 Restarts=$restarts BatchFlag=1"
  exit
fi
echo "$2" >> asked
[ -e refuse ] && exit 1
echo $((restarts + 1)) > restarts
kill -$(cat signal) $PPID
"""
# The signal that Slurm sends before the time limit comes in the fifth step of the first two attempts.
REQUEUED = """
    begun = []

    class Limited(Net):
        def on_train_batch_start(self, *args):
            begun.append(self.global_step)
            if len(begun) == 5 and int(os.environ.get("SLURM_RESTART_COUNT", "0")) < 2:
                os.kill(os.getpid(), signal.SIGUSR1)

    trainer(mantik.MantikLogger(log_model="all"), callbacks=[best_and_last()]).fit(Limited(), data(), data())
    """
REFUSED = """
    at = {3: send(signal.SIGUSR1), 8: HERE}
    trainer(mantik.MantikLogger(log_model="all"), callbacks=[best_and_last()]).fit(Net(at=at), data(), data())
    """
REFUSED_IN_THE_LAST_STEP = """
    at = {3: lambda: (send(signal.SIGUSR1)(), send(signal.SIGTERM)())}
    trainer(mantik.MantikLogger()).fit(Net(at=at), data(), data())
    """
# Lightning leaves the signals alone: Slurm requeues the job itself, after a SIGTERM in the first attempt.
PREEMPTED = """
    logger = mantik.MantikLogger(log_model="all", LOGGER)
    at = {7: SEVENTH} if "SLURM_RESTART_COUNT" in os.environ else {8: send(signal.SIGTERM)}
    plugin = SLURMEnvironment(auto_requeue=False)
    trainer(logger, callbacks=[best_and_last()], plugins=[plugin]).fit(Net(at=at), data(), data(), FIT)
    """
TWO_TRAININGS = """
    plugin = SLURMEnvironment(auto_requeue=False)
    at = {} if "SLURM_RESTART_COUNT" in os.environ else {8: send(signal.SIGTERM)}
    for name, epochs, happens in (("first", 1, {}), ("second", 2, at)):
        logger = mantik.MantikLogger(run_name=name)
        trainer(logger, epochs, plugins=[plugin]).fit(Net(width=epochs, at=happens), data(), data())
    """
EXPERIMENT = """
    import mlflow

    mantik.init_tracking()
    mlflow.create_experiment(os.environ["MLFLOW_EXPERIMENT_NAME"])
    """
TWO_EPOCHS = ("epoch=0-score=0", "epoch=1-score=1", "last")
ANEW = ("epoch=0-score=0", "epoch=0-score=0-v1", "epoch=1-score=1", "last", "last-v1")


def preempted(*, logger: str = "", fit: str = "", seventh: str = "lambda: None") -> str:
    """Return the script of a training that is preempted.

    Args:
        logger: Arguments of the logger.
        fit: Arguments of `fit`.
        seventh: What happens in the seventh step of the second attempt.
    """
    return PREEMPTED.replace("LOGGER", logger).replace("FIT", fit).replace("SEVENTH", seventh)


class Job:
    """The attempts of one job, and the runs that come of them.

    Attributes:
        folder: Its working directory and home.
        settings: Variables of all attempts.
    """

    def __init__(self, trainings: Trainings, platform: Platform, folder: Path, experiment: str) -> None:
        self.folder = folder
        self.settings = {**platform.environment(), **ENVIRONMENT, "MLFLOW_EXPERIMENT_NAME": experiment}
        self._trainings = trainings
        self._platform = platform
        self._experiment = experiment

    def start(self, code: str, restart: int = 0, **settings: str) -> Training:
        """Start an attempt; Slurm says nothing of restarts in the first one."""
        restarts = {"SLURM_RESTART_COUNT": str(restart)} if restart else {}
        return self._trainings.start(code, {**self.settings, **restarts, **settings}, self.folder)

    def attempt(self, code: str, restart: int = 0, *, exit_code: int = 0, **settings: str) -> str:
        """Let an attempt end and return what it printed."""
        return self.start(code, restart, **settings).end(exit_code)

    def sync(self) -> None:
        """Send what the attempts left behind."""
        self._trainings.sync(self.settings, self.folder)

    def runs(self) -> list[Run]:
        """Return all runs that there are, the first first."""
        return sorted(self._platform.read_back.runs(self._experiment), key=lambda run: run.start_time)

    def run(self, status: str) -> Run:
        """Return the one run that there is, after checking how it ended."""
        (run,) = self.runs()
        return ended(self._platform, run.run_id, status)

    def steps(self, run: Run) -> list[int]:
        """Return the steps of a run."""
        return steps(self._platform, run.run_id)


@pytest.fixture
def job(
    trainings: LightningTrainings, mantik_platform: Platform, tmp_path: Path, request: pytest.FixtureRequest
) -> Job:
    """Return a job whose experiment has the name of the test."""
    return Job(trainings, mantik_platform, tmp_path / "work", request.node.name)


@pytest.fixture
def scontrol(tmp_path: Path, job: Job) -> Path:
    """Put a controller before whatever else there is; return the folder in which it notes what it was asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "scontrol").write_text(SCONTROL)
    (folder / "scontrol").chmod(0o755)
    (folder / "signal").write_text("TERM")
    job.settings["PATH"] = f"{folder}:/usr/bin:/bin"
    return folder


def test_a_requeued_training_is_one_run(job: Job, scontrol: Path, mantik_platform: Platform) -> None:
    """Each attempt leaves the run RUNNING, whatever follows; the next one goes on with it where it stopped."""
    for restart in range(2):
        output = job.attempt(REQUEUED, restart)
        job.sync()
        (run,) = job.runs()
        assert (run.status, run.end_time) == ("RUNNING", None)
        assert "(RUNNING): " in output
        assert (job.folder / f"hpc_ckpt_{restart + 1}.ckpt").exists()
    assert "goes on (attempt 3)" in job.attempt(REQUEUED, 2)
    assert (scontrol / "asked").read_text() == "4711\n4711\n"
    run = job.run("FINISHED")
    assert run.tags["mantik.attempt"] == "3"
    assert "from hpc_ckpt_1.ckpt, Slurm job 4711, restart 1" in run.tags["mantik.attempt.2"]
    assert "from hpc_ckpt_2.ckpt, Slurm job 4711, restart 2" in run.tags["mantik.attempt.3"]
    # Lightning repeats the batch in which a signal came, as another step.
    assert job.steps(run) == list(range(2 * BATCHES + 2))
    assert_same_checkpoints(mantik_platform, run.run_id, job.folder, TWO_EPOCHS)


def test_an_attempt_that_is_killed_after_its_requeue_leaves_the_run_open(job: Job, scontrol: Path) -> None:
    """SIGKILL after Slurm has taken the request, and a sync after that, leave the run RUNNING for the next attempt."""
    (scontrol / "signal").write_text("KILL")
    job.attempt(REQUEUED, 1, exit_code=-signal.SIGKILL)
    job.sync()
    (run,) = job.runs()
    assert (run.status, run.end_time) == ("RUNNING", None)
    job.attempt(REQUEUED, 2)
    run = job.run("FINISHED")
    assert run.tags["mantik.attempt"] == "3"
    # The step in which it was killed has not come to its end.
    assert job.steps(run) == [0, 1, 2, 3, *range(5, 2 * BATCHES + 1)]


@pytest.mark.parametrize(
    "away",
    [pytest.param(0, id="first"), pytest.param(1, id="middle", marks=pytest.mark.thorough), pytest.param(2, id="last")],
)
def test_an_attempt_in_an_outage_is_of_the_same_run(
    job: Job, scontrol: Path, mantik_platform: Platform, away: int
) -> None:
    """An attempt that never sees the platform is of the same run, which a sync completes."""
    with FaultProxy(mantik_platform.url) as proxy:
        job.settings |= {"MLFLOW_TRACKING_URI": proxy.url, "MANTIK_EXIT_TIMEOUT": "1"}
        for restart in range(3):
            switch = proxy.fault(Refuse(), times=None if restart == away else 0)
            output = job.attempt(REQUEUED, restart)
            assert restart != away or f"Not everything has reached {proxy.url}" in output
            switch.clear()
        job.sync()
    run = job.run("FINISHED")
    assert run.tags["mantik.attempt"] == "3"
    assert job.steps(run) == list(range(2 * BATCHES + 2))
    assert_same_checkpoints(mantik_platform, run.run_id, job.folder, TWO_EPOCHS)


@pytest.mark.parametrize(
    ("then", "status", "exit_code"),
    [
        ("lambda: None", "FINISHED", 0),
        ("lambda: 1 / 0", "FAILED", 1),
        ("send(signal.SIGTERM)", "KILLED", 0),
        ("send(signal.SIGKILL)", "KILLED", -signal.SIGKILL),
    ],
    ids=["end", "error", "sigterm", "sigkill"],
)
def test_a_refused_requeue_changes_nothing(job: Job, scontrol: Path, then: str, status: str, exit_code: int) -> None:
    """A training that goes on because Slurm refused has the status of its own end, whichever that is."""
    (scontrol / "refuse").touch()
    job.attempt(REFUSED.replace("HERE", then), exit_code=exit_code)
    job.sync()
    logged = job.steps(job.run(status))
    assert logged == list(range(len(logged)))
    assert len(logged) >= 8
    assert (scontrol / "asked").read_text() == "4711\n"


def test_a_requeue_that_is_refused_in_the_last_step_changes_nothing(job: Job, scontrol: Path) -> None:
    """A SIGTERM in the same step as the refusal ends the run as KILLED."""
    (scontrol / "refuse").touch()
    job.attempt(REFUSED_IN_THE_LAST_STEP)
    assert job.steps(job.run("KILLED")) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("fit", "logged", "checkpoints"),
    [("", [*range(9), *range(12)], ANEW), ("ckpt_path='last'", [*range(9), *range(6, 12)], TWO_EPOCHS)],
    ids=["from-scratch", "from-last"],
)
def test_a_preempted_training_is_one_run(
    job: Job, mantik_platform: Platform, fit: str, logged: list[int], checkpoints: tuple[str, ...]
) -> None:
    """A job that Slurm itself requeues is KILLED, and then goes on with the same run, from where the script begins."""
    code = preempted(fit=fit, seventh="lambda: wait('again')")
    job.attempt(code)
    job.run("KILLED")
    second = job.start(code, 1)
    second.reach("again")
    wait_until(lambda: [run.status for run in job.runs()] == ["RUNNING"], deadline=60, what="the second attempt")
    second.go_on("again")
    assert "goes on (attempt 2)" in second.end()
    run = job.run("FINISHED")
    assert run.tags["mantik.attempt"] == "2"
    assert "Slurm job 4711, restart 1" in run.tags["mantik.attempt.2"]
    assert job.steps(run) == logged
    assert_same_checkpoints(mantik_platform, run.run_id, job.folder, checkpoints)


def test_never_begins_anew(job: Job) -> None:
    """With resume="never" each attempt is a run of its own."""
    for restart in range(2):
        job.attempt(preempted(logger="resume='never'"), restart)
    assert [(run.status, run.tags["mantik.attempt"]) for run in job.runs()] == [("KILLED", "1"), ("FINISHED", "1")]


def test_another_job_begins_anew(job: Job) -> None:
    """The same script in another job is another run, also where that job has been restarted."""
    job.attempt(preempted())
    job.attempt(preempted(), 1, SLURM_JOB_ID="4712")
    assert [(run.status, run.tags["mantik.attempt"]) for run in job.runs()] == [("KILLED", "1"), ("FINISHED", "1")]


def test_each_task_of_an_array_has_its_run(job: Job) -> None:
    """Tasks of an array are runs of their own, and each goes on with its own when it starts again."""
    # Who creates the experiment is not what this is about.
    job.attempt(EXPERIMENT)
    code = preempted(logger="tags={'task': os.environ['SLURM_ARRAY_TASK_ID']}")
    for restart in range(2):
        attempts = [
            job.start(
                code, restart, SLURM_JOB_ID=str(4712 + task), SLURM_ARRAY_JOB_ID="4711", SLURM_ARRAY_TASK_ID=str(task)
            )
            for task in range(2)
        ]
        for attempt in attempts:
            attempt.end()
    runs = job.runs()
    assert sorted(run.tags["task"] for run in runs) == ["0", "1"]
    for run in runs:
        assert (run.status, run.tags["mantik.attempt"]) == ("FINISHED", "2")
        assert f"Slurm job 4711_{run.tags['task']}, restart 1" in run.tags["mantik.attempt.2"]
        assert job.steps(run) == [*range(9), *range(12)]


def test_each_training_of_a_script_finds_its_run(job: Job) -> None:
    """Two trainings, one after the other, go on with their own runs, and so their params are no drift."""
    for restart in range(2):
        job.attempt(TWO_TRAININGS, restart)
    first, second = job.runs()
    assert (first.name, first.status, first.params) == ("first", "FINISHED", {"width": "1"})
    assert (second.name, second.status, second.params) == ("second", "FINISHED", {"width": "2"})
    assert job.steps(first) == [*range(6), *range(6)]
    assert job.steps(second) == [*range(9), *range(12)]
    assert not any(name.startswith("mantik.param_drift") for run in (first, second) for name in run.tags)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Start a Slurm."""
    with Slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def submit(slurm: Slurm, job: Job, code: str) -> str:
    """Submit a training, started by `srun` as Lightning's documentation has it, and wait for its eighth step."""
    job.folder.mkdir()
    (job.folder / "train.py").write_text(script(code))
    own = {name: value for name, value in job.settings.items() if name not in ENVIRONMENT}
    number = slurm.submit(f"srun {sys.executable} train.py", clean_environment(own, job.folder), job.folder)
    wait_until((job.folder / "at-eight").exists, deadline=120, what="the eighth step")
    return number


@in_slurm
def test_a_job_that_slurm_requeues_is_one_run(slurm: Slurm, job: Job, mantik_platform: Platform) -> None:
    """In a real Slurm a training that Lightning requeues goes on with its run when the job starts again."""
    code = """
        at = {} if "SLURM_RESTART_COUNT" in os.environ else {8: lambda: wait("eight")}
        trainer(mantik.MantikLogger(log_model="all"), callbacks=[best_and_last()]).fit(Net(at=at), data(), data())
        """
    number = submit(slurm, job, code)
    slurm.send(number, "USR1")
    wait_until(lambda: slurm.facts(number)["Restarts"] == "1", deadline=120, what="the requeue")
    (job.folder / "go-eight").touch()
    slurm.wait(number, "PENDING")
    (run,) = job.runs()
    assert (run.status, run.end_time) == ("RUNNING", None)
    slurm.start_again(number)
    slurm.wait(number, "COMPLETED")
    run = job.run("FINISHED")
    assert f"from hpc_ckpt_1.ckpt, Slurm job {number}, restart 1" in run.tags["mantik.attempt.2"]
    assert job.steps(run) == list(range(2 * BATCHES + 1))
    assert_same_checkpoints(mantik_platform, run.run_id, job.folder, TWO_EPOCHS)


@in_slurm
@pytest.mark.thorough  # with Slurm's signal alone: test_endings.py
def test_a_job_that_is_cancelled_is_killed(slurm: Slurm, job: Job) -> None:
    """In a real Slurm `scancel` leaves a run that is KILLED and has all its points."""
    code = 'trainer(mantik.MantikLogger()).fit(Net(at={8: lambda: wait("eight")}), data(), data())'
    number = submit(slurm, job, code)
    slurm.cancel(number)
    output = job.folder / "output"
    wait_until(lambda: "Received SIGTERM" in output.read_text(), deadline=120, what="the signal")
    (job.folder / "go-eight").touch()
    slurm.wait(number, "CANCELLED")
    assert job.steps(job.run("KILLED")) == list(range(9))
