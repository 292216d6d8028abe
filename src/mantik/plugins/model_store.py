"""Logged models, and what runs take in and give out."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from mlflow.protos import service_pb2
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.entities.paged_list import PagedList
from mlflow.utils.proto_json_utils import message_to_json

from mantik.delivery import aside
from mantik.delivery.creation import OPERATION_TAG
from mantik.delivery.ids import Identity, is_provisional, new_id, operation_of
from mantik.delivery.records import Call
from mantik.delivery.registry import outbox_for
from mantik.delivery.rest import RefusedError, UnavailableError
from mantik.plugins.entities import merged_model, model_in, provisional_model
from mantik.plugins.experiment_store import ExperimentStore
from mantik.plugins.run_store import ASK_TIMEOUT, rest_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mlflow.entities import (
        DatasetInput,
        LoggedModel,
        LoggedModelInput,
        LoggedModelOutput,
        LoggedModelParameter,
        LoggedModelStatus,
        LoggedModelTag,
    )

    from mantik.delivery.outbox import Outbox

__all__ = ["ModelStore"]

_PARAMS = 100
"""Params of one request (MLflow, `environment_variables.py`)."""

_KNOWN_MODELS = 1000
_BY_NAME = re.compile(r"name = '([^']*)'")


class ModelStore(ExperimentStore):
    """The part of the store that is about logged models. MLflow 2 never calls most of it."""

    def __init__(self, get_host_creds: Callable[[], Any], uri: str) -> None:
        super().__init__(get_host_creds, uri)
        self._models: dict[str, LoggedModel] = {}

    def create_logged_model(  # noqa: PLR0913, PLR0917  # MLflow's signature
        self,
        experiment_id: str,
        name: str | None = None,
        source_run_id: str | None = None,
        tags: list[LoggedModelTag] | None = None,
        params: list[LoggedModelParameter] | None = None,
        model_type: str | None = None,
    ) -> LoggedModel:
        """Create a logged model on the server, or here where the server does not answer in a few seconds."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            return super().create_logged_model(experiment_id, name, source_run_id, tags, params, model_type)
        local_id = new_id("model")
        first, rest = (params or [])[:_PARAMS], (params or [])[_PARAMS:]
        message = service_pb2.CreateLoggedModel(
            experiment_id=experiment_id,
            name=name,
            model_type=model_type,
            source_run_id=source_run_id,
            params=[param.to_proto() for param in first],
            tags=[tag.to_proto() for tag in tags or []],
        )
        body = json.loads(message_to_json(message))
        body["tags"] = [*body.get("tags", ()), {"key": OPERATION_TAG, "value": operation_of(local_id)}]
        content, asked_at = self._ask(outbox, "logged-models", body)
        model = model_in(content) if content is not None else self._begin_model(outbox, local_id, body, asked_at)
        outbox.models[model.model_id] = source_run_id or ""
        self._remember_model(model)
        if rest:
            self.log_logged_model_params(model.model_id, rest)
        return self.get_logged_model(model.model_id) if rest else model

    def get_logged_model(self, model_id: str, allow_deleted: bool = False) -> LoggedModel:  # noqa: FBT001, FBT002
        """Return a logged model as if everything that was recorded for it had arrived."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            # Not all of MLflow 3 can look among what was deleted.
            return super().get_logged_model(model_id, **({"allow_deleted": True} if allow_deleted else {}))
        writes = outbox.overlay.writes(model_id)
        model = self._base_model(outbox, model_id)
        return model if writes is None else merged_model(model, writes)

    def finalize_logged_model(self, model_id: str, status: LoggedModelStatus) -> LoggedModel:
        """Record a model's final status: it is sent after the model's files."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            return super().finalize_logged_model(model_id, status)
        message = service_pb2.FinalizeLoggedModel(model_id=model_id, status=status.to_proto())
        call = Call("finalize", model_id, json.loads(message_to_json(message)))
        outbox.record_call(call, after_uploads=True)
        return self.get_logged_model(model_id)

    def set_logged_model_tags(self, model_id: str, tags: list[LoggedModelTag]) -> None:
        """Record tags of a model."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            super().set_logged_model_tags(model_id, tags)
            return
        message = service_pb2.SetLoggedModelTags(tags=[tag.to_proto() for tag in tags])
        outbox.record_call(Call("model-tags", model_id, json.loads(message_to_json(message))))

    def log_logged_model_params(self, model_id: str, params: list[LoggedModelParameter]) -> None:
        """Record params of a model."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            super().log_logged_model_params(model_id, params)
            return
        for part in _parts(params):
            message = service_pb2.LogLoggedModelParamsRequest(
                model_id=model_id, params=[param.to_proto() for param in part]
            )
            outbox.record_call(Call("model-params", model_id, json.loads(message_to_json(message))))

    def search_logged_models(
        self,
        experiment_ids: list[str],
        filter_string: str | None = None,
        *args: Any,  # noqa: ANN401  # as the installed MLflow has them
        **options: Any,  # noqa: ANN401
    ) -> PagedList[LoggedModel]:
        """Ask the server for models, or look among those that wait here for the ones of a name.

        With the latter MLflow resolves ``runs:/<run>/<name>``, also right after the model was logged.
        """
        aside.wait_for()
        try:
            return super().search_logged_models(experiment_ids, filter_string, *args, **options)
        except MlflowException as error:
            outbox = outbox_for(self._uri)
            if outbox is not None and error.error_code == "ENDPOINT_NOT_FOUND":
                # A server of MLflow 2 has none; MLflow 3 asks for them wherever artifacts of a run are listed.
                return PagedList([], None)
            name = _BY_NAME.fullmatch(filter_string or "")
            if outbox is None or name is None or error.error_code != "TEMPORARILY_UNAVAILABLE":
                raise
        here = {identity.local_id for identity in outbox.identities.unsettled("model")}
        models = [self.get_logged_model(model_id) for model_id in sorted({*self._models, *here})]
        wanted = [model for model in models if model.name == name[1] and model.experiment_id in experiment_ids]
        return PagedList(wanted, None)

    def log_inputs(
        self,
        run_id: str,
        datasets: list[DatasetInput] | None = None,
        models: list[LoggedModelInput] | None = None,
    ) -> None:
        """Record what a run takes in."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            # MLflow 2 knows no models here.
            super().log_inputs(run_id, datasets, **({"models": models} if models else {}))
            return
        self._admit(run_id)
        message = service_pb2.LogInputs(run_id=run_id, datasets=[item.to_proto() for item in datasets or []])
        if models:
            message.models.extend([item.to_proto() for item in models])
        outbox.record_call(Call("inputs", run_id, json.loads(message_to_json(message))))

    def log_outputs(self, run_id: str, models: list[LoggedModelOutput]) -> None:
        """Record which models a run gives out."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            super().log_outputs(run_id, models)
            return
        self._admit(run_id)
        # One each: a server refuses the whole of a request when it has one of them already.
        for model in models:
            message = service_pb2.LogOutputs(run_id=run_id, models=[model.to_proto()])
            outbox.record_call(Call("outputs", run_id, json.loads(message_to_json(message))))

    def record_logged_model(self, run_id: str, mlflow_model: Any) -> None:  # noqa: ANN401  # MLflow's Model
        """Record that a run has a model among its artifacts, as MLflow 2 logs them."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            super().record_logged_model(run_id, mlflow_model)
            return
        tags_of = getattr(mlflow_model, "get_tags_dict", mlflow_model.to_dict)
        body = {"run_id": run_id, "model_json": json.dumps(tags_of())}
        outbox.record_call(Call("model-history", run_id, body))

    def _begin_model(self, outbox: Outbox, local_id: str, body: dict[str, Any], asked_at: float | None) -> LoggedModel:
        from mlflow.utils.name_utils import _generate_random_name

        body["name"] = body.get("name") or _generate_random_name()
        root = f"{self._experiment_root(outbox, body['experiment_id'])}/models/{local_id}/artifacts"
        identity = Identity(local_id, "model", root, body)
        # Counted with its run even before it is there.
        outbox.models[local_id] = body.get("source_run_id", "")
        outbox.record_create(identity, asked_at)
        return provisional_model(identity, int(time.time() * 1000))

    def _base_model(self, outbox: Outbox, model_id: str) -> LoggedModel:
        known = self._models.get(model_id)
        server_id = model_id
        if is_provisional(model_id):
            identity = outbox.identities.get(model_id)
            if identity is None:
                raise MlflowException(
                    f"The model {model_id} was logged without the platform, and its records are not in {outbox.spool}.",
                    error_code=RESOURCE_DOES_NOT_EXIST,
                )
            if identity.server_id is None:
                return known or provisional_model(identity, 0)
            server_id = identity.server_id
        elif known is not None and model_id in outbox.models:
            # It began here a moment ago, and what this process changed is on top of it.
            return known
        if not outbox.is_down:
            try:
                path = f"logged-models/{server_id}"
                content = self._api(outbox).call("GET", path, {}, timeout=ASK_TIMEOUT)
            except RefusedError as error:
                raise rest_error(error) from None
            except UnavailableError:
                outbox.note_down()
            else:
                model = model_in(content)
                self._remember_model(model)
                return model
        if known is None:
            known = super().get_logged_model(model_id)
        return known

    def _remember_model(self, model: LoggedModel) -> None:
        if len(self._models) >= _KNOWN_MODELS:
            self._models = {}
        self._models[model.model_id] = model


def _parts(params: Sequence[LoggedModelParameter]) -> Iterator[Sequence[LoggedModelParameter]]:
    for start in range(0, len(params), _PARAMS):
        yield params[start : start + _PARAMS]
