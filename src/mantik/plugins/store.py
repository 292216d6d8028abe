"""MLflow's REST store with a journal in front of its writes: a call costs microseconds, and no outage reaches training.

What only the server can answer (searches, deletions, administration) goes straight to it, and says at once where it
cannot be asked.
"""

from __future__ import annotations

import base64
import inspect
import json
from typing import TYPE_CHECKING, Any

from mlflow.protos import service_pb2
from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.proto_json_utils import message_to_json

from mantik.delivery.compatibility import gives_spans, takes_spans
from mantik.delivery.records import Call
from mantik.delivery.registry import outbox_for
from mantik.plugins.model_store import ModelStore

if TYPE_CHECKING:
    from mlflow.entities import Span, TraceInfo

__all__ = ["MantikStore"]

_MOST_SPAN_BYTES = 32 * 1024 * 1024
"""Spans are recorded in base64, and a record holds 64 MiB."""


class MantikStore(ModelStore):
    """The store for the claimed platform.

    A training reads its own writes: runs, models and metric histories are answered as if everything had arrived. Any
    thread and any forked child may call.

    Args:
        get_host_creds: MLflow's means to find out how to reach the server.
        uri: The tracking URI.
    """

    def start_trace(self, *args: Any, **options: Any) -> TraceInfo:  # noqa: ANN401  # in MLflow 2 they are others
        """Record a trace."""
        outbox = outbox_for(self._uri)
        if outbox is None or not _traces_come_whole() or not takes_spans(outbox.uri):
            # MLflow 2 asks the server for the id of a trace, and nothing can be recorded without one. A server from
            # before spans may give a trace another id than MLflow 3 did.
            return super().start_trace(*args, **options)
        trace_info: TraceInfo = options["trace_info"] if "trace_info" in options else args[0]
        from mlflow.entities import Trace, TraceData
        from mlflow.entities import TraceInfo as Info

        message = service_pb2.StartTraceV3(trace=Trace(info=trace_info, data=TraceData(spans=[])).to_proto())
        outbox.record_call(Call("trace", trace_info.trace_id, json.loads(message_to_json(message))))
        answer = Info.from_proto(message.trace.trace_info)
        root = self._experiment_root(outbox, str(trace_info.experiment_id))
        # What the server would add: where attachments go, and where the spans are, so that nobody uploads them as an
        # artifact too.
        answer.tags["mlflow.artifactLocation"] = f"{root}/traces/{trace_info.trace_id}/artifacts"
        if gives_spans(outbox.uri):
            answer.tags["mlflow.trace.spansLocation"] = "TRACKING_STORE"
        return answer

    def log_spans(self, location: str, spans: list[Span], *args: Any, **options: Any) -> list[Span]:  # noqa: ANN401
        """Record spans of traces."""
        outbox = outbox_for(self._uri)
        if outbox is None or not spans or not takes_spans(outbox.uri):
            # By the version of the server MLflow decides itself what it does instead.
            return super().log_spans(location, spans, *args, **options)
        from mlflow.tracing.utils.otlp import resource_to_otel_proto
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        request = ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        resource.resource.CopyFrom(resource_to_otel_proto(getattr(spans[0]._span, "resource", None)))  # noqa: SLF001
        resource.scope_spans.add().spans.extend(span.to_otel_proto() for span in spans)
        content = request.SerializeToString()
        if len(content) > _MOST_SPAN_BYTES:
            return super().log_spans(location, spans, *args, **options)
        outbox.record_spans(location, base64.b64encode(content).decode())
        return spans

    def set_trace_tag(self, trace_id: str, key: str, value: str) -> None:
        """Record a tag of a trace."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            super().set_trace_tag(trace_id, key, value)
            return
        outbox.record_call(Call("trace-tag", trace_id, {"key": key, "value": str(value)}))

    def link_traces_to_run(self, trace_ids: list[str], run_id: str) -> None:
        """Record which traces belong to a run."""
        outbox = outbox_for(self._uri)
        if outbox is None:
            super().link_traces_to_run(trace_ids, run_id)
            return
        outbox.record_call(Call("traces-of-run", run_id, {"trace_ids": list(trace_ids), "run_id": run_id}))


def _traces_come_whole() -> bool:
    """Tell whether MLflow makes up the ids of traces itself: since 3."""
    start = getattr(RestStore, "start_trace", None)
    return start is not None and "trace_info" in inspect.signature(start).parameters
