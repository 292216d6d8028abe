"""Jobs on the real platform: submitted over HTTP, run by the dispatcher that ``mantik server`` starts, read back."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from mantik.exceptions import ComputeBackendError
from mantik.server.compute.jobs import State
from mantik.server.compute.testimony import Ended, Started
from mantik.testing import wait_until
from tests.server.running import PASSWORD

from .running_backend import JOB_DEADLINE, RunningBackend

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JOBS_AT_ONCE = int(os.environ.get("JOBS", "8"))
"""How many jobs are submitted at once; 200 by `JOBS=200 pytest tests/server/compute/test_jobs_end_to_end.py -k once`,
with a longer `--timeout`."""

STEPS = """
import sys, time, mlflow
with mlflow.start_run():
    for step in range(int(sys.argv[1])):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
        print("step", step)
        time.sleep(float(sys.argv[2]))
"""
TRAIN = """
import sys, mantik, mlflow, mlflow.sklearn
from sklearn.dummy import DummyClassifier
mantik.init_tracking()
with mlflow.start_run() as run:
    mlflow.log_param("seed", 7)
    mlflow.log_metric("accuracy", float(sys.argv[1]))
    mlflow.log_text("notes", "notes.txt")
    mlflow.sklearn.log_model(DummyClassifier().fit([[0], [1]], [0, 1]), name="model")
