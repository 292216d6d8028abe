"""How the compute backend of a platform is set up, and how the command tells it to the processes that it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

from mantik.exceptions import ConfigurationError
from mantik.server.config import ServerConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

ExecutorName = Literal["none", "local", "slurm"]

EXECUTORS: Final[tuple[ExecutorName, ...]] = get_args(ExecutorName)
DEFAULT_ARCHIVE_LIMIT: Final = 100 * 1024 * 1024
DEFAULT_QUEUE_LIMIT: Final = 200
MOST_FILES: Final = 20_000
"""How many files and folders a project may have."""

_UNPACKED_TIMES: Final = 10

_EXECUTOR = "MANTIK_SERVER_COMPUTE"
_FOLDER = "MANTIK_SERVER_COMPUTE_FOLDER"
_SLOTS = "MANTIK_SERVER_COMPUTE_SLOTS"
_ARCHIVE_LIMIT = "MANTIK_SERVER_COMPUTE_ARCHIVE_LIMIT"
_QUEUE_LIMIT = "MANTIK_SERVER_COMPUTE_QUEUE_LIMIT"
_KEEP_DAYS = "MANTIK_SERVER_COMPUTE_KEEP_DAYS"
_URL = "MANTIK_SERVER_URL"


def default_slots() -> int:
    """Return as many slots as this process may use CPUs."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class ComputeConfig:
    """The compute backend of one platform.

    Attributes:
        folder: The directory that holds the jobs and their database: ``compute`` in the platform's data directory.
        executor: Who runs jobs; ``none`` if nobody does and submissions are refused.
        slots: How many slots the local executor has.
        archive_limit: The most bytes that an uploaded project may have, packed.
        queue_limit: The most unfinished jobs that one user may have.
        url: The address of the platform as its jobs reach it, without a slash at the end. Empty in the web workers,
            which are started before the port is known.
        keep_days: For how many days the folder of a job is kept after its end; ``None`` for ever.
    """

    folder: Path
    executor: ExecutorName = "none"
    slots: int = field(default_factory=default_slots)
    archive_limit: int = DEFAULT_ARCHIVE_LIMIT
    queue_limit: int = DEFAULT_QUEUE_LIMIT
    url: str = ""
    keep_days: int | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> ComputeConfig:
        """Read what `to_environment` wrote. What is missing has its default.

        Raises:
            ConfigurationError: A variable holds what it cannot mean.
        """
        executor = environ.get(_EXECUTOR, "none")
        for name in EXECUTORS:
            if name == executor:
                break
        else:
            raise ConfigurationError(f"{_EXECUTOR} is {executor!r}. Set it to one of: {', '.join(EXECUTORS)}.")
        named = environ.get(_FOLDER)
        folder = Path(named) if named else ServerConfig.from_environment(environ).compute
        keep_days = environ.get(_KEEP_DAYS)
        try:
            return cls(
                folder,
                name,
                int(environ.get(_SLOTS, default_slots())),
                int(environ.get(_ARCHIVE_LIMIT, DEFAULT_ARCHIVE_LIMIT)),
                int(environ.get(_QUEUE_LIMIT, DEFAULT_QUEUE_LIMIT)),
                environ.get(_URL, ""),
                int(keep_days) if keep_days else None,
            )
        except ValueError as error:
            raise ConfigurationError(
                f"{_SLOTS}, {_ARCHIVE_LIMIT}, {_QUEUE_LIMIT} and {_KEEP_DAYS} must be integers: {error}."
            ) from error

    def to_environment(self) -> dict[str, str]:
        """Return the variables that carry this set-up to the processes of the platform."""
        return {
            _EXECUTOR: self.executor,
            _FOLDER: str(self.folder),
            _SLOTS: str(self.slots),
            _ARCHIVE_LIMIT: str(self.archive_limit),
            _QUEUE_LIMIT: str(self.queue_limit),
            _URL: self.url,
            _KEEP_DAYS: "" if self.keep_days is None else str(self.keep_days),
        }

    @property
    def unpacked_limit(self) -> int:
        """The most bytes that a project may have, unpacked: ten times what it may have packed."""
        return self.archive_limit * _UNPACKED_TIMES

    @property
    def database(self) -> Path:
        """All jobs: `mantik.server.compute.jobs.JobStore`."""
        return self.folder / "compute.db"

    @property
    def incoming(self) -> Path:
        """Submissions in progress: what is in here belongs to no job."""
        return self.folder / "incoming"

    @property
    def jobs(self) -> Path:
        """One folder for each job: `mantik.server.compute.folders.JobFolders`."""
        return self.folder / "jobs"

    @property
    def removed(self) -> Path:
        """Folders of jobs that are being removed; what is in here is nobody's any more."""
        return self.folder / "removed"

    def prepare(self) -> None:
        """Create the folders, readable by their owner only.

        Raises:
            ConfigurationError: A folder cannot be made.
        """
        try:
            for path in (self.folder, self.incoming, self.jobs, self.removed):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"The folder of jobs {self.folder} cannot be made: {error.strerror}.") from error
