"""Removes what jobs that are over have left, once it has been kept for as long as the platform was told to."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mantik.delivery.spool import outgoing_in
from mantik.server.compute.folders import JobFolders

if TYPE_CHECKING:
    from collections.abc import Callable

    from mantik.server.compute.config import ComputeConfig
    from mantik.server.compute.jobs import Job, JobStore

_logger = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 3600.0


class Clearing:
    """Removes the folders of jobs that have been over for long; the jobs stay in the store. One thread may use it.

    A folder is moved aside in one step and then removed, so that nobody sees half of one, and what a killed process has
    left is removed by the next. No link is followed. What is no folder, or no job's, is left alone. A job that has
    logged what was not delivered keeps its folder.
    """

    def __init__(self, config: ComputeConfig, store: JobStore) -> None:
        self._config = config
        self._store = store
        self._said: set[str] = set()

    def start(self, stop: threading.Event) -> None:
        """Clear now, and about once an hour until told to stop, in a thread of its own."""
        threading.Thread(target=self._run, args=(stop,), name="mantik-clearing", daemon=True).start()

    def clear(self) -> None:
        """Remove everything that is to be removed now."""
        for aside in _folders_in(self._config.removed):
            self._guarded(aside, _remove)
        if self._config.keep_days is not None:
            for folder in _folders_in(self._config.jobs):
                self._guarded(folder, self._clear_job)

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self.clear()
            except Exception:  # the guard of the thread: a database that is locked, a disk that does not answer
                _logger.exception("Folders of jobs that are over cannot be removed now; it is tried again.")
            stop.wait(_PAUSE_SECONDS)

    def _guarded(self, folder: Path, clear: Callable[[Path], None]) -> None:
        try:
            clear(folder)
        except (OSError, RecursionError, ValueError) as error:  # one folder's trouble is not the next one's
            self._say_once(f"The folder {folder} cannot be removed: {error}")

    def _clear_job(self, folder: Path) -> None:
        job = self._store.get(folder.name)
        if job is None or not is_overdue(job, self._config.keep_days):
            return
        if _has_undelivered(JobFolders(self._config.folder, job.job_id)):
            self._say_once(f"The folder of job {job.job_id} is kept: not all that it has logged was delivered.")
            return
        aside = self._config.removed / job.job_id
        folder.rename(aside)
        _remove(aside)
        _logger.info("The folder of job %s is removed.", job.job_id)

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            _logger.warning(text)


def is_overdue(job: Job, keep_days: int | None) -> bool:
    """Tell whether a job has been over for more days than its folder is kept; never, if folders are kept for ever."""
    if keep_days is None or not job.state.is_over or job.ended_at is None:
        return False
    last = datetime.now(timezone.utc) - timedelta(days=keep_days)
    return job.ended_at < last.isoformat(timespec="milliseconds")


def _folders_in(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]


def _has_undelivered(folders: JobFolders) -> bool:
    """Tell whether a job has records that the platform has neither taken nor refused."""
    return any(not outgoing.is_only_refused() for outgoing in outgoing_in(folders.home / "spool"))


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except PermissionError:
        _open_up(folder)
        shutil.rmtree(folder)


def _open_up(top: Path) -> None:
    """Make all folders changeable: programs leave some that are not, such as the objects of git-annex."""
    top.chmod(0o700)
    for parent, names, _ in os.walk(top):
        for path in (Path(parent, name) for name in names):
            if not path.is_symlink():
                path.chmod(0o700)
