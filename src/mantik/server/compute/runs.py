"""The MLflow runs of jobs, as long as no job has them: made at a submission, taken back if it fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from mantik.server.compute.refusal import RefusedError, message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.abstract_store import AbstractStore

JOB_TAG: Final = "mantik.job_id"

_PARAMS_AT_ONCE: Final = 100
_MANY: Final = 1000
_SERVER_ERRORS: Final = 500


def server_store() -> AbstractStore:
    """Return the tracking store of this server process.

    MLflow has no public name for it. A client of its own would open the database a second time, or speak to the server
    over the network, which would ask it for a token.
    """
    from mlflow.server.handlers import _get_tracking_store

    return _get_tracking_store()


class Runs:
    """Makes and unmakes runs on behalf of users. Any thread may call."""

    def __init__(self, store: Callable[[], AbstractStore] = server_store) -> None:
        """Take what returns MLflow's tracking store; it is asked for when it is needed first."""
        self._store = store

    def check_experiment(self, experiment_id: str) -> None:
        """Make sure that runs can be added to an experiment.

        Raises:
            RefusedError: There is no such experiment, or it was deleted.
        """
        from mlflow.exceptions import MlflowException

        try:
            experiment = self._store().get_experiment(experiment_id)
        except MlflowException as error:
            raise _refusal(error, f"There is no experiment {experiment_id}") from error
        if experiment.lifecycle_stage != "active":
            raise message(400, f"The experiment {experiment_id} was deleted. Restore it, or choose another one.")

    def create(  # noqa: PLR0913 - what a run is made of
        self,
        experiment_id: str,
        *,
        job_id: str,
        username: str,
        run_name: str,
        entry_point: str,
        parameters: Mapping[str, str],
    ) -> tuple[str, str]:
        """Make a scheduled run and return its id and name.

        Args:
            experiment_id: The experiment.
            job_id: The job that it is for.
            username: Who submitted it.
            run_name: Its name; MLflow finds one if it is empty.
            entry_point: The entry point of the MLproject.
            parameters: The run's params.

        Raises:
            RefusedError: MLflow does not take it. No run is left.
        """
        from mlflow.entities import Param, RunStatus, RunTag
        from mlflow.exceptions import MlflowException

        store = self._store()
        tags = {
            "mlflow.user": username,
            "mlflow.source.type": "PROJECT",
            "mlflow.project.entryPoint": entry_point,
            "mantik.user": username,
            JOB_TAG: job_id,
        }
        params = [Param(name, value) for name, value in parameters.items()]
        try:
            run = store.create_run(
                experiment_id, username, int(time.time() * 1000), [RunTag(*tag) for tag in tags.items()], run_name
            )
            run_id = run.info.run_id
            try:
                for start in range(0, len(params), _PARAMS_AT_ONCE):
                    store.log_batch(run_id, [], params[start : start + _PARAMS_AT_ONCE], [])
                info = store.update_run_info(run_id, RunStatus.SCHEDULED, None, None)
            except MlflowException:
                store.delete_run(run_id)
                raise
        except MlflowException as error:
            raise _refusal(error, "The run cannot be made") from error
        return run_id, info.run_name

    def discard(self, experiment_id: str, job_id: str) -> bool:
        """Delete the runs of a job that never came to be; tell whether none is left.

        Experiments and runs that are gone are no mistake. If MLflow does not answer, nobody knows.
        """
        from mlflow.entities import ViewType
        from mlflow.exceptions import MlflowException

        store = self._store()
        wanted = f"tags.`{JOB_TAG}` = '{job_id}'"
        try:
            for run in store.search_runs([experiment_id], wanted, ViewType.ACTIVE_ONLY, _MANY):
                store.delete_run(run.info.run_id)
        except MlflowException as error:
            return bool(error.get_http_status_code() < _SERVER_ERRORS)
        return True


def _refusal(error: MlflowException, what: str) -> RefusedError:
    """Return 400 for a mistake of the request, and 503 for the rest, whose text is for nobody outside."""
    if error.get_http_status_code() >= _SERVER_ERRORS:
        return message(503, f"{what} now: MLflow's database does not answer. Try again later.", retry_after=10)
    return message(400, f"{what}: {error.message}")
