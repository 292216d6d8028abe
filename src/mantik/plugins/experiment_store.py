"""Experiments: looked up on the server, or taken by their name where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow.entities import Experiment, ExperimentTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from mantik.delivery.ids import Identity, is_provisional, new_id
from mantik.delivery.records import Call
from mantik.delivery.registry import outbox_for
from mantik.delivery.rest import RefusedError, UnavailableError
from mantik.plugins.entities import experiment_in, provisional_experiment
from mantik.plugins.run_store import ASK_TIMEOUT, RunStore, rest_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from mantik.delivery.outbox import Outbox

__all__ = ["ExperimentStore"]

_GONE = "RESOURCE_DOES_NOT_EXIST"


class ExperimentStore(RunStore):
    """The part of the store that is about experiments.

    Where the server does not answer, an experiment that is named gets a provisional id, and delivery finds or creates
    the one of that name. One that is given by its id is taken for what it is.
    """

    def __init__(self, get_host_creds: Callable[[], Any], uri: str) -> None:
        super().__init__(get_host_creds, uri)
        self._by_name: dict[str, Experiment] = {}
        self._by_id: dict[str, Experiment] = {}

    def get_experiment_by_name(self, experiment_name: str) -> Experiment | None:
        """Return an experiment; where the server cannot be asked, one that delivery will find or create."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            found: Experiment | None = super().get_experiment_by_name(experiment_name)
            return found
        if not outbox.is_down:
            try:
                content = self._look_up(outbox, "experiments/get-by-name", {"experiment_name": experiment_name})
            except RefusedError as error:
                if error.code == _GONE:
                    return None
                raise rest_error(error) from None
            if content is not None:
                return self._remember(experiment_in(content))
        known = self._by_name.get(experiment_name)
        return known or self._begin_experiment(outbox, {"name": experiment_name})

    def get_experiment(self, experiment_id: str) -> Experiment:
        """Return an experiment; where the server cannot be asked, what is known of it."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            found: Experiment = super().get_experiment(experiment_id)
            return found
        server_id = experiment_id
        if is_provisional(experiment_id):
            identity = outbox.identities.get(experiment_id)
            if identity is None:
                raise MlflowException(
                    f"The experiment {experiment_id} was chosen without the platform, and {outbox.spool} does not know "
                    f"it: use its name.",
                    error_code=RESOURCE_DOES_NOT_EXIST,
                )
            if identity.server_id is None:
                return provisional_experiment(identity)
            server_id = identity.server_id
        if not outbox.is_down:
            try:
                content = self._look_up(outbox, "experiments/get", {"experiment_id": server_id})
            except RefusedError as error:
                raise rest_error(error) from None
            if content is not None:
                return self._remember(experiment_in(content))
        known = self._by_id.get(server_id)
        name = "Default" if server_id == "0" else server_id
        return known or Experiment(server_id, name, f"mlflow-artifacts:/{server_id}", "active")

    def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: list[ExperimentTag] | None = None
    ) -> str:
        """Create an experiment, or leave that to delivery where the server cannot be asked."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            created: str = super().create_experiment(name, artifact_location, tags)
            return created
        body: dict[str, Any] = {"name": name}
        if artifact_location:
            body["artifact_location"] = artifact_location
        if tags:
            body["tags"] = [{"key": tag.key, "value": tag.value} for tag in tags]
        # By its name it is found again: that an earlier request may have done it does not matter.
        content, _ = self._ask(outbox, "experiments/create", body)
        if content is not None:
            return str(content["experiment_id"])
        experiment = self._begin_experiment(outbox, body)
        identity = outbox.identities.get(experiment.experiment_id)
        if identity is not None:
            outbox.record_create(identity, None)
        return str(experiment.experiment_id)

    def set_experiment_tag(self, experiment_id: str, tag: ExperimentTag) -> None:
        """Record a tag of an experiment."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            super().set_experiment_tag(experiment_id, tag)
            return
        body = {"experiment_id": str(experiment_id), "key": tag.key, "value": str(tag.value)}
        outbox.record_call(Call("experiment-tag", str(experiment_id), body))

    def _look_up(self, outbox: Outbox, path: str, query: dict[str, str]) -> dict[str, Any] | None:
        """Ask the server for an experiment; None if it does not answer.

        Raises:
            RefusedError: It says no.
            MlflowException: It does not answer, and the settings are strict.
        """
        try:
            return self._api(outbox).call("GET", path, query, timeout=ASK_TIMEOUT)
        except UnavailableError as error:
            self._note_down(outbox, error)
            return None

    def _begin_experiment(self, outbox: Outbox, body: dict[str, Any]) -> Experiment:
        local_id = new_id("experiment")
        identity = Identity(local_id, "experiment", f"mlflow-artifacts:/{local_id}", body)
        outbox.note(identity)
        experiment = provisional_experiment(identity)
        self._by_name[body["name"]] = experiment
        return experiment

    def _remember(self, experiment: Experiment) -> Experiment:
        self._by_name[experiment.name] = self._by_id[experiment.experiment_id] = experiment
        return experiment

    def _experiment_root(self, outbox: Outbox, experiment_id: str) -> str:
        known = self._by_id.get(experiment_id)
        return str(known.artifact_location) if known is not None else super()._experiment_root(outbox, experiment_id)
