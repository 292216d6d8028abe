"""Who runs jobs: the seam between the dispatcher and a machine or a batch system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from mantik.exceptions import MantikError
from mantik.server.compute.jobs import State
from mantik.server.compute.testimony import Cause

if TYPE_CHECKING:
    from mantik.server.compute.folders import JobFolders
    from mantik.server.compute.jobs import Job
    from mantik.server.compute.testimony import Ended, Started

_STATES: Final = {
    Cause.SET_UP: State.FAILED,
    Cause.TIME_LIMIT: State.TIMED_OUT,
    Cause.MEMORY_LIMIT: State.FAILED,
    Cause.STOPPED: State.CANCELLED,
}


class CannotRunError(MantikError):
    """A job that this executor never can run; the text says why, to its user."""


class NoRoomError(MantikError):
    """A job that cannot be run now: others have what it needs."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What an executor sees of a job.

    Attributes:
        state: Where the job is. ``QUEUED`` and ``STARTING``: its wrapper has not begun. ``RUNNING``: it has. Any other
            one: nothing of it runs. ``CANCELLED`` means that it was told to stop, by whomever, ``LOST`` that nobody
            knows how it ended.
        reason: Why, one sentence; empty where the rest says it.
        exit_code: What its program returned.
        signal: The number of the signal that ended its program.
        nodes: The machines that it has.
        started_at: When it began. All times are as jobs write them.
        ended_at: When it ended; None where nobody knows.
        memory: The most bytes of memory that it held.
        ended_runs: Runs that its program had left running, ended when the rest of its records was delivered.
        is_delivered: Whether all that it has logged is on the platform.
    """

    state: State
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    nodes: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    memory: int | None = None
    ended_runs: tuple[str, ...] = ()
    is_delivered: bool = False

    @classmethod
    def of(cls, started: Started | None, ended: Ended) -> Observation:
        """Return what a wrapper has said of its job."""
        state = _STATES.get(ended.cause) or (State.SUCCEEDED if ended.exit_code == 0 else State.FAILED)
        return cls(
            state,
            reason=ended.reason,
            exit_code=ended.exit_code,
            signal=ended.signal,
            nodes=started.host if started is not None else None,
            started_at=started.at if started is not None else None,
            ended_at=ended.at,
            memory=ended.memory,
            ended_runs=ended.ended_runs,
            is_delivered=ended.is_delivered,
        )


class Executor(Protocol):
    """What can run jobs. Several threads may call, none for the same job at the same time.

    It keeps nothing that cannot be found again: the service may be restarted at any moment, and whatever was started
    goes on meanwhile. The dispatcher alone decides what becomes of a job and its run.
    """

    @property
    def name(self) -> str:
        """Its name in `mantik.server.compute.config.EXECUTORS`."""

    @property
    def slots(self) -> int | None:
        """How many slots it has for jobs; None if it has a queue of its own and takes all there are."""

    def start(self, job: Job, folders: JobFolders) -> str:
        """Start a job, or hand it over, and return its name here.

        It is called again for a job of which nobody knows whether it was started, because the service was killed in
        between: then it finds it, and never runs it twice. It may take as long as it needs.

        Args:
            job: The job.
            folders: Its folders, with its login in them.

        Raises:
            CannotRunError: It cannot be run here.
            NoRoomError: It cannot be run now; the job goes back to the head of the queue.
            OSError: It could not be started.
        """

    def look(self, job: Job, folders: JobFolders) -> Observation:
        """Say where a started job is; called several times a second for each, so it must be quick.

        When it is said to have ended, nothing of it runs any more.
        """

    def cancel(self, job: Job, folders: JobFolders) -> None:
        """Ask for the end of a started job; called again every few seconds until it has ended."""
