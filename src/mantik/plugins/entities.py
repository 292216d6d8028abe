"""MLflow's entities as they will be: what the server has, with what waits for it on top."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow.entities import Experiment, Metric, Param, Run, RunData, RunInfo, RunStatus, RunTag
from mlflow.protos.service_pb2 import CreateRun, GetExperiment, GetMetricHistory, GetRun, LogInputs
from mlflow.store.entities.paged_list import PagedList
from mlflow.utils.proto_json_utils import parse_dict

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

    from mantik.delivery.ids import Identity
    from mantik.delivery.overlay import Writes
    from mantik.delivery.records import MetricItem

__all__ = [
    "experiment_in",
    "merged_model",
    "merged_run",
    "metric_of",
    "model_in",
    "points_in",
    "provisional_experiment",
    "provisional_model",
    "provisional_run",
    "run_in",
    "stub_run",
]


def run_in(content: dict[str, Any]) -> Run:
    """Return the run in an answer of the server."""
    answer = GetRun.Response()
    parse_dict(content, answer)
    return Run.from_proto(answer.run)


def points_in(content: dict[str, Any]) -> PagedList[Metric]:
    """Return the points of a metric in an answer of the server."""
    answer = GetMetricHistory.Response()
    parse_dict(content, answer)
    return PagedList([Metric.from_proto(point) for point in answer.metrics], answer.next_page_token or None)


def experiment_in(content: dict[str, Any]) -> Experiment:
    """Return the experiment in an answer of the server."""
    answer = GetExperiment.Response()
    parse_dict(content, answer)
    return Experiment.from_proto(answer.experiment)


def provisional_run(identity: Identity) -> Run:
    """Return a run that the server does not have yet."""
    request = CreateRun()
    parse_dict(identity.body, request)
    return _run(
        identity.local_id,
        request.experiment_id,
        identity.root,
        name=request.run_name,
        user=request.user_id,
        start=request.start_time,
        tags=[RunTag(tag.key, tag.value) for tag in request.tags],
    )


def stub_run(run_id: str, experiment_id: str, root: str) -> Run:
    """Return what can be said of a run of the server when the server cannot be asked about it."""
    return _run(run_id, experiment_id, root, name="", user="", start=0, tags=[])


def provisional_experiment(identity: Identity) -> Experiment:
    """Return an experiment that nobody looked up on the server yet."""
    return Experiment(identity.local_id, identity.body["name"], identity.root, "active")


def merged_run(run: Run, writes: Writes) -> Run:
    """Return a run with what waits for it."""
    info, data = run.info, run.data
    metrics = {metric.key: metric for metric in data._metric_objs}  # noqa: SLF001  # with step and time
    for key, item in writes.metrics.items():
        known = metrics.get(key)
        if known is None or (item[3], item[2]) >= (known.step, known.timestamp):
            metrics[key] = metric_of(item)
    params = {**writes.params, **data.params}
    tags = {**data.tags, **writes.tags}
    if writes.run_name is not None:
        tags["mlflow.runName"] = writes.run_name
    # By way of MLflow's own message: the constructor's arguments changed over the versions.
    message: Any = info.to_proto()
    if writes.status is not None:
        message.status = RunStatus.from_string(writes.status)
    if writes.end_time is not None:
        message.end_time = writes.end_time
    name = writes.run_name or tags.get("mlflow.runName")
    if name is not None:
        message.run_name = name
    merged_data = RunData(
        metrics=list(metrics.values()),
        params=[Param(key, value) for key, value in params.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    return Run(RunInfo.from_proto(message), merged_data, _inputs(run, writes), **_outputs(run, writes))


def metric_of(item: MetricItem) -> Metric:
    """Return a recorded point as MLflow's entity."""
    if len(item) == 4:  # noqa: PLR2004  # the short form ends with the step
        return Metric(item[0], item[1], item[2], item[3])
    names = ("model_id", "dataset_name", "dataset_digest")
    return Metric(item[0], item[1], item[2], item[3], **dict(zip(names, item[4:], strict=True)))


def model_in(content: dict[str, Any]) -> LoggedModel:
    """Return the logged model in an answer of the server."""
    from mlflow.entities import LoggedModel
    from mlflow.protos.service_pb2 import GetLoggedModel

    answer = GetLoggedModel.Response()
    parse_dict(content, answer)
    return LoggedModel.from_proto(answer.model)


