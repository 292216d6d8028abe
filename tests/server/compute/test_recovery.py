from __future__ import annotations

import re
import socket
import sqlite3
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from mantik.server.compute.incoming import Incoming
from mantik.server.compute.runs import Runs
from mantik.testing import wait_until
from tests.server.running import DEADLINE

from .intake import Intake
from .projects import form

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    from .conftest import Backend

# What a web worker does for a submission, up to the moment at which it is killed.
WORKER = """
import os, sys
from pathlib import Path
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mantik.server.compute.config import ComputeConfig
from mantik.server.compute.incoming import Incoming
from mantik.server.compute.jobs import Job, JobStore, now
from mantik.server.compute.runs import Runs
folder, uri, artifacts, experiment_id, user_id, end = sys.argv[1:]
config = ComputeConfig(Path(folder), "local")
store, runs = JobStore(config.database), Runs(lambda: SqlAlchemyStore(uri, artifacts))
draft = Incoming(config, store, runs).new(experiment_id)
draft.archive.write_bytes(b"x" * 1000)
def until(moment):
    if moment == end:
        os._exit(9)
until("uploaded")
draft.project.mkdir(parents=True)
(draft.project / "train.py").touch()
draft.run_mark.touch()
until("unpacked")
made = {"run_name": "n", "entry_point": "main", "parameters": {}}
run_id, _ = runs.create(experiment_id, job_id=draft.job_id, username="alice", **made)
until("run made")
draft.job.rename(config.jobs / draft.job_id)
until("moved")
store.add(Job(draft.job_id, run_id, experiment_id, user_id, "alice", backend_config={}, submitted_at=now(), **made))
until("added")
"""


def killed_worker(backend: Backend, end: str) -> None:
    """Run a worker until it is killed there."""
    store = backend.tracking
    given = [
        str(backend.compute.folder),
        store.db_uri,
        store.artifact_root_uri,
        backend.experiment_id,
        backend.alice.id,
    ]
    done = subprocess.run(
        [sys.executable, "-c", WORKER, *given, end], capture_output=True, text=True, check=False, timeout=DEADLINE
    )
    assert done.returncode == 9, done.stderr


def successor(backend: Backend) -> Incoming:
    """Return what a worker has that starts later."""
    return Incoming(backend.compute, backend.jobs, Runs(lambda: backend.tracking))


@pytest.mark.parametrize("end", ["uploaded", "unpacked", "run made", "moved"])
def test_what_a_killed_worker_leaves_half_done_vanishes(backend: Backend, end: str) -> None:
    """Upload, project and run: the next worker takes them back."""
    killed_worker(backend, end)
    assert list(backend.compute.incoming.glob("*/*"))
    assert len(backend.runs()) == (end in {"run made", "moved"})
    successor(backend).recover()
    assert backend.is_untouched()


def test_job_that_was_added_stays(backend: Backend) -> None:
    """Its client never got the answer, but the job is complete: only the draft goes."""
    killed_worker(backend, "added")
    successor(backend).recover()
    assert not list(backend.compute.incoming.glob("*/*"))
    (job,), total = backend.jobs.of_user(backend.alice.id)
    assert total == 1
    assert [run.info.run_id for run in backend.runs()] == [job.run_id]
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


@pytest.fixture
def own_intake(tmp_path: Path) -> Iterator[Intake]:
    """A server that may be killed."""
    running = Intake(tmp_path / "data")
    yield running
    running.process.stop()


def test_server_that_is_killed_during_an_upload_leaves_nothing(own_intake: Intake) -> None:
    """After the restart there is neither a file nor a run of it, and submissions go on."""
    body, headers = form(b"x" * 3_000_000)
    head = "".join(f"{name}: {value}\r\n" for name, value in {**headers, **own_intake.headers()}.items())
    with socket.create_connection(
        ("127.0.0.1", urlsplit(own_intake.process.url).port or 0), timeout=DEADLINE
    ) as client:
        client.sendall(f"POST /compute-backend/submit/0 HTTP/1.1\r\nHost: localhost\r\n{head}".encode())
        client.sendall(f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:2_500_000])
        uploads = own_intake.compute.incoming
        wait_until(
            lambda: any(path.stat().st_size > 1_000_000 for path in uploads.rglob("project.zip")),
            deadline=DEADLINE,
            what="a part of the upload on the disk",
        )
        own_intake.kill()
    assert list(uploads.rglob("project.zip"))
    own_intake.start()
    wait_until(lambda: not list(uploads.rglob("project.zip")), deadline=DEADLINE, what="the recovery")
    assert own_intake.runs() == []
    assert own_intake.submit().status_code == 201
    assert len(own_intake.runs()) == 1
