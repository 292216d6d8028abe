"""Runs jobs through Slurm, which queues them, gives them their place, and ends them."""

from __future__ import annotations

import logging
import math
import shlex
import sys
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from mantik.compute.backend_config import BackendConfig
from mantik.server.compute.errands import Errands
from mantik.server.compute.executors import CannotRunError, NoRoomError, Observation
from mantik.server.compute.executors.slurm_commands import GONE, Slurm, SlurmAwayError, SlurmRefusedError
from mantik.server.compute.executors.slurm_queue import SlurmQueue
from mantik.server.compute.jobs import State
from mantik.server.compute.task import Share, Task, path_of
from mantik.server.compute.testimony import Cause, Ended, Started

if TYPE_CHECKING:
    from mantik.compute.resources import Resources
    from mantik.server.compute.executors.slurm_commands import SlurmJob
    from mantik.server.compute.folders import JobFolders
    from mantik.server.compute.jobs import Job

_logger = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 5.0
# Files of another machine show up late: NFS keeps for as long that a file is not there.
_PATIENCE_SECONDS: Final = 30.0
# Slurm kills what has not ended 30 s after it was told to (KillWait), the wrapper too: it needs some of that time.
_GRACE_SECONDS: Final = 20.0
_CANCEL_THREADS: Final = 2
_MIB: Final = 1024 * 1024

# What Slurm alone can know of an end.
_VERDICTS: Final = {
    "BOOT_FAIL": (State.FAILED, "its node could not be started (BOOT_FAIL)"),
    "CANCELLED": (State.CANCELLED, "it was cancelled in Slurm, by somebody other than its user here"),
    "DEADLINE": (State.TIMED_OUT, "time limit: Slurm ended it at its deadline (DEADLINE)"),
    "NODE_FAIL": (State.FAILED, "a node failed (NODE_FAIL)"),
    "OUT_OF_MEMORY": (State.FAILED, "memory limit: it held more than Slurm gave it (OUT_OF_MEMORY)"),
    "PREEMPTED": (State.FAILED, "Slurm ended it for a job of higher priority (PREEMPTED)"),
    "TIMEOUT": (State.TIMED_OUT, "time limit: Slurm ended it (TIMEOUT)"),
}


class SlurmExecutor:
    """Runs each job as a batch job of the account that the service runs as.

    Promises: a job is submitted once, whenever the service is killed, and found again; while Slurm does not answer,
    jobs stay what they are, and what was to be done is tried again. A job is never put back into Slurm's queue.
    Does not promise: to know how a job ended that was killed together with its wrapper, once Slurm has forgotten it.

    It takes Slurm's word for it that nothing of a job is left, which holds where Slurm tracks processes by cgroups.
    The job's folder, the interpreter of the service and the platform's address must be there on all nodes.

    Args:
        url: The platform as jobs reach it.
        pause: How many seconds to wait before Slurm is asked again.
        patience: How many seconds to wait for the word of a job's wrapper when Slurm says that the job is over, and for
            Slurm's when the wrapper does.
    """

    name: Final = "slurm"
    slots: Final = None

    def __init__(self, url: str, pause: float = _PAUSE_SECONDS, patience: float = _PATIENCE_SECONDS) -> None:
        self._url = url
        self._pause = pause
        self._patience = patience
        self._slurm = Slurm()
        self._queue = SlurmQueue(self._slurm, pause)
        self._cancels = Errands("cancel", _CANCEL_THREADS)
        self._away_until = float("-inf")
        self._unclear_since: dict[str, float] = {}

    def start(self, job: Job, folders: JobFolders) -> str:
        """Submit a job, unless it was submitted before; see `mantik.server.compute.executors.Executor`."""
        if path_of(folders).exists():
            # It may have been submitted, by a process that was killed.
            number = self._settle(job, folders)
            if number is not None:
                return number
        if time.monotonic() < self._away_until:
            raise NoRoomError("Slurm does not answer")
        return self._submit(job, folders)

    def look(self, job: Job, folders: JobFolders) -> Observation:
        """Say where a job is; see `mantik.server.compute.executors.Executor`."""
        number = job.executor_id or ""
        started, ended = Started.load(folders), Ended.load(folders)
        if ended is not None and _says_it_all(ended, job):
            return self._over(job, Observation.of(started, ended))
        word = self._queue.look_up(number, _name(job))
        if ended is None and (word is None or not word.is_over):
            self._unclear_since.pop(job.job_id, None)
            return _alive(job, started, word)
        if ended is not None and word is not None and word.is_over:
            return self._over(job, _judged(Observation.of(started, ended), word))
        # One of the two has not said it yet.
        since = self._unclear_since.setdefault(job.job_id, time.monotonic())
        has_waited = time.monotonic() - since >= self._patience
        if ended is not None and has_waited:
            return self._over(job, Observation.of(started, ended))
        if ended is None and word is not None and (has_waited or (started is None and word.nodes is None)):
            return self._over(job, _unsaid(started, word))
        return _alive(job, started, word)

    def cancel(self, job: Job, folders: JobFolders) -> None:  # noqa: ARG002 - the wrapper is told by Slurm
        """Tell Slurm to end a job."""
        if not self._cancels.is_busy(job.job_id):
            self._cancels.do(job.job_id, partial(self._cancel, job))

    def _submit(self, job: Job, folders: JobFolders) -> str:
        resources = BackendConfig.from_mapping(job.backend_config).resources
        share = Share(seconds=resources.runtime)
        Task.of(job, self._url, self.name, share=share, grace=_GRACE_SECONDS).store(folders)
        try:
            return self._slurm.submit(_script(folders), [*_of_job(job, folders), *_of_resources(resources)])
        except SlurmRefusedError as error:
            raise CannotRunError(f"Slurm refuses it: {error}") from error
        except SlurmAwayError as error:
            number = self._settle(job, folders) if error.is_heard else None
            if number is not None:
                return number
            self._away_until = time.monotonic() + self._pause
            path_of(folders).unlink()
            raise NoRoomError(str(error)) from error

    def _settle(self, job: Job, folders: JobFolders) -> str | None:
        """Wait until Slurm says which number a job has, or that it has none.

        Until then the job can be neither submitted again nor taken out of the queue: nobody would know of it.
        """
        while True:
            try:
                found = self._slurm.find(_name(job))
            except SlurmAwayError:
                time.sleep(self._pause)
                continue
            if found is not None:
                return found.number
            # The controller knows all jobs that are not over; this one is, and so long ago that it is forgotten.
            return GONE if Started.load(folders) is not None else None

    def _cancel(self, job: Job) -> None:
        try:
            self._slurm.cancel(job.executor_id or "", _name(job))
        except SlurmRefusedError as error:
            _logger.info("Slurm does not cancel job %s: %s", job.job_id, error)
        except SlurmAwayError as error:
            _logger.debug("Job %s cannot be cancelled now: %s", job.job_id, error)

    def _over(self, job: Job, seen: Observation) -> Observation:
        self._unclear_since.pop(job.job_id, None)
        self._queue.forget(job.executor_id or "")
        return seen


