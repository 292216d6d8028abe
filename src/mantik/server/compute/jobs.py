"""Jobs and the SQLite file that keeps them: written by the web workers and the dispatcher, read by both."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from mantik.exceptions import MantikError
from mantik.server.database import Database

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class State(str, Enum):
    """Where a job is in its life."""

    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"
    LOST = "LOST"

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to the job."""
        return self in _OVER


_OVER: Final = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.TIMED_OUT, State.LOST})
# A cluster may put back into its queue what it has started: after the failure of a node, or for a job of more weight.
_NEXT: Final[Mapping[State, frozenset[State]]] = {
    State.QUEUED: _OVER | {State.QUEUED, State.STARTING, State.RUNNING},
    State.STARTING: _OVER | {State.STARTING, State.QUEUED, State.RUNNING},
    State.RUNNING: _OVER | {State.RUNNING, State.QUEUED},
    **{state: frozenset({state}) for state in _OVER},
}


class TransitionError(MantikError):
    """A job was to enter a state that does not follow the one it is in, such as RUNNING after CANCELLED.

    Attributes:
        job: The job as it is.
        state: The state that it was to enter.
    """

    def __init__(self, job: Job, state: State) -> None:
        """Keep job and state beside the text."""
        super().__init__(f"Job {job.job_id} is {job.state.value} and cannot become {state.value}.")
        self.job = job
        self.state = state

    def __reduce__(self) -> tuple[type[TransitionError], tuple[Job, State]]:
        """Rebuild from the parts: the text alone is not enough to call the constructor."""
        return type(self), (self.job, self.state)


class TooManyJobsError(MantikError):
    """A user has as many unfinished jobs as one user may have."""


@dataclass(frozen=True, slots=True)
class Job:
    """One submission.

    Attributes:
        job_id: A UUID with hyphens, so that it is never taken for a run's id.
        run_id: The MLflow run of the job.
        experiment_id: The experiment of the run.
        user_id: Who submitted it: `mantik.server.store.User.id`.
        username: The user's name at that time.
        run_name: The name of the run.
        entry_point: The entry point of the MLproject.
        parameters: The entry point's parameters as given, all of them texts.
        backend_config: The backend configuration as it stands in the project.
        submitted_at: When the service accepted it. All times are ISO 8601 in UTC with milliseconds.
        queue: The queue or partition that was asked for; empty where the configuration names none.
        slots: How many of the slots of the local executor it takes.
        state: Where it is in its life.
        reason: Why it is in this state, one sentence; empty where the state says it all.
        cancel_requested_at: When its user asked for its end; the dispatcher brings it about.
        started_at: When its program was started.
        ended_at: When nothing of it was left.
        exit_code: What its program returned; ``None`` if it was ended by a signal, or nobody knows.
        signal: The number of the signal that ended its program.
        executor: Who runs it, ``local`` or ``slurm``; empty until somebody does.
        executor_id: Its name there, such as the Slurm job id.
        nodes: The machines that it runs on, as the executor writes them.
    """

    job_id: str
    run_id: str
    experiment_id: str
    user_id: str
    username: str
    run_name: str
    entry_point: str
    parameters: Mapping[str, str]
    backend_config: Mapping[str, Any]
    submitted_at: str
    queue: str = ""
    slots: int = 1
    state: State = State.QUEUED
    reason: str = ""
    cancel_requested_at: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    executor: str = ""
    executor_id: str | None = None
    nodes: str | None = None


_VERSION: Final = 1
_SCHEMA: Final = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL UNIQUE,
    run_id TEXT NOT NULL UNIQUE,
    experiment_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    username TEXT NOT NULL,
    run_name TEXT NOT NULL,
    entry_point TEXT NOT NULL,
    parameters TEXT NOT NULL,
    backend_config TEXT NOT NULL,
    submitted_at TEXT NOT NULL,
    queue TEXT NOT NULL,
    slots INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    cancel_requested_at TEXT,
    started_at TEXT,
    ended_at TEXT,
    exit_code INTEGER,
    signal INTEGER,
    executor TEXT NOT NULL,
    executor_id TEXT,
    nodes TEXT
);
CREATE INDEX IF NOT EXISTS jobs_by_user ON jobs (user_id, number);
CREATE INDEX IF NOT EXISTS unfinished_jobs ON jobs (state, number)
    WHERE state IN ('QUEUED', 'STARTING', 'RUNNING');
