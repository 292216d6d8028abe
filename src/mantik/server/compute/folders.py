"""Where the files of one job are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

JOB_ID: Final = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
"""What the id of a job looks like: it is the name of a folder, and comes from clients."""


@dataclass(frozen=True, slots=True)
class JobFolders:
    """The folder of one job and what is in it. Nothing is created by looking.

    Attributes:
        folder: `mantik.server.compute.config.ComputeConfig.folder`.
        job_id: The job.
    """

    folder: Path
    job_id: str

    @property
    def root(self) -> Path:
        """The folder that belongs to the job alone."""
        return self.folder / "jobs" / self.job_id

    @property
    def project(self) -> Path:
        """The unpacked project: the working folder of its program."""
        return self.root / "project"

    @property
    def log(self) -> Path:
        """What its program writes to standard output and standard error."""
        return self.root / "mantik.log"

    @property
    def home(self) -> Path:
        """MANTIK_HOME of the job: its login and its spool."""
        return self.root / "home"

    @property
    def state(self) -> Path:
        """What the wrapper says of itself, written atomically."""
        return self.root / "state"

    @property
    def started(self) -> Path:
        """Written by the wrapper when it starts the program."""
        return self.state / "started.json"

    @property
    def ended(self) -> Path:
        """Written by the wrapper when nothing of the program is left."""
        return self.state / "ended.json"
