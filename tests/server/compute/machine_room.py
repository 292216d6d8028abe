"""Jobs on the local executor alone: real processes, no platform that answers."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mantik.compute.backend_config import BackendConfig
from mantik.server.compute.executors.local import LocalExecutor
from mantik.server.compute.executors.machine import Machine
from mantik.server.compute.folders import JobFolders
from mantik.server.compute.jobs import Job, now
from mantik.server.compute.processes import marked, send
from mantik.testing import wait_until

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping
    from pathlib import Path

    from mantik.server.compute.executors import Observation

# Nobody listens there.
NO_PLATFORM = "http://127.0.0.1:9"
DEADLINE = 90.0


def mlproject(command: str, **parameters: str) -> str:
    """Return an MLproject file with the entry point ``main``."""
    return json.dumps({"name": "demo", "entry_points": {"main": {"parameters": parameters, "command": command}}})


@dataclass
class MachineRoom:
    """A machine with an executor, and the jobs that it was given."""

    folder: Path
    machine: Machine = field(default_factory=Machine.here)
    slots: int = 4
    grace: float = 20.0
    jobs: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Take up work."""
        self.executor = self.new_executor()

    def new_executor(self) -> LocalExecutor:
        """Return an executor as it is after a restart of the service."""
        return LocalExecutor(NO_PLATFORM, self.slots, self.machine, self.grace)

    def job(
        self,
        command: str,
        files: Mapping[str, str] | None = None,
        *,
        parameters: Mapping[str, str] | None = None,
        slots: int = 1,
        resources: Mapping[str, Any] | None = None,
        **environment: Any,  # noqa: ANN401 - keys of the section Environment
    ) -> Job:
        """Return a job whose entry point is this command, with its project in place."""
        config = {"Resources": {"Queue": "batch", **(resources or {})}, "Environment": environment}
        job = Job(
            job_id=str(uuid.uuid4()),
            run_id=uuid.uuid4().hex,
            experiment_id="7",
            user_id="1",
            username="ada",
            run_name="",
            entry_point="main",
            parameters=dict(parameters or {}),
            backend_config=BackendConfig.from_mapping(config).to_mapping(),
            submitted_at=now(),
            slots=slots,
        )
        project = self.folders(job).project
        for name, content in {"MLproject": mlproject(command), **(files or {})}.items():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_text(content)
        self.jobs.append(job)
        return job

    def folders(self, job: Job) -> JobFolders:
        """Return where a job's files are."""
        return JobFolders(self.folder, job.job_id)

    def start(self, job: Job) -> Job:
        """Start a job and return it as it is then."""
        return replace(job, executor="local", executor_id=self.executor.start(job, self.folders(job)))

    def look(self, job: Job) -> Observation:
        """Look at a job."""
        return self.executor.look(job, self.folders(job))

    def end(self, job: Job, deadline: float = DEADLINE) -> Observation:
        """Return what is seen of a job when it has ended."""
        wait_until(lambda: self.look(job).state.is_over, deadline=deadline, what=f"the end of:\n{self.log(job)}")
        return self.look(job)

    def run(self, job: Job) -> Observation:
        """Start a job and return what is seen of it when it has ended."""
        return self.end(self.start(job))

    def log(self, job: Job) -> str:
        """Return what a job has written so far."""
        log = self.folders(job).log
        return log.read_text() if log.exists() else ""

    def wait_for(self, job: Job, text: str) -> None:
        """Wait until a job has written a text."""
        wait_until(lambda: text in self.log(job), deadline=DEADLINE, what=f"{text!r} in the log")

    def file(self, job: Job, name: str) -> str:
        """Return a file of a job's project."""
        return (self.folders(job).project / name).read_text()

    def clear(self, number: signal.Signals) -> None:
        """End what jobs have left running."""
        for job in self.jobs:
            send(marked("MANTIK_JOB_ID", job.job_id, session=None, since=0), number)