print("trained", run.info.run_id)
"""
# Each ends its program and its run in its own way.
OPEN = "import os, mlflow\nmlflow.start_run()\nmlflow.log_metric('loss', 0.5)\n"
ENDINGS = {
    "killed.py": OPEN + "os.kill(os.getpid(), 9)\n",
    "left_open.py": OPEN + "import mantik\nmantik.flush(30)\nos._exit(0)\n",
    "failed.py": OPEN + "mlflow.end_run('FAILED')\n",
    "finished.py": OPEN + "mlflow.end_run()\nraise SystemExit(3)\n",
}

ENDLESS = {"train.py": OPEN + "import time\nprint('runs')\ntime.sleep(600)\n"}


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBackend]:
    """A platform with two slots whose access tokens live for two seconds, and which keeps folders for a day."""
    options = ("--compute-slots", "2", "--token-lifetime", "2", "--compute-keep-days", "1")
    backend = RunningBackend(tmp_path_factory.mktemp("backend") / "data", *options)
    yield backend
    backend.stop()


def test_job_tracks_without_credentials(backend: RunningBackend) -> None:
    """Params, metrics, artifact, model, log and facts are there; a stray `init_tracking()` does no harm."""
    job = backend.submit(
        "python train.py {accuracy}", {"train.py": TRAIN}, parameters={"accuracy": 0.75}, declared={"accuracy": "float"}
    )
    assert backend.run(job).status == "SCHEDULED"
    job = backend.end(job)
    assert (job.state, job.reason, job.exit_code) == (State.SUCCEEDED, "", 0), backend.log(job)
    run = backend.run(job)
    assert run.status == "FINISHED"
    assert run.params == {"accuracy": "0.75", "seed": "7"}
    assert run.metrics.items() >= {"accuracy": 0.75}.items()
    assert backend.read_back.download(job.run_id, "notes.txt") == b"notes"
    assert [model.name for model in backend.read_back.logged_models("0") if model.source_run_id == job.run_id] == [
        "model"
    ]
    assert f"trained {job.run_id}" in backend.log(job)
    facts = {
        name.removeprefix("mantik.job."): value for name, value in run.tags.items() if name.startswith("mantik.job.")
    }
    assert facts.items() >= {"id": job.job_id, "queue": "batch", "cpus": "1", "gpus": "0", "exit_code": "0"}.items()
    assert float(facts["run_seconds"]) > 0
    assert float(facts["wait_seconds"]) >= 0
    assert facts["nodes"] == job.nodes
    assert PASSWORD not in backend.log(job)


def test_tokens_outlive_jobs_and_the_queue(backend: RunningBackend) -> None:
    """Jobs of 15 s log with tokens of 2 s, and so does one that waited for them; one is cancelled in the queue."""
    long = [backend.submit("python steps.py 30 0.5", {"steps.py": STEPS}) for _ in range(2)]
    waited, cancelled = backend.submit("python steps.py 2 0", {"steps.py": STEPS}), backend.submit("touch ran")
    for job in long:
        backend.wait_for(job, "step 0")
    assert backend.run(long[0]).status == "RUNNING"
    assert backend.job(long[0].job_id).state is State.RUNNING
    backend.cancel(cancelled)
    cancelled = backend.end(cancelled)
    assert (cancelled.state, cancelled.started_at) == (State.CANCELLED, None)
    assert backend.run(cancelled).status == "KILLED"
    assert not (backend.folders(cancelled).project / "ran").exists()
    assert backend.job(waited.job_id).state is State.QUEUED
    for job, steps in ((long[0], 30), (long[1], 30), (waited, 2)):
        assert backend.end(job).state is State.SUCCEEDED, backend.log(job)
        assert [point.step for point in backend.read_back.metric_history(job.run_id, "loss")] == list(range(steps))
        assert backend.run(job).status == "FINISHED"
    assert float(backend.run(waited).tags["mantik.job.wait_seconds"]) > 10
    assert any(name.startswith("system/") for name in backend.run(long[0]).metrics)


def test_ends_are_true(backend: RunningBackend) -> None:
    """However a job ends, job and run say so, and what was logged before is there."""
    jobs = {name: backend.submit(f"python {name}", {name: code}) for name, code in ENDINGS.items()}
    jobs["limit"] = backend.submit("sleep 600", resources={"Runtime": "3s"})
    jobs["nothing"] = backend.submit("true")
    expected = {
        "killed.py": (State.FAILED, "FAILED", "its program was ended by SIGKILL, by somebody or for want of memory"),
        "left_open.py": (State.SUCCEEDED, "FINISHED", ""),
        "failed.py": (State.SUCCEEDED, "FAILED", ""),
        "finished.py": (State.FAILED, "FAILED", "its program ended with exit code 3"),
        "limit": (State.TIMED_OUT, "FAILED", "time limit: it was ended after 3s"),
        "nothing": (State.SUCCEEDED, "FINISHED", ""),
    }
    found = {}
    for name, job in jobs.items():
        ended, run = backend.end(job), backend.run(job)
        found[name] = (ended.state, run.status, ended.reason)
        assert run.tags.get("mantik.job.reason", "") == ended.reason
        assert run.metrics.get("loss") == (0.5 if name in ENDINGS else None), backend.log(job)
        assert run.end_time
    assert found == expected
    assert backend.job(jobs["killed.py"].job_id).signal == signal.SIGKILL
    assert backend.run(jobs["killed.py"]).tags["mantik.job.signal"] == "SIGKILL"
    assert backend.run(jobs["finished.py"]).tags["mantik.job.exit_code"] == "3"


def test_cancelled_and_vanished_jobs(backend: RunningBackend) -> None:
    """A running job that is cancelled is KILLED; one whose wrapper is killed is FAILED; both keep their records."""
    cancelled, vanished = (backend.submit("python train.py", ENDLESS) for _ in range(2))
    for job in (cancelled, vanished):
        backend.wait_for(job, "runs")
    backend.cancel(cancelled)
    started = Started.load(backend.folders(vanished))
    assert started
    os.kill(started.wrapper.pid, signal.SIGKILL)
    reason = "its processes vanished: they were killed (SIGKILL), by somebody or for want of memory"
    for job, state, why, status in (
        (cancelled, State.CANCELLED, "", "KILLED"),
        (vanished, State.LOST, reason, "FAILED"),
    ):
        ended, run = backend.end(job), backend.run(job)
        assert (ended.state, ended.reason, run.status, run.metrics["loss"]) == (state, why, status, 0.5)


def test_platform_restarts_while_jobs_run(backend: RunningBackend) -> None:
    """A job goes on through a restart; one that ends meanwhile is told of afterwards; nothing is missing of either."""
    steps = {"steps.py": STEPS}
    through = backend.submit("python steps.py 40 0.3", steps)
    meanwhile = backend.submit("python steps.py 10 0.3", steps, MANTIK_EXIT_TIMEOUT="1")
    for job in (through, meanwhile):
        backend.wait_for(job, "step 1\n")
    end = backend.folders(meanwhile).ended
    backend.restart(
        meanwhile=lambda: wait_until(end.exists, deadline=JOB_DEADLINE, what="the end of a job without a platform")
    )
    for job, count in ((through, 40), (meanwhile, 10)):
        job = backend.end(job)  # noqa: PLW2901 - as it is then
        assert (job.state, job.reason) == (State.SUCCEEDED, ""), backend.log(job)
        assert [point.step for point in backend.read_back.metric_history(job.run_id, "loss")] == list(range(count))
        assert backend.run(job).status == "FINISHED"


def test_no_job_is_lost_or_run_twice(backend: RunningBackend) -> None:
    """While the processes of the service are killed at several moments, every job that was accepted is run once."""
    jobs = [backend.submit("echo run >>runs; sleep 1") for _ in range(5)]

    def kill_dispatcher() -> None:
        os.kill(wait_until(backend.dispatcher, deadline=JOB_DEADLINE, what="a dispatcher"), signal.SIGKILL)

    def wait_for_ends(number: int) -> None:
        wait_until(
            lambda: sum(backend.jobs.is_over(job.job_id) for job in jobs) >= number,
            deadline=JOB_DEADLINE,
            what=f"the end of {number} jobs",
        )

    kill_dispatcher()
    wait_for_ends(1)
    backend.restart(signal.SIGKILL)
    wait_for_ends(3)
    kill_dispatcher()
    assert [backend.end(job).state for job in jobs] == [State.SUCCEEDED] * len(jobs)
    assert [(backend.folders(job).project / "runs").read_text() for job in jobs] == ["run\n"] * len(jobs)
    assert {backend.run(job).status for job in jobs} == {"FINISHED"}


def test_submissions_at_once(backend: RunningBackend) -> None:
    """Many jobs are all run, once, never more at a time than there are slots, and the dispatcher stays small."""
    command = "echo begin $(date +%s%N) >>runs; python -c pass; echo end $(date +%s%N) >>runs"
    with ThreadPoolExecutor(8) as users:
        jobs = list(users.map(lambda _: backend.submit(command), range(JOBS_AT_ONCE)))
    for job in jobs:
        assert backend.end(job, deadline=20.0 * JOBS_AT_ONCE).state is State.SUCCEEDED, backend.log(job)
    moments = []
    for job in jobs:
        begin, end = (line.split() for line in (backend.folders(job).project / "runs").read_text().splitlines())
        moments += [(int(begin[1]), 1), (int(end[1]), -1)]
    running = [sum(step for _, step in sorted(moments)[: number + 1]) for number in range(len(moments))]
    assert max(running) <= 2
    pid = backend.dispatcher()
    assert pid
    with open(f"/proc/{pid}/status", encoding="ascii") as status:  # noqa: PTH123
        (resident,) = (int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    assert resident < 150 * 1024


def test_login_follows_its_user(backend: RunningBackend) -> None:
    """A new password does not cut off a job that runs; a removed user's jobs end, and those in the queue never run."""
    backend.change_user("add", "bob", "--password-stdin", password=PASSWORD)
    job = backend.submit("python steps.py 40 0.2", {"steps.py": STEPS}, user="bob")
    backend.wait_for(job, "step 1\n")
    backend.change_user("passwd", "bob", "--password-stdin", password="another-good-battery")
    assert backend.end(job).state is State.SUCCEEDED
    assert len(backend.read_back.metric_history(job.run_id, "loss")) == 40
    assert backend.run(job).status == "FINISHED"

    backend.change_user("add", "carol", "--password-stdin", password=PASSWORD)
    running = [backend.submit("echo up; sleep 600", user="carol") for _ in range(2)]
    waiting = backend.submit("touch ran", user="carol")
    for job in running:
        backend.wait_for(job, "up")
    backend.change_user("remove", "carol")
    for job in running:
        assert backend.end(job).state is State.CANCELLED
    waiting = backend.end(waiting)
    assert (waiting.state, waiting.reason) == (State.FAILED, "its user was removed")
    assert not (backend.folders(waiting).project / "ran").exists()


