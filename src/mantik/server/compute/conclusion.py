"""The end of a job: what it has left is delivered, its run is told, and then it is over."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mantik.compute.backend_config import BackendConfig
from mantik.exceptions import MantikError
from mantik.server.compute.folders import JobFolders
from mantik.server.compute.job_environment import JobEnvironment
from mantik.server.compute.jobs import now
from mantik.server.compute.leftovers import Delivery, deliver
from mantik.server.compute.outcome import Outcome
from mantik.server.compute.task import Task

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.server.compute.executors import Observation
    from mantik.server.compute.job_tokens import JobTokens
    from mantik.server.compute.jobs import Job, JobStore
    from mantik.server.compute.run_reports import RunReports

_logger = logging.getLogger(__name__)

_SECONDS: Final = 120.0
_UNDELIVERED: Final = "not all that it has logged could be delivered; the rest is kept in the job's folder"


class UndeliveredError(MantikError):
    """What a job has left could not be delivered yet.

    Attributes:
        ended_runs: Runs that were ended on the way.
    """

    def __init__(self, message: str, ended_runs: tuple[str, ...] = ()) -> None:
        """Keep the runs beside the text."""
        super().__init__(message)
        self.ended_runs = ended_runs


class Conclusions:
    """Concludes jobs, each in an order that makes it safe to begin again at any point. Any thread may call.

    The job is over last: until then its login is good, which its leftovers and its run need.
    """

    def __init__(self, folder: Path, store: JobStore, tokens: JobTokens, reports: RunReports) -> None:
        """Take where the jobs are, and what concluding them needs."""
        self._folder = folder
        self._store = store
        self._tokens = tokens
        self._reports = reports

    def conclude(self, job_id: str, seen: Observation, *, is_last_try: bool) -> Job:
        """Conclude a job of which nothing runs any more, and return it as it is then.

        Args:
            job_id: The job.
            seen: What was seen of it.
            is_last_try: Whether to go on where its leftovers cannot be delivered.

        Raises:
            UndeliveredError: They cannot, and this is not the last try.
            UnavailableError: The run cannot be told now.
        """
        job = self._store.get(job_id)
        if job is None:
            raise KeyError(job_id)
        if job.state.is_over:
            return job
        note = ""
        if not seen.is_delivered:
            delivery = self._deliver(job)
            seen = replace(seen, ended_runs=seen.ended_runs + delivery.ended_runs)
            if not delivery.is_complete and not is_last_try:
                raise UndeliveredError(delivery.problem, seen.ended_runs)
            if not delivery.is_complete:
                _logger.warning("What job %s has logged stays in its folder: %s", job_id, delivery.problem)
                note = _UNDELIVERED
        seen = replace(seen, ended_at=seen.ended_at or now())
        outcome = Outcome.of(job, seen)
        outcome = replace(outcome, reason="; ".join(part for part in (outcome.reason, note) if part))
        self._reports.end(job, seen, outcome)
        return self._store.update(
            job_id,
            state=outcome.state,
            reason=outcome.reason,
            ended_at=seen.ended_at,
            started_at=seen.started_at or job.started_at,
            nodes=seen.nodes or job.nodes,
            exit_code=seen.exit_code,
            signal=seen.signal,
        )

    def _deliver(self, job: Job) -> Delivery:
        """Send what a job has left, with a login that is new, whatever has become of the old one."""
        folders = JobFolders(self._folder, job.job_id)
        token = self._tokens.access(job)
        if token is None:
            return Delivery(is_complete=False, problem="its user was removed")
        self._tokens.log_in(job, folders)
        try:
            task = Task.load(folders)
        except FileNotFoundError:
            # It was never started, so it has nothing to be sent.
            return Delivery()
        except (OSError, ValueError) as error:
            return Delivery(is_complete=False, problem=str(error))
        environment = BackendConfig.from_mapping(task.backend_config).environment
        variables = JobEnvironment.of(task, environment, folders, token.reveal())
        return deliver(folders, variables.for_platform(), _SECONDS)
