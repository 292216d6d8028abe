"""What a submission returns: the service's answer, and the job that it became."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mantik.compute.patience import POLL_SECONDS
from mantik.compute.refusal import object_in
from mantik.exceptions import UnexpectedAnswerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from requests import Response

    from mantik.compute.client import ComputeBackendClient
    from mantik.compute.job import Job

__all__ = ["SubmittedRun"]


@dataclass(frozen=True, slots=True)
class SubmittedRun:
    """A job that was submitted.

    It has what scripts read of the ``requests.Response`` that early releases returned; refusals are errors.

    Attributes:
        run_id: The MLflow run that the job tracks to.
        experiment_id: The experiment of that run.
        job_id: The job.
        status_code: HTTP status code of the answer: 201; 200 if that got lost and the service was asked for the job.
        content: The answer's body.
        url: The URL that was asked.
        client: The client that submitted it.
    """

    run_id: str
    experiment_id: int
    job_id: str
    status_code: int
    content: bytes = field(repr=False)
    url: str = field(repr=False)
    client: ComputeBackendClient = field(repr=False, compare=False)

    @classmethod
    def of(cls, answer: Response, client: ComputeBackendClient) -> SubmittedRun:
        """Read an answer that is a success.

        Raises:
            UnexpectedAnswerError: It names no run.
        """
        said = object_in(answer.content) or {}
        run_id, experiment_id = said.get("run_id"), str(said.get("experiment_id"))
        if not isinstance(run_id, str) or not experiment_id.isdecimal():
            raise UnexpectedAnswerError(
                f"{answer.url} answered (HTTP {answer.status_code}) without naming a run: either a sign-in page of the "
                "network (captive portal), or no compute backend.",
                answer.url,
                answer.status_code,
            )
        return cls(
            run_id=run_id,
            experiment_id=int(experiment_id),
            # 0.1.0 named no job: there the run is all there is.
            job_id=str(said.get("job_id") or said.get("unicore_job_id") or run_id),
            status_code=answer.status_code,
            content=answer.content,
            url=answer.url,
            client=client,
        )

    @property
    def link(self) -> str:
        """The address of the run's page on the platform."""
        return f"{self.client.mlflow_tracking_uri}/#/experiments/{self.experiment_id}/runs/{self.run_id}"

    def json(self) -> dict[str, Any]:
        """Return the object of the answer."""
        answer: dict[str, Any] = json.loads(self.content)
        return answer

    def status(self) -> Job:
        """Return what is known of the job, as :meth:`ComputeBackendClient.status`."""
        return self.client.status(self.job_id)

    def wait(self, timeout: float | None = None, poll: float = POLL_SECONDS) -> Job:
        """Wait until the job has ended, as :meth:`ComputeBackendClient.wait`."""
        return self.client.wait(self.job_id, timeout, poll)

    def logs(self, follow: bool = False, poll: float = POLL_SECONDS) -> Iterator[str]:  # noqa: FBT001, FBT002  # the issue's
        """Yield the job's output, as :meth:`ComputeBackendClient.logs`."""
        return self.client.logs(self.job_id, follow, poll)

    def cancel(self) -> Job:
        """End the job, as :meth:`ComputeBackendClient.cancel`."""
        return self.client.cancel(self.job_id)

    def download(self, path: str | None = None, to: str | Path = ".") -> Path:
        """Fetch files of the job, as :meth:`ComputeBackendClient.download`."""
        return self.client.download(self.job_id, path, to)
