from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import requests

from mantik.exceptions import PlatformUnreachableError, UnexpectedAnswerError
from mantik.testing import FaultProxy, Html, ReadBack, Redirect, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mantik.testing import Platform


class Writer:
    """Writes to a platform with plain REST."""

    def __init__(self, platform: Platform, session: requests.Session) -> None:
        self._url = platform.url
        self._session = session
        user = {"username": platform.username, "password": platform.password}
        login = session.post(f"{platform.url}/api/mantik/tokens/create", json=user, timeout=30)
        session.headers["Authorization"] = f"Bearer {login.json()['AccessToken']}"

    def post(self, endpoint: str, **content: object) -> dict[str, Any]:
        """Write through the tracking API."""
        answer = self._session.post(f"{self._url}/api/2.0/mlflow/{endpoint}", json=content, timeout=30)
        assert answer.status_code == 200, answer.text
        written: dict[str, Any] = answer.json()
        return written

    def put(self, path: str, content: bytes) -> None:
        """Write an artifact."""
        url = f"{self._url}/api/2.0/mlflow-artifacts/artifacts/{path}"
        answer = self._session.put(url, data=content, timeout=30)
        assert answer.status_code == 200, answer.text

    def experiment(self, name: str) -> str:
        """Create an experiment and return its id."""
        created: str = self.post("experiments/create", name=name)["experiment_id"]
        return created

    def run(self, experiment_id: str, name: str = "a run") -> str:
        """Create a run and return its id."""
        run = self.post("runs/create", experiment_id=experiment_id, run_name=name, start_time=1_700_000_000_000)
        run_id: str = run["run"]["info"]["run_id"]
        return run_id


@pytest.fixture
def writer(mantik_platform: Platform) -> Iterator[Writer]:
    """A client with a login."""
    with requests.Session() as session:
        session.trust_env = False
        yield Writer(mantik_platform, session)


@pytest.fixture
def read_back(mantik_platform: Platform) -> ReadBack:
    """What is tested here."""
    return mantik_platform.read_back


def test_an_experiment_is_read_back(writer: Writer, read_back: ReadBack) -> None:
    """By name, and among all."""
    created = writer.experiment("an experiment")

    assert read_back.experiment("an experiment").experiment_id == created
    assert {"Default", "an experiment"} <= {experiment.name for experiment in read_back.experiments()}
    with pytest.raises(LookupError, match="no such"):
        read_back.experiment("no such experiment")


def test_a_run_is_read_back_whole(writer: Writer, read_back: ReadBack) -> None:
    """Name, status, times, params, tags and the latest metrics are what was written."""
    experiment_id = writer.experiment("runs")
    run_id = writer.run(experiment_id, "first")
    writer.post(
        "runs/log-batch",
        run_id=run_id,
        params=[{"key": "lr", "value": "0.1"}, {"key": "empty", "value": ""}],
        tags=[{"key": "team", "value": "blue"}],
        metrics=[{"key": "loss", "value": 1 / step, "timestamp": 1000 * step, "step": step} for step in (1, 2, 4)],
    )
    open_run = read_back.run(run_id)
    writer.post("runs/update", run_id=run_id, status="FINISHED", end_time=1_700_000_001_234)
    run = read_back.run(run_id)

    assert (open_run.status, open_run.end_time) == ("RUNNING", None)
    assert (run.run_id, run.name, run.experiment_id) == (run_id, "first", experiment_id)
    assert (run.status, run.start_time, run.end_time) == ("FINISHED", 1_700_000_000_000, 1_700_000_001_234)
    assert run.params == {"lr": "0.1", "empty": ""}
    assert run.tags["team"] == "blue"
    assert run.metrics == {"loss": 0.25}
    assert read_back.runs("runs") == read_back.runs(experiment_id) == [run]


def test_what_is_not_there_is_said(read_back: ReadBack) -> None:
    """An unknown experiment has no runs, so that a test can wait for the first; an unknown run is an error."""
    assert read_back.runs("no such experiment") == []
    with pytest.raises(LookupError, match="0123"):
        read_back.run("0123")


def test_numbers_that_json_does_not_know_are_read_back(writer: Writer, read_back: ReadBack) -> None:
    """NaN is NaN and infinity is what the platform keeps in its place: a value no finite metric has."""
    run_id = writer.run(writer.experiment("numbers"))
    values = {"nan": "NaN", "up": "Infinity", "down": "-Infinity", "zero": 0.0}
    metrics = [{"key": key, "value": value, "timestamp": 1, "step": 0} for key, value in values.items()]
    writer.post("runs/log-batch", run_id=run_id, metrics=metrics)

    latest = read_back.run(run_id).metrics
    assert math.isnan(latest["nan"])
    assert latest["up"] > 1e308
    assert latest["down"] < -1e308
    assert latest["zero"] == 0
    assert math.isnan(read_back.metric_history(run_id, "nan")[0].value)


