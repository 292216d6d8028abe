from __future__ import annotations

import logging
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from mantik.compute import ComputeBackendClient, Job
from mantik.exceptions import (
    ComputeBackendError,
    ConfigurationError,
    EndpointError,
    JobTimeoutError,
    MissingSettingsError,
    PlatformUnreachableError,
    ProjectError,
    SubmissionError,
    UnexpectedAnswerError,
)
from mantik.settings import Settings
from tests.compute.conftest import log_in
from tests.compute.serving import Answer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.compute.stand_in import StandIn


def test_the_environment_is_read(service: StandIn, blank_environment: pytest.MonkeyPatch) -> None:
    """Variables become fields; those of UNICORE may be missing."""
    log_in(blank_environment, service)
    plain = ComputeBackendClient.from_env()
    assert (plain.unicore_username, plain.unicore_password, plain.unicore_project) == ("", "", "")
    assert (plain.compute_backend_url, plain.mlflow_tracking_uri) == (service.url, service.url)
    assert plain.mlflow_tracking_token in service.tokens
    for name in ("USERNAME", "PASSWORD", "PROJECT"):
        blank_environment.setenv(f"MANTIK_UNICORE_{name}", name.lower())
    full = ComputeBackendClient.from_env(api_path="/other//path/")
    assert (full.unicore_username, full.unicore_password, full.unicore_project) == ("username", "password", "project")
    assert (full.url, full.submit_url) == (f"{service.url}/other/path", f"{service.url}/other/path/submit")


def test_environments_without_jobs(blank_environment: pytest.MonkeyPatch) -> None:
    """A local store, nothing at all, and a URL that must not get a token are one error each."""
    with pytest.raises(MissingSettingsError):
        ComputeBackendClient.from_env()
    blank_environment.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    with pytest.raises(ConfigurationError, match="MLFLOW_TRACKING_URI is local, where nobody runs jobs"):
        ComputeBackendClient.from_env()
    with pytest.raises(EndpointError, match=r"compute_backend_url begins with http://, and example\.org is not this"):
        ComputeBackendClient("http://example.org", "", "", "", "", "token").list()
    with pytest.raises(MissingSettingsError, match="mlflow_tracking_token is empty"):
        ComputeBackendClient("https://example.org", "", "", "", "", "").list()