def test_job_that_cannot_be_run_says_why(backend: RunningBackend) -> None:
    """What the machine has not got is the reason of job and run, and the queue goes on."""
    greedy = backend.end(backend.submit("true", resources={"Memory": "100TiB"}))
    assert greedy.state is State.FAILED
    assert greedy.reason.startswith("it asks for 100TiB of memory, and this machine has ")
    run = backend.run(greedy)
    assert (run.status, run.tags["mantik.job.reason"]) == ("FAILED", greedy.reason)


def test_folder_is_kept_for_as_long_as_was_said(backend: RunningBackend, tmp_path: Path) -> None:
    """It is removed by the next dispatcher, and the client says so to who asks for its log or its files."""
    job = backend.end(backend.submit("true"))
    backend.jobs.update(job.job_id, ended_at="2026-01-01T00:00:00.000+00:00")
    os.kill(wait_until(backend.dispatcher, deadline=JOB_DEADLINE, what="a dispatcher"), signal.SIGKILL)
    root = backend.folders(job).root
    wait_until(lambda: not root.exists(), deadline=JOB_DEADLINE, what=f"the end of {root}")
    words = "The log and the files of this job were removed: they are kept for 1 day after its end"
    with pytest.raises(ComputeBackendError, match=words) as refused:
        list(backend.client().logs(job.job_id, follow=True))
    assert refused.value.status == 410
    with pytest.raises(ComputeBackendError, match=words):
        backend.client().download(job.job_id, to=tmp_path)
    assert backend.client().status(job.job_id).state == "SUCCEEDED"


def test_hostile_parameters_reach_the_program_as_they_are(backend: RunningBackend) -> None:
    """Values with metacharacters of shells are arguments of the program and params of the run, and no commands."""
    value = "$(touch pwned) `touch pwned`; touch pwned & 'a' \"b\" \\ | >pwned * ~ {x} %s"
    show = "import json, sys\nprint(json.dumps(sys.argv[1:]))\n"
    job = backend.submit(
        "python show.py {note}",
        {"show.py": show},
        parameters={"note": value, "x y": value},
        declared={"note": "string"},
    )
    job = backend.end(job)
    assert json.dumps([value, "--x y", value]) in backend.log(job)
    assert backend.run(job).params["note"] == value
    assert not list(backend.data.rglob("pwned"))
    ended = Ended.load(backend.folders(job))
    assert ended
    assert ended.exit_code == 0
