"""The services of early releases take what this client sends, and what they refuse becomes one clear error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import mantik
from mantik.exceptions import SubmissionError
from tests.compute.eras import Service010, Service012
from tests.compute.serving import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.compute.eras import _Service

CONFIG = {
    "UnicoreApiUrl": "https://hpc.example/rest/core",
    "Environment": {"Singularity": {"Path": "image.sif"}},
    "Resources": {"Queue": "devel", "CPUs": 2},
}


@pytest.fixture(params=[Service010, Service012])
def early(request: pytest.FixtureRequest, blank_environment: pytest.MonkeyPatch) -> Iterator[_Service]:
    """Run the service of an early release."""
    with request.param().running() as service:
        yield service


def client_of(service: _Service, user: str = "unicore-user") -> mantik.ComputeBackendClient:
    """Make a client by position, as its dataclass is."""
    return mantik.ComputeBackendClient(service.url, user, "unicore-password", "project", service.url, service.token)


@pytest.fixture
def old_project(project: Path) -> Path:
    """Make a project as it was submitted to early releases."""
    (project / "unicore.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (project / "image.sif").write_bytes(b"SIF")
    return project


def test_a_submission_is_taken(early: _Service, old_project: Path) -> None:
    """Fields, archive and configuration arrive as the release reads them; the path of the configuration holds."""
    run = client_of(early).submit_run(7, old_project, {"alpha": 0.5}, "unicore.json")
    (taken,) = early.submitted
    assert taken["parameters"] == {"alpha": "0.5"}
    assert (taken["experiment_id"], taken["entry_point"], taken["queue"]) == (7, "main", "devel")
    assert {"MLproject", "train.py", "unicore.json", "image.sif"} <= set(taken["files"])
    assert taken["text"]["mlflow_tracking_uri"] == early.url
    assert taken["text"]["mlflow_tracking_token"] == early.token
    assert (taken["text"]["unicore_user"], taken["text"]["unicore_project"]) == ("unicore-user", "project")
    assert taken["text"]["unicore_password"] == "unicore-password"
    assert (run.status_code, run.experiment_id, run.run_id) == (201, 7, f"{7:032x}")
    assert run.job_id == ("unicore-17" if isinstance(early, Service012) else run.run_id)


def test_a_configuration_from_elsewhere_is_read(early: _Service, old_project: Path, tmp_path: Path) -> None:
    """A file outside of the project and a mapping are in the archive, in the words of the release, where it is told."""
    outside = tmp_path / "elsewhere.json"
    outside.write_text(json.dumps(CONFIG), encoding="utf-8")
    client = client_of(early)
    client.submit_run(7, old_project, {}, outside)
    client.submit_run(7, old_project, {}, CONFIG)
    for taken in early.submitted:
        path = taken["text"]["unicore_backend_config"]
        assert path == ".mantik/backend-config.json"
        assert json.loads(taken["files"][path]) == CONFIG


def test_a_login_that_the_release_wants_is_asked_for(early: _Service, old_project: Path) -> None:
    """The list of fields of a 422 becomes a sentence that names the variable."""
    with pytest.raises(SubmissionError) as raised:
        client_of(early, user="").submit_run(7, old_project, {}, "unicore.json")
    assert raised.value.status == 422
    assert str(raised.value) == (
        f"The compute backend at {early.url} says (HTTP 422): unicore_user: field required "
        "(set MANTIK_UNICORE_USERNAME)"
    )


REFUSALS = {
    "detail": (Answer(400, {"detail": "File must be a zip file"}), "says (HTTP 400): File must be a zip file"),
    "message": (Answer(400, {"message": "No such queue: devel"}), "says (HTTP 400): No such queue: devel"),
    "too large": (Answer(413, {"message": "File too large"}), "says (HTTP 413): File too large Largest: "),
    "failure": (Answer(500, {"message": "MLflow is away"}), "failed (HTTP 500): MLflow is away"),
    "page": (Answer(500, b"<html>Failure</html>"), "failed (HTTP 500): a web page"),
    "plain": (Answer(500, b"Internal Server Error"), "failed (HTTP 500): no reason given"),
    "token": (Answer(401, {"detail": "Invalid token"}), "did not accept the token: Invalid token"),
    "slow down": (Answer(429, {"message": "too many"}, {"Retry-After": "30"}), "too many Try again in 30 s."),
    "redirect": (
        Answer(307, b"", {"Location": "https://evil.example"}),
        "redirects (HTTP 307). Tokens are never sent on",
    ),
    "secrets": (Answer(400, {"message": "bad login: unicore-password, the-token"}), "bad login: ***, ***"),
    "long": (Answer(400, {"message": "x\n" * 1000}), "x x x"),
    "nothing": (Answer(404, {"detail": "Not Found"}), "There is no compute backend at "),
    "no method": (Answer(405, b"<html>"), "There is no compute backend at "),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_one_error_in_the_words_of_the_service(name: str, early: _Service, old_project: Path) -> None:
    """Each shape of an answer that is no success becomes a SubmissionError with status, address and words."""
    answer, words = REFUSALS[name]
    early.script("/compute-backend/submit/", answer)
    with pytest.raises(SubmissionError) as raised:
        client_of(early).submit_run(7, old_project, {}, "unicore.json")
    assert words in str(raised.value)
    assert len(str(raised.value)) < 1000
    assert (raised.value.status, raised.value.url) == (answer.status, f"{early.url}/compute-backend/submit/7")
    assert raised.value.retry_after == (30.0 if name == "slow down" else None)
    assert early.submitted == []
