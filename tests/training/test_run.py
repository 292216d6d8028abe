from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import mlflow
import pytest

import mantik
from mantik.exceptions import ConfigurationError
from mantik.settings import Job, Settings
from mantik.training.attempts import Attempts
from mantik.training.identity import RunIdentity
from mantik.training.request import RunRequest
from mantik.training.run import TrackedRun

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mantik.testing import FaultProxy, Platform

FLUSH_SECONDS = 60.0


@pytest.fixture
def client(tracked: FaultProxy) -> Iterator[mlflow.MlflowClient]:
    """Return MLflow's client; no run stays active."""
    del tracked
    yield mlflow.MlflowClient()
    while mlflow.active_run() is not None:
        mlflow.end_run()


def opened(source: RunIdentity | None = None, **request: str) -> TrackedRun:
    """Open a run."""
    run = TrackedRun(RunRequest(**request))  # type: ignore[arg-type]  # all are texts
    run.open(source)
    return run


def made(client: mlflow.MlflowClient) -> str:
    """Return a run that is there already."""
    return str(client.create_run("0").info.run_id)


def job(monkeypatch: pytest.MonkeyPatch, restart: int) -> None:
    """Be in an attempt of a job of Slurm."""
    settings = {"JOB_ID": "17", "CLUSTER_NAME": "maia", "RESTART_COUNT": str(restart), "STEP_ID": "0", "PROCID": "0"}
    for name, value in settings.items():
        monkeypatch.setenv(f"SLURM_{name}", value)


def test_which_run_is_taken(client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Argument, active run, MLFLOW_RUN_ID, checkpoint, the job's earlier attempt: the first that is there wins."""
    argument, active, variable, checkpoint, earlier = (made(client) for _ in range(5))
    uri = mlflow.get_tracking_uri()
    source = RunIdentity(checkpoint, "0", uri)
    job(monkeypatch, 1)
    first = Job.from_environment({"SLURM_JOB_ID": "17", "SLURM_CLUSTER_NAME": "maia", "SLURM_STEP_ID": "0"})
    assert first is not None
    Attempts(Settings.from_environment().home, first).note(RunIdentity(earlier, "0", uri))

    def taken(source: RunIdentity | None, **request: str) -> str | None:
        run = opened(source, **request)
        run.end("FINISHED")
        return run.run_id

    # MLflow forgets the variable at the end of a run.
    monkeypatch.setenv("MLFLOW_RUN_ID", variable)
    assert taken(source, run_id=argument) == argument
    with mlflow.start_run(run_id=active):
        monkeypatch.setenv("MLFLOW_RUN_ID", variable)
        assert taken(source) == active
    monkeypatch.setenv("MLFLOW_RUN_ID", variable)
    assert [taken(source), taken(source)] == [variable, checkpoint]
    job(monkeypatch, 2)
    assert taken(None) == earlier
    monkeypatch.delenv("SLURM_JOB_ID")
    assert taken(None) not in {argument, active, variable, checkpoint, earlier}


def test_each_part_of_a_life(client: mlflow.MlflowClient, mantik_platform: Platform) -> None:
    """A run is opened once, ended once, opened again and ended again; its platform says the same."""
    run = TrackedRun(RunRequest())
    assert (run.run_id, run.is_open, run.identity, run.link) == (None, False, None, "")
    run.end("FAILED")
    for status in ("FINISHED", "KILLED"):
        run.open()
        run.open()
        run_id = str(run.run_id)
        assert (run.is_open, client.get_run(run_id).info.status) == (True, "RUNNING")
        run.end(status)
        run.end("FAILED")
        assert mantik.flush(FLUSH_SECONDS)
        assert mantik_platform.read_back.run(run_id).status == status
        assert (run.is_open, mlflow.active_run()) == (False, None)
    assert run.attempt == 1


def test_a_copy_in_another_process(client: mlflow.MlflowClient) -> None:
    """A pickled run knows its ids, is closed, and opens as the same run."""
    run = opened()
    run.end("FINISHED")
    copied: TrackedRun = pickle.loads(pickle.dumps(run))  # noqa: S301  # our own
    assert (copied.run_id, copied.experiment_id, copied.attempt) == (run.run_id, run.experiment_id, run.attempt)
    assert not copied.is_open
    copied.open()
    assert client.get_run(str(run.run_id)).info.status == "RUNNING"
    copied.end("FINISHED")


def test_a_copy_takes_the_active_run_along(client: mlflow.MlflowClient) -> None:
    """A copy that is made within the user's own run belongs to that one, and does not end it."""
    with mlflow.start_run() as active:
        copied: TrackedRun = pickle.loads(pickle.dumps(TrackedRun(RunRequest())))  # noqa: S301
    assert copied.run_id == active.info.run_id
    copied.open()
    copied.end("FAILED")
    assert client.get_run(active.info.run_id).info.status != "FAILED"


def test_a_run_that_was_handed_over(client: mlflow.MlflowClient, mantik_platform: Platform) -> None:
    """A run that is left for the next attempt stays RUNNING, and can be taken back."""
    run = opened()
    run_id = str(run.run_id)
    run.hand_over()
    assert run.is_handed_over
    mlflow.end_run()
    assert mantik.flush(FLUSH_SECONDS)
    assert mantik_platform.read_back.run(run_id).status == "RUNNING"
    run.take_back()
    run.end("FINISHED")
    assert mantik.flush(FLUSH_SECONDS)
    assert mantik_platform.read_back.run(run_id).status == "FINISHED"
    del client


def test_another_run_is_active_when_it_is_opened_again(client: mlflow.MlflowClient) -> None:
    """A run that goes on while another one is active is refused, and the other one is left alone."""
    run = opened()
    run.end("FINISHED")
    with mlflow.start_run() as other:
        with pytest.raises(ConfigurationError, match=rf"(?s){other.info.run_id}.*{run.run_id}.*End the active run"):
            run.open()
        assert client.get_run(other.info.run_id).info.status == "RUNNING"
    run.open()
    run.end("FINISHED")


def test_what_a_resumed_run_is_an_attempt_of(client: mlflow.MlflowClient) -> None:
    """A run that has params or points is resumed as a further attempt; one that is empty was made for this one."""
    empty, used = made(client), made(client)
    client.log_param(used, "a", 1)
    for run_id, attempts in ((empty, [1]), (used, [2, 3])):
        for attempt in attempts:
            run = opened(run_id=run_id)
            run.end("FINISHED")
            assert run.attempt == attempt
            assert client.get_run(run_id).data.tags.get("mantik.attempt", "1") == str(attempt)
    assert "mantik.attempt.3" in client.get_run(used).data.tags
