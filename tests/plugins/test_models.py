"""Logged models and the registry: with the platform, without it, and with it again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pytest
from mlflow.entities import LoggedModelStatus, Metric
from sklearn.linear_model import LinearRegression

import mantik
from mantik.delivery.ids import is_provisional
from mantik.testing import Delay, FaultProxy, LoseAcknowledgement, Refuse, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow.models.model import ModelInfo

    from mantik.testing import Platform
    from mantik.testing.holdings import LoggedModel

FILES = "/api/2.0/mlflow-artifacts/artifacts"
FINISH_SECONDS = 30.0
ROWS = np.array([[1.0, 2.0], [3.0, 5.0], [4.0, 4.0]])


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """Leave no run active, and no model chosen."""
    yield
    mlflow.end_run()
    mlflow.clear_active_model()


def log_line(name: str, **options: Any) -> ModelInfo:  # noqa: ANN401  # MLflow's
    """Log a small model, without the seconds that MLflow spends on finding out what it needs."""
    model = LinearRegression().fit(ROWS, ROWS.sum(axis=1))
    return mlflow.sklearn.log_model(
        model, name=name, pip_requirements=[], serialization_format="cloudpickle", **options
    )


def notice() -> None:
    """Ask the platform for something that can be answered without it, so that its absence is known."""
    mlflow.get_experiment("0")


def held_model(platform: Platform, name: str) -> LoggedModel:
    """Return the one model of a name that the platform holds."""
    (found,) = [model for model in platform.read_back.logged_models("0") if model.name == name]
    return found


def versions(platform: Platform, name: str) -> list[str]:
    """Return the status of each version of a registered model."""
    found = [model for model in platform.read_back.registered_models() if model.name == name]
    return [version.status for model in found for version in model.versions]


def test_a_model_is_registered_once_its_files_are_there(tracked: FaultProxy, mantik_platform: Platform) -> None:
    """`registered_model_name` waits for a slow upload, and what is registered can be loaded from the platform."""
    with mlflow.start_run():
        slow = tracked.fault(Delay(1.0), path=FILES, method="PUT")
        log_line("registered", registered_model_name="registered at once")
        assert slow.hits
        slow.clear()
    assert versions(mantik_platform, "registered at once") == ["READY"]
    model = mlflow.pyfunc.load_model("models:/registered at once/1")
    assert model.predict(ROWS) == pytest.approx(ROWS.sum(axis=1))


def test_registering_without_the_platform_is_refused_at_once_and_loses_nothing(
    tracked: FaultProxy, mantik_platform: Platform
) -> None:
    """The error says what is missing; the model itself arrives later, and is registered then by its provisional id."""
    with mlflow.start_run():
        outage = tracked.fault(Refuse())
        began = time.monotonic()
        with pytest.raises(mlflow.MlflowException, match=r"needs the platform at .* What was logged is not affected"):
            log_line("refused", registered_model_name="registered later")
        assert time.monotonic() - began < 60
        model_id = mlflow.last_logged_model().model_id
        assert is_provisional(model_id)
        mlflow.log_metric("after", 1.0)
    outage.clear()
    assert mantik.flush(FINISH_SECONDS)
    assert held_model(mantik_platform, "refused").status == "LOGGED_MODEL_READY"
    mlflow.register_model(f"models:/{model_id}", "registered later")
    assert versions(mantik_platform, "registered later") == ["READY"]
    assert mlflow.pyfunc.load_model("models:/registered later/1").predict(ROWS) == pytest.approx(ROWS.sum(axis=1))


@pytest.mark.parametrize("away", [False, True], ids=["there", "away"])
def test_a_model_is_read_right_after_it_was_logged(
    tracked: FaultProxy, mantik_platform: Platform, *, away: bool
) -> None:
    """Params, tags, status and files of a model are what was written, at once and when they have arrived."""
    name = f"read-{away}"
    with mlflow.start_run() as run:
        if away:
            tracked.fault(Refuse())
        info = log_line(name, params={f"p{number}": number for number in range(250)}, tags={"stage": "first"})
        assert is_provisional(info.model_id) is away
        mlflow.set_logged_model_tags(info.model_id, {"stage": "second", "size": "small"})
        mlflow.log_metrics({f"m{number}": float(number) for number in range(150)}, model_id=info.model_id)
        mlflow.log_metric("loss", 0.25, step=3, model_id=info.model_id)
        read = mlflow.get_logged_model(info.model_id)
        assert read.name == name
        assert read.status == LoggedModelStatus.READY
        assert {f"p{number}": str(number) for number in range(250)}.items() <= read.params.items()
        assert {"stage": "second", "size": "small"}.items() <= read.tags.items()
        assert [output.model_id for output in outputs_of(run.info.run_id)] == [info.model_id]
        for uri in (info.model_uri, f"runs:/{run.info.run_id}/{name}"):
            assert mlflow.pyfunc.load_model(uri).predict(ROWS) == pytest.approx(ROWS.sum(axis=1))
        tracked.clear()
    assert mantik.flush(FINISH_SECONDS)
    held = held_model(mantik_platform, name)
    assert held.status == "LOGGED_MODEL_READY"
    assert held.source_run_id == run.info.run_id
    assert {f"p{number}": str(number) for number in range(250)}.items() <= held.params.items()
    assert {"stage": "second", "size": "small"}.items() <= held.tags.items()
    assert held.metrics == {"loss": 0.25, **{f"m{number}": float(number) for number in range(150)}}
    assert not is_provisional(held.model_id)


def outputs_of(run_id: str) -> list[Any]:
    """Return what a run gives out, as MLflow reads it."""
    outputs = mlflow.get_run(run_id).outputs
    return list(outputs.model_outputs) if outputs is not None else []


def test_a_model_that_fails_is_failed_on_the_platform(tracked: FaultProxy, mantik_platform: Platform) -> None:
    """A status other than ready arrives too, for a model that began without the platform and outside a run."""
    outage = tracked.fault(Refuse())
    notice()
    model = mlflow.initialize_logged_model(name="failed", model_type="agent")
    mlflow.log_model_params({"temperature": "0.5"}, model_id=model.model_id)
    mlflow.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
    assert mlflow.get_logged_model(model.model_id).status == LoggedModelStatus.FAILED
    outage.clear()
    assert mantik.flush(FINISH_SECONDS)
    held = held_model(mantik_platform, "failed")
    assert held.status == "LOGGED_MODEL_UPLOAD_FAILED"
    assert held.params == {"temperature": "0.5"}
    assert held.source_run_id == ""


def test_points_of_a_model_are_held_once_whatever_was_sent_twice(
    tracked: FaultProxy, mantik_platform: Platform
) -> None:
    """A batch with 150 metrics of a model is delivered whole when its acknowledgement is lost."""
    client = mlflow.MlflowClient()
    with mlflow.start_run() as run:
        info = log_line("twice")
        assert mantik.flush(FINISH_SECONDS)
        lost = tracked.fault(LoseAcknowledgement(), path="/api/2.0/mlflow/runs/log-batch", times=1)
        points = [Metric(f"m{number}", number / 2, 1000, 0, info.model_id) for number in range(150)]
        client.log_batch(run.info.run_id, metrics=points)
        mlflow.set_tag("after", "the points")
        assert mantik.flush(FINISH_SECONDS)
        assert lost.hits == 1
    held = mantik_platform.read_back
    assert held.run(run.info.run_id).tags["after"] == "the points"
    assert held_model(mantik_platform, "twice").metrics == {f"m{number}": number / 2 for number in range(150)}
    assert len(held.metric_history(run.info.run_id, "m77")) == 1
    assert not mantik.receipt().refused


def test_a_search_for_models_finds_the_one_logged_before_it(tracked: FaultProxy) -> None:
    """A search waits until the model is on the platform; without the platform it says that it needs it."""
    with mlflow.start_run() as run:
        info = log_line("searched")
        query = {"experiment_ids": ["0"], "filter_string": f"source_run_id = '{run.info.run_id}'"}
        found = mlflow.search_logged_models(**query, output_format="list")
        assert [model.model_id for model in found] == [info.model_id]
        tracked.fault(Refuse())
        mlflow.log_metric("after", 1.0)
        wait_until(lambda: mantik.receipt().problem, deadline=FINISH_SECONDS, what="the outage was noticed")
        with pytest.raises(mlflow.MlflowException, match="SearchLoggedModels needs the platform"):
            mlflow.search_logged_models(**query, output_format="list")
