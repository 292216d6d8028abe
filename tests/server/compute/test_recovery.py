from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mantik.server.compute.incoming import Incoming
from mantik.server.compute.runs import Runs
from tests.server.running import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    from .conftest import Backend

# What a web worker has done for each submission, up to the moment at which it is killed.
WORKER = """
import os, sys
from pathlib import Path
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mantik.server.compute.config import ComputeConfig
from mantik.server.compute.incoming import Incoming
from mantik.server.compute.jobs import Job, JobStore, now
from mantik.server.compute.runs import Runs
folder, uri, artifacts, experiment_id, user_id, *ends = sys.argv[1:]
config = ComputeConfig(Path(folder), "local")
store, runs = JobStore(config.database), Runs(lambda: SqlAlchemyStore(uri, artifacts))
incoming = Incoming(config, store, runs)
def submission():
    draft = incoming.new(experiment_id)
    draft.archive.write_bytes(b"x" * 1000)
    yield "uploaded"
    draft.project.mkdir(parents=True)
    (draft.project / "train.py").touch()
    draft.run_mark.touch()
    yield "unpacked"
    made = {"run_name": "n", "entry_point": "main", "parameters": {}}
    run_id, _ = runs.create(experiment_id, job_id=draft.job_id, username="alice", **made)
    yield "run made"
    draft.job.rename(config.jobs / draft.job_id)
    yield "moved"
    store.add(Job(draft.job_id, run_id, experiment_id, user_id, "alice", backend_config={}, submitted_at=now(), **made))
    yield "added"
for end in ends:
    next(moment for moment in submission() if moment == end)
os._exit(9)
"""


def killed_worker(backend: Backend, *ends: str) -> None:
    """Run a worker until it is killed, with a submission that has come so far for each end."""
    store = backend.tracking
    given = [
        str(backend.compute.folder),
        store.db_uri,
        store.artifact_root_uri,
        backend.experiment_id,
        backend.alice.id,
    ]
    done = subprocess.run(
        [sys.executable, "-c", WORKER, *given, *ends], capture_output=True, text=True, check=False, timeout=DEADLINE
    )
    assert done.returncode == 9, done.stderr


def successor(backend: Backend) -> Incoming:
    """Return what a worker has that starts later."""
    return Incoming(backend.compute, backend.jobs, Runs(lambda: backend.tracking))


def test_of_what_a_killed_worker_leaves_only_jobs_stay(backend: Backend) -> None:
    """Upload, project and run of what was to become one are taken back by the next worker, in whatever state.

    Where the job was added, its client never got the answer, but it is complete: only the draft goes.
    """
    killed_worker(backend, "uploaded", "unpacked", "run made", "moved", "added")
    assert len(list(backend.compute.incoming.glob("*/*"))) == 5
    assert len(backend.runs()) == 3
    assert len(list(backend.compute.jobs.iterdir())) == 2
    successor(backend).recover()
    assert not list(backend.compute.incoming.glob("*/*"))
    (job,), total = backend.jobs.of_user(backend.alice.id)
    assert total == 1
    assert [run.info.run_id for run in backend.runs()] == [job.run_id]
    assert [path.name for path in backend.compute.jobs.iterdir()] == [job.job_id]
    assert [path.name for path in backend.folders(job).project.iterdir()] == ["train.py"]


def test_drafts_of_the_living_are_left_alone(backend: Backend) -> None:
    """One's own and those of other workers; and nothing that is gone already is missed."""
    one, other = successor(backend), successor(backend)
    drafts = [one.new("1"), other.new("2")]
    one.recover()
    other.recover()
    assert all(draft.folder.is_dir() for draft in drafts)
    for incoming, draft in zip((one, other), drafts, strict=True):
        incoming.clear(draft)
        incoming.clear(draft)
    assert not list(backend.compute.incoming.glob("*/*"))


def test_nothing_but_drafts_is_cleared(backend: Backend) -> None:
    """What has found its way into the folder of a dead worker under another name removes no job."""
    job = backend.submitted()
    dead = backend.compute.incoming / "dead"
    for name in ("", ".", "1.", f".{job.job_id}", "1...", "1.x"):
        (dead / f"{name}x").mkdir(parents=True)
        (dead / f"{name}x" / "run").touch()
    dead.with_name("dead.lock").touch()
    successor(backend).recover()
    assert backend.folders(job).project.is_dir()
    assert len(backend.runs()) == 1
    assert dead.is_dir()


@pytest.fixture
def impatient(tracking_store: SqlAlchemyStore) -> Iterator[None]:
    """Let MLflow wait half a second for a database that is locked; it has no setting for its twenty."""
    from sqlalchemy import event

    def shortened(
        _connection: object, _cursor: object, statement: str, parameters: object, *_: object
    ) -> tuple[str, object]:
        return re.sub(r"(?<=PRAGMA busy_timeout = )\d+", "500", statement), parameters

    event.listen(tracking_store.engine, "before_cursor_execute", shortened, retval=True)
    yield
    event.remove(tracking_store.engine, "before_cursor_execute", shortened)


@pytest.mark.usefixtures("impatient")
def test_run_that_mlflow_cannot_take_back_is_kept_in_mind(backend: Backend) -> None:
    """While MLflow's database does not answer, the draft stays; a later worker clears it, and submissions say 503."""
    killed_worker(backend, "run made")
    database = sqlite3.connect(backend.tracking.db_uri.removeprefix("sqlite:///"), isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    answer = backend.submit()
    assert (answer.status, answer.headers["retry-after"]) == (503, "10")
    assert "MLflow's database does not answer" in answer.json()["message"]
    successor(backend).recover()
    database.execute("ROLLBACK")
    database.close()
    assert len(list(backend.compute.incoming.glob("*/*"))) == len(backend.runs()) == 1
    successor(backend).recover()
    assert backend.is_untouched()


def test_run_of_an_experiment_that_is_gone_does_not_stop_the_recovery(backend: Backend) -> None:
    """There is nothing to take back where MLflow has nothing."""
    incoming = successor(backend)
    draft = replace(incoming.new("1"), experiment_id="999999")
    draft.run_mark.touch()
    incoming.clear(draft)
    assert not draft.folder.exists()
