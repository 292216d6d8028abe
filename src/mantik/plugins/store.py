"""MLflow's REST store with a journal in front of its writes: a call costs microseconds, and no outage reaches training.

Durable are metrics, params, tags and changes of a run. What the server has to answer (creating runs and models,
searches, deletions, artifacts) goes straight to it, as in stock MLflow.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunStatus, RunTag
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.protos.service_pb2 import GetRun
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.async_logging.run_operations import RunOperations
from mlflow.utils.proto_json_utils import parse_dict
from mlflow.utils.validation import _validate_metric, _validate_param, _validate_tag

from mantik.delivery.history import waiting_points
from mantik.delivery.outbox import outbox_for
from mantik.delivery.records import RunUpdate
from mantik.delivery.rest import MlflowApi, RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mantik.delivery.outbox import Outbox
    from mantik.delivery.overlay import RunWrites
    from mantik.delivery.records import MetricItem

__all__ = ["MantikStore"]

_READ_TIMEOUT = (5.0, 5.0)
_SILENCE_SECONDS = 30.0
"""A server that did not answer a read is not asked for so long, where what is known can be answered."""

_SETTLE_SECONDS = 10.0
"""How long a read that only the server can answer waits for what was written before it."""

_KNOWN_RUNS = 1000
_KNOWN_KEYS = 10_000
_LARGEST = 2**63 - 1
_OPEN_STATUSES = frozenset({"RUNNING", "SCHEDULED"})


class MantikStore(RestStore):
    """The store for the claimed platform.

    A training reads its own writes: runs and metric histories are answered as if everything had arrived. Any thread and
    any forked child may call.

    Args:
        get_host_creds: MLflow's means to find out how to reach the server.
        uri: The tracking URI.
    """

    def __init__(self, get_host_creds: Callable[[], Any], uri: str) -> None:
        super().__init__(get_host_creds)
        self._uri = uri
        self._runs: dict[str, Run] = {}
        self._local = threading.local()
        self._sound_keys: set[str] = set()
        self._silent_until = 0.0

    # What training writes.

    def log_metric(self, run_id: str, metric: Metric) -> None:
        """Record one point of a metric."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            super().log_metric(run_id, metric)
            return
        outbox.record_batch(run_id, [self._item(metric)], (), ())

    def log_param(self, run_id: str, param: Param) -> None:
        """Record a param."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            super().log_param(run_id, param)
            return
        _validate_param(param.key, param.value)
        outbox.record_batch(run_id, (), [[param.key, str(param.value)]], ())

    def set_tag(self, run_id: str, tag: RunTag) -> None:
        """Record a tag."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            super().set_tag(run_id, tag)
            return
        _validate_tag(tag.key, tag.value)
        outbox.record_batch(run_id, (), (), [[tag.key, str(tag.value)]])

    def log_batch(
        self, run_id: str, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
    ) -> None:
        """Record metrics, params and tags, any number of them."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            super().log_batch(run_id, metrics, params, tags)
            return
        items = [self._item(metric) for metric in metrics]
        for param in params:
            _validate_param(param.key, param.value)
        for tag in tags:
            _validate_tag(tag.key, tag.value)
        outbox.record_batch(
            run_id,
            items,
            [[param.key, str(param.value)] for param in params],
            [[tag.key, str(tag.value)] for tag in tags],
        )

    def log_metric_async(self, run_id: str, metric: Metric) -> RunOperations:
        """Record one point of a metric; it is on disk already when the operation is returned."""
        self.log_metric(run_id, metric)
        return _done()

    def log_param_async(self, run_id: str, param: Param) -> RunOperations:
        """Record a param; it is on disk already when the operation is returned."""
        self.log_param(run_id, param)
        return _done()

    def set_tag_async(self, run_id: str, tag: RunTag) -> RunOperations:
        """Record a tag; it is on disk already when the operation is returned."""
        self.set_tag(run_id, tag)
        return _done()

    def log_batch_async(
        self, run_id: str, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
    ) -> RunOperations:
        """Record metrics, params and tags; they are on disk already when the operation is returned."""
        self.log_batch(run_id, metrics, params, tags)
        return _done()

    def update_run_info(
        self, run_id: str, run_status: int | None, end_time: int | None, run_name: str | None
    ) -> RunInfo:
        """Record a run's status, end and name."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            return super().update_run_info(run_id, run_status, end_time, run_name)
        status = None if run_status is None else RunStatus.to_string(run_status)
        if status in _OPEN_STATUSES:
            outbox.note_open(run_id)
        outbox.record_update(RunUpdate(run_id, status, end_time, run_name))
        if status is not None and status not in _OPEN_STATUSES:
            outbox.note_closed(run_id)
        known = self._runs.get(run_id)
        writes = outbox.overlay.writes(run_id)
        if known is None or writes is None:
            return self.get_run(run_id).info
        return _merged(known, writes).info

    # What training reads.

    def create_run(  # MLflow's signature
        self, experiment_id: str, user_id: str, start_time: int, tags: list[RunTag], run_name: str
    ) -> Run:
        """Create a run on the server."""
        run: Run = super().create_run(experiment_id, user_id, start_time, tags, run_name)
        outbox = outbox_for(self._uri)
        if outbox is not None:
            outbox.note_open(run.info.run_id)
            self._know(run)
        return run

    def get_run(self, run_id: str) -> Run:
        """Return a run as if everything that was recorded for it had arrived."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            return super().get_run(run_id)
        # Asked for before the server is: what arrives in between is then at worst in both.
        writes = outbox.overlay.writes(run_id)
        run = self._base_run(outbox, run_id)
        return run if writes is None else _merged(run, writes)

    def get_metric_history(
        self, run_id: str, metric_key: str, max_results: int | None = None, page_token: str | None = None
    ) -> PagedList[Metric]:
        """Return all points of a metric as if everything that was recorded had arrived."""
        outbox = outbox_for(self._uri)
        if outbox is None or page_token or self._settle(outbox):
            return super().get_metric_history(run_id, metric_key, max_results, page_token)
        # It could not all be delivered: what waits is added, on one page.
        waiting = [_metric(item) for item in waiting_points(outbox.outgoing, run_id, metric_key)]
        arrived = [] if outbox.worker.problem is not None else self._arrived_points(run_id, metric_key)
        known = {(point.step, point.timestamp, point.value) for point in arrived}
        new = [point for point in waiting if (point.step, point.timestamp, point.value) not in known]
        return PagedList([*arrived, *new], None)

    def _arrived_points(self, run_id: str, metric_key: str) -> list[Metric]:
        points: list[Metric] = []
        token: str | None = None
        while True:
            page = super().get_metric_history(run_id, metric_key, None, token)
            points += page
            token = getattr(page, "token", None)
            if not token:
                return points

    def _search_runs(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # passed through
        """Search on the server, after what was written here has arrived."""
        self._settle(outbox_for(self._uri))
        return super()._search_runs(*args, **kwargs)

    def delete_tag(self, run_id: str, key: str) -> None:
        """Delete a tag on the server, after what was written here has arrived."""
        self._settle(outbox_for(self._uri))
        super().delete_tag(run_id, key)

    def delete_run(self, run_id: str) -> None:
        """Delete a run on the server, after what was written here has arrived."""
        self._settle(outbox_for(self._uri))
        super().delete_run(run_id)
        self._runs.pop(run_id, None)

    def _item(self, metric: Metric) -> MetricItem:
        key, value, timestamp, step = metric.key, metric.value, metric.timestamp, metric.step
        if not (
            key in self._sound_keys
            and type(value) is float
            and type(step) is int
            and -_LARGEST <= step <= _LARGEST
            and type(timestamp) is int
            and 0 <= timestamp <= _LARGEST
        ):
            _validate_metric(key, value, timestamp, step)
            # numpy's and other numbers: as what they are to MLflow.
            value, timestamp, step = float(value), int(timestamp), int(step)
            if max(abs(step), timestamp) > _LARGEST:
                # The server would drop it in silence, and with it whatever comes after it in the same request.
                raise MlflowException(
                    f"Step {step} or time {timestamp} of the metric {key!r} is no 64-bit number.",
                    error_code=INVALID_PARAMETER_VALUE,
                )
            # Names are few; where they are not, memory stays bounded.
            if len(self._sound_keys) < _KNOWN_KEYS:
                self._sound_keys.add(key)
        # MLflow 2 has none of the three.
        more = (
            getattr(metric, "model_id", None),
            getattr(metric, "dataset_name", None),
            getattr(metric, "dataset_digest", None),
        )
        return [key, value, timestamp, step] if more == (None, None, None) else [key, value, timestamp, step, *more]

    def _settle(self, outbox: Outbox | None) -> bool:
        """Wait until what was written is on the server; tell whether it is."""
        return outbox is not None and outbox.flush(_SETTLE_SECONDS, give_up_when_down=True)

    def _base_run(self, outbox: Outbox, run_id: str) -> Run:
        """Return a run as the server has it, or as it was last seen where the server cannot be asked."""
        known = self._runs.get(run_id)
        if known is not None and (outbox.worker.problem is not None or time.monotonic() < self._silent_until):
            return known
        try:
            content = self._api(outbox).call("GET", "runs/get", {"run_id": run_id}, timeout=_READ_TIMEOUT)
        except RefusedError as error:
            raise RestException({"error_code": error.code, "message": str(error)}) from None
        except UnavailableError:
            self._silent_until = time.monotonic() + _SILENCE_SECONDS
            if known is not None:
                return known
            run: Run = super().get_run(run_id)
        else:
            answer = GetRun.Response()
            parse_dict(content, answer)
            run = Run.from_proto(answer.run)
        self._know(run)
        return run

    def _know(self, run: Run) -> None:
        if len(self._runs) >= _KNOWN_RUNS:
            # As a whole, in one step: other threads may be looking something up.
            self._runs = {}
        self._runs[run.info.run_id] = run

    def _api(self, outbox: Outbox) -> MlflowApi:
        """Return this thread's connection for reads."""
        api: MlflowApi | None = getattr(self._local, "api", None)
        if api is None or self._local.outbox is not outbox:
            api = self._local.api = MlflowApi(outbox.uri, outbox.auth)
            self._local.outbox = outbox
        return api


def _done() -> RunOperations:
    finished: Future[None] = Future()
    finished.set_result(None)
    return RunOperations([finished])


def _metric(item: MetricItem) -> Metric:
    return Metric(item[0], item[1], item[2], item[3])


def _merged(run: Run, writes: RunWrites) -> Run:
    info, data = run.info, run.data
    metrics = {metric.key: metric for metric in data._metric_objs}  # noqa: SLF001  # with step and time
    for key, item in writes.metrics.items():
        known = metrics.get(key)
        if known is None or (item[3], item[2]) >= (known.step, known.timestamp):
            metrics[key] = _metric(item)
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
    return Run(RunInfo.from_proto(message), merged_data, run.inputs, **_outputs(run))


def _outputs(run: Run) -> dict[str, Any]:
    """Return what MLflow 3 adds to a run."""
    outputs = getattr(run, "outputs", None)
    return {} if outputs is None else {"run_outputs": outputs}
