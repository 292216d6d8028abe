"""The compute backend on a bench: the real application and MLflow's real store, without a server."""

from __future__ import annotations

import json
import signal
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from mantik.server.app import wrap
from mantik.server.authority import Authority
from mantik.server.compute.config import ComputeConfig
from mantik.server.compute.folders import JobFolders
from mantik.server.compute.jobs import Job, JobStore
from mantik.server.config import ServerConfig
from mantik.server.store import Store, User
from mantik.server.tokens import TokenIssuer, load_signing_key
from tests.server.asgi import Answer, Inner, call

from .intake import Intake
from .machine_room import MachineRoom
from .projects import form

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow.entities import Run
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from starlette.types import ASGIApp


@pytest.fixture(scope="session")
def tracking_store(tmp_path_factory: pytest.TempPathFactory) -> SqlAlchemyStore:
    """MLflow's own store on a database of its own; making one takes seconds."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = tmp_path_factory.mktemp("mlflow")
    return SqlAlchemyStore(f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts"))


@pytest.fixture(scope="session")
def intake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Intake]:
    """A running server for tests that only talk to it; its data are in a folder with nothing beside them."""
    running = Intake(tmp_path_factory.mktemp("service") / "parent" / "data")
    yield running
    running.process.stop()


@pytest.fixture
def room(tmp_path: Path, blank_environment: pytest.MonkeyPatch) -> Iterator[MachineRoom]:
    """A machine that runs jobs, without anything of its user's."""
    room = MachineRoom(tmp_path / "compute")
    yield room
    room.clear(signal.SIGKILL)


@dataclass
class Backend:
    """A platform with a compute backend, its parts, and the user alice."""

    config: ServerConfig
    compute: ComputeConfig
    users: Store
    jobs: JobStore
    tracking: SqlAlchemyStore
    app: ASGIApp
    alice: User
    experiment_id: str

    def authority(self) -> Authority:
        """Return what issues this platform's tokens."""
        tokens = TokenIssuer(load_signing_key(self.config.signing_key), self.config.token_lifetime)
        return Authority(self.users, tokens, self.jobs.is_over)

    def headers(self, user: User | None = None, job: str | None = None) -> dict[str, str]:
        """Return the header of a user, or of a job of that user."""
        return {"Authorization": f"Bearer {self.authority().log_in(user or self.alice, job).access.text}"}

    def ask(self, method: str, path: str, user: User | None = None, job: str | None = None, query: str = "") -> Answer:
        """Send a request to a path of the compute backend."""
        return call(
            self.app, method, f"/compute-backend{path}", headers=self.headers(user, job), query=query, raw_path=b""
        )

    def submit(
        self,
        zipped: bytes | None = None,
        *,
        user: User | None = None,
        job: str | None = None,
        experiment_id: str | None = None,
        key: str | None = None,
        **fields: str | None,
    ) -> Answer:
        """Submit a project; the sound one if no other is given."""
        body, headers = form(zipped, **fields)
        if key is not None:
            headers["Idempotency-Key"] = key
        path = f"/compute-backend/submit/{self.experiment_id if experiment_id is None else experiment_id}"
        return call(self.app, "POST", path, body=body, headers={**headers, **self.headers(user, job)})

    def submitted(self, user: User | None = None, **fields: str | None) -> Job:
        """Submit the sound project and return the job."""
        answer = self.submit(user=user, **fields)
        assert answer.status == 201, answer.text
        job = self.jobs.get(answer.json()["job_id"])
        assert job
        return job

    def folders(self, job: Job) -> JobFolders:
        """Return where the job's files are."""
        return JobFolders(self.compute.folder, job.job_id)

    def runs(self) -> list[Run]:
        """Return the runs of the experiment that were not deleted."""
        from mlflow.entities import ViewType

        return list(self.tracking.search_runs([self.experiment_id], "", ViewType.ACTIVE_ONLY))

    def is_untouched(self) -> bool:
        """Tell whether there is no job, no run, no file of either."""
        folder = self.compute.folder
        files = [*folder.glob("jobs/*"), *folder.glob("incoming/*/*")]
        return not files and not self.runs() and self.jobs.of_user(self.alice.id)[1] == 0


@pytest.fixture
def backend(
    tmp_path: Path, tracking_store: SqlAlchemyStore, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Backend:
    """A platform with a compute backend; parametrise it with fields of `ComputeConfig` that are to differ."""
    monkeypatch.setattr("mlflow.server.handlers._tracking_store", tracking_store)
    config = ServerConfig(tmp_path / "data")
    compute = replace(ComputeConfig(config.compute, "local", slots=4), **getattr(request, "param", {}))
    app = wrap(Inner(), config, compute)
    users = Store(config.database)
    alice = users.add_user("alice", "-")
    experiment_id = tracking_store.create_experiment(str(uuid.uuid4()))
    return Backend(config, compute, users, JobStore(compute.database), tracking_store, app, alice, experiment_id)


def details(answer: Answer) -> dict[str, str]:
    """Return field and text of each mistake of a 422."""
    assert answer.status == 422, answer.text
    return {found["loc"][-1]: found["msg"] for found in json.loads(answer.body)["detail"]}
