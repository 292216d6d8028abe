"""Tells MLflow what becomes of the runs of jobs.

It speaks to the platform as the job does, with a token of the job's. So it is right with every database that MLflow
has, and the process that watches over jobs has no MLflow in memory.
"""

from __future__ import annotations

import contextlib
import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from mantik.auth.bearer import BearerAuth
from mantik.auth.login import GivenToken
from mantik.auth.urls import normalise_tracking_uri, platform_origin
from mantik.delivery.rest import MlflowApi, RefusedError
from mantik.server.compute.jobs import now
from mantik.server.compute.outcome import beginning, ending

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mantik.server.compute.executors import Observation
    from mantik.server.compute.job_tokens import JobTokens
    from mantik.server.compute.jobs import Job
    from mantik.server.compute.outcome import Outcome

_logger = logging.getLogger(__name__)

_TIMEOUT: Final = (5.0, 30.0)


class RunReports:
    """Says it once for each call, and raises where it may be heard later. Any thread may call.

    A run that was deleted, or whose user was removed, is told nothing: there is nobody to listen.
    """

    def __init__(self, tokens: JobTokens, url: str) -> None:
        """Take what makes the jobs' tokens, and the platform's address."""
        self._tokens = tokens
        self._url = normalise_tracking_uri(url, allow_http=True)
        self._origin = platform_origin(url, allow_http=True)

    def begin(self, job: Job, seen: Observation) -> None:
        """Say that a job has begun.

        Raises:
            UnavailableError: The platform did not take it.
        """
        with self._platform_for(job) as run:
            if run is None:
                return
            # A run that is further than that has been taken up by the job's program.
            if run.status() == "SCHEDULED":
                run.change(status="RUNNING")
            run.tag(beginning(job, seen))

    def end(self, job: Job, seen: Observation, outcome: Outcome) -> None:
        """Say how a job has ended.

        Raises:
            UnavailableError: The platform did not take it.
        """
        with self._platform_for(job) as run:
            if run is None:
                return
            # First, so that whoever waits for the run's end finds them.
            run.tag(ending(job, seen, outcome))
            status = outcome.run_status(run.status(), was_left_open=job.run_id in seen.ended_runs)
            if status is not None:
                ended_at = datetime.fromisoformat(seen.ended_at or now())
                run.change(status=status, end_time=int(ended_at.timestamp() * 1000))

    @contextlib.contextmanager
    def _platform_for(self, job: Job) -> Iterator[_Run | None]:
        token = self._tokens.access(job)
        if token is None:
            _logger.warning("The user of job %s was removed: its run %s is told nothing.", job.job_id, job.run_id)
            yield None
            return
        api = MlflowApi(self._url, BearerAuth(self._origin, GivenToken(token)))
        try:
            yield _Run(api, job.run_id)
        finally:
            api.close()


class _Run:
    """One run, and who can be told about it. What the platform refuses for good is logged."""

    def __init__(self, api: MlflowApi, run_id: str) -> None:
        self._api = api
        self._run_id = run_id

    def status(self) -> str:
        """Return its status; empty where there is no such run."""
        answer = self._ask("GET", "runs/get", {})
        return str(answer["run"]["info"]["status"]) if answer else ""

    def change(self, **fields: object) -> None:
        self._ask("POST", "runs/update", fields)

    def tag(self, tags: Mapping[str, str]) -> None:
        self._ask("POST", "runs/log-batch", {"tags": [{"key": key, "value": tags[key]} for key in tags]})

    def _ask(self, method: str, path: str, content: Mapping[str, object]) -> dict[str, Any]:
        try:
            return self._api.call(method, path, {"run_id": self._run_id, **content}, timeout=_TIMEOUT)
        except RefusedError as error:
            _logger.warning("The platform refuses what is to be said of the run %s: %s", self._run_id, error)
            return {}
