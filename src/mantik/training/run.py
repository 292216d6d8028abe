"""The run of one training: joined, resumed or begun; written to; ended with its true status."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.environment_variables import MLFLOW_RUN_ID
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mantik.auth.urls import normalise_tracking_uri
from mantik.delivery.ids import is_provisional
from mantik.delivery.registry import outbox_for
from mantik.exceptions import ConfigurationError, EndpointError
from mantik.settings import Job, Settings
from mantik.tracking import init_tracking
from mantik.training.attempts import Attempts
from mantik.training.experiments import experiment_for, is_refusal
from mantik.training.identity import RunIdentity
from mantik.training.names import mapped
from mantik.training.slurm import is_requeued
from mantik.training.writer import RunWriter

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from mantik.training.request import RunRequest

__all__ = ["TrackedRun"]

_logger = logging.getLogger(__name__)

_ATTEMPT_TAG = "mantik.attempt"


@dataclass(slots=True)
class TrackedRun:
    """The run of one training in this process. One thread at a time may call.

    Everything is written through MLflow's client, and so is on disk before a call returns and reaches the platform by
    itself. Fluent calls of MLflow and its autologging land in the same run while it is open.

    Attributes:
        request: What was asked for.
        run_id: The run, once it is known.
        experiment_id: Its experiment.
        name: Its name, where this process has opened it.
        attempt: The how manieth process this is that goes on with the run, from 1.
    """

    request: RunRequest
    run_id: str | None = None
    experiment_id: str | None = None
    attempt: int = 1
    name: str | None = None
    _client: MlflowClient | None = field(default=None, repr=False)
    _owned: bool = False
    _borrowed: bool = False
    _open: bool = False
    _handed_over: bool = False
    _params: dict[str, str] | None = field(default=None, repr=False)
    _writer: RunWriter | None = field(default=None, repr=False)
    _monitor: Any = field(default=None, repr=False)

    @property
    def client(self) -> MlflowClient:
        """MLflow's client for the platform, after the login.

        Raises:
            ConfigurationError: MLflow's active run is somewhere else.
            MantikError: As `mantik.init_tracking`.
        """
        if self._client is None:
            before = mlflow.get_tracking_uri()
            if self.request.tracking_uri is not None:
                _check_active_run(before, self.request.tracking_uri)
                # As if it had been in the environment: what the user hands over wins.
                os.environ["MLFLOW_TRACKING_URI"] = self.request.tracking_uri
            init_tracking(strict=self.request.strict)
            _check_active_run(before, mlflow.get_tracking_uri())
            self._client = mlflow.MlflowClient()
        return self._client

    @property
    def writer(self) -> RunWriter:
        """What writes to the run; the run is opened for it where it is not known yet."""
        if self._writer is None:
            if self.run_id is None:
                self.open()
            self._writer = RunWriter(self.client, str(self.run_id), self.attempt, self._params)
        return self._writer

    @property
    def is_open(self) -> bool:
        """Whether the run is open in this process."""
        return self._open

    @property
    def is_handed_over(self) -> bool:
        """Whether the run was left open for another process."""
        return self._handed_over

    @property
    def identity(self) -> RunIdentity | None:
        """What a checkpoint remembers of the run; None before it is known."""
        if self.run_id is None:
            return None
        return RunIdentity(self.run_id, self.experiment_id or "", mlflow.get_tracking_uri())

    @property
    def link(self) -> str:
        """The address of the run's page on the platform; empty where there is none."""
        uri = mlflow.get_tracking_uri()
        if self.run_id is None or not uri.startswith(("http://", "https://")) or is_provisional(self.run_id):
            return ""
        return f"{uri.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.run_id}"

    def __getstate__(self) -> tuple[RunRequest, str | None, str | None, int, bool]:
        """Keep what another process needs to go on with the run: connections and threads stay here."""
        run_id, experiment_id, borrowed = self.run_id, self.experiment_id, self._borrowed
        active = mlflow.active_run() if self.run_id is None else None
        if active is not None and self.request.run_id in (None, active.info.run_id):
            # The user's own run in the process that starts the others, which do not see it.
            run_id, experiment_id, borrowed = active.info.run_id, active.info.experiment_id, True
        return self.request, run_id, experiment_id, self.attempt, borrowed

    def __setstate__(self, state: tuple[RunRequest, str | None, str | None, int, bool]) -> None:
        """Begin closed, in this process."""
        request, run_id, experiment_id, attempt, borrowed = state
        self.__init__(request, run_id, experiment_id, attempt, _borrowed=borrowed)  # type: ignore[misc]

    def open(self, source: RunIdentity | None = None, whence: str = "") -> None:
        """Join, resume or begin the run; one that this process ended before is opened again.

        The first of these that is there is taken: `run_id` of the request, the active run of MLflow, ``MLFLOW_RUN_ID``,
        the run of the checkpoint that training goes on from, the run of the job's earlier attempt, a new one.

        Args:
            source: The run of the checkpoint that training goes on from.
            whence: Which checkpoint that is, for people.

        Raises:
            ConfigurationError: The run that was asked for is not there, or the request contradicts what is.
            MantikError: The login failed, as with `mantik.init_tracking`.
        """
        if self._open:
            return
        client = self.client
        if self.run_id is not None:
            self._reopen()
            return
        experiment_id = experiment_for(self.request, client)
        active = mlflow.active_run()
        if active is not None:
            self._join(active, experiment_id)
        elif self.request.run_id is not None or MLFLOW_RUN_ID.get():
            self._resume_asked(self.request.run_id or str(MLFLOW_RUN_ID.get()), experiment_id)
        elif not self._resume_found(source, whence):
            if self.request.resume == "must":
                raise ConfigurationError(
                    "resume is 'must', but there is no run to go on with: no run_id, no MLFLOW_RUN_ID, no checkpoint "
                    "of a tracked run and no earlier attempt of this job. Name one, or leave out resume."
                )
            self._begin(experiment_id, source)
        self._remember_for_the_job()

    def attach(self, run_id: str, experiment_id: str | None, attempt: int = 1) -> None:
        """Take over a run that another process of the same training has opened, without opening it here."""
        self.run_id, self.experiment_id, self.attempt = run_id, experiment_id, attempt

    def end(self, status: str) -> None:
        """End the run, if it is this process's own; one that was joined is left to whoever began it.

        Args:
            status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        """
        if not self._open:
            return
        self._open = self._handed_over = False
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None
        if not self._owned:
            return
        # What the training began inside of the run and left open goes with it.
        while (active := mlflow.active_run()) is not None:
            if active.info.run_id == self.run_id:
                mlflow.end_run(status)
                return
            if not self._is_around(active):
                break
            mlflow.end_run(status)
        # The training ended it itself, or it was begun in another thread.
        self.client.set_terminated(str(self.run_id), status)

    def end_from_outside(self, status: str) -> None:
        """End a run that another process of the same training has opened and cannot end any more.

        One that is open here is left to whoever began it.
        """
        active = mlflow.active_run()
        if active is None or active.info.run_id != self.run_id:
            self.client.set_terminated(str(self.run_id), status)

    def hand_over(self) -> None:
        """Leave the run open for the next attempt of a requeued job."""
        self._handed_over = True
        if self._owned:
            self._leave_open()

    def reconsider(self) -> None:
        """Take a run back that was handed over, if Slurm has not taken the request to requeue its job."""
        job = Job.from_environment()
        if self._handed_over and job is not None and is_requeued(job) is False:
            self.take_back()

    def take_back(self) -> None:
        """Go on with a run that was handed over: the job was not requeued after all."""
        self._handed_over = False
        if self._owned:
            self.client.update_run(str(self.run_id), status="RUNNING")

    def _join(self, active: mlflow.ActiveRun, experiment_id: str | None) -> None:
        """Take part in a run that the user, or MLflow's autologging, has begun."""
        run_id, held = active.info.run_id, active.info.experiment_id
        if self.request.run_id not in (None, run_id):
            raise ConfigurationError(
                f"run_id is {self.request.run_id!r}, but MLflow's active run is {run_id!r}: one training is one run. "
                f"End the active run, or leave out run_id."
            )
        if experiment_id not in (None, held):
            raise ConfigurationError(
                f"The experiment asked for has the id {experiment_id!r}, but MLflow's active run is in {held!r}: one "
                f"training is one run. End the active run, or leave out the experiment."
            )
        self.run_id, self.experiment_id, self.name = run_id, held, active.info.run_name
        self._open, self._owned = True, False
        tags = self._tags()
        if self.request.run_name is not None:
            tags["mlflow.runName"] = self.request.run_name
        if self.request.description is not None:
            tags["mlflow.note.content"] = self.request.description
        if tags:
            self.writer.set_tags(tags)
        if self.request.system_metrics:
            self._watch_the_machine()

    def _resume_asked(self, run_id: str, experiment_id: str | None) -> None:
        problem = self._why_not(run_id)
        if problem is not None:
            if self.request.resume != "allow":
                raise ConfigurationError(
                    f"The run {run_id!r} {problem}. Name one that is there, or none for a new one."
                )
            _logger.warning("The run %s %s: a new one is begun (resume='allow').", run_id, problem)
            MLFLOW_RUN_ID.unset()
            self._begin(experiment_id, None)
            return
        if experiment_id is not None:
            held = self.client.get_run(run_id).info.experiment_id
            if held != experiment_id:
                raise ConfigurationError(
                    f"The run {run_id!r} is in the experiment {held!r}, not in {experiment_id!r}, which was asked for. "
                    f"Leave out the experiment: a run stays in its own."
                )
        self._resume(run_id, "")

    def _resume_found(self, source: RunIdentity | None, whence: str) -> bool:
        """Go on with the run of a checkpoint or of the job's earlier attempt; tell whether there is one."""
        if self.request.resume == "never":
            return False
        uri = mlflow.get_tracking_uri()
        job = Job.from_environment()
        candidates = []
        if source is not None and source.tracking_uri.rstrip("/") == uri.rstrip("/"):
            candidates.append((source, whence))
        taken = Attempts(Settings.from_environment().home, job).take(uri) if job is not None else None
        if taken is not None:
            candidates.append((taken, ""))
        for earlier, origin in candidates:
            problem = self._why_not(earlier.run_id)
            if problem is None:
                self._resume(earlier.run_id, origin, earlier)
                return True
            whose = f"{origin} comes from" if origin else "this job tracked before"
            _logger.warning("The run %s, which %s, %s: it is not gone on with.", earlier.run_id, whose, problem)
        return False

    def _why_not(self, run_id: str) -> str | None:
        """Say why a run cannot be gone on with; None where it can."""
        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if not is_refusal(error):
                raise
            return f"is not on the platform at {mlflow.get_tracking_uri()}"
        return "was deleted" if run.info.lifecycle_stage == "deleted" else None

    def _resume(self, run_id: str, whence: str, earlier: RunIdentity | None = None) -> None:
        run = mlflow.start_run(
            run_id=run_id,
            run_name=self.request.run_name,
            tags=self._tags() or None,
            description=self.request.description,
            log_system_metrics=self.request.system_metrics,
        )
        MLFLOW_RUN_ID.unset()
        self.run_id, self.experiment_id, self.name = run.info.run_id, run.info.experiment_id, run.info.run_name
        self._open = self._owned = True
        self._params = dict(run.data.params)
        if earlier is not None and earlier.experiment_id and not is_provisional(earlier.experiment_id):
            # Of a run that nobody can look at now MLflow does not know it.
            self.experiment_id = earlier.experiment_id
        # One that a platform made for its job is resumed by nobody.
        if earlier is not None or run.data.params or run.data.metrics or _ATTEMPT_TAG in run.data.tags:
            before = run.data.tags.get(_ATTEMPT_TAG, "1")
            job = Job.from_environment()
            # Of a run that nobody can look at now the last attempts may not be known.
            restarts = 0 if job is None else job.restart
            self.attempt = max(int(before) if before.isdecimal() else 1, restarts) + 1
            self.writer.set_tags(
                {_ATTEMPT_TAG: self.attempt, f"{_ATTEMPT_TAG}.{self.attempt}": _describe_attempt(whence)}
            )

    def _begin(self, experiment_id: str | None, source: RunIdentity | None) -> None:
        tags = self._tags() | {_ATTEMPT_TAG: "1"}
        if source is not None:
            tags["mantik.started_from"] = source.run_id
        try:
            run = mlflow.start_run(
                experiment_id=experiment_id,
                run_name=self.request.run_name,
                tags=tags,
                description=self.request.description,
                log_system_metrics=self.request.system_metrics,
            )
        except MlflowException as error:
            if not is_refusal(error):
                raise
            which = "of MLflow's settings" if experiment_id is None else repr(experiment_id)
            raise ConfigurationError(f"The experiment {which} takes no run ({error.message}). Name another.") from error
        self.run_id, self.experiment_id, self.name = run.info.run_id, run.info.experiment_id, run.info.run_name
        self._open = self._owned = True
        self._params = {}

    def _reopen(self) -> None:
        """Open a run again that this process or its parent had before."""
        active = mlflow.active_run()
        if active is not None and active.info.run_id == self.run_id:
            # Inherited by a fork, or begun by the user between two trainings.
            self._open = True
            return
        if active is not None:
            raise ConfigurationError(
                f"MLflow's active run is {active.info.run_id!r}, but this training's is {self.run_id!r}. End the "
                f"active run before."
            )
        mlflow.start_run(run_id=self.run_id, log_system_metrics=self.request.system_metrics)
        self._open = self._owned = True
        if self._borrowed:
            # Its status is for the process to say that began it.
            self._leave_open()

    def _is_around(self, run: Run) -> bool:
        """Tell whether a run was begun inside of this one, at whatever depth."""
        parent = run.data.tags.get(MLFLOW_PARENT_RUN_ID)
        with contextlib.suppress(MlflowException):
            while parent not in {None, self.run_id}:
                parent = self.client.get_run(parent).data.tags.get(MLFLOW_PARENT_RUN_ID)
        return parent is not None and parent == self.run_id

    def _tags(self) -> dict[str, str]:
        """Return the tags that were asked for, in a form that MLflow takes for old and new runs alike."""
        return {mapped(str(key)): str(value) for key, value in (self.request.tags or {}).items()}

    def _leave_open(self) -> None:
        """See to it that nothing in this process ends the run."""
        outbox = outbox_for(mlflow.get_tracking_uri())
        if outbox is not None:
            outbox.hand_over(str(self.run_id))

    def _remember_for_the_job(self) -> None:
        job = Job.from_environment()
        if job is not None and self.identity is not None:
            Attempts(Settings.from_environment().home, job).note(self.identity)

    def _watch_the_machine(self) -> None:
        """Record the machine's metrics for a run that somebody else began without."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitor = SystemMetricsMonitor(str(self.run_id), resume_logging=True)
        self._monitor.start()


def _check_active_run(before: str, uri: str) -> None:
    """Refuse to part from MLflow's active run, which is where MLflow tracked to when it was begun."""
    active = mlflow.active_run()
    if active is None or _plain(before) == _plain(uri) or Settings.from_environment().mode == "disabled":
        return
    # Whoever has begun it can end it.
    mlflow.set_tracking_uri(before)
    raise ConfigurationError(
        f"MLflow's active run {active.info.run_id!r} is at {_shown(before)}, but this training is to be tracked at "
        f"{_shown(uri)}: one training is one run. End the active run before, or call mantik.init_tracking() before "
        f"mlflow.start_run()."
    )


def _plain(uri: str) -> str:
    """Return a platform's URI the way it is written after the login; a local one as it is."""
    try:
        return normalise_tracking_uri(uri, allow_http=True)
    except EndpointError:
        return uri


def _shown(uri: str) -> str:
    """Return a tracking URI for people: that of a database may hold a password."""
    scheme, separator, _ = uri.partition("://")
    return uri if not separator or scheme in {"http", "https"} else f"a {scheme} store"


def _describe_attempt(whence: str) -> str:
    parts = [datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")]
    if whence:
        parts.append(f"from {whence}")
    job = Job.from_environment()
    if job is not None:
        parts.append(f"Slurm job {job.job_id}, restart {job.restart}")
    parts.append(f"on {os.uname().nodename}" if sys.platform != "win32" else "")
    return ", ".join(part for part in parts if part)
