"""Runs and what is logged to them: on disk before the call returns, and read as if everything had arrived."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric, Param, Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE
from mlflow.protos.service_pb2 import CreateRun
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.async_logging.run_operations import RunOperations
from mlflow.utils.proto_json_utils import message_to_json
from mlflow.utils.validation import _validate_param, _validate_run_id, _validate_tag

from mantik.delivery import aside
from mantik.delivery.creation import OPERATION_TAG
from mantik.delivery.ending import true_status, watch
from mantik.delivery.history import waiting_records
from mantik.delivery.ids import Identity, UnresolvedError, is_provisional, new_id, operation_of
from mantik.delivery.overlay import writes_in
from mantik.delivery.records import RunUpdate
from mantik.delivery.registry import outbox_for
from mantik.delivery.requests import assumed_root
from mantik.delivery.rest import MlflowApi, RefusedError, UnavailableError
from mantik.delivery.spool import outgoing_in
from mantik.plugins.asking import SETTLE_SECONDS, prepared
from mantik.plugins.entities import merged_run, metric_of, points_in, provisional_run, run_in, stub_run
from mantik.plugins.points import PointFormatter
from mantik.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlflow.entities import RunInfo

    from mantik.delivery.outbox import Outbox

__all__ = ["ASK_TIMEOUT", "RunStore", "rest_error"]

ASK_TIMEOUT = (5.0, 5.0)
"""Seconds to connect and to answer, for what training waits for."""

_HISTORY_TIMEOUT = (5.0, 30.0)
"""The same for the points of a metric, which may be many."""

_BEHIND_SECONDS = 60.0
"""How long a platform that did not catch up in time is not waited for again."""

_KNOWN_RUNS = 1000
_KNOWN_IDS = 10_000
_OPEN_STATUSES = frozenset({"RUNNING", "SCHEDULED"})
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,255}")


class RunStore(RestStore):
    """The part of the store that is about runs.

    Args:
        get_host_creds: MLflow's means to find out how to reach the server.
        uri: The tracking URI.
    """

    def __init__(self, get_host_creds: Callable[[], Any], uri: str) -> None:
        super().__init__(get_host_creds)
        self._uri = uri
        self._runs: dict[str, Run] = {}
        self._local = threading.local()
        self._points = PointFormatter()
        self._plain_ids: set[str] = set()
        self._restored: set[str] = set()
        self._behind_until = 0.0

    # What training writes.

    def log_metric(self, run_id: str, metric: Metric) -> None:
        """Record one point of a metric."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            super().log_metric(run_id, metric)
            return
        self._record_points(outbox, run_id, (metric,))

    def log_param(self, run_id: str, param: Param) -> None:
        """Record a param."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            super().log_param(run_id, param)
            return
        self._record(outbox, run_id, (), (param,), ())

    def set_tag(self, run_id: str, tag: RunTag) -> None:
        """Record a tag."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            super().set_tag(run_id, tag)
            return
        self._record(outbox, run_id, (), (), (tag,))

    def log_batch(
        self, run_id: str, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
    ) -> None:
        """Record metrics, params and tags, any number of them."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            super().log_batch(run_id, metrics, params, tags)
        elif params or tags:
            self._record(outbox, run_id, metrics, params, tags)
        elif metrics:
            self._record_points(outbox, run_id, metrics)

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
        self._admit(run_id)
        status = true_status(None if run_status is None else RunStatus.to_string(run_status))
        if status in _OPEN_STATUSES:
            self._note_open(outbox, run_id)
        elif status is not None and outbox.is_handed_over(run_id):
            # Another process goes on with it, and MLflow ends at exit whatever is open here.
            if run_name is not None:
                outbox.record_update(RunUpdate(run_id, None, None, run_name))
            return self._current_run(outbox, run_id).info
        known = self._runs.get(run_id)
        if end_time is not None and known is not None:
            # The clock may have been set back.
            end_time = max(end_time, known.info.start_time)
        recorded = outbox.record_update(RunUpdate(run_id, status, end_time, run_name))
        if recorded and status is not None and status not in _OPEN_STATUSES:
            # Where the disk did not take it, `mantik sync` ends the run as one that was left open.
            outbox.note_closed(run_id)
            aside.run_ended(run_id)
        writes = outbox.overlay.writes(run_id)
        if known is None or writes is None:
            return self._current_run(outbox, run_id).info
        return merged_run(known, writes).info

    def create_run(self, experiment_id: str, user_id: str, start_time: int, tags: list[RunTag], run_name: str) -> Run:
        """Create a run on the server, or here where the server does not answer in a few seconds."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            return super().create_run(experiment_id, user_id, start_time, tags, run_name)
        local_id = new_id("run")
        message = CreateRun(
            experiment_id=str(experiment_id),
            user_id=user_id,
            start_time=start_time,
            tags=[tag.to_proto() for tag in [*tags, RunTag(OPERATION_TAG, operation_of(local_id))]],
            run_name=run_name,
        )
        body = json.loads(message_to_json(message))
        content, asked_at = self._ask(outbox, "runs/create", body)
        if content is not None:
            run = run_in(content)
            self._note_open(outbox, run.info.run_id)
        else:
            # Before the record that creates it: whoever is killed in between leaves no run open for ever.
            self._note_open(outbox, local_id)
            run = self._begin_here(outbox, local_id, body, asked_at)
        self._know(run)
        return run

    # What training reads.

    def get_run(self, run_id: str) -> Run:
        """Return a run as if everything that was recorded for it had arrived."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            return super().get_run(run_id)
        if sys._getframe(1).f_code.co_name != "_log_url":  # noqa: SLF001  # nothing else tells
            aside.wait_for(run_id)
        elif run_id in self._runs and not is_provisional(run_id):
            # MLflow reads a run that it is about to end, to print its address: that takes no round trip.
            return self._runs[run_id]
        return self._current_run(outbox, run_id)

    def _search_runs(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401  # as the installed MLflow has them
        """Search runs, as MLflow's stores do, when what is still to be written of them is written."""
        aside.wait_for()
        return super()._search_runs(*args, **options)

    def _current_run(self, outbox: Outbox, run_id: str) -> Run:
        # Asked for before the server is: what arrives in between is then at worst in both.
        writes = outbox.overlay.writes(run_id)
        if writes is None and is_provisional(run_id):
            self._restore(outbox, run_id)
            writes = outbox.overlay.writes(run_id)
        run = self._base_run(outbox, run_id)
        return run if writes is None else merged_run(run, writes)

    def get_metric_history(
        self, run_id: str, metric_key: str, max_results: int | None = None, page_token: str | None = None
    ) -> PagedList[Metric]:
        """Return all points of a metric as if everything that was recorded had arrived."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            return super().get_metric_history(run_id, metric_key, max_results, page_token)
        aside.wait_for(run_id)
        if page_token or self._settle(outbox):
            try:
                return self._points_page(outbox, run_id, metric_key, max_results, page_token)
            except UnavailableError as error:
                # To log a model reads histories, and must not fail because the platform has gone a moment ago.
                if page_token or outbox.strict:
                    raise MlflowException(
                        f"The platform at {outbox.uri} cannot be asked: {error}.", error_code=TEMPORARILY_UNAVAILABLE
                    ) from None
        # It could not all be delivered: what waits is added, on one page.
        try:
            waiting = [metric_of(item) for item in outbox.history.points(run_id, metric_key)]
        except OSError:
            waiting = []
        arrived = [] if outbox.is_down else self._arrived_points(outbox, run_id, metric_key)
        known = {(point.step, point.timestamp, point.value) for point in arrived}
        new = [point for point in waiting if (point.step, point.timestamp, point.value) not in known]
        return PagedList([*arrived, *new], None)

    # What only the server can do.

    def _call_endpoint(self, api: Any, json_body: str | None = None, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Ask the server, after what was written here has arrived, and say at once if it cannot be reached."""
        outbox = outbox_for(self._uri)
        if outbox is not None and outbox.is_disabled:
            # Found is nothing, and done is nothing.
            return options.get("response_proto") or api.Response()
        if outbox is not None:
            json_body, options = prepared(outbox, api.DESCRIPTOR.name, json_body, options)
        return super()._call_endpoint(api, json_body, *args, **options)

    def _ask(self, outbox: Outbox, path: str, body: dict[str, Any]) -> tuple[dict[str, Any] | None, float | None]:
        """Ask the server to create something, where it is there and has what the request speaks of.

        Returns:
            The answer, or None; and when the server was asked without an answer, where it may have done it.

        Raises:
            RestException: The server refused.
            MlflowException: It cannot be asked, and the settings are strict.
        """
        if outbox.is_down:
            return None, None
        try:
            content = outbox.identities.translate_all(body)
            return self._api(outbox).call("POST", path, content, timeout=ASK_TIMEOUT), None
        except UnresolvedError:
            return None, None
        except RefusedError as error:
            raise rest_error(error) from None
        except UnavailableError as error:
            if error.status == 404 and outbox.answers():  # noqa: PLR2004
                # An older server that lacks this alone: it is no outage, and delivery will put aside what it refuses.
                if outbox.strict:
                    message = f"the platform's MLflow has no {path}"
                    raise rest_error(RefusedError(message, code="ENDPOINT_NOT_FOUND")) from None
                return None, None
            self._note_down(outbox, error)
            return None, time.time() if error.unanswered else None

    def _note_down(self, outbox: Outbox, error: UnavailableError) -> None:
        """Remember that the server did not answer.

        Raises:
            MlflowException: The settings are strict.
        """
        if outbox.strict:
            raise MlflowException(
                f"The platform at {outbox.uri} cannot be asked: {error}.", error_code=TEMPORARILY_UNAVAILABLE
            ) from None
        outbox.note_down()

    def _begin_here(self, outbox: Outbox, local_id: str, body: dict[str, Any], asked_at: float | None) -> Run:
        from mlflow.utils.name_utils import _generate_random_name

        tags = {tag["key"]: tag.get("value", "") for tag in body["tags"]}
        name = body.get("run_name") or tags.get("mlflow.runName") or _generate_random_name()
        tags["mlflow.runName"] = body["run_name"] = name
        body["tags"] = [{"key": key, "value": value} for key, value in tags.items()]
        root = f"{self._experiment_root(outbox, body['experiment_id'])}/{local_id}/artifacts"
        identity = Identity(local_id, "run", root, body)
        outbox.record_create(identity, asked_at)
        # MLflow would print a link with the provisional id, which leads nowhere. The receipt has the right one.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        return provisional_run(identity)

    def _experiment_root(self, outbox: Outbox, experiment_id: str) -> str:  # noqa: ARG002  # overridden
        return f"mlflow-artifacts:/{experiment_id}"

    def _note_open(self, outbox: Outbox, run_id: str) -> None:
        watch()
        outbox.note_open(run_id)

    def _record(
        self,
        outbox: Outbox,
        run_id: str,
        metrics: Sequence[Metric],
        params: Sequence[Param],
        tags: Sequence[RunTag],
    ) -> None:
        if run_id not in self._plain_ids:
            self._admit(run_id)
        items, _ = self._points.formatted(metrics)
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

    def _record_points(self, outbox: Outbox, run_id: str, metrics: Sequence[Metric]) -> None:
        if run_id not in self._plain_ids:
            self._admit(run_id)
        items, texts = self._points.formatted(metrics)
        outbox.record_points(run_id, items, texts)

    def _admit(self, run_id: str) -> None:
        """Check a run's id as MLflow does, once."""
        if run_id in self._plain_ids:
            return
        _validate_run_id(run_id)
        if _PLAIN.fullmatch(run_id) is None:
            raise MlflowException(f"Invalid run id: {run_id!r}", error_code=INVALID_PARAMETER_VALUE)
        if len(self._plain_ids) >= _KNOWN_IDS:
            self._plain_ids = set()
        self._plain_ids.add(run_id)

    def _settle(self, outbox: Outbox) -> bool:
        """Wait until what was written is on the server; tell whether it is."""
        started = time.monotonic()
        # To log a model reads the history of each metric: a platform that is far behind is waited for once, not
        # each time.
        wait = SETTLE_SECONDS if started >= self._behind_until else 0.0
        if outbox.flush(wait, give_up_when_down=True):
            return True
        if wait and time.monotonic() - started >= wait:
            self._behind_until = time.monotonic() + _BEHIND_SECONDS
        return False

    def _server_id(self, outbox: Outbox, any_id: str) -> str:
        try:
            return outbox.identities.server_id(any_id)
        except UnresolvedError:
            return any_id

    def _arrived_points(self, outbox: Outbox, run_id: str, metric_key: str) -> list[Metric]:
        if is_provisional(self._server_id(outbox, run_id)):
            return []
        points: list[Metric] = []
        token: str | None = None
        while True:
            try:
                page = self._points_page(outbox, run_id, metric_key, None, token)
            except UnavailableError:
                return points
            points += page
            token = page.token
            if not token:
                return points

    def _points_page(
        self, outbox: Outbox, run_id: str, metric_key: str, max_results: int | None, token: str | None
    ) -> PagedList[Metric]:
        """Ask the server for points, once: MLflow itself would try for minutes, and training waits for this.

        Raises:
            RestException: The server refused.
            UnavailableError: It cannot be asked now.
        """
        query = {"run_id": self._server_id(outbox, run_id), "metric_key": metric_key}
        query |= {"max_results": str(max_results)} if max_results is not None else {}
        query |= {"page_token": token} if token else {}
        try:
            content = self._api(outbox).call("GET", "metrics/get-history", query, timeout=_HISTORY_TIMEOUT)
        except RefusedError as error:
            raise rest_error(error) from None
        except UnavailableError:
            outbox.note_down()
            raise
        return points_in(content)

    def _base_run(self, outbox: Outbox, run_id: str) -> Run:
        """Return a run as the server has it, or as it was last seen where the server cannot be asked.

        Raises:
            RestException: The server has no such run.
            MlflowException: Nobody knows the provisional id.
        """
        known = self._runs.get(run_id)
        server_id, identity = run_id, None
        if is_provisional(run_id):
            identity = outbox.identities.get(run_id)
            if identity is None:
                raise MlflowException(
                    f"The run {run_id} began without the platform, and its records are not in {outbox.spool}: set "
                    f"MANTIK_SPOOL to the spool of the process that began it, or use the id that the platform gave it.",
                    error_code=RESOURCE_DOES_NOT_EXIST,
                )
            if identity.server_id is None:
                return provisional_run(identity)
            server_id = identity.server_id
        if known is not None and outbox.is_down:
            return known
        if not outbox.is_down:
            try:
                content = self._api(outbox).call("GET", "runs/get", {"run_id": server_id}, timeout=ASK_TIMEOUT)
            except RefusedError as error:
                raise rest_error(error) from None
            except UnavailableError:
                outbox.note_down()
            else:
                run = run_in(content)
                self._know(run)
                return run
        return known or _unseen_run(run_id, identity)

    def _restore(self, outbox: Outbox, run_id: str) -> None:
        """Read from the spool what other processes recorded for a run that the server does not have yet."""
        identity = outbox.identities.get(run_id)
        if run_id in self._restored or identity is None or identity.server_id is not None:
            return
        self._restored.add(run_id)
        records = (
            record
            for outgoing in outgoing_in(outbox.spool)
            for lane in outgoing.lanes
            for _, record in waiting_records(lane, tail="open", about=run_id.encode())
        )
        try:
            writes = writes_in(records, run_id)
        except OSError:
            return
        if writes is not None:
            outbox.overlay.restore(run_id, writes)

    def _know(self, run: Run) -> None:
        if len(self._runs) >= _KNOWN_RUNS:
            # As a whole, in one step: other threads may be looking something up.
            self._runs = {}
        self._runs[run.info.run_id] = run
        outbox = outbox_for(self._uri)
        if outbox is not None:
            outbox.introduce(run.info.run_id, run.info.run_name, run.info.experiment_id)

    def _api(self, outbox: Outbox) -> MlflowApi:
        """Return this thread's connection for what training waits for."""
        api: MlflowApi | None = getattr(self._local, "api", None)
        if api is None or self._local.outbox is not outbox:
            api = self._local.api = MlflowApi(outbox.uri, outbox.auth)
            self._local.outbox = outbox
        return api


def _unseen_run(run_id: str, identity: Identity | None) -> Run:
    """Return what can be said of a run that the server has, when the server cannot be asked about it."""
    if identity is not None:
        # What began without the server and was sent by somebody else, such as the last attempt of a job: as it began.
        return provisional_run(identity)
    # Such as the one that a job was given.
    experiment_id = Settings.from_environment().experiment_id or "0"
    return stub_run(run_id, experiment_id, assumed_root(run_id))


def rest_error(error: RefusedError) -> RestException:
    """Return MLflow's own error for a refusal."""
    return RestException({"error_code": error.code or "INTERNAL_ERROR", "message": str(error)})


def _done() -> RunOperations:
    finished: Future[None] = Future()
    finished.set_result(None)
    return RunOperations([finished])
