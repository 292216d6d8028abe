"""Jobs on the real platform: submitted over HTTP, run by the dispatcher that ``mantik server`` starts, read back."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mantik.exceptions import ComputeBackendError
from mantik.server.compute.jobs import State
from mantik.server.compute.testimony import Ended, Started
from mantik.testing import wait_until
from tests.server.running import PASSWORD

from .projects import SKINNY
from .running_backend import JOB_DEADLINE, RunningBackend

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mantik.server.compute.jobs import Job

JOBS_AT_ONCE = int(os.environ.get("JOBS", "3"))
"""How many jobs are submitted at once; 200 in `make torture`."""

STEPS = f"""{SKINNY}
import time, mlflow
with mlflow.start_run():
    for step in range(int(sys.argv[1])):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
        print("step", step)
        time.sleep(float(sys.argv[2]))
"""
STRAY = STEPS.replace("mlflow\n", "mlflow, mantik\nmantik.init_tracking()\n", 1)
# Each ends its program and its run in its own way.
OPEN = f"{SKINNY}import os, mlflow\nmlflow.start_run()\nmlflow.log_metric('loss', 0.5)\n"
ENDINGS = {
    "killed.py": OPEN + "os.kill(os.getpid(), 9)\n",
    "left_open.py": OPEN + "import mantik\nmantik.flush(30)\nos._exit(0)\n",
    "failed.py": OPEN + "mlflow.end_run('FAILED')\n",
    "finished.py": OPEN + "mlflow.end_run()\nraise SystemExit(3)\n",
}

ALL_SLOTS = {"CPUs": 2}
ENDLESS = {"train.py": OPEN + "import time\nprint('runs')\ntime.sleep(600)\n"}


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBackend]:
    """A platform with two slots whose access tokens live for two seconds, and which keeps folders for a day."""
    options = ("--compute-slots", "2", "--token-lifetime", "2", "--compute-keep-days", "1")
    backend = RunningBackend(tmp_path_factory.mktemp("backend") / "data", *options)
    yield backend
    backend.stop()


def test_tokens_outlive_jobs_and_the_queue(backend: RunningBackend) -> None:
    """A job of 15 s logs with tokens of 2 s, and so does one that waited for it; another is cancelled in the queue.

    No password is in the project, and a stray `init_tracking()` does no harm.
    """
    long = backend.submit("python steps.py 30 0.5", {"steps.py": STEPS}, resources=ALL_SLOTS)
    waited, cancelled = backend.submit("python steps.py 2 0", {"steps.py": STRAY}), backend.submit("touch ran")
    assert backend.run(waited).status == "SCHEDULED"
    backend.wait_for(long, "step 0")
    assert backend.run(long).status == "RUNNING"
    assert backend.job(long.job_id).state is State.RUNNING
    backend.cancel(cancelled)
    cancelled = backend.end(cancelled)
    assert (cancelled.state, cancelled.started_at) == (State.CANCELLED, None)
    assert backend.run(cancelled).status == "KILLED"
    assert not (backend.folders(cancelled).project / "ran").exists()
    assert backend.job(waited.job_id).state is State.QUEUED
    for job, steps in ((long, 30), (waited, 2)):
        assert backend.end(job).state is State.SUCCEEDED, backend.log(job)
        assert [point.step for point in backend.read_back.metric_history(job.run_id, "loss")] == list(range(steps))
        assert backend.run(job).status == "FINISHED"
    waited, run = backend.job(waited.job_id), backend.run(waited)
    facts = {"id": waited.job_id, "queue": "batch", "nodes": waited.nodes, "cpus": "1", "gpus": "0", "exit_code": "0"}
    assert run.tags.items() >= {f"mantik.job.{name}": value for name, value in facts.items()}.items()
    assert float(run.tags["mantik.job.wait_seconds"]) > 10
    assert float(run.tags["mantik.job.run_seconds"]) > 0
    assert PASSWORD not in backend.log(waited)
    assert any(name.startswith("system/") for name in backend.run(long).metrics)


def found_ends(backend: RunningBackend, jobs: Mapping[str, Job]) -> dict[str, tuple[State, str, str]]:
    """Return state, status of the run, and reason of each job when it is over, by the name of its ending."""
    found = {}
    for name, job in jobs.items():
        ended, run = backend.end(job), backend.run(job)
        found[name] = (ended.state, run.status, ended.reason)
        assert run.tags.get("mantik.job.reason", "") == ended.reason
        assert run.metrics.get("loss") == (0.5 if name in ENDINGS else None), backend.log(job)
        assert run.end_time
    return found


def test_ends_are_true(backend: RunningBackend) -> None:
    """However a job ends, job and run say so, and what was logged before is there."""
    jobs = {name: backend.submit(f"python {name}", {name: ENDINGS[name]}) for name in ("killed.py", "left_open.py")}
    jobs["limit"] = backend.submit("sleep 600", resources={"Runtime": "3s"})
    jobs["nothing"] = backend.submit("true")
    assert found_ends(backend, jobs) == {
        "killed.py": (State.FAILED, "FAILED", "its program was ended by SIGKILL, by somebody or for want of memory"),
        "left_open.py": (State.SUCCEEDED, "FINISHED", ""),
        "limit": (State.TIMED_OUT, "FAILED", "time limit: it was ended after 3s"),
        "nothing": (State.SUCCEEDED, "FINISHED", ""),
    }
    assert backend.job(jobs["killed.py"].job_id).signal == signal.SIGKILL
    assert backend.run(jobs["killed.py"]).tags["mantik.job.signal"] == "SIGKILL"


@pytest.mark.thorough
def test_ends_that_programs_have_told_are_judged(backend: RunningBackend) -> None:
    """A run that its program ended as failed stays so; one that it ended well has failed if the job has."""
    jobs = {name: backend.submit(f"python {name}", {name: ENDINGS[name]}) for name in ("failed.py", "finished.py")}
    assert found_ends(backend, jobs) == {
        "failed.py": (State.SUCCEEDED, "FAILED", ""),
        "finished.py": (State.FAILED, "FAILED", "its program ended with exit code 3"),
    }
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


# Killed is the harder way to go; that jobs outlive an orderly stop is also shown with the dispatcher alone.
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.thorough)])
def test_no_job_is_lost_or_run_twice(backend: RunningBackend, number: signal.Signals) -> None:
    """While the service ends at several moments, jobs go on, or wait and are run once; nothing of them is missing.

    Half an upload vanishes, and a job that ends meanwhile is told of afterwards.
    """
    steps = {"steps.py": STEPS}
    through = backend.submit("python steps.py 40 0.3", steps)
    meanwhile = backend.submit("python steps.py 10 0.3", steps, MANTIK_EXIT_TIMEOUT="1")
    waiting = [backend.submit("echo run >>runs") for _ in range(3)]
    for job in (through, meanwhile):
        backend.wait_for(job, "step 1\n")
    runs = {run.run_id for run in backend.read_back.runs("Default")}
    incoming, uploads = backend.data / "compute" / "incoming", list[Path]()

    def kill_dispatcher() -> None:
        os.kill(wait_until(backend.dispatcher, deadline=JOB_DEADLINE, what="a dispatcher"), signal.SIGKILL)

    def wait_without_a_platform() -> None:
        uploads.extend(incoming.rglob("project.zip"))
        end = backend.folders(meanwhile).ended
        wait_until(end.exists, deadline=JOB_DEADLINE, what="the end of a job without a platform")

    kill_dispatcher()
    with backend.half_an_upload():
        wait_until(
            lambda: any(path.stat().st_size > 1_000_000 for path in incoming.rglob("project.zip")),
            deadline=JOB_DEADLINE,
            what="a part of the upload on the disk",
        )
        backend.restart(number, wait_without_a_platform)
    assert uploads or number is signal.SIGTERM
    wait_until(lambda: not list(incoming.rglob("project.zip")), deadline=JOB_DEADLINE, what="the recovery")
    wait_until(lambda: any(backend.jobs.is_over(job.job_id) for job in waiting), deadline=JOB_DEADLINE)
    kill_dispatcher()
    for job in (through, meanwhile, *waiting):
        ended = backend.end(job)
        assert (ended.state, ended.reason) == (State.SUCCEEDED, ""), backend.log(job)
        assert backend.run(job).status == "FINISHED"
    for job, count in ((through, 40), (meanwhile, 10)):
        assert [point.step for point in backend.read_back.metric_history(job.run_id, "loss")] == list(range(count))
    assert [(backend.folders(job).project / "runs").read_text() for job in waiting] == ["run\n"] * len(waiting)
    assert {run.run_id for run in backend.read_back.runs("Default")} == runs


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
    """A new password does not cut off a job that runs; a removed user's job ends, and one in the queue never runs."""
    backend.change_user("add", "bob", "--password-stdin", password=PASSWORD)
    job = backend.submit("python steps.py 40 0.2", {"steps.py": STEPS}, user="bob")
    backend.wait_for(job, "step 1\n")
    backend.change_user("passwd", "bob", "--password-stdin", password="another-good-battery")
    assert backend.end(job).state is State.SUCCEEDED
    assert len(backend.read_back.metric_history(job.run_id, "loss")) == 40
    assert backend.run(job).status == "FINISHED"

    backend.change_user("add", "carol", "--password-stdin", password=PASSWORD)
    running = backend.submit("echo up; sleep 600", user="carol", resources=ALL_SLOTS)
    waiting = backend.submit("touch ran", user="carol")
    backend.wait_for(running, "up")
    backend.change_user("remove", "carol")
    assert backend.end(running).state is State.CANCELLED
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
    job = backend.end(backend.submit("true", resources={"Memory": "100TiB"}))
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
    assert backend.client().status(job.job_id).state == "FAILED"


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