def test_a_history_of_many_pages_is_read_back_whole(writer: Writer, read_back: ReadBack) -> None:
    """A metric with more values than the platform gives at once comes complete and in order."""
    run_id = writer.run(writer.experiment("history"))
    points = [(step, 1000 + step, step / 2) for step in range(26_000)]
    for start in range(0, len(points), 1000):
        batch = [
            {"key": "loss", "value": value, "timestamp": timestamp, "step": step}
            for step, timestamp, value in points[start : start + 1000]
        ]
        writer.post("runs/log-batch", run_id=run_id, metrics=batch)

    assert read_back.metric_history(run_id, "loss") == points
    assert read_back.metric_history(run_id, "unknown") == []


def test_artifacts_are_listed_at_any_depth_and_read_back(writer: Writer, read_back: ReadBack) -> None:
    """Paths below a folder, with their bytes, also where a name needs quoting in a URL."""
    experiment_id = writer.experiment("artifacts")
    run_id = writer.run(experiment_id)
    base = f"{experiment_id}/{run_id}/artifacts"
    writer.put(f"{base}/top.bin", bytes(range(256)))
    writer.put(f"{base}/a/b/deep.txt", b"deep")
    writer.put(f"{base}/a/with%20space%20%26%20%C3%BC.txt", b"quoted")

    assert read_back.artifacts(run_id) == ["a/b/deep.txt", "a/with space & ü.txt", "top.bin"]
    assert read_back.artifacts(run_id, "a/b") == ["a/b/deep.txt"]
    assert read_back.download(run_id, "top.bin") == bytes(range(256))
    assert read_back.download(run_id, "a/with space & ü.txt") == b"quoted"
    with pytest.raises(LookupError, match=r"nothing\.txt"):
        read_back.download(run_id, "nothing.txt")


def test_models_are_read_back(writer: Writer, read_back: ReadBack) -> None:
    """A logged model, and a registered one with its versions."""
    experiment_id = writer.experiment("models")
    run_id = writer.run(experiment_id)
    created = writer.post(
        "logged-models",
        experiment_id=experiment_id,
        name="net",
        source_run_id=run_id,
        params=[{"key": "layers", "value": "3"}],
        tags=[{"key": "kind", "value": "demo"}],
    )["model"]["info"]
    writer.post("registered-models/create", name="registered")
    source = {"source": f"models:/{created['model_id']}", "model_id": created["model_id"], "run_id": run_id}
    for _ in range(2):
        writer.post("model-versions/create", name="registered", **source)

    (model,) = read_back.logged_models(experiment_id)
    assert (model.model_id, model.name, model.source_run_id) == (created["model_id"], "net", run_id)
    assert (model.params, model.tags["kind"]) == ({"layers": "3"}, "demo")
    (registered,) = (model for model in read_back.registered_models() if model.name == "registered")
    assert [(version.version, version.run_id) for version in registered.versions] == [("1", run_id), ("2", run_id)]


def test_a_login_that_is_over_is_renewed(mantik_platform: Platform, mantik_proxy: FaultProxy) -> None:
    """A refused token leads to one new login and the same request again."""
    with ReadBack(mantik_proxy.url, mantik_platform.username, mantik_platform.password) as read_back:
        read_back.experiments()
        mantik_proxy.fault(Status(401, "Token expired"), "/api/2.0/", times=1)

        assert read_back.experiment("Default")

    assert mantik_proxy.count("/api/mantik/tokens/create") == 2
    assert [request.status for request in mantik_proxy.requests] == [201, 200, 401, 201, 200]


@pytest.mark.parametrize("fault", [Html(), Redirect("http://127.0.0.1:1/"), Status(500), Status(401)])
def test_answers_that_no_platform_gives_are_errors(
    mantik_platform: Platform, mantik_proxy: FaultProxy, fault: Html | Redirect | Status
) -> None:
    """A page, a redirect, a broken or a never satisfied server does not look like an empty platform."""
    with ReadBack(mantik_proxy.url, mantik_platform.username, mantik_platform.password) as read_back:
        mantik_proxy.fault(fault, "/api/2.0/")

        with pytest.raises(UnexpectedAnswerError, match="experiments/search") as caught:
            read_back.experiments()

    assert caught.value.status in {200, 307, 500, 401}


def test_nobody_there_is_an_error() -> None:
    """A platform that does not listen is unreachable, and the password is not in the text."""
    with pytest.raises(PlatformUnreachableError) as caught:
        ReadBack("http://127.0.0.1:1", "ada", "a secret password").experiments()

    assert "a secret password" not in str(caught.value)
