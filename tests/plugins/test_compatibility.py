from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import mlflow
import pytest
from mlflow.exceptions import RestException

import mantik
from mantik.delivery.compatibility import client_version, shortcomings
from mantik.testing import Hang, Html, Refuse, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mantik.testing import FaultProxy, Platform
    from mantik.testing.faults import Fault

VERSION = "/version"
MODELS = re.compile(r"/api/2\.0/mlflow/logged-models")
NO_SUCH_PAGE = Status(404, "<!doctype html><title>404 Not Found</title>", {"Content-Type": "text/html"})
"""How MLflow 2 says that it has no such endpoint."""


@pytest.fixture
def proxy(
    mantik_environment: dict[str, str], mantik_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultProxy]:
    """Point at a proxy that was never asked, and leave MLflow pointing nowhere."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mantik_proxy.url)
    yield mantik_proxy
    mlflow.set_tracking_uri(None)


@pytest.mark.parametrize(
    ("client", "server", "lacks"),
    [
        ("3.17.2", "3.17.2", []),
        ("3.17.2", "3.4.0", []),
        ("3.17.2", "3.3.2", ["traces"]),
        ("3.0.0rc1", "2.22.5", ["models", "traces"]),
        ("10.1", "9.0", []),
        ("3.9.0", "3.10.0", []),
        ("2.22.5", "2.14.3", []),
        ("2.14.3", "3.17.2", []),
        (None, "2.22.5", []),
        ("3.17.2", None, []),
        ("3.17.2", "unknown", []),
    ],
)
def test_what_two_versions_cannot_do_together_is_known(
    client: str | None, server: str | None, lacks: list[str]
) -> None:
    """Models need MLflow 3 on both sides or on none, durable traces a server from 3.4; unknown ones lack nothing."""
    found = shortcomings(client, server)
    assert len(found) == len(lacks)
    assert all(word in sentence for word, sentence in zip(lacks, found, strict=True))
    assert all(str(server) in sentence for sentence in found)


def test_an_older_platform_is_said_once(proxy: FaultProxy, caplog: pytest.LogCaptureFixture) -> None:
    """The first init_tracking() asks for the version and says both things; the next ones ask and say nothing."""
    proxy.fault(Status(200, "2.22.5"), VERSION)
    for _ in range(3):
        mantik.init_tracking()
    assert proxy.count(VERSION) == 1
    assert caplog.text.count("logging models does not") == caplog.text.count("takes no spans") == 1
    assert "mlflow<3" in caplog.text


def test_a_platform_of_this_version_is_nothing_to_speak_of(proxy: FaultProxy, caplog: pytest.LogCaptureFixture) -> None:
    """The version is asked for once, without a word."""
    mantik.init_tracking()
    (request,) = proxy.wait_for(1, VERSION)
    assert request.status == 200
    assert "The platform runs MLflow" not in caplog.text


@pytest.mark.parametrize(
    "fault",
    [Refuse(), Status(500), Status(401), Html(), Status(200, "2.22.5; rm -rf"), Hang()],
    ids=["refused", "500", "401", "page", "nonsense", "silent"],
)
def test_a_platform_that_does_not_tell_its_version_stops_nobody(
    fault: Fault, proxy: FaultProxy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever answers or keeps silent there, tracking begins in seconds, strict or not, and nothing is made up."""
    monkeypatch.setenv("MANTIK_STRICT", "1")
    proxy.fault(fault, VERSION)
    started = time.monotonic()
    assert mantik.init_tracking().token
    assert time.monotonic() - started < 10
    assert "The platform runs MLflow" not in caplog.text


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_nobody_is_asked_for_a_version_where_nobody_is_to_be_asked(
    mode: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline and disabled tracking send no request."""
    monkeypatch.setenv("MANTIK_MODE", mode)
    mantik.init_tracking()
    assert proxy.requests == []


def test_models_on_a_platform_without_them_hold_nothing_up(proxy: FaultProxy, mantik_platform: Platform) -> None:
    """A model that MLflow 2 cannot hold is refused with its reason; its run, its points and the next run arrive."""
    mantik.init_tracking()
    with proxy.fault(NO_SUCH_PAGE, MODELS):
        with mlflow.start_run() as run:
            model = mlflow.create_external_model(name="too new")
            mlflow.log_metric("loss", 0.5, model_id=model.model_id)
            mlflow.log_metric("plain", 1.0)
        with mlflow.start_run() as other:
            pass
        assert not other.info.run_id.startswith("local-")
        assert mantik.flush(30)
    held = mantik_platform.read_back.run(run.info.run_id)
    assert (held.status, held.metrics) == ("FINISHED", {"loss": 0.5, "plain": 1.0})
    assert "has no logged-models" in str(mantik.receipt())


def test_strict_tracking_says_at_once_that_a_platform_has_no_models(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call fails as MLflow's own does, with its error code."""
    monkeypatch.setenv("MANTIK_STRICT", "1")
    mantik.init_tracking()
    with proxy.fault(NO_SUCH_PAGE, MODELS), mlflow.start_run(), pytest.raises(RestException) as caught:
        mlflow.create_external_model(name="too new")
    assert caught.value.error_code == "ENDPOINT_NOT_FOUND"


def test_artifacts_of_a_run_can_be_listed_on_a_platform_without_models(proxy: FaultProxy) -> None:
    """MLflow 3 looks for models among a run's artifacts, and finds none where there can be none."""
    mantik.init_tracking()
    with proxy.fault(NO_SUCH_PAGE, MODELS), mlflow.start_run() as run:
        mlflow.log_text("kept", "folder/kept.txt")
        assert mantik.flush(30)
        found = mlflow.MlflowClient().list_artifacts(run.info.run_id, "folder")
    assert [item.path for item in found] == ["folder/kept.txt"]


@pytest.mark.parametrize(("version", "files"), [("3.5.1", ["traces.json"]), ("3.6.0", [])])
def test_spans_are_an_artifact_too_where_they_are_read_from_there_alone(
    version: str, files: list[str], proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server takes spans before it gives them back: until then they are uploaded as well, as MLflow does it."""
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
    proxy.fault(Status(200, version), VERSION)
    mantik.init_tracking()
    with mlflow.start_span(name="outer"):
        pass
    mlflow.flush_trace_async_logging()
    assert mantik.flush(30)
    uploaded = [request.path.rpartition("/")[2] for request in proxy.requests if request.method == "PUT"]
    assert uploaded == files
    assert proxy.count("/v1/traces") == 1


def test_the_version_here_is_known_without_mlflow() -> None:
    """It is the one that MLflow gives itself."""
    assert client_version() == mlflow.__version__
