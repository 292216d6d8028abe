"""The front door of the compute backend: submit a project as a job, and see what becomes of it."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mantik.auth.login import GivenToken, token_source
from mantik.auth.urls import is_local, normalise_tracking_uri, platform_origin
from mantik.compute.download import download
from mantik.compute.home import at_home
from mantik.compute.job import Job
from mantik.compute.log import read_log
from mantik.compute.patience import POLL_SECONDS
from mantik.compute.service import Service
from mantik.compute.submission import Submission
from mantik.compute.submitted_run import SubmittedRun
from mantik.compute.upload import upload
from mantik.compute.waiting import wait_for
from mantik.exceptions import (
    ConfigurationError,
    MissingSettingsError,
    UnexpectedAnswerError,
)
from mantik.secret import Secret
from mantik.settings import Settings, UnicoreLogin
from mantik.tracking import init_tracking

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterator, Mapping

    from mantik.auth.login import TokenSource

__all__ = ["ComputeBackendClient"]

_API_PATH = "/compute-backend"
_JOB_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", re.ASCII)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, repr=False)
class ComputeBackendClient:
    """A client of a platform's compute backend.

    Make one with :meth:`from_env`. Its methods may be called from any thread.

    Args:
        compute_backend_url: The platform's base URL.
        unicore_username: User name at the computing centre. It and the next two are passed on by early platforms;
            ``mantik server`` has no use for them, and they may be empty.
        unicore_password: Password there.
        unicore_project: The account there that pays.
        mlflow_tracking_uri: Where jobs track to.
        mlflow_tracking_token: The access token. Used as it is; only a client of :meth:`from_env` renews its own.
        api_path: Path of the compute backend below the base URL.
    """

    compute_backend_url: str
    unicore_username: str
    unicore_password: str
    unicore_project: str
    mlflow_tracking_uri: str
    mlflow_tracking_token: str
    api_path: str = _API_PATH
    _source: TokenSource | None = field(default=None, init=False, compare=False)

    @classmethod
    def from_env(cls, api_path: str = _API_PATH) -> ComputeBackendClient:
        """Make a client from the environment, and log in as ``mantik.init_tracking()`` does.

        Reads what ``init_tracking()`` reads, and ``MANTIK_UNICORE_USERNAME``, ``MANTIK_UNICORE_PASSWORD`` and
        ``MANTIK_UNICORE_PROJECT``, which only early platforms need.

        Args:
            api_path: Path of the compute backend below the platform's base URL.

        Raises:
            MantikError: As ``init_tracking()``; also that the tracking URI is local, where there are no jobs.
        """
        init_tracking()
        return cls.from_settings(Settings.from_environment(), api_path)

    @classmethod
    def from_settings(cls, settings: Settings, api_path: str = _API_PATH) -> ComputeBackendClient:
        """Make a client from settings; nothing is sent yet, and nothing changes in the process.

        Args:
            settings: What is configured.
            api_path: Path of the compute backend below the platform's base URL.

        Raises:
            ConfigurationError: No platform is configured, or none that has jobs.
        """
        if settings.tracking_uri is not None and is_local(settings.tracking_uri):
            raise ConfigurationError(
                "MLFLOW_TRACKING_URI is local, where nobody runs jobs. Set it to the base URL of a platform."
            )
        source = token_source(settings)
        if settings.tracking_uri is None:
            raise MissingSettingsError(
                "No platform is configured: set MLFLOW_TRACKING_URI to its base URL.", ("MLFLOW_TRACKING_URI",)
            )
        uri = normalise_tracking_uri(settings.tracking_uri, allow_http=settings.allow_http)
        login = UnicoreLogin.from_environment()
        client = cls(
            compute_backend_url=uri.removesuffix("/tracking"),
            unicore_username=login.username,
            unicore_password=login.password.reveal() if login.password is not None else "",
            unicore_project=login.project,
            mlflow_tracking_uri=uri,
            mlflow_tracking_token=settings.exported_token.reveal() if settings.exported_token is not None else "",
            api_path=api_path,
        )
        object.__setattr__(client, "_source", source)
        return client

    @property
    def url(self) -> str:
        """The URL of the compute backend."""
        path = "/".join(part for part in self.api_path.split("/") if part)
        return f"{self.compute_backend_url.rstrip('/')}/{path}".rstrip("/")

    @property
    def submit_url(self) -> str:
        """The URL that jobs are submitted to, in front of the experiment's id."""
        return f"{self.url}/submit"

    def submit_run(  # noqa: PLR0913  # the contract's
        self,
        experiment_id: int,
        mlproject_path: str | Path,
        mlflow_parameters: Mapping[str, Any] | None = None,
        backend_config: str | Path | Mapping[str, Any] | None = None,
        entry_point: str | None = "main",
        *,
        backend_config_path: str | Path | Mapping[str, Any] | None = None,
        run_name: str | None = None,
    ) -> SubmittedRun:
        """Submit a project as a job.

        Everything that can be known here is checked before anything is sent. The project is packed into a temporary
        file and streamed from there. A service takes it only once it is there as a whole: an interrupted upload leaves
        nothing behind, and can be repeated.

        Args:
            experiment_id: The experiment that the job's run is to be in.
            mlproject_path: The folder with the ``MLproject`` file.
            mlflow_parameters: Parameters of the entry point; each becomes a text, as with ``mlflow run``. Those that it
                does not declare are passed on as ``--name value``.
            backend_config: The backend configuration: a file, or what such a file holds. A relative path is one in the
                project, and else one from the current folder. A file outside of the project is sent along.
            entry_point: An entry point, or a script ``*.py``, ``*.sh`` or ``*.R`` of the project. None is ``main``.
            backend_config_path: The old name of ``backend_config``.
            run_name: The run's name. Default: the platform chooses one.

        Returns:
            The job, with the service's answer.

        Raises:
            ProjectError: The project, its parameters or the backend configuration cannot be submitted as they are;
                names all mistakes.
            SubmissionError: The service did not take it; with its own words.
            AuthenticationError: The login is over or was refused.
            PlatformUnreachableError: There was no answer, or the upload was interrupted; the text says whether
                something may have been submitted.
        """
        if backend_config is not None and backend_config_path is not None and backend_config != backend_config_path:
            raise ConfigurationError("backend_config and backend_config_path are the same; give one of them.")
        submission = Submission.of(
            experiment_id,
            mlproject_path,
            mlflow_parameters or {},
            backend_config if backend_config is not None else backend_config_path,
            entry_point=entry_point or "main",
            run_name=run_name,
        )
        return self.submit(submission)

    def submit(self, submission: Submission, say: Callable[[str], None] = _logger.info) -> SubmittedRun:
        """Submit what has been checked.

        Args:
            submission: The job.
            say: Is told what is sent and what is not, in sentences.

        Raises:
            MantikError: As ``submit_run``.
        """
        return SubmittedRun.of(upload(self._service(), submission, self._form, say), self)

    def status(self, job_id: str) -> Job:
        """Return what is known of a job.

        Args:
            job_id: The job, or its run.

        Raises:
            MantikError: There is no such job of this user, or no answer.
        """
        return Job.from_mapping(self._service().get(_place_of(job_id)))

    def wait(self, job_id: str, timeout: float | None = None, poll: float = POLL_SECONDS) -> Job:
        """Wait until a job has ended.

        An outage of the service is sat out with a warning: the job goes on without it.

        Args:
            job_id: The job, or its run.
            timeout: Seconds to wait at most; a service that takes a request and does not answer it adds up to a minute.
                Default: as long as it takes.
            poll: Seconds between two looks.

        Returns:
            The job, which has ended, whether it succeeded or not.

        Raises:
            JobTimeoutError: It has not ended in time; it goes on.
            MantikError: There is no such job of this user, or the login is over.
        """
        return wait_for(job_id, lambda: self.status(job_id), timeout=timeout, poll=poll)

    def logs(self, job_id: str, follow: bool = False, poll: float = POLL_SECONDS) -> Iterator[str]:  # noqa: FBT001, FBT002  # the issue's
        """Yield the output of a job, line by line, each with its end.

        Args:
            job_id: The job, or its run.
            follow: Go on until the job has ended, and sit out outages of the service. A line that is not finished when
                nothing more comes is yielded as it is.
            poll: Seconds between two looks, with ``follow``.

        Raises:
            MantikError: There is no such job of this user; without ``follow`` also that there is no answer.
        """
        return read_log(self._service(), f"{_place_of(job_id)}/logs", follow=follow, poll=poll)

    def cancel(self, job_id: str) -> Job:
        """End a job; its run becomes ``KILLED``. One that has ended stays as it is.

        Args:
            job_id: The job, or its run.

        Returns:
            The job as it is now: its processes get some time to end.

        Raises:
            MantikError: There is no such job of this user, or no answer.
        """
        return Job.from_mapping(self._service().post(f"{_place_of(job_id)}/cancel"))

    def download(self, job_id: str, path: str | None = None, to: str | Path = ".") -> Path:
        """Fetch files of a job's working folder. What is here already is never overwritten.

        Args:
            job_id: The job, or its run.
            path: A file or folder in the working folder. Default: all of it.
            to: The folder to put it in: under its own name, or under the job's id if it is the whole folder.

        Returns:
            Where it is now.

        Raises:
            ConfigurationError: There is no such file, or something of that name is here already.
            MantikError: There is no such job of this user, or no answer.
        """
        name = PurePosixPath(path or ".").name or job_id
        return download(self._service(), f"{_place_of(job_id)}/files", path, at_home(to) / name)

    def list(self, offset: int = 0, limit: int = 50) -> builtins.list[Job]:
        """Return the user's jobs, the newest first.

        Args:
            offset: How many of the newest to skip.
            limit: How many to return at most.

        Raises:
            MantikError: There is no answer.
        """
        jobs = self._service().get("jobs", offset=offset, limit=limit).get("jobs")
        if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
            raise UnexpectedAnswerError("The compute backend answered with something that is no list of jobs.")
        return [Job.from_mapping(job) for job in jobs]

    def __repr__(self) -> str:
        """Show everything but secrets."""
        password, token = (
            "'***'" if secret else "''" for secret in (self.unicore_password, self.mlflow_tracking_token)
        )
        return (
            f"ComputeBackendClient(compute_backend_url={self.compute_backend_url!r}, "
            f"unicore_username={self.unicore_username!r}, unicore_password={password}, "
            f"unicore_project={self.unicore_project!r}, mlflow_tracking_uri={self.mlflow_tracking_uri!r}, "
            f"mlflow_tracking_token={token}, api_path={self.api_path!r})"
        )

    def _service(self) -> Service:
        allow_http = Settings.from_environment().allow_http
        origin = platform_origin(self.compute_backend_url, allow_http=allow_http, name="compute_backend_url")
        token, password = Secret(self.mlflow_tracking_token), Secret(self.unicore_password)
        if self._source is None and not token:
            raise MissingSettingsError(
                "mlflow_tracking_token is empty: give an access token, or use ComputeBackendClient.from_env()."
            )
        return Service(self.url, origin, self._source or GivenToken(token), (token, password))

    def _form(self, submission: Submission, token: Secret) -> dict[str, str]:
        """Return the form's fields, with the names that the servers of both early eras know (contract, section 4.2)."""
        named = {"run_name": submission.run_name} if submission.run_name is not None else {}
        return {
            "entry_point": submission.entry_point,
            "mlflow_parameters": json.dumps(dict(submission.parameters)),
            "unicore_user": self.unicore_username,
            "unicore_password": self.unicore_password,
            "unicore_project": self.unicore_project,
            # 0.1.0 reads the second one only, 0.1.2 the first one only.
            "unicore_backend_config": submission.config_path,
            "unicore_backend_config_path": submission.config_path,
            "mlflow_tracking_uri": self.mlflow_tracking_uri,
            "mlflow_tracking_token": token.reveal(),
        } | named


def _place_of(job_id: str) -> str:
    """Return where a job is below the compute backend's URL."""
    if not isinstance(job_id, str) or not _JOB_ID.fullmatch(job_id):
        raise ConfigurationError(f"{job_id!r} is no id of a job or a run. 'mantik runs list' shows them.")
    return f"jobs/{job_id}"