def test_secrets_are_seen_nowhere(
    service: StandIn, project: Path, blank_environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the repr of anything nor a log of everything holds a password or a token."""
    log_in(blank_environment, service)
    blank_environment.setenv("MANTIK_UNICORE_PASSWORD", "unicore-password")
    with caplog.at_level(logging.DEBUG):
        client = ComputeBackendClient.from_env()
        run = client.submit_run(3, project, {}, "backend-config.yaml")
    (token,) = service.tokens
    shown = f"{client!r} {run!r} {caplog.text}"
    assert token not in shown
    assert "unicore-password" not in shown
    assert "unicore_password='***'" in shown


def test_a_service_that_repeats_the_token(service: StandIn, blank_environment: pytest.MonkeyPatch) -> None:
    """The token that a login has brought is masked in the words of a refusal, although no setting holds it."""
    log_in(blank_environment, service)
    client = ComputeBackendClient.from_settings(Settings.from_environment())
    assert client.list() == []
    (token,) = service.tokens
    service.script("/compute-backend/jobs", Answer(400, {"detail": [f"bad header: Bearer {token}"]}))
    with pytest.raises(ComputeBackendError, match=r"bad header: Bearer \*\*\*$"):
        client.list()


def test_no_login_of_another_client_is_used(
    service: StandIn, client: ComputeBackendClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A .netrc that names the host replaces no token."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login eve password secret\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    client.list()
    assert service.asked[-1].headers["Authorization"] == "Bearer the-token"


def test_no_redirect_is_followed(service: StandIn, client: ComputeBackendClient) -> None:
    """A redirect gets no token: it is an error."""
    service.script("/compute-backend/jobs", Answer(302, b"", {"Location": f"{service.url}/elsewhere"}))
    with pytest.raises(ComputeBackendError, match=r"redirects \(HTTP 302\)"):
        client.list()
    assert service.asked_for("/elsewhere") == []


def test_status_and_list(service: StandIn, client: ComputeBackendClient) -> None:
    """A job is found by its id and by its run; the newest is first."""
    ids = [service.add_job(nodes=["n1"], state="RUNNING", started_at="2026-03-01T10:00:05Z") for _ in range(3)]
    job = client.status(ids[0])
    assert (job.job_id, job.state, job.nodes, job.has_ended) == (ids[0], "RUNNING", ["n1"], False)
    assert job.started_at is not None
    assert job.submitted_at is not None
    assert (job.started_at - job.submitted_at).total_seconds() == 4
    assert client.status(job.run_id) == job
    assert [job.job_id for job in client.list()] == ids[::-1]
    assert [job.job_id for job in client.list(offset=1, limit=1)] == [ids[1]]
    assert str(job) == f"Job {ids[0]} is RUNNING"


def test_a_job_that_is_not_there(client: ComputeBackendClient) -> None:
    """The service's own words, and ids that are none are not even sent."""
    with pytest.raises(ComputeBackendError, match=r"says \(HTTP 404\): There is no job nothing of yours\.") as raised:
        client.status("nothing")
    assert raised.value.status == 404
    for wrong in ("", "..", "a/b", "a?b", "a b", 17, None):
        with pytest.raises(ConfigurationError, match="is no id of a job or a run"):
            client.status(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [{}, {"job_id": 7, "state": "RUNNING"}, b"<html>", []])
def test_an_answer_that_is_no_job(content: object, service: StandIn, client: ComputeBackendClient) -> None:
    """Something else at that address is an error."""
    service.script("/compute-backend/jobs/", Answer(200, content))
    with pytest.raises(UnexpectedAnswerError):
        client.status("job-1")


@pytest.mark.parametrize("jobs", [None, {}, "job-1", ["job-1"], [{"job_id": "job-1"}]])
def test_an_answer_that_is_no_list_of_jobs(jobs: object, service: StandIn, client: ComputeBackendClient) -> None:
    """A list of something else is an error, and neither a traceback nor an empty list."""
    service.script("/compute-backend/jobs", Answer(200, {"jobs": jobs}))
    with pytest.raises(UnexpectedAnswerError):
        client.list()


def test_an_answer_that_breaks_off_is_one_sentence(service: StandIn, client: ComputeBackendClient) -> None:
    """Half an answer is an outage, told without the errors of what lies below."""
    job_id = service.add_job()
    service.script("/compute-backend/jobs/", Answer(200, b"{", {"Content-Length": "30"}))
    with pytest.raises(PlatformUnreachableError, match=r"cannot be reached: its answer broke off\.") as raised:
        client.status(job_id)
    assert "During handling" not in "".join(traceback.format_exception(raised.value))


def test_waiting(service: StandIn, client: ComputeBackendClient, caplog: pytest.LogCaptureFixture) -> None:
    """Waiting ends with the job, and an outage in between is a warning."""
    job_id = service.add_job(state="RUNNING")
    ended = {**service.jobs[job_id], "state": "FAILED", "exit_code": 3}
    away = Answer(502, b"<html>")
    service.script(
        f"/compute-backend/jobs/{job_id}", away, None, away, Answer(200, service.jobs[job_id]), Answer(200, ended)
    )
    job = client.wait(job_id, poll=0.001)
    assert (job.state, job.exit_code) == ("FAILED", 3)
    assert [record.getMessage().partition(" at http")[0] for record in caplog.records] == [
        "The compute backend",
        "The compute backend answers again.",
    ]
    with pytest.raises(
        JobTimeoutError, match=rf"Job {job_id} has not ended in 0 s \(RUNNING\); it goes on\."
    ) as raised:
        client.wait(job_id, timeout=0)
    assert raised.value.job_id == job_id
    with pytest.raises(TimeoutError):
        client.wait(job_id, timeout=0.001, poll=0.001)
    with pytest.raises(ComputeBackendError):
        client.wait("nothing", poll=0.001)


def test_cancelling(service: StandIn, client: ComputeBackendClient) -> None:
    """A job is ended, and is returned as it is then."""
    assert client.cancel(service.add_job(state="RUNNING")).state == "CANCELLED"
    assert client.cancel(service.add_job(state="SUCCEEDED")).state == "SUCCEEDED"


def test_a_run_has_the_same_methods(
    service: StandIn, client: ComputeBackendClient, project: Path, tmp_path: Path
) -> None:
    """What was submitted can be asked for by itself."""
    run = client.submit_run(3, project, {}, "backend-config.yaml")
    service.logs[run.job_id] = b"hello\n"
    service.files[run.job_id] = {"out.txt": b"out"}
    assert run.status().state == "QUEUED"
    assert list(run.logs()) == ["hello\n"]
    assert run.download("out.txt", tmp_path).read_bytes() == b"out"
    assert run.cancel().state == "CANCELLED"
    assert run.wait().state == "CANCELLED"
    assert list(run.logs(follow=True)) == ["hello\n"]


@pytest.mark.parametrize(
    ("known", "code"),
    [
        ({"state": "SUCCEEDED", "exit_code": 0}, 0),
        ({"state": "FAILED", "exit_code": 3}, 3),
        ({"state": "FAILED", "signal": 9}, 137),
        ({"state": "FAILED", "signal": "SIGKILL"}, 137),
        ({"state": "FAILED", "signal": "SIGUNKNOWN"}, 1),
        ({"state": "TIMED_OUT", "exit_code": 0}, 1),
        ({"state": "LOST"}, 1),
        ({"state": "CANCELLED"}, 1),
    ],
)
def test_the_exit_code_of_a_job(known: dict[str, Any], code: int) -> None:
    """A shell would say the process's own code, 128 and the signal, and never 0 where it failed."""
    assert Job.from_mapping({"job_id": "a", **known}).shell_code == code


def test_errors_cross_processes() -> None:
    """What is known beside the text survives pickling."""
    refused = pickle.loads(pickle.dumps(SubmissionError("no", "https://x", 429, 3.0)))  # noqa: S301  # made here
    assert (str(refused), refused.url, refused.status, refused.retry_after) == ("no", "https://x", 429, 3.0)
    wrong = pickle.loads(pickle.dumps(ProjectError("no", ("a", "b"))))  # noqa: S301
    assert (str(wrong), wrong.mistakes) == ("no", ("a", "b"))
    late = pickle.loads(pickle.dumps(JobTimeoutError("late", "job-1")))  # noqa: S301
    assert (str(late), late.job_id) == ("late", "job-1")
