"""Traces: recorded on disk like everything else, whole on the platform later."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mlflow
import pytest

import mantik
from mantik.testing import FaultProxy, LoseAcknowledgement, Refuse, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mantik.testing import Platform

FINISH_SECONDS = 30.0


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """Leave no run active, no model chosen, and no tracing that remembers where it went."""
    yield
    mlflow.tracing.reset()
    mlflow.end_run()
    mlflow.clear_active_model()


def trace_something(name: str) -> str:
    """Make a trace with two spans and return its id once MLflow has handed it over."""
    with mlflow.start_span(name, span_type="CHAIN") as span:
        span.set_inputs({"question": 1})
        with mlflow.start_span("inner") as inner:
            inner.set_attribute("depth", 2)
        span.set_outputs({"answer": 2})
    mlflow.flush_trace_async_logging()
    return str(span.trace_id)


def held_trace(platform: Platform, trace_id: str) -> Any:  # noqa: ANN401  # JSON
    """Return a trace as the platform holds it."""
    query = {"trace_id": trace_id, "allow_partial": "true"}
    answer = platform.read_back._send("GET", "/api/3.0/mlflow/traces/get", query)  # noqa: SLF001  # it has the login
    return json.loads(answer.content)["trace"]


def spans_of(trace: Any) -> list[str]:  # noqa: ANN401  # JSON
    """Return the names of a trace's spans."""
    return sorted(span["name"] for span in trace["spans"])


def test_a_trace_of_an_outage_arrives_whole(tracked: FaultProxy, mantik_platform: Platform) -> None:
    """Spans, inputs, outputs, tags and the provisional run of a trace are on the platform afterwards."""
    outage = tracked.fault(Refuse())
    # Asked for something that can be answered without it, so that the absence is known.
    mlflow.get_experiment("0")
    with mlflow.start_run() as run:
        trace_id = trace_something("away")
        mlflow.set_trace_tag(trace_id, "judged", "fine")
        model = mlflow.initialize_logged_model(name="traced")
        mlflow.set_active_model(model_id=model.model_id)
        of_model = trace_something("of a model")
    outage.clear()
    assert mantik.flush(FINISH_SECONDS)
    trace = held_trace(mantik_platform, trace_id)
    assert spans_of(trace) == ["away", "inner"]
    info = trace["trace_info"]
    assert info["state"] == "OK"
    assert info["tags"]["judged"] == "fine"
    (held,) = [one for one in mantik_platform.read_back.runs("0") if one.name == run.info.run_name]
    assert info["trace_metadata"]["mlflow.sourceRun"] == held.run_id
    (held_model,) = [one for one in mantik_platform.read_back.logged_models("0") if one.name == "traced"]
    second = held_trace(mantik_platform, of_model)
    assert second["trace_info"]["trace_metadata"]["mlflow.modelId"] == held_model.model_id
    assert "local-" not in json.dumps([trace, second])


@pytest.mark.parametrize(
    "fault", [Refuse(), LoseAcknowledgement(), Status(503)], ids=["dropped", "unacknowledged", "503"]
)
@pytest.mark.parametrize("path", ["/v1/traces", "/api/3.0/mlflow/traces"])
def test_a_trace_is_held_once_whatever_was_sent_twice(
    tracked: FaultProxy, mantik_platform: Platform, fault: Refuse, path: str
) -> None:
    """A request with spans, or with the trace, that meets a fault is repeated, and changes nothing twice."""
    switch = tracked.fault(fault, path=path, method="POST", times=1)
    trace_id = trace_something("again")
    assert mantik.flush(FINISH_SECONDS)
    assert switch.hits == 1
    assert spans_of(held_trace(mantik_platform, trace_id)) == ["again", "inner"]


def test_a_trace_is_read_back_where_the_platform_is_there(tracked: FaultProxy) -> None:
    """`get_trace` and a search right after the trace find it; during an outage they say what they need."""
    trace_id = trace_something("read")
    trace = mlflow.get_trace(trace_id)
    assert trace is not None
    assert sorted(span.name for span in trace.data.spans) == ["inner", "read"]
    found = mlflow.search_traces(locations=["0"], return_type="list")
    assert trace_id in [one.info.trace_id for one in found]
    tracked.fault(Refuse())
    mlflow.get_experiment("0")
    with pytest.raises(mlflow.MlflowException, match="needs the platform"):
        mlflow.search_traces(locations=["0"], return_type="list")
    with pytest.raises(mlflow.MlflowException, match="needs the platform"):
        mlflow.MlflowClient().delete_traces("0", trace_ids=[trace_id])


def test_traces_are_durable_from_the_claim_on(
    mantik_environment: dict[str, str], mantik_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tracing that was used before `init_tracking()` goes through the journal afterwards, and waits for nobody."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mantik_proxy.url)
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "mantik")
    trace_something("before")
    mantik.init_tracking()
    mantik_proxy.fault(Refuse())
    trace_something("after")
    assert mantik.receipt().others.waiting.others
    mantik_proxy.clear()
    assert mantik.flush(FINISH_SECONDS)
    mlflow.set_tracking_uri(None)
