from __future__ import annotations

import io
import logging
import socket
import threading
import uuid
from typing import TYPE_CHECKING

import pytest

from mantik.auth.urls import Origin
from mantik.compute import ComputeBackendClient
from mantik.compute.service import Package, Service
from mantik.compute.submission import Submission
from mantik.exceptions import (
    PlatformUnreachableError,
    SubmissionError,
    UnexpectedAnswerError,
)
from mantik.secret import Secret
from tests.compute.serving import Answer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.compute.stand_in import StandIn


def test_what_is_sent_and_left_out_is_said(
    client: ComputeBackendClient, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The summary, keys without effect, and parameters that nobody declared."""
    (project / ".env").write_text("SECRET=1\n", encoding="utf-8")
    config = {"UnicoreApiUrl": "https://hpc.example", "Resources": {"Queue": "a"}}
    with caplog.at_level(logging.INFO, "mantik"):
        client.submit_run(3, project, {"alhpa": 1}, config)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            "main declares no parameter 'alhpa': it is passed on as --alhpa, as MLflow does. Did you mean alpha?",
        ),
        ("INFO", "Without effect on this platform: UnicoreApiUrl."),
        ("INFO", f"Sending {Submission.of(3, project, {}, config).archive.tree}"),
    ]
    assert caplog.messages[-1].endswith("Left out by default: .env.")


def test_an_upload_that_is_interrupted_leaves_nothing(client: ComputeBackendClient, project: Path) -> None:
    """A connection that breaks in the middle is an error that says that nothing was submitted; again, it works."""
    (project / "large.bin").write_bytes(b"x" * 2**23)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up_in_the_middle() -> None:
            for keep in (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", b""):
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(keep)

        thread = threading.Thread(target=hang_up_in_the_middle)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        broken = ComputeBackendClient(url, "", "", "", url, "the-token")
        with pytest.raises(PlatformUnreachableError, match=r"was interrupted \(.*\)\. Nothing was submitted, because"):
            broken.submit_run(3, project, {}, "backend-config.yaml")
        thread.join()
    assert client.submit_run(3, project, {}, "backend-config.yaml").job_id == "job-1"


def test_an_answer_that_is_lost_is_not_called_nothing(
    service: StandIn, client: ComputeBackendClient, project: Path
) -> None:
    """Where the whole project arrived and no answer came, the error says that the job may exist."""
    service.script("/compute-backend/submit/", None)
    with pytest.raises(PlatformUnreachableError, match="The job may have been submitted all the same"):
        client.submit_run(3, project, {}, "backend-config.yaml")


def test_a_job_whose_answer_is_lost_is_looked_for(
    service: StandIn, client: ComputeBackendClient, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the service knows names of jobs, it is asked for the job by its name, again and again, for a while."""
    monkeypatch.setattr("mantik.compute.service._LOOK_SECONDS", 0.5)
    monkeypatch.setattr("mantik.compute.service.POLL_SECONDS", 0.01)
    service.limit = 2**20
    service.script("/compute-backend/submit/", None)
    with pytest.raises(PlatformUnreachableError, match="The job may have been submitted all the same"):
        client.submit_run(3, project, {}, "backend-config.yaml")
    (submission,) = [asked for asked in service.asked if "/submit/" in asked.path]
    name = submission.headers["Idempotency-Key"]
    assert uuid.UUID(name).version == 4
    assert len([asked for asked in service.asked if asked.path == f"/compute-backend/jobs/{name}"]) > 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(502, b"<html>Bad gateway</html>"), "HTTP 502: a web page"),
        (Answer(504, {"message": "Endpoint request timed out"}), "HTTP 504: Endpoint request timed out"),
    ],
)
def test_the_answer_of_a_proxy_is_not_that_of_the_service(
    answer: Answer, reason: str, service: StandIn, client: ComputeBackendClient, project: Path
) -> None:
    """Where a proxy got no answer from the service in time, the error says that the job may exist."""
    service.script("/compute-backend/submit/", answer)
    with pytest.raises(PlatformUnreachableError) as raised:
        client.submit_run(3, project, {}, "backend-config.yaml")
    assert f"gave no answer ({reason}). The job may have been submitted all the same" in str(raised.value)


