"""Submissions in progress: each has a folder, which tells a later process what to take back if this one dies."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import filelock

from mantik.server.compute.folders import JOB_ID, JobFolders

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.server.compute.config import ComputeConfig
    from mantik.server.compute.jobs import JobStore
    from mantik.server.compute.runs import Runs

_logger = logging.getLogger(__name__)

_LOCK: Final = ".lock"
_NAME: Final = re.compile(rf"([0-9]+)\.({JOB_ID})")


@dataclass(frozen=True, slots=True)
class Draft:
    """A submission that is no job yet.

    Attributes:
        folder: What belongs to it; its name holds experiment and job.
        experiment_id: The experiment that its run is to be in.
        job_id: The job that it becomes.
    """

    folder: Path
    experiment_id: str
    job_id: str

    @classmethod
    def at(cls, folder: Path) -> Draft | None:
        """Return the draft in a folder; ``None`` if it has the name of none."""
        name = _NAME.fullmatch(folder.name)
        return cls(folder, name[1], name[2]) if name else None

    @property
    def archive(self) -> Path:
        """What was uploaded."""
        return self.folder / "project.zip"

    @property
    def job(self) -> Path:
        """What becomes the folder of the job."""
        return self.folder / "job"

    @property
    def project(self) -> Path:
        """The unpacked archive."""
        return self.job / "project"

    @property
    def run_mark(self) -> Path:
        """A file that is there if the draft may have a run."""
        return self.folder / "run"


class Incoming:
    """The folder of the drafts of one process.

    A lock beside it is held as long as the process lives, and tells the others to leave the drafts alone.
    """

    def __init__(self, config: ComputeConfig, store: JobStore, runs: Runs) -> None:
        """Make the folder."""
        self._config = config
        self._store = store
        self._runs = runs
        self._folder = config.incoming / str(uuid.uuid4())
        self._lock = filelock.FileLock(_lock_of(self._folder), mode=0o600, thread_local=False)
        self._lock.acquire()
        self._folder.mkdir(mode=0o700)

    def new(self, experiment_id: str, job_id: str | None = None) -> Draft:
        """Return a new draft, which has to be cleared in the end.

        Args:
            experiment_id: The experiment that its run is to be in.
            job_id: The job that it is to become, a UUID. Default: a new one.

        Raises:
            FileExistsError: There is such a job, or such a draft in this process or in another one.
        """
        job_id = job_id or str(uuid.uuid4())
        draft = Draft(self._folder / f"{experiment_id}.{job_id}", experiment_id, job_id)
        draft.folder.mkdir(mode=0o700)
        # Looked for once the own one is there: of two that come at the same time, one at least sees the other. A draft
        # goes after its job has come, so there is no moment without either.
        if len(list(self._config.incoming.glob(f"*/*.{job_id}"))) > 1 or self._store.get(job_id) is not None:
            draft.folder.rmdir()
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), job_id)
        return draft

    def clear(self, draft: Draft) -> None:
        """Remove a draft: all of it, its run too, if it did not become a job, else only what the job does not need.

        If MLflow does not answer, the draft stays, for a later process to clear.
        """
        if self._store.get(draft.job_id) is None:
            if draft.run_mark.exists() and not self._runs.discard(draft.experiment_id, draft.job_id):
                _logger.error("The run of the failed submission %s stays until the next start.", draft.job_id)
                return
            shutil.rmtree(JobFolders(self._config.folder, draft.job_id).root, ignore_errors=True)
        shutil.rmtree(draft.folder, ignore_errors=True)

    def recover(self) -> None:
        """Clear the drafts of processes that have died."""
        for lock_path in self._config.incoming.glob(f"*{_LOCK}"):
            folder = lock_path.with_suffix("")
            # A process that is about to make its folder has the lock only a moment later.
            if folder == self._folder or not folder.exists():
                continue
            with contextlib.suppress(filelock.Timeout), filelock.FileLock(lock_path, timeout=0, mode=0o600):
                self._recover(folder, lock_path)

    def _recover(self, folder: Path, lock_path: Path) -> None:
        for path in folder.iterdir():
            draft = Draft.at(path)
            if draft is not None:
                self.clear(draft)
        # Not a folder with a draft that had to stay.
        with contextlib.suppress(OSError):
            folder.rmdir()
            lock_path.unlink()


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}{_LOCK}")
