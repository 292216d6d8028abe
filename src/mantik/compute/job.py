"""A job as the compute backend knows it."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mantik.exceptions import UnexpectedAnswerError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ENDED", "Job"]

ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "TIMED_OUT", "LOST"})
"""The states that a job does not leave. Before them come QUEUED, STARTING and RUNNING."""

_SIGNALLED = 128
"""What a shell adds to the number of the signal that ended a process."""

_MOMENTS = ("submitted_at", "started_at", "ended_at")


@dataclass(frozen=True, slots=True)
class Job:
    """What is known of a job; None is what does not exist or is not known yet.

    Attributes:
        job_id: The job.
        run_id: The MLflow run that it tracks to.
        experiment_id: The experiment of that run.
        run_name: The name of that run.
        entry_point: What it runs.
        parameters: With what.
        state: ``QUEUED``, ``STARTING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED``, ``CANCELLED``, ``TIMED_OUT`` or
            ``LOST``.
        reason: Why it is in that state, in a sentence.
        queue: The queue that it was submitted to.
        submitted_at: When it was submitted (UTC).
        started_at: When it began to run.
        ended_at: When it ended.
        exit_code: The exit code of its process.
        signal: The signal that ended its process: a number, or a name such as ``SIGKILL``.
        executor: What runs it: ``local`` or ``slurm``.
        executor_id: How it is called there, e.g. Slurm's job id.
        nodes: Where it runs.
        log_size: Bytes of its log so far.
        backend_config: What it asked for.
    """

    job_id: str
    run_id: str = ""
    experiment_id: int | None = None
    run_name: str | None = None
    entry_point: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    state: str = ""
    reason: str | None = None
    queue: str | None = None
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    signal: int | str | None = None
    executor: str | None = None
    executor_id: str | None = None
    nodes: Any = None
    log_size: int | None = None
    backend_config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any]) -> Job:
        """Read the JSON object of a job; what a later service says besides is left out.

        Args:
            content: The object.

        Raises:
            UnexpectedAnswerError: It is none of a job.
        """
        if not isinstance(content.get("job_id"), str) or not isinstance(content.get("state"), str):
            raise UnexpectedAnswerError("The compute backend answered with something that is no job.")
        known = {item.name: content[item.name] for item in fields(cls) if content.get(item.name) is not None}
        return cls(**known | {name: _moment(content.get(name)) for name in _MOMENTS})

    @property
    def has_ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ENDED

    @property
    def has_succeeded(self) -> bool:
        """Whether its program ended with exit code 0."""
        return self.state == "SUCCEEDED"

    @property
    def shell_code(self) -> int:
        """The exit code that a shell would give: the process's own, 128 and the signal's number, else 0 or 1."""
        if self.exit_code:
            return self.exit_code
        number = self.signal
        if isinstance(number, str):
            with contextlib.suppress(KeyError):
                number = signal.Signals[number]
        if isinstance(number, int) and number > 0:
            return _SIGNALLED + number
        return 0 if self.has_succeeded else 1

    def to_mapping(self) -> dict[str, Any]:
        """Return everything as JSON has it; times in ISO 8601."""
        moments = {name: moment.isoformat() for name in _MOMENTS if (moment := getattr(self, name)) is not None}
        return asdict(self) | moments

    def __str__(self) -> str:
        """Name the job with its state, and why it is in it."""
        return f"Job {self.job_id} is {self.state}" + (f": {self.reason}" if self.reason else "")


def _moment(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    with contextlib.suppress(ValueError):
        # Python 3.10 does not read the Z.
        return datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    return None