PRAGMA user_version = 1;
COMMIT;
"""
_COLUMNS: Final = tuple(field.name for field in fields(Job))
_AS_JSON: Final = frozenset({"parameters", "backend_config"})
_IDENTITY: Final = frozenset({"job_id", "run_id", "experiment_id", "user_id", "username", "submitted_at"})
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM jobs"  # noqa: S608 - names of fields
_INSERT: Final = f"INSERT INTO jobs ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 - the same
_UNFINISHED: Final = "state IN ('QUEUED', 'STARTING', 'RUNNING')"


class JobStore:
    """All jobs of the platform, also those that are over.

    Every call is one transaction and is seen at once by the other processes. Any thread may call; each has its own
    connection. A store must not be carried over a fork.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, create it if need be.

        Raises:
            ConfigurationError: The file cannot be opened, is no database, or was written by a newer mantik.
        """
        self._database = Database(path, "database of jobs", schema=_SCHEMA, version=_VERSION)

    def add(self, job: Job, *, at_most: int | None = None) -> None:
        """Add a job to the queue.

        Args:
            job: The job.
            at_most: How many unfinished jobs its user may have, this one among them.

        Raises:
            TooManyJobsError: The user has that many already.
        """
        with self._database.transaction() as connection:
            if at_most is not None and self.unfinished_of(job.user_id) >= at_most:
                raise TooManyJobsError(f"User {job.username!r} has {at_most} unfinished jobs, the most there may be.")
            connection.execute(_INSERT, [_to_column(name, getattr(job, name)) for name in _COLUMNS])

    def get(self, job_id: str) -> Job | None:
        """Return the job of this id."""
        return self._first(f"{_SELECT} WHERE job_id = ?", job_id)

    def by_run(self, run_id: str) -> Job | None:
        """Return the job of this run."""
        return self._first(f"{_SELECT} WHERE run_id = ?", run_id)

    def of_user(self, user_id: str, *, offset: int = 0, limit: int = 50) -> tuple[list[Job], int]:
        """Return jobs of a user, newest first, and how many there are in all."""
        rows = self._all(f"{_SELECT} WHERE user_id = ? ORDER BY number DESC LIMIT ? OFFSET ?", user_id, limit, offset)
        (total,) = self._database.execute("SELECT count(*) FROM jobs WHERE user_id = ?", (user_id,)).fetchone()
        return rows, int(total)

    def unfinished_of(self, user_id: str) -> int:
        """Return how many jobs of a user are not over."""
        query = f"SELECT count(*) FROM jobs WHERE user_id = ? AND {_UNFINISHED}"  # noqa: S608 - a constant
        return int(self._database.execute(query, (user_id,)).fetchone()[0])

    def claim_next(self, *, free_slots: int | None = None) -> Job | None:
        """Take the oldest job that nobody has and make it STARTING. No two callers get the same job.

        Args:
            free_slots: How many slots the caller can give; ``None`` if it does not count them. A job that needs more
                is waited for: the later ones do not overtake it.

        Returns:
            The claimed job, or ``None`` if there is none to start now.
        """
        waiting = "state = 'QUEUED' AND executor_id IS NULL AND cancel_requested_at IS NULL"
        with self._database.transaction() as connection:
            job = self._first(f"{_SELECT} WHERE {waiting} ORDER BY number LIMIT 1")
            if job is None or (free_slots is not None and job.slots > free_slots):
                return None
            connection.execute("UPDATE jobs SET state = 'STARTING' WHERE job_id = ?", (job.job_id,))
            return self._existing(job.job_id)

    def update(self, job_id: str, **changes: Any) -> Job:  # noqa: ANN401 - one keyword for each field of a job
        """Change fields of a job and return it as it is then.

        Args:
            job_id: The job.
            changes: Fields of `Job` by name; those that identify it cannot change.

        Raises:
            TransitionError: The new ``state`` does not follow the one the job is in. Nothing is changed.
            KeyError: There is no such job.
            TypeError: A name is no field that can change.
        """
        unknown = sorted(name for name in changes if name not in _COLUMNS or name in _IDENTITY)
        if unknown:
            raise TypeError(f"No fields of a job that can change: {', '.join(unknown)}.")
        with self._database.transaction() as connection:
            job = self._existing(job_id)
            state = State(changes.get("state", job.state))
            if state not in _NEXT[job.state]:
                raise TransitionError(job, state)
            assignments = ", ".join(f"{name} = ?" for name in changes)
            if assignments:
                connection.execute(
                    f"UPDATE jobs SET {assignments} WHERE job_id = ?",  # noqa: S608 - names of fields
                    [*(_to_column(name, value) for name, value in changes.items()), job_id],
                )
            return self._existing(job_id)

    def request_cancel(self, job_id: str) -> Job:
        """Ask the dispatcher to end a job, if it is not over, and return it. Asking twice is asking once.

        Raises:
            KeyError: There is no such job.
        """
        changes = "cancel_requested_at = coalesce(cancel_requested_at, ?)"
        with self._database.transaction() as connection:
            connection.execute(
                f"UPDATE jobs SET {changes} WHERE job_id = ? AND {_UNFINISHED}",  # noqa: S608 - two constants
                (now(), job_id),
            )
            return self._existing(job_id)

    def active(self) -> list[Job]:
        """Return the jobs that the dispatcher has to look after, oldest first: claimed, handed over, or running."""
        return self._all(
            f"{_SELECT} WHERE {_UNFINISHED} AND (state != 'QUEUED' OR executor_id IS NOT NULL) ORDER BY number"
        )

    def to_cancel(self) -> list[Job]:
        """Return the jobs that are to be ended and are not over, oldest first; those in the queue among them."""
        return self._all(f"{_SELECT} WHERE {_UNFINISHED} AND cancel_requested_at IS NOT NULL ORDER BY number")

    def is_over(self, job_id: str) -> bool:
        """Tell whether nothing more happens to a job; true also for one that never was."""
        row = self._database.execute("SELECT state FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        return row is None or State(row[0]).is_over

    def _existing(self, job_id: str) -> Job:
        job = self.get(job_id)
        if job is None:
            raise KeyError(job_id)
        return job

    def _first(self, query: str, *values: object) -> Job | None:
        row = self._database.execute(query, values).fetchone()
        return _from_row(row) if row else None

    def _all(self, query: str, *values: object) -> list[Job]:
        return [_from_row(row) for row in self._database.execute(query, values)]


def now() -> str:
    """Return this moment as jobs write it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _to_column(name: str, value: Any) -> Any:  # noqa: ANN401 - what SQLite stores
    if name in _AS_JSON:
        return json.dumps(value)
    return State(value).value if name == "state" else value


def _from_row(row: tuple[Any, ...]) -> Job:
    values = dict(zip(_COLUMNS, row, strict=True))
    values |= {name: json.loads(values[name]) for name in _AS_JSON}
    return Job(**{**values, "state": State(values["state"])})