def _name(job: Job) -> str:
    """Return the name that a job has in Slurm."""
    return f"mantik-{job.job_id}"


def _script(folders: JobFolders) -> str:
    """Return the batch script: nothing but the wrapper, in the place of the shell."""
    wrapper = [sys.executable, "-E", "-m", "mantik.server.compute.wrapper", str(folders.root)]
    return f"#!/bin/sh\nexec {shlex.join(wrapper)}\n"


def _of_job(job: Job, folders: JobFolders) -> list[str]:
    return [
        f"--job-name={_name(job)}",
        # Slurm would put the number of the job and the like where a percent sign is.
        f"--output={str(folders.log).replace('%', '%%')}",
        "--open-mode=append",
        # Python looks for modules where it is started, and the project has files of all names.
        f"--chdir={folders.state}",
        "--export=ALL",
        # A second attempt would add to what the first one has logged.
        "--no-requeue",
    ]


def _of_resources(resources: Resources) -> list[str]:
    """Return the options for what a job asks for; each of them is one argument, whatever is in it.

    There is one task on each node, which has all of its CPUs: the entry point is run once, on the first node, and
    starts the others with ``srun`` if it needs them.
    """
    nodes = resources.nodes or 1
    cpus = resources.cpus_per_node or (math.ceil(resources.cpus / nodes) if resources.cpus else None)
    memory = resources.memory_per_node
    options = {
        "partition": resources.queue,
        "time": math.ceil(resources.runtime / 60) if resources.runtime else None,
        "nodes": nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": cpus,
        "mem": f"{math.ceil(memory / _MIB)}M" if memory else None,
        "gres": f"gpu:{resources.gpus_per_node}" if resources.gpus_per_node else None,
        "qos": resources.qos,
        "reservation": resources.reservation,
        "constraint": resources.node_constraints,
    }
    return [f"--{name}={value}" for name, value in options.items() if value is not None]


def _says_it_all(ended: Ended, job: Job) -> bool:
    """Tell whether Slurm has nothing to add: it may be what has ended a program, for a reason of its own."""
    if ended.cause is Cause.STOPPED:
        return job.cancel_requested_at is not None
    return ended.cause is not Cause.EXIT or ended.exit_code == 0


def _alive(job: Job, started: Started | None, word: SlurmJob | None) -> Observation:
    if started is not None:
        nodes = word.nodes if word is not None else None
        return Observation(State.RUNNING, nodes=nodes or started.host, started_at=started.at)
    if word is None or word.is_over:
        return Observation(job.state)
    if word.is_waiting:
        return Observation(State.QUEUED, f"it waits in Slurm: {word.detail}" if word.detail else "")
    return Observation(State.STARTING, nodes=word.nodes)


def _judged(seen: Observation, word: SlurmJob) -> Observation:
    """Return what a wrapper has said, with what Slurm knows better."""
    seen = replace(seen, nodes=word.nodes or seen.nodes)
    if seen.state is State.SUCCEEDED or word.state not in _VERDICTS:
        return seen
    state, reason = _VERDICTS[word.state]
    return replace(seen, state=state, reason=reason)


def _unsaid(started: Started | None, word: SlurmJob) -> Observation:
    """Return what becomes of a job whose wrapper has left no word."""
    if word.state in _VERDICTS:
        state, reason = _VERDICTS[word.state]
    elif word.state == GONE:
        state, reason = State.LOST, "Slurm no longer knows it, and its processes have not said how they ended"
    elif started is None:
        state, reason = State.FAILED, f"it ended before it had begun ({word.words}); the log may say why"
    else:
        state, reason = (
            State.LOST,
            f"its processes vanished ({word.words}): they were killed, by somebody or for want of memory",
        )
    return Observation(
        state,
        reason,
        nodes=word.nodes or (started.host if started is not None else None),
        started_at=started.at if started is not None else None,
        ended_at=word.ended_at,
    )
