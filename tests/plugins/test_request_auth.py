from __future__ import annotations

import os
from typing import TYPE_CHECKING

import mlflow
import pytest

import mantik
from mantik.testing import FaultProxy, Status, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import Platform


@pytest.fixture(autouse=True)
def mlflow_as_before() -> Iterator[None]:
    """Leave MLflow pointing nowhere."""
    yield
    mlflow.set_tracking_uri(None)


def age_the_token() -> None:
    """Let the token at hand count as old enough to be renewed when it is rejected."""
    from mantik.auth.login import Login, token_source
    from mantik.settings import Settings

    source = token_source(Settings.from_environment())
    assert isinstance(source, Login)
    source._issued_at = 0.0  # noqa: SLF001  # time passes


@pytest.mark.parametrize("what", ["metric", "artifact", "trace", "registry"])
def test_a_rejected_token_is_renewed_and_the_call_succeeds(
    what: str, tracked: FaultProxy, mantik_platform: Platform, tmp_path: Path
) -> None:
    """A 401 in the middle of any kind of call leads to one refresh and a second attempt; the user sees nothing."""
    content = os.urandom(2_000_000)
    (tmp_path / "content.bin").write_bytes(content)
    with mlflow.start_run() as run:
        age_the_token()
        rejecting = tracked.fault(Status(401, "Token expired"), times=1)
        if what == "metric":
            mlflow.log_metric("loss", 0.5)
            held = mantik_platform.read_back
            wait_until(lambda: held.run(run.info.run_id).metrics == {"loss": 0.5}, deadline=30, what="it arrived")
        elif what == "artifact":
            mlflow.log_artifact(str(tmp_path / "content.bin"))
            assert mantik.flush(30)
            assert mantik_platform.read_back.download(run.info.run_id, "content.bin") == content
        elif what == "trace":
            with mlflow.start_span("step") as span:
                pass
            mlflow.flush_trace_async_logging()
            assert mantik.flush(30)
            assert mlflow.get_trace(span.trace_id).data.spans[0].name == "step"
        else:
            name = f"model-{run.info.run_id}"
            mlflow.MlflowClient().create_registered_model(name)
            assert name in {model.name for model in mantik_platform.read_back.registered_models()}
    assert rejecting.hits == 1
    assert tracked.count("/api/mantik/tokens/refresh") == 1
    assert tracked.count("/api/mantik/tokens/create") == 1


def test_every_request_carries_a_token_of_the_login(tracked: FaultProxy) -> None:
    """All that MLflow sends while a run is logged is authenticated, but for its question for the version."""
    with mlflow.start_run():
        mlflow.log_param("depth", 3)
        mlflow.log_text("text", "text.txt")
    assert mantik.flush(30)
    sent = [request for request in tracked.requests if not request.path.startswith(("/api/mantik/", "/version"))]
    assert len(sent) >= 4
    assert all((request.authorization or "").startswith("Bearer ") for request in sent)


def test_another_server_gets_neither_token_nor_login(
    tracked: FaultProxy, mantik_platform: Platform, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever points mlflow elsewhere after `init_tracking()` takes no token along, not even the exported one."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with FaultProxy(mantik_platform.url) as foreign:
        mlflow.set_tracking_uri(foreign.url)
        with pytest.raises(mlflow.MlflowException):
            mlflow.create_experiment("elsewhere")
        assert len(foreign.requests) >= 1
        assert {request.authorization for request in foreign.requests} <= {None, ""}
        assert "was not sent to" in caplog.text
        # And no run of another server is written under the platform's user name.
        from mlflow.tracking.context.registry import resolve_tags

        assert resolve_tags()["mlflow.user"] != mantik_platform.username or os.environ.get("USER") == "ada"


def test_without_a_claim_nothing_is_added(
    blank_environment: pytest.MonkeyPatch, mantik_platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    """`MLFLOW_TRACKING_AUTH=mantik` without `init_tracking()` sends nobody's token and says what is missing."""
    with FaultProxy(mantik_platform.url) as server:
        blank_environment.setenv("MLFLOW_TRACKING_AUTH", "mantik")
        blank_environment.setenv("MANTIK_USERNAME", "ada")
        blank_environment.setenv("MANTIK_PASSWORD", "secret")
        mlflow.set_tracking_uri(server.url)
        with pytest.raises(mlflow.MlflowException):
            mlflow.create_experiment("unclaimed")
        assert server.count("/api/mantik/tokens") == 0
        assert {request.authorization for request in server.requests} <= {None, ""}
    assert "call mantik.init_tracking() first" in caplog.text


def test_an_outage_of_the_token_service_alone_stops_nobody(tracked: FaultProxy, mantik_platform: Platform) -> None:
    """While tokens cannot be renewed but the present one is good, logging goes on."""
    tracked.fault(Status(503), path="/api/mantik/tokens")
    with mlflow.start_run() as run:
        for step in range(20):
            mlflow.log_metric("loss", 1.0, step=step)
    held = mantik_platform.read_back
    wait_until(lambda: len(held.metric_history(run.info.run_id, "loss")) == 20, deadline=30, what="all arrived")


def test_a_claim_that_was_changed_is_checked_like_a_setting(blank_environment: pytest.MonkeyPatch) -> None:
    """A claim for an unencrypted public address puts the token on nothing: it is an error."""
    from mantik.exceptions import EndpointError
    from mantik.plugins.request_auth import MantikRequestAuthProvider

    blank_environment.setenv("MANTIK_TRACKING_CLAIM", "http://platform.example.org")
    blank_environment.setenv("MLFLOW_TRACKING_TOKEN", "opaque")
    with pytest.raises(EndpointError, match="MLFLOW_TRACKING_URI begins with http://"):
        MantikRequestAuthProvider().get_auth()
