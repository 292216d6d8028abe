"""What the wrapper of a job is told, in a file: it runs on another machine perhaps, where no database is."""

from __future__ import annotations

import errno
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mantik.auth.cache import write_private
from mantik.server.compute.files import open_file
from mantik.server.compute.folders import JobFolders

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mantik.server.compute.jobs import Job

GRACE_SECONDS: Final = 30.0
"""How long a program has to end once it was asked to."""

_LARGEST: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Share:
    """What of the machine a job gets; None is what is there, unlimited.

    Attributes:
        cpus: The numbers of its CPUs.
        gpus: Its GPUs as CUDA names them; an empty tuple hides those of the machine.
        memory: The most bytes that its processes may hold together.
        seconds: The longest time that it may take.
    """

    cpus: tuple[int, ...] | None = None
    gpus: tuple[str, ...] | None = None
    memory: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One job, for its wrapper.

    Attributes:
        job_id: The job.
        run_id: Its MLflow run.
        experiment_id: The experiment of the run.
        username: Who submitted it.
        url: The platform as the job reaches it.
        entry_point: The entry point of the MLproject.
        parameters: The entry point's parameters.
        backend_config: Its backend configuration.
        executor: Who runs it.
        share: What of the machine it gets from its wrapper. Where a batch system gives it, nothing is to be said here.
        grace: How many seconds its program has to end once it was asked to.
        has_login_node: Whether its commands for the login node are run by somebody else. Where there is no such node,
            they are run with those for the compute node.
    """

    job_id: str
    run_id: str
    experiment_id: str
    username: str
    url: str
    entry_point: str
    parameters: Mapping[str, str]
    backend_config: Mapping[str, Any]
    executor: str
    share: Share = field(default_factory=Share)
    grace: float = GRACE_SECONDS
    has_login_node: bool = False

    @classmethod
    def of(cls, job: Job, url: str, executor: str, **rest: Any) -> Task:  # noqa: ANN401 - the other attributes by name
        """Return the task of a job, with the other attributes as given."""
        return cls(
            job.job_id,
            job.run_id,
            job.experiment_id,
            job.username,
            url,
            job.entry_point,
            job.parameters,
            job.backend_config,
            executor,
            **rest,
        )

    @classmethod
    def load(cls, folders: JobFolders) -> Task:
        """Read the file.

        Raises:
            OSError: It cannot be read.
            ValueError: Its content is none that `store` wrote.
        """
        try:
            content = json.loads(read_small(path_of(folders)))
            share = content.pop("share")
            for name in ("cpus", "gpus"):
                share[name] = tuple(share[name]) if share[name] is not None else None
            return cls(**content, share=Share(**share))
        except (AttributeError, TypeError, KeyError) as error:
            raise ValueError(f"{path_of(folders)} is no task: {error}") from error

    def store(self, folders: JobFolders) -> None:
        """Write the file, for the owner's eyes only.

        Raises:
            OSError: It cannot be written.
        """
        write_private(path_of(folders), json.dumps(asdict(self)))


def read_small(path: Path) -> bytes:
    """Return what is in a file that the program of a job may have replaced by anything.

    Raises:
        OSError: There is no ordinary file, or it cannot be read.
    """
    file = open_file(path.parent, path.name)
    if file is None:
        raise FileNotFoundError(errno.ENOENT, "There is no such file", str(path))
    with file:
        return file.read(_LARGEST)


def folders_at(root: Path) -> JobFolders:
    """Return the folders of the job that a folder belongs to."""
    return JobFolders(root.parent.parent, root.name)


def path_of(folders: JobFolders) -> Path:
    """Return where the task of a job is."""
    return folders.state / "task.json"
