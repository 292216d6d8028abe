"""A platform with a compute backend as its owner starts it, and its user ada, who submits jobs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests

from mantik.compute import ComputeBackendClient
from mantik.server.compute.config import ComputeConfig
from mantik.server.compute.folders import JobFolders
from mantik.server.compute.jobs import JobStore
from mantik.testing import ReadBack, wait_until
from tests.server.running import DEADLINE, PASSWORD, RunningPlatform, run_command

from .machine_room import mlproject
from .projects import CONFIG, FIELDS, archive, form

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mantik.server.compute.jobs import Job
    from mantik.testing.holdings import Run

JOB_DEADLINE = 180.0


class RunningBackend:
    """``mantik server --compute local`` in a process, which may be stopped, killed and started again on its port."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        self._arguments = ["--compute", "local", *arguments]
        self._platform = RunningPlatform(data, *self._arguments)
        self.url = self._platform.url
        self._arguments += ["--port", self.url.rpartition(":")[2]]
        self._platform.add_user("ada")
        self.jobs = JobStore(ComputeConfig(data / "compute").database)
        self.read_back = ReadBack(self.url, "ada", PASSWORD)

    def restart(self, number: signal.Signals = signal.SIGTERM, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Stop the platform, or kill all of its processes, do something without it, and start it again."""
        if number == signal.SIGTERM:
            self._platform.stop()
        else:
            for pid in [self._platform.process.pid, *self._platform.server_processes()]:
                os.kill(pid, number)
            self._platform.process.communicate()
        meanwhile()
        self._platform = RunningPlatform(self.data, *self._arguments)
        assert self._platform.url == self.url

    def dispatcher(self) -> int | None:
        """Return the process id of the dispatcher; none if none runs."""
        for pid in self._platform.server_processes():
            if b"mantik.server.compute.dispatcher" in _read(pid, "cmdline"):
                return pid
        return None

    def stop(self) -> None:
        """Stop the platform, and kill what jobs have left."""
        self.read_back.close()
        self._platform.stop()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and str(self.data).encode() in _read(int(entry.name), "environ"):
                os.kill(int(entry.name), signal.SIGKILL)

    def submit(  # noqa: PLR0913 - what a submission is made of
        self,
        command: str,
        files: Mapping[str, str] | None = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
        declared: Mapping[str, str] | None = None,
        user: str = "ada",
        **variables: str,
    ) -> Job:
        """Submit a project with this entry point and return the job."""
        config = {"Resources": {"Queue": "batch", **(resources or {})}, "Environment": {"Variables": variables}}
        project = {"MLproject": mlproject(command, **(declared or {})), CONFIG: json.dumps(config), **(files or {})}
        answer = requests.post(
            f"{self.url}/compute-backend/submit/0",
            data={**FIELDS, "mlflow_parameters": json.dumps(parameters or {})},
            files={"mlproject_zip": ("project.zip", archive(project), "application/zip")},
            headers=self._headers(user),
            timeout=DEADLINE,
        )
        assert answer.status_code == 201, answer.text
        return self.job(answer.json()["job_id"])

    @contextlib.contextmanager
    def half_an_upload(self) -> Iterator[None]:
        """Submit the first part of a large project; the rest never comes."""
        body, headers = form(b"x" * 3_000_000)
        lines = [f"{name}: {value}" for name, value in {**headers, **self._headers()}.items()]
        head = ["POST /compute-backend/submit/0 HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *lines]
        with socket.create_connection(("127.0.0.1", urlsplit(self.url).port or 0), timeout=DEADLINE) as client:
            client.sendall("\r\n".join([*head, "", ""]).encode() + body[:2_500_000])
            yield

    def cancel(self, job: Job) -> None:
        """Cancel a job as its user does."""
        url = f"{self.url}/compute-backend/jobs/{job.job_id}/cancel"
        answer = requests.post(url, headers=self._headers(), timeout=DEADLINE)
        assert answer.status_code == 202, answer.text

    def job(self, job_id: str) -> Job:
        """Return a job as it is now."""
        job = self.jobs.get(job_id)
        assert job
        return job

    def end(self, job: Job, deadline: float = JOB_DEADLINE) -> Job:
        """Return a job when it is over."""
        wait_until(lambda: self.jobs.is_over(job.job_id), deadline=deadline, what=f"the end of {self.job(job.job_id)}")
        return self.job(job.job_id)

    def run(self, job: Job) -> Run:
        """Return the run of a job."""
        return self.read_back.run(job.run_id)

    def folders(self, job: Job) -> JobFolders:
        """Return where a job's files are."""
        return JobFolders(self.data / "compute", job.job_id)

    def log(self, job: Job) -> str:
        """Return what a job has written so far."""
        log = self.folders(job).log
        return log.read_text() if log.exists() else ""

    def wait_for(self, job: Job, text: str) -> None:
        """Wait until a job has written a text."""
        wait_until(lambda: text in self.log(job), deadline=JOB_DEADLINE, what=f"{text!r} in the log of {job}")

    def change_user(self, *command: str, password: str = "") -> None:
        """Change the users of the platform: ``mantik server users COMMAND``."""
        done = run_command("users", *command, "--data", str(self.data), stdin=password)
        assert done.returncode == 0, done.stderr

    def client(self, user: str = "ada") -> ComputeBackendClient:
        """Return a client of a user, with a token of now."""
        return ComputeBackendClient(self.url, "", "", "", self.url, self._platform.access_token(user))

    def _headers(self, user: str = "ada") -> dict[str, str]:
        return {"Authorization": f"Bearer {self._platform.access_token(user)}"}


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        # Another user's, or gone.
        return b""