def provisional_model(identity: Identity, created_at: int) -> LoggedModel:
    """Return a logged model that the server does not have yet.

    Args:
        identity: What its id stands for.
        created_at: When it was made up, in milliseconds since 1970.
    """
    from mlflow.entities import LoggedModel, LoggedModelStatus

    body = identity.body
    return LoggedModel(
        experiment_id=body["experiment_id"],
        model_id=identity.local_id,
        name=body["name"],
        artifact_location=identity.root,
        creation_timestamp=created_at,
        last_updated_timestamp=created_at,
        model_type=body.get("model_type"),
        source_run_id=body.get("source_run_id"),
        status=LoggedModelStatus.PENDING,
        tags={tag["key"]: tag.get("value", "") for tag in body.get("tags", ())},
        params={param["key"]: param.get("value", "") for param in body.get("params", ())},
        metrics=[],
    )


def merged_model(model: LoggedModel, writes: Writes) -> LoggedModel:
    """Return a logged model with what waits for it."""
    from mlflow.entities import LoggedModel, LoggedModelStatus
    from mlflow.protos.service_pb2 import LoggedModelStatus as Message

    status = model.status
    if writes.status is not None:
        status = LoggedModelStatus.from_proto(Message.Value(writes.status))
    metrics = {(metric.key, metric.dataset_name): metric for metric in model.metrics or ()}
    metrics |= {(item[0], item[5] if len(item) > 5 else None): metric_of(item) for item in writes.metrics.values()}  # noqa: PLR2004
    return LoggedModel(
        experiment_id=model.experiment_id,
        model_id=model.model_id,
        name=model.name,
        artifact_location=model.artifact_location,
        creation_timestamp=model.creation_timestamp,
        last_updated_timestamp=model.last_updated_timestamp,
        model_type=model.model_type,
        source_run_id=model.source_run_id,
        status=status,
        status_message=model.status_message,
        tags={**model.tags, **writes.tags},
        params={**writes.params, **model.params},
        metrics=list(metrics.values()),
    )


def _run(  # noqa: PLR0913  # a run has as many parts
    run_id: str, experiment_id: str, root: str, *, name: str, user: str, start: int, tags: list[RunTag]
) -> Run:
    content = {
        "run": {
            "info": {
                "run_id": run_id,
                "run_uuid": run_id,
                "run_name": name,
                "experiment_id": experiment_id,
                "user_id": user,
                "status": "RUNNING",
                "start_time": start,
                "artifact_uri": root,
                "lifecycle_stage": "active",
            },
            "data": {"tags": [{"key": tag.key, "value": tag.value} for tag in tags]},
        }
    }
    return run_in(content)


def _inputs(run: Run, writes: Writes) -> Any:  # noqa: ANN401  # what the installed MLflow has
    from mlflow.entities import DatasetInput, RunInputs

    known = run.inputs
    if not writes.inputs:
        return known
    datasets = list(known.dataset_inputs) if known is not None else []
    seen = {(item.dataset.name, item.dataset.digest) for item in datasets}
    models: list[Any] = list(getattr(known, "model_inputs", None) or ())
    for body in writes.inputs:
        request = LogInputs()
        parse_dict(body, request)
        for item in map(DatasetInput.from_proto, request.datasets):
            if (item.dataset.name, item.dataset.digest) not in seen:
                seen.add((item.dataset.name, item.dataset.digest))
                datasets.append(item)
        models += [_model_input(item) for item in getattr(request, "models", ())]
    return RunInputs(datasets, model_inputs=models) if models else RunInputs(datasets)


def _model_input(message: Any) -> Any:  # noqa: ANN401  # MLflow 3's message and entity
    from mlflow.entities import LoggedModelInput

    return LoggedModelInput.from_proto(message)


def _outputs(run: Run, writes: Writes) -> dict[str, Any]:
    """Return what MLflow 3 adds to a run."""
    known = getattr(run, "outputs", None)
    if not writes.outputs:
        return {} if known is None else {"run_outputs": known}
    from mlflow.entities import LoggedModelOutput, RunOutputs

    models = list(known.model_outputs) if known is not None else []
    seen = {(model.model_id, model.step) for model in models}
    for body in writes.outputs:
        for item in body.get("models", ()):
            model = LoggedModelOutput(item["model_id"], int(item.get("step", 0)))
            if (model.model_id, model.step) not in seen:
                models.append(model)
    return {"run_outputs": RunOutputs(model_outputs=models)}