def test_the_time_without_an_answer_is_named(
    service: StandIn, client: ComputeBackendClient, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said of how long nobody answered is how long was waited, for a question and for an upload."""
    monkeypatch.setattr("mantik.compute.service._READ_SECONDS", 0.2)
    monkeypatch.setattr("mantik.compute.service._UPLOAD_SECONDS", (60.0, 0.3))
    never = threading.Event()
    service.script("/compute-backend/jobs", Answer(200, {"jobs": []}, wait_for=never))
    service.script("/compute-backend/submit/", Answer(201, {}, wait_for=never))
    with pytest.raises(PlatformUnreachableError, match=r"cannot be reached: no answer within 0\.2 s\."):
        client.list()
    with pytest.raises(PlatformUnreachableError, match=r"gave no answer \(no answer within 0\.3 s\)\."):
        client.submit_run(3, project, {}, "backend-config.yaml")
    never.set()


def test_a_service_that_is_away(project: Path, blank_environment: pytest.MonkeyPatch) -> None:
    """Nobody there is one sentence."""
    client = ComputeBackendClient("http://127.0.0.1:1", "", "", "", "http://127.0.0.1:1", "the-token")
    with pytest.raises(
        PlatformUnreachableError, match=r"The compute backend at http://127\.0\.0\.1:1/compute-backend ca"
    ):
        client.submit_run(3, project, {}, "backend-config.yaml")


def test_no_compute_backend_is_said_before_the_upload(
    service: StandIn, client: ComputeBackendClient, project: Path
) -> None:
    """A platform that runs no jobs says so, and nothing is uploaded."""
    service.script("/compute-backend/jobs", Answer(503, {"message": "This platform has no compute backend."}))
    with pytest.raises(SubmissionError, match=r"takes no jobs: This platform has no compute backend\."):
        client.submit_run(3, project, {}, "backend-config.yaml")
    assert service.asked_for("/compute-backend/submit/") == []


def test_an_experiment_that_is_not_there(client: ComputeBackendClient, project: Path) -> None:
    """The service's own words."""
    with pytest.raises(SubmissionError, match=r"says \(HTTP 400\): There is no experiment 404\."):
        client.submit_run(404, project, {}, "backend-config.yaml")


@pytest.mark.parametrize(
    "content",
    [
        b"<html>Sign in</html>",
        {"run": 1},
        [],
        {"run_id": 1, "experiment_id": 1},
        {"run_id": "a", "experiment_id": "one"},
        {"run_id": "a", "experiment_id": True},
    ],
)
def test_a_success_that_names_no_run(
    content: object, service: StandIn, client: ComputeBackendClient, project: Path
) -> None:
    """A sign-in page of the network is no submission."""
    service.script("/compute-backend/submit/", Answer(200, content))
    with pytest.raises(UnexpectedAnswerError, match="without naming a run"):
        client.submit_run(3, project, {}, "backend-config.yaml")


class Tokens:
    """Two tokens, the second of which is there only if it is asked for."""

    username = "ada"
    is_at_hand = True
    is_waiting = False

    def token(self) -> Secret:
        """Return the first."""
        return Secret("old")

    bearer = token

    def renew(self, rejected: Secret) -> Secret:
        """Return the second."""
        assert rejected == Secret("old")
        return Secret("new")


def test_a_token_that_ends_during_the_upload_is_renewed(service: StandIn) -> None:
    """The upload is repeated once with a new token, which is in the header and in the form alike."""
    service.tokens = {"new"}
    origin = Origin.of(service.url)
    assert origin is not None
    forms: list[dict[str, str]] = []

    def fields(token: Secret) -> dict[str, str]:
        forms.append({"mlflow_tracking_token": token.reveal(), "mlflow_parameters": "{}"})
        return forms[-1]

    archive, seen = io.BytesIO(b"zip" * 1000), []
    package = Package(3, "", fields, archive, 3000, lambda sent, total: seen.append((sent, total)))
    answer = Service(f"{service.url}/compute-backend", origin, Tokens()).submit(package)
    assert answer.status_code == 201
    assert [asked.token for asked in service.asked] == ["old", "new"]
    assert [form["mlflow_tracking_token"] for form in forms] == ["old", "new"]
    assert service.forms["job-1"]["mlproject_zip"].content == b"zip" * 1000
    assert seen[-1][0] == seen[-1][1] == len(service.asked[-1].body)


def test_a_token_that_was_given_is_not_renewed(service: StandIn, client: ComputeBackendClient, project: Path) -> None:
    """A client with a token alone says that it was refused."""
    service.tokens = {"another"}
    with pytest.raises(SubmissionError, match="did not accept the token: Token expired") as raised:
        client.submit_run(3, project, {}, "backend-config.yaml")
    assert raised.value.status == 401
