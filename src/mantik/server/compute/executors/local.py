"""Runs jobs as processes of this machine, which go on when the service is restarted."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from typing import TYPE_CHECKING, Final

from mantik.compute.backend_config import BackendConfig
from mantik.exceptions import ConfigurationError
from mantik.server.compute.executors import CannotRunError, Observation
from mantik.server.compute.executors.machine import Machine, Shares
from mantik.server.compute.job_environment import JOB_ID, clean
from mantik.server.compute.jobs import State
from mantik.server.compute.processes import Identity, boot_id, is_supported, marked, send
from mantik.server.compute.task import GRACE_SECONDS, Share, Task
from mantik.server.compute.testimony import Ended, Started
from mantik.server.compute.wrapper import DELIVERY_SECONDS

if TYPE_CHECKING:
    from mantik.server.compute.folders import JobFolders
    from mantik.server.compute.jobs import Job

_logger = logging.getLogger(__name__)

# The shell ends at once: the wrapper belongs to nobody's family, so that what ends the service leaves it alone.
_SPAWN: Final = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'
_SPAWN_SECONDS: Final = 60.0
# A wrapper that was told to stop and has not done so long after its program must have ended.
_PATIENCE_SECONDS: Final = 60.0


class LocalExecutor:
    """Runs each job as a session of processes on this machine.

    Promises: a job goes on while the service is down or killed, and is found again; it is started once, whenever the
    service is killed; no signal is ever sent to a process of somebody else that has got the id of one of the job's.
    Does not promise: to hold a job down in any other way than the wrapper does, which runs as the same account.

    Args:
        url: The platform as jobs reach it.
        slots: How many slots there are.
        machine: What there is for jobs; by default this machine.
        grace: How many seconds a program has to end once it was asked to.

    Raises:
        ConfigurationError: This system does not show its processes: it is not Linux.
    """

    name: Final = "local"

    def __init__(self, url: str, slots: int, machine: Machine | None = None, grace: float = GRACE_SECONDS) -> None:
        if not is_supported():
            raise ConfigurationError("--compute local needs Linux: this system has no /proc to find processes in.")
        self.slots = slots
        self._url = url
        self._grace = grace
        self._shares = Shares(machine or Machine.here())
        self._lock = threading.Lock()

    def start(self, job: Job, folders: JobFolders) -> str:
        """Start a job's wrapper, unless it was started before; see `mantik.server.compute.executors.Executor`."""
        started = Started.load(folders)
        if started is not None:
            return str(started.wrapper)
        if job.slots > self.slots:
            raise CannotRunError(f"it asks for {job.slots} CPUs, and the platform gives its jobs at most {self.slots}")
        resources = BackendConfig.from_mapping(job.backend_config).resources
        with self._lock:
            share = self._shares.give(job.job_id, job.slots, resources)
        try:
            Task.of(job, self._url, self.name, share=share, grace=self._grace).store(folders)
            return str(_spawn(folders))
        except (OSError, subprocess.SubprocessError) as error:
            self._take_back(job)
            raise OSError(f"its wrapper could not be started: {error}") from error

    def look(self, job: Job, folders: JobFolders) -> Observation:
        """Say where a job is; see `mantik.server.compute.executors.Executor`."""
        started = Started.load(folders)
        wrapper = _wrapper(job, started)
        is_alive = wrapper is not None and wrapper.process() is not None
        # After that look: a wrapper that was gone by then had said everything before.
        ended = Ended.load(folders)
        if ended is not None and not is_alive:
            self._take_back(job)
            return Observation.of(started, ended)
        if not is_alive and self._is_cleared(job, started, wrapper):
            self._take_back(job)
            return _lost(started, wrapper)
        self._note(job, folders)
        if started is None:
            return Observation(State.STARTING)
        return Observation(State.RUNNING, nodes=started.host, started_at=started.at)

    def cancel(self, job: Job, folders: JobFolders) -> None:
        """Tell a job's wrapper to stop, and end all of the job if it does not in good time."""
        started = Started.load(folders)
        wrapper = _wrapper(job, started)
        process = wrapper.process() if wrapper is not None else None
        if process is None:
            return
        asked_at = job.cancel_requested_at
        patience = self._grace + DELIVERY_SECONDS + _PATIENCE_SECONDS
        if asked_at is not None and time.time() - datetime.fromisoformat(asked_at).timestamp() > patience:
            _logger.warning("The wrapper of job %s does not stop: the job is killed.", job.job_id)
            send([process], signal.SIGKILL)
        else:
            send([process], signal.SIGTERM)

    def _is_cleared(self, job: Job, started: Started | None, wrapper: Identity | None) -> bool:
        """End what a vanished wrapper has left; tell whether nothing is left."""
        if wrapper is None or not wrapper.is_of_this_boot:
            return True
        session = started.session if started is not None else None
        rest = marked(JOB_ID, job.job_id, session=session, since=wrapper.started)
        send(rest, signal.SIGKILL)
        return not rest

    def _note(self, job: Job, folders: JobFolders) -> None:
        """Find again what a job has of the machine that was started before this process."""
        if job.job_id in self._shares.held:
            return
        try:
            share = Task.load(folders).share
        except (OSError, ValueError) as error:
            _logger.warning("What job %s has of the machine is not known: %s", job.job_id, error)
            share = Share()
        with self._lock:
            self._shares.note(job.job_id, share)

    def _take_back(self, job: Job) -> None:
        with self._lock:
            self._shares.take_back(job.job_id)


def _spawn(folders: JobFolders) -> Identity:
    wrapper = [sys.executable, "-E", "-m", "mantik.server.compute.wrapper", str(folders.root)]
    done = subprocess.run(  # noqa: S603 - a constant script, and arguments of ours
        ["/bin/sh", "-c", _SPAWN, "mantik-job", str(folders.log), *wrapper],
        env=clean(os.environ),
        # Python looks for modules where it is started, and the project has files of all names.
        cwd=folders.state,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        umask=0o077,
        timeout=_SPAWN_SECONDS,
        check=True,
    )
    pid = int(done.stdout)
    # It may have ended already; then it has left its own word.
    return Identity.of(pid) or Identity(pid, 0, boot_id())


def _wrapper(job: Job, started: Started | None) -> Identity | None:
    """Return which process runs a job: the one that has said so, or else the one that was started for it."""
    if started is not None:
        return started.wrapper
    return Identity.parse(job.executor_id) if job.executor_id is not None else None


def _lost(started: Started | None, wrapper: Identity | None) -> Observation:
    nodes, started_at = (started.host, started.at) if started is not None else (None, None)
    if wrapper is not None and not wrapper.is_of_this_boot:
        reason = "the machine was restarted"
    elif started is None:
        reason = "it ended before it had begun; the log may say why"
    else:
        reason = "its processes vanished: they were killed (SIGKILL), by somebody or for want of memory"
    return Observation(State.LOST, reason, nodes=nodes, started_at=started_at)
