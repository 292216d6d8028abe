"""Which experiment a training asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from mantik.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mantik.training.request import RunRequest

__all__ = ["experiment_for", "is_refusal"]

_REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"})

_THERE_ALREADY = "RESOURCE_ALREADY_EXISTS"


def experiment_for(request: RunRequest, client: MlflowClient) -> str | None:
    """Return the id of the experiment that was asked for, which is created where it is not there yet.

    Args:
        request: What was asked for.
        client: MLflow's client for the platform.

    Returns:
        The id; None where nothing was asked for, which leaves it to MLflow: the experiment of `mlflow.set_experiment`,
        ``MLFLOW_EXPERIMENT_NAME`` or ``MLFLOW_EXPERIMENT_ID``, else the default one.

    Raises:
        ConfigurationError: The experiment was deleted, its name is none, or name and id disagree.
    """
    if request.experiment_name is None:
        return request.experiment_id
    try:
        return _experiment_of_name(request.experiment_name, request, client)
    except MlflowException as error:
        if not is_refusal(error):
            raise
        raise ConfigurationError(
            f"experiment_name is {request.experiment_name!r}, which the platform does not take: {error.message}"
        ) from error


def is_refusal(error: MlflowException) -> bool:
    """Tell whether an error of MLflow says that what was asked for is wrong, and not that something went wrong."""
    return error.error_code in _REFUSALS


def _experiment_of_name(name: str, request: RunRequest, client: MlflowClient) -> str:
    asked = request.experiment_id
    experiment = client.get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        raise ConfigurationError(
            f"The experiment {name!r} was deleted. Restore it, or choose another name for experiment_name."
        )
    if asked is not None:
        if experiment is None or experiment.experiment_id != asked:
            held = "there is none of this name" if experiment is None else f"its id is {experiment.experiment_id!r}"
            raise ConfigurationError(
                f"experiment_name is {name!r} and experiment_id is {asked!r}, which disagree: {held}. Give one of them."
            )
        return asked
    if experiment is not None:
        return str(experiment.experiment_id)
    try:
        return str(client.create_experiment(name, artifact_location=request.artifact_location))
    except MlflowException as error:
        # Another training has created it meanwhile: those of a job array begin at the same moment.
        experiment = client.get_experiment_by_name(name) if error.error_code == _THERE_ALREADY else None
        if experiment is None:
            raise
        return str(experiment.experiment_id)
