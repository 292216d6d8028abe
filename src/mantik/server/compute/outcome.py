"""What becomes of a job and its MLflow run, given what was seen of it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

from mantik.compute.backend_config import BackendConfig
from mantik.compute.resources import Resources
from mantik.exceptions import ProjectError
from mantik.server.compute.jobs import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mantik.server.compute.executors import Observation
    from mantik.server.compute.jobs import Job

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]

TAG: Final = "mantik.job."

_ENDS_AS: Final[dict[State, RunStatus]] = {
    State.SUCCEEDED: "FINISHED",
    State.FAILED: "FAILED",
    State.TIMED_OUT: "FAILED",
    State.LOST: "FAILED",
    State.CANCELLED: "KILLED",
}
_OPEN: Final = frozenset({"RUNNING", "SCHEDULED"})
_LONGEST_REASON: Final = 1000


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended.

    Attributes:
        state: One of the states of a job that is over.
        reason: Why, one sentence; empty for a job that succeeded, or was cancelled by its user.
    """

    state: State
    reason: str = ""

    @classmethod
    def of(cls, job: Job, seen: Observation) -> Outcome:
        """Judge what was seen of a job whose end it is."""
        state, reason = seen.state, seen.reason or _reason(seen)
        if job.cancel_requested_at is not None and state in {State.CANCELLED, State.LOST}:
            # What was told to stop before it could listen vanishes without a word.
            state, reason = State.CANCELLED, ""
        return cls(state, reason[:_LONGEST_REASON])

    def run_status(self, present: str, *, was_left_open: bool) -> RunStatus | None:
        """Say what the status of the job's run is to be; None where it is that already.

        A job that was cut short has not finished, whatever its program has said before. Of one that ended well, the
        program itself has the last word: it may have ended its run as failed.

        Args:
            present: The status of the run.
            was_left_open: Whether the program had left the run open, and only its delivery has ended it.
        """
        status = _ENDS_AS[self.state]
        if self.state is State.SUCCEEDED and present not in _OPEN and not was_left_open:
            return None
        return status if status != present else None


def beginning(job: Job, seen: Observation) -> dict[str, str]:
    """Return the tags of a job's run that are known when it begins."""
    try:
        resources = BackendConfig.from_mapping(job.backend_config).resources
    except ProjectError:
        # Another version of mantik has taken the job; it failed for that.
        resources = Resources(job.queue)
    facts = {
        "id": job.job_id,
        "executor": job.executor,
        "queue": job.queue,
        "nodes": seen.nodes or job.nodes,
        "cpus": resources.cpus or (resources.cpus_per_node or 1) * (resources.nodes or 1),
        "gpus": (resources.gpus_per_node or 0) * (resources.nodes or 1),
        "wait_seconds": _seconds(job.submitted_at, seen.started_at or job.started_at),
    }
    return _tags(facts)


def ending(job: Job, seen: Observation, outcome: Outcome) -> dict[str, str]:
    """Return all tags of a job's run, those that were known before among them."""
    facts = {
        "run_seconds": _seconds(seen.started_at or job.started_at, seen.ended_at),
        "exit_code": seen.exit_code,
        "signal": _name_of(seen.signal),
        "memory_bytes": seen.memory,
        "state": outcome.state.value,
        "reason": outcome.reason,
    }
    return beginning(job, seen) | _tags(facts)


def _reason(seen: Observation) -> str:
    if seen.state is State.CANCELLED:
        return "it was told to stop (SIGTERM), by somebody other than its user here"
    if seen.signal is not None:
        hint = ", by somebody or for want of memory" if seen.signal == signal.SIGKILL else ""
        return f"its program was ended by {_name_of(seen.signal)}{hint}"
    return f"its program ended with exit code {seen.exit_code}" if seen.exit_code else ""


def _name_of(number: int | None) -> str | None:
    if number is None:
        return None
    try:
        return signal.Signals(number).name
    except ValueError:
        # Of another system, or a real-time signal.
        return str(number)


def _seconds(begin: str | None, end: str | None) -> str | None:
    if begin is None or end is None:
        return None
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
    return f"{max(0.0, seconds):.3f}"


def _tags(facts: Mapping[str, object]) -> dict[str, str]:
    return {f"{TAG}{name}": str(value) for name, value in facts.items() if value not in (None, "")}
