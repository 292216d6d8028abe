from __future__ import annotations

import io
import logging
import pickle
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

import mantik
from mantik.auth.urls import Origin
from mantik.compute import ComputeBackendClient, Job
from mantik.compute.archive import Archive
from mantik.compute.service import Package, Service
from mantik.compute.submission import Submission
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
from mantik.secret import Secret
from tests.compute.serving import Answer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.compute.stand_in import StandIn


def mistakes_of(client: ComputeBackendClient, *arguments: Any, **named: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Return what is wrong with a submission."""
    with pytest.raises(ProjectError) as raised:
        client.submit_run(*arguments, **named)
    return raised.value.mistakes


def log_in(environment: pytest.MonkeyPatch, service: StandIn) -> None:
    """Set what a user sets."""
    environment.setenv("MLFLOW_TRACKING_URI", service.url)
    environment.setenv("MANTIK_USERNAME", "ada")
    environment.setenv("MANTIK_PASSWORD", "right")


def test_the_pattern_that_users_have(
    service: StandIn, project: Path, blank_environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`from_env()`, keywords only, `backend_config_path`, and `print(response.content)` (contract, section 7)."""
    log_in(blank_environment, service)
    client = mantik.ComputeBackendClient.from_env()
    response = client.submit_run(
        experiment_id=3,
        entry_point="evaluate",
        mlflow_parameters={"model": "models:/wine/1"},
        mlproject_path=project,
        backend_config_path="backend-config.yaml",
    )
    print(response.content)  # noqa: T201  # the pattern
    assert capsys.readouterr().out.strip() == str(response.content)
    assert response.status_code == 201
    assert response.json() == {
        "experiment_id": 3,
        "run_id": f"{1:032x}",
        "unicore_job_id": "job-1",
        "job_id": "job-1",
    }
    assert (response.run_id, response.experiment_id, response.job_id) == (f"{1:032x}", 3, "job-1")
    assert response.url == f"{service.url}/compute-backend/submit/3"
    assert response.link == f"{service.url}/#/experiments/3/runs/{1:032x}"


def test_the_pattern_by_position(service: StandIn, client: ComputeBackendClient, project: Path) -> None:
    """The positional order of the contract, with paths as texts; an entry point of None is main."""
    run = client.submit_run(3, str(project), {"alpha": 1}, str(project / "backend-config.yaml"), None)
    form = service.forms[run.job_id]
    assert (form["entry_point"].content, form["mlflow_parameters"].content) == (b"main", b'{"alpha": "1"}')


def test_what_is_sent(service: StandIn, client: ComputeBackendClient, project: Path) -> None:
    """The fields of both eras, empty texts for what is not set, the name only if there is one, and the project."""
    run = client.submit_run(3, project, {}, "backend-config.yaml", run_name="first try")
    form = service.forms[run.job_id]
    texts = {name: part.content.decode() for name, part in form.items() if part.filename is None}
    assert texts == {
        "entry_point": "main",
        "mlflow_parameters": "{}",
        "unicore_user": "",
        "unicore_password": "",
        "unicore_project": "",
        "unicore_backend_config": "backend-config.yaml",
        "unicore_backend_config_path": "backend-config.yaml",
        "mlflow_tracking_uri": service.url,
        "mlflow_tracking_token": "the-token",
        "run_name": "first try",
    }
    assert form["mlproject_zip"].content_type == "application/zip"
    assert sorted(service.members(run.job_id)) == ["MLproject", "backend-config.yaml", "data/train.csv", "train.py"]
    (asked,) = service.asked_for("/compute-backend/submit/")
    assert asked.headers["Accept"] == "application/json"
    assert int(asked.headers["Content-Length"]) == len(asked.body)
    unnamed = client.submit_run(3, project, {}, "backend-config.yaml")
    assert "run_name" not in service.forms[unnamed.job_id]


def test_relative_paths_are_from_here(
    service: StandIn, client: ComputeBackendClient, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Project and configuration may be relative; the configuration is looked for in the project first."""
    monkeypatch.chdir(project.parent)
    (project.parent / "here.yaml").write_text("Resources: {Queue: here}\n", encoding="utf-8")
    (project.parent / "backend-config.yaml").write_text("nonsense\n", encoding="utf-8")
    first = client.submit_run(3, "project", {}, "backend-config.yaml")
    second = client.submit_run(3, "project", {}, "here.yaml")
    third = client.submit_run(3, "project", {}, "project/backend-config.yaml")
    paths = [service.forms[run.job_id]["unicore_backend_config"].content for run in (first, second, third)]
    assert paths == [b"backend-config.yaml", b".mantik/backend-config.yaml", b"backend-config.yaml"]
    assert service.members(second.job_id)[".mantik/backend-config.yaml"] == b"Resources: {Queue: here}\n"


def test_what_the_job_needs_is_sent_whatever_excludes_it(
    service: StandIn, client: ComputeBackendClient, project: Path
) -> None:
    """A local image, the configuration and the MLproject file are always there."""
    (project / "images").mkdir()
    (project / "images" / "a.sif").write_bytes(b"SIF")
    (project / "images" / "b.sif").write_bytes(b"SIF")
    (project / ".mantikignore").write_text("*\n!data/\n!data/*\n", encoding="utf-8")
    (project / "other.yaml").write_text(
        "Resources: {Queue: a}\nEnvironment: {Apptainer: {Path: images/a.sif}}\n", encoding="utf-8"
    )
    run = client.submit_run(3, project, {}, "other.yaml")
    assert sorted(service.members(run.job_id)) == ["MLproject", "data/train.csv", "images/a.sif", "other.yaml"]


def test_all_mistakes_are_named_before_anything_is_sent(
    service: StandIn, client: ComputeBackendClient, project: Path
) -> None:
    """Experiment, name, entry point, parameters and configuration in one error, and no request."""
    (project / "backend-config.yaml").write_text("Resources: {Runtime: 12hours, Queue: a}\n", encoding="utf-8")
    mistakes = mistakes_of(client, "first", project, {"alpha": "much"}, "backend-config.yaml", run_name="\n")
    assert mistakes == (
        "experiment_id: 'first' is no id of an experiment, expected a number, e.g. 3",
        "run_name: '\\n' is no name, expected 250 printable characters at most",
        "parameter 'alpha': 'much' is no number, expected a float",
        "Resources.Runtime: '12hours' is no duration, expected a whole number and one unit of s, m, h, d, e.g. 12h",
    )
    assert service.asked == []


@pytest.mark.parametrize("experiment_id", [-1, True, None, 1.0, "", "1.5", "\u0661"])
def test_what_is_no_experiment(experiment_id: object, client: ComputeBackendClient, project: Path) -> None:
    """An experiment is a whole number, or its digits."""
    (mistake,) = mistakes_of(client, experiment_id, project, {}, "backend-config.yaml")
    assert mistake.startswith("experiment_id: ")


def test_parameters_that_are_no_mapping(client: ComputeBackendClient, project: Path) -> None:
    """Parameters are names and values, and not a text of them."""
    assert mistakes_of(client, 3, project, '{"alpha": 1}', "backend-config.yaml") == (
        "mlflow_parameters: '{\"alpha\": 1}' is no mapping of names to values",
    )


def test_files_that_are_missing_are_named(client: ComputeBackendClient, project: Path, tmp_path: Path) -> None:
    """A configuration, an image or data that is not there, or is left out, is said before the upload."""
    (mistake,) = mistakes_of(client, 3, project, {}, "missing.yaml")
    assert mistake.startswith(f"missing.yaml: there is no such file, neither in {project} nor in ")
    assert mistakes_of(client, 3, project, {}, "data") == (
        "data: it is a folder, expected the file of the backend configuration",
    )
    assert mistakes_of(client, 3, project) == (
        "backend_config: is missing, expected a file such as backend-config.yaml, or what one would hold",
    )
    image = {"Resources": {"Queue": "a"}, "Environment": {"Apptainer": "no.sif"}}
    assert mistakes_of(client, 3, project, {}, image) == (
        f"Environment.Apptainer.Path: there is no image 'no.sif' in {project}",
    )
    left_out = {"Resources": {"Queue": "a"}, "Exclude": ["*.csv"]}
    (mistake,) = mistakes_of(client, 3, project, {}, left_out)
    assert mistake.startswith("parameter 'data': there is no 'data/train.csv' among the files that are sent;")
    assert client.submit_run(3, project, {"data": "/on/the/cluster.csv"}, left_out).job_id
    assert client.submit_run(3, project, {"data": "s3://bucket/train.csv"}, left_out).job_id
    brought = {**left_out, "Environment": {"PreRunCommandOnComputeNode": "fetch-data"}}
    assert client.submit_run(3, project, {}, brought).job_id


def test_two_names_for_one_argument(client: ComputeBackendClient, project: Path) -> None:
    """The old and the new name of the configuration may not contradict each other."""
    with pytest.raises(ConfigurationError, match="backend_config and backend_config_path are the same"):
        client.submit_run(3, project, {}, "a.yaml", backend_config_path="b.yaml")
    assert client.submit_run(3, project, {}, "backend-config.yaml", backend_config_path="backend-config.yaml").job_id


def test_a_mapping_that_is_no_json(client: ComputeBackendClient, project: Path) -> None:
    """What cannot be written down cannot be sent."""
    circle: dict[str, Any] = {}
    circle["Resources"] = circle
    (mistake,) = mistakes_of(client, 3, project, {}, circle)
    assert mistake.startswith("backend_config: it cannot be written as JSON (Circular reference")


def test_an_archive_over_the_limit_is_not_uploaded(
    service: StandIn, client: ComputeBackendClient, project: Path
) -> None:
    """The service says what it takes; what is larger is refused here, with the largest files."""
    service.limit = 2000
    (project / "large.bin").write_bytes(b"x" * 3000)
    (mistake,) = mistakes_of(client, 3, project, {}, "backend-config.yaml")
    assert mistake.startswith("the project is too large: 4.0 kB, and the service takes 2.0 kB.")
    assert "Largest: large.bin (3.0 kB), " in mistake
    assert service.asked_for("/compute-backend/submit/") == []


def test_the_limit_of_the_contract_holds_where_the_service_names_none(
    client: ComputeBackendClient, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project over 100 MiB is not uploaded to a service that says nothing of its limit."""
    monkeypatch.setattr(Archive, "size", 100 * 2**20 + 1)
    (mistake,) = mistakes_of(client, 3, project, {}, "backend-config.yaml")
    assert mistake.startswith("the project is too large: 105 MB, and the service takes 105 MB.")


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


@pytest.mark.parametrize("content", [b"<html>Sign in</html>", {"run": 1}, [], {"run_id": 1, "experiment_id": 1}])
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
    package = Package(3, fields, archive, 3000, lambda sent, total: seen.append((sent, total)))
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
    for wrong in ("", "..", "a/b", "a?b", "a b"):
        with pytest.raises(ConfigurationError, match="is no id of a job or a run"):
            client.status(wrong)


@pytest.mark.parametrize("content", [{}, {"job_id": 7, "state": "RUNNING"}, b"<html>", []])
def test_an_answer_that_is_no_job(content: object, service: StandIn, client: ComputeBackendClient) -> None:
    """Something else at that address is an error."""
    service.script("/compute-backend/jobs/", Answer(200, content))
    with pytest.raises(UnexpectedAnswerError):
        client.status("job-1")


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


def test_the_argument_order_of_other_releases(client: ComputeBackendClient, project: Path) -> None:
    """Who calls by position as some releases of the public client want it is told the order here."""
    with pytest.raises(ProjectError, match="run_name="):
        client.submit_run("a name", 1, str(project), {}, {"Resources": {"Queue": "batch"}})  # type: ignore[arg-type]
