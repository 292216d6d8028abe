"""The platform's server on loopback with a compute backend that takes jobs and runs none."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from mantik.server.authority import Authority
from mantik.server.compute.config import ComputeConfig
from mantik.server.compute.jobs import JobStore
from mantik.server.config import ServerConfig
from mantik.server.process import ServerOptions, ServerProcess, start
from mantik.server.store import Store
from mantik.server.tokens import TokenIssuer, load_signing_key
from mantik.testing.processes import running_processes
from tests.server.running import DEADLINE

from .projects import form

if TYPE_CHECKING:
    from mantik.server.store import User


class Intake:
    """A server without a dispatcher: jobs stay in the queue."""

    def __init__(self, data: Path, *, archive_limit: int = 32 * 1024 * 1024, queue_limit: int = 10_000) -> None:
        self.config = ServerConfig(data)
        self.compute = ComputeConfig(self.config.compute, "local", 4, archive_limit, queue_limit)
        self.config.prepare_data()
        self.users = Store(self.config.database)
        self.compute.prepare()
        self.jobs = JobStore(self.compute.database)
        self.alice = self.users.user_named("alice") or self.users.add_user("alice", "-")
        options = ServerOptions(
            "127.0.0.1",
            0,
            f"sqlite:///{self.config.data / 'mlflow.db'}",
            str(self.config.data / "artifacts"),
            1,
            compute=self.compute,
        )
        process = start(self.config, options, lambda: False)
        assert process
        self.process: ServerProcess = process

    def processes(self) -> list[int]:
        """Return the ids of the server's processes."""
        mark = f"MANTIK_SERVER_DATA={self.config.data}\0".encode()
        found = []
        for process in running_processes():
            # One may end while it is looked at.
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{process.pid}/environ").read_bytes():
                    found.append(process.pid)
        return found

    def headers(self, user: User | None = None) -> dict[str, str]:
        """Return the header of a user."""
        tokens = TokenIssuer(load_signing_key(self.config.signing_key), 3600.0)
        access = Authority(self.users, tokens).log_in(user or self.alice).access
        return {"Authorization": f"Bearer {access.text}"}

    def submit(self, zipped: bytes | None = None, experiment_id: str = "0", **fields: str | None) -> requests.Response:
        """Submit a project over the network."""
        body, headers = form(zipped, **fields)
        return self.post(f"submit/{experiment_id}", body, headers)

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> requests.Response:
        """Send a request as alice."""
        return requests.post(
            f"{self.process.url}/compute-backend/{path}",
            data=body,
            headers={**headers, **self.headers()},
            timeout=DEADLINE,
        )

    def runs(self) -> list[dict[str, str]]:
        """Return the runs that MLflow knows, of all experiments."""
        answer = requests.post(
            f"{self.process.url}/api/2.0/mlflow/runs/search",
            json={"experiment_ids": ["0"], "max_results": 50_000},
            headers=self.headers(),
            timeout=DEADLINE,
        )
        return [run["info"] for run in answer.json().get("runs", [])]
