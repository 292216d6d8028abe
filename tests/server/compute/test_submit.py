from __future__ import annotations

import asyncio
import errno
import json
import stat
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from mlflow.entities import RunStatus
from starlette.datastructures import Headers

from mantik.server.app import wrap
from mantik.server.compute.incoming import Incoming
from mantik.server.compute.jobs import State
from mantik.server.compute.runs import Runs
from tests.server.asgi import Answer, Inner, call, request

from .conftest import details
from .projects import CONFIG, FILES, archive, changed, form

if TYPE_CHECKING:
    from starlette.types import Message

    from .conftest import Backend

PATH_FIELDS = ("unicore_backend_config", "unicore_backend_config_path")


def test_submission_becomes_a_job_and_a_scheduled_run(backend: Backend) -> None:
    """The answer names both, the run has the user, the entry point and the params, and the job waits."""
    answer = backend.submit(run_name="first")
    content = json.loads(answer.body)
    assert answer.status == 201
    assert content == {
        "experiment_id": int(backend.experiment_id),
        "run_id": content["run_id"],
        "unicore_job_id": content["job_id"],
        "job_id": content["job_id"],
    }
    run = backend.tracking.get_run(content["run_id"])
    assert (run.info.status, run.info.run_name, run.info.user_id) == ("SCHEDULED", "first", "alice")
    assert run.data.params == {"alpha": "0.1", "label": "plain"}
    expected = {
        "mantik.job_id": content["job_id"],
        "mantik.user": "alice",
        "mlflow.user": "alice",
        "mlflow.source.type": "PROJECT",
        "mlflow.project.entryPoint": "main",
    }
    assert expected.items() <= run.data.tags.items()
    job = backend.jobs.get(content["job_id"])
    assert job
    assert (job.state, job.run_id, job.queue, job.slots) == (State.QUEUED, content["run_id"], "batch", 1)
    assert (job.user_id, job.username, job.run_name) == (backend.alice.id, "alice", "first")
    assert job.parameters == {"alpha": "0.1"}
    assert job.backend_config["Resources"] == {"Queue": "batch"}


NAME = "0f8fad5b-d9cb-469f-a165-70867728950e"


def test_a_client_may_name_its_job(backend: Backend) -> None:
    """Submitted again under its name, a job is answered as it is, whatever else is sent: nothing is there twice."""
    first = backend.submit(key=NAME)
    assert first.status == 201
    assert first.json()["job_id"] == NAME
    again = backend.submit(b"no project" * 100_000, key=NAME)
    assert (again.status, again.json()) == (201, first.json())
    assert [run.info.run_id for run in backend.runs()] == [first.json()["run_id"]]
    assert backend.jobs.of_user(backend.alice.id)[1] == 1


def test_a_name_that_is_taken_is_refused(backend: Backend) -> None:
    """Another user's job, and one that is still being submitted to another process, stay what they are."""
    job = backend.jobs.get(backend.submit(key=NAME).json()["job_id"])
    bob = backend.users.add_user("bob", "correct-horse-battery")
    refused = backend.submit(user=bob, key=NAME)
    assert (refused.status, refused.json()) == (409, {"message": "This job is being submitted already."})
    assert backend.jobs.get(NAME) == job
    assert backend.jobs.of_user(bob.id) == ([], 0)

    elsewhere = Incoming(backend.compute, backend.jobs, Runs(lambda: backend.tracking))
    other = NAME.replace("0f", "1f")
    draft = elsewhere.new(backend.experiment_id, other)
    assert backend.submit(key=other).status == 409
    assert [path.name for path in backend.compute.incoming.glob("*/*")] == [draft.folder.name]
    elsewhere.clear(draft)
    assert backend.submit(key=other).status == 201
    assert len(backend.runs()) == 2


@pytest.mark.parametrize("name", ["", "job-1", NAME.upper(), f"../{NAME}", f"{NAME}/..", f"{NAME}0", "*"])
def test_a_name_that_is_no_uuid_is_refused(backend: Backend, name: str) -> None:
    """It would become the name of a folder."""
    refused = backend.submit(key=name)
    assert (refused.status, refused.json()) == (
        400,
        {"message": "Idempotency-Key must be a UUID in lower case, with hyphens."},
    )
    assert backend.is_untouched()


def test_project_lies_in_the_jobs_folder_and_nowhere_else(backend: Backend) -> None:
    """All files are there, private, and nothing of the upload is left."""
    project = backend.folders(backend.submitted()).project
    found = {path.relative_to(project).as_posix(): path for path in project.rglob("*") if path.is_file()}
    assert {name: path.read_text() for name, path in found.items()} == FILES
    everything = [backend.compute.folder, *backend.compute.folder.rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in everything} <= {0o600, 0o700}
    assert not list(backend.compute.incoming.glob("*/*"))


def test_mlflow_finds_a_name_for_a_run_without_one(backend: Backend) -> None:
    """The job has the name of the run."""
    job = backend.submitted()
    assert job.run_name
    assert backend.tracking.get_run(job.run_id).info.run_name == job.run_name


def test_secrets_of_the_form_are_kept_nowhere(backend: Backend) -> None:
    """The token and the password that old clients send are neither stored nor used."""
    backend.submitted(mlflow_tracking_token="secret-1", unicore_password="secret-2", unicore_user="secret-3")
    files = [path for path in backend.config.data.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        assert b"secret-" not in path.read_bytes(), path


@pytest.mark.parametrize("name", PATH_FIELDS)
def test_either_name_of_the_configuration_will_do(backend: Backend, name: str) -> None:
    """Clients of 0.1.0 and of 0.1.2 name the file by different fields."""
    fields: dict[str, str | None] = dict.fromkeys(PATH_FIELDS)
    zipped = changed(**{CONFIG: None, "deep/own.yaml": "Resources: {Queue: gpu}\n"})
    assert backend.submit(zipped, **{**fields, name: "deep/own.yaml"}).status == 201
    assert backend.submit(**fields).status == 201


def test_fields_are_checked_together(backend: Backend) -> None:
    """422 in FastAPI's shape, one object for each field, and nothing is left."""
    answer = backend.submit(entry_point=None, mlflow_parameters="[1]", run_name="a\nb", unicore_backend_config="../x")
    assert set(details(answer)) == {"entry_point", "mlflow_parameters", "run_name", *PATH_FIELDS}
    assert backend.is_untouched()


@pytest.mark.parametrize(
    ("fields", "mistake"),
    [
        ({"entry_point": None}, ("entry_point", "The field is missing")),
        ({"entry_point": ""}, ("entry_point", "The field is missing")),
        ({"entry_point": "x" * 251}, ("entry_point", "Expected at most 250 printable characters")),
        ({"mlflow_parameters": None}, ("mlflow_parameters", "The field is missing")),
        ({"mlflow_parameters": "{"}, ("mlflow_parameters", "Expected a JSON object with the values of the parameters")),
        ({"mlflow_parameters": "null"}, ("mlflow_parameters", "Expected a JSON object")),
        ({"mlflow_parameters": "[" * 100_000}, ("mlflow_parameters", "Expected a JSON object")),
        ({"mlflow_parameters": '{"a": null}'}, ("mlflow_parameters", "Expected a text, a number or a truth value")),
        ({"mlflow_parameters": '{"a": ["b"]}'}, ("mlflow_parameters", "Expected a text, a number or a truth value")),
        ({"run_name": "x" * 251}, ("run_name", "Expected at most 250 printable characters")),
        ({"unicore_backend_config": "other.json"}, ("unicore_backend_config_path", "It differs from")),
    ],
)
def test_field_is_refused_with_what_was_expected(
    backend: Backend, fields: dict[str, str | None], mistake: tuple[str, str]
) -> None:
    """Each mistake names its field."""
    name, text = mistake
    assert details(backend.submit(**fields))[name].startswith(text)
    assert backend.is_untouched()


@pytest.mark.parametrize("path", ["/etc/passwd", "../../platform.db", "a/../../b", "a\\b", "C:/x", "a//b", "a\0b"])
def test_configuration_outside_of_the_project_is_refused(backend: Backend, path: str) -> None:
    """The path of the configuration stays in the project."""
    answer = backend.submit(unicore_backend_config=path, unicore_backend_config_path=None)
    assert "unicore_backend_config" in details(answer)
    assert backend.is_untouched()


@pytest.mark.parametrize(
    ("zipped", "text"),
    [
        (changed(MLproject=None), "there is no MLproject file in the project"),
        (changed(MLproject="entry_points: ["), "MLproject: it is no valid YAML"),
        (changed(MLproject="&a [" * 5000), "MLproject: it"),
        (changed(MLproject="a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]\n"), "aliases"),
        (changed(MLproject="name: x\n"), "does not declare it"),
        (changed(**{CONFIG: None}), "there is no such file in the project"),
        (changed(**{CONFIG: "{"}), "it is no valid JSON"),
        (changed(**{CONFIG: "[1]"}), "it holds a list"),
        (changed(**{CONFIG: '{"Resources": {}}'}), "Resources.Queue: is missing"),
        (changed(**{CONFIG: '{"Resources": {"Queue": "a b; rm -rf /"}}'}), "Resources.Queue"),
        (changed(**{CONFIG: '{"Resources": {"Queue": "q", "Runtime": "12hours"}}'}), "Resources.Runtime"),
        (changed(**{CONFIG: '{"Resources": {"Queue": "q", "CPUs": 5}}'}), "5 CPUs are too many"),
        (changed(**{CONFIG: '{"Resources": {"Queue": "q", "Nodes": 2}}'}), "runs its jobs on one machine"),
    ],
)
def test_project_that_cannot_be_run_is_refused(backend: Backend, zipped: bytes, text: str) -> None:
    """400 with all mistakes, without the name of any folder of the server, and nothing is left."""
    answer = backend.submit(zipped)
    message = answer.json()["message"]
    assert (answer.status, text in message) == (400, True), message
    assert str(backend.config.data) not in message
    assert backend.is_untouched()


def test_all_mistakes_are_in_one_answer(backend: Backend) -> None:
    """Entry point, parameter and configuration are checked together."""
    config = '{"Resources": {"Queue": "q", "Runtime": "soon"}}'
    answer = backend.submit(changed(**{CONFIG: config}), mlflow_parameters='{"alpha": "much"}')
    assert answer.status == 400
    assert "Resources.Runtime" in answer.json()["message"]
    assert "'much' is no number" in answer.json()["message"]


@pytest.mark.parametrize(
    ("experiment_id", "status", "text"),
    [
        ("99999", 400, "There is no experiment 99999"),
        ("-1", 422, "Expected the number of an experiment"),
        ("1.0", 422, "Expected the number of an experiment"),
        ("1;DROP TABLE runs", 422, "Expected the number of an experiment"),
        ("' OR 1=1 --", 422, "Expected the number of an experiment"),
        ("..", 422, "Expected the number of an experiment"),
        ("\u0663", 422, "Expected the number of an experiment"),
        ("9" * 5000, 422, "Expected the number of an experiment"),
    ],
)
def test_forged_experiment_is_refused(backend: Backend, experiment_id: str, status: int, text: str) -> None:
    """An experiment that is not there, and what is no number of one."""
    answer = backend.submit(experiment_id=experiment_id)
    assert answer.status == status
    assert text in answer.text
    assert backend.is_untouched()


def test_deleted_experiment_is_refused(backend: Backend) -> None:
    """Nothing is added to what was deleted."""
    backend.tracking.delete_experiment(backend.experiment_id)
    answer = backend.submit()
    assert (answer.status, answer.json()["message"].split(".")[0]) == (
        400,
        f"The experiment {backend.experiment_id} was deleted",
    )


def test_run_that_mlflow_refuses_leaves_nothing(backend: Backend) -> None:
    """A param that MLflow does not take is noticed when the run is there already: it is taken back."""
    answer = backend.submit(mlflow_parameters=json.dumps({"alpha": 1, "a;b": "x"}))
    assert (answer.status, "The run cannot be made" in answer.text) == (400, True), answer.text
    assert backend.is_untouched()


def test_failure_after_the_run_was_made_takes_it_back(backend: Backend) -> None:
    """If the job cannot be added in the end, run and files vanish."""
    backend.compute.jobs.rmdir()
    backend.compute.jobs.write_text("no folder")
    with pytest.raises(NotADirectoryError):
        backend.submit()
    backend.compute.jobs.unlink()
    assert backend.is_untouched()


@pytest.mark.parametrize("backend", [{"archive_limit": 2000}], indirect=True)
def test_upload_over_the_limit_is_refused_while_it_arrives(backend: Backend) -> None:
    """413 with the limit, whether the length was announced or not; what is at the limit passes."""
    large = archive({**FILES, "data/noise.bin": bytes(2000)}, method=zipfile.ZIP_STORED)
    assert len(archive()) < 2000 < len(large)
    answer = backend.submit(large)
    assert (answer.status, answer.json()["message"]) == (
        413,
        "The archive of the project is too large. Expected at most 2000 bytes.",
    )
    assert backend.is_untouched()
    assert backend.submit().status == 201


@pytest.mark.parametrize("backend", [{"archive_limit": 1000}], indirect=True)
def test_announced_length_is_believed_when_it_is_too_long(backend: Backend) -> None:
    """What says that it is too long is refused."""
    _, headers = form()
    chunks = [b"x" * 100_000] * 30
    assert stream(backend, chunks, {**headers, "Content-Length": "3000000"}).status == 413
    assert backend.is_untouched()


@pytest.mark.parametrize("backend", [{"queue_limit": 2}], indirect=True)
def test_user_has_a_number_of_unfinished_jobs(backend: Backend) -> None:
    """One more is told to wait; others are not, and a job that is over makes room."""
    bob = backend.users.add_user("bob", "-")
    first, _ = backend.submitted(), backend.submitted()
    answer = backend.submit()
    assert (answer.status, answer.headers["retry-after"]) == (429, "60")
    assert answer.json()["message"].startswith("You have 2 jobs that have not ended")
    backend.submitted(user=bob)
    backend.jobs.update(first.job_id, state=State.CANCELLED)
    backend.submitted()
    assert len(backend.runs()) == 4


@pytest.mark.parametrize("backend", [{"queue_limit": 3}], indirect=True)
def test_limit_holds_for_submissions_at_once(backend: Backend) -> None:
    """However many arrive at the same moment, no more are taken, and the others leave nothing."""
    body, headers = form()
    headers |= backend.headers()

    async def all_at_once() -> list[int]:
        path = f"/compute-backend/submit/{backend.experiment_id}"
        answers = [request(backend.app, "POST", path, body=body, headers=headers) for _ in range(12)]
        return sorted(answer.status for answer in await asyncio.gather(*answers))

    assert asyncio.run(all_at_once()) == [201] * 3 + [429] * 9
    assert len(backend.runs()) == len(list(backend.compute.jobs.iterdir())) == 3
    assert not list(backend.compute.incoming.glob("*/*"))


def stream(
    backend: Backend, chunks: list[bytes], headers: dict[str, str], *, is_cut: bool = False, is_silent: bool = False
) -> Answer:
    """Submit in pieces; the client of a cut request goes away after the last one, a silent one just stays."""
    remaining = list(reversed(chunks))
    sent: list[Message] = []

    async def receive() -> Message:
        if not remaining and is_silent:
            await asyncio.Event().wait()
        if not remaining:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": remaining.pop(), "more_body": bool(remaining) or is_cut or is_silent}

    async def send(message: Message) -> None:
        sent.append(message)

    pairs = [(name.lower().encode(), value.encode()) for name, value in (headers | backend.headers()).items()]
    scope: dict[str, Any] = {"type": "http", "method": "POST", "query_string": b"", "headers": pairs}
    path = f"/compute-backend/submit/{backend.experiment_id}"
    asyncio.run(backend.app({**scope, "path": path}, receive, send))  # type: ignore[arg-type]
    return Answer(sent[0]["status"], Headers(raw=sent[0]["headers"]), sent[1].get("body", b""))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_pieces_in_which_a_form_arrives_make_no_difference(backend: Backend, size: int) -> None:
    """Boundaries and line ends are found wherever they are cut."""
    body, headers = form()
    answer = stream(backend, [body[at : at + size] for at in range(0, len(body), size)], headers)
    assert answer.status == 201


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.6, 0.9, 0.999])
def test_cut_request_leaves_nothing(backend: Backend, part: float) -> None:
    """Wherever the client goes away, no file, no run and no job is left."""
    body, headers = form()
    stream(backend, [body[: int(len(body) * part)]], headers, is_cut=True)
    assert backend.is_untouched()


def test_form_that_ends_early_is_refused(backend: Backend) -> None:
    """A body without its last boundary is incomplete, even if its sender says that it is over."""
    body, headers = form()
    for cut in (body[:-10], body[: len(body) // 2], b"", b"--"):
        assert details(stream(backend, [cut], headers)) == {"form": "The form is incomplete"}
    assert details(stream(backend, [b"no form"], headers)) == {"form": "The form does not begin with its boundary"}
    assert backend.is_untouched()


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"multipart/form-data; boundary={'x' * 300}",
    ],
)
def test_body_of_another_type_is_refused(backend: Backend, content_type: str) -> None:
    """What is no form is told so."""
    assert set(details(stream(backend, [b"{}"], {"Content-Type": content_type}))) == {"form"}


def test_form_needs_its_file_once(backend: Backend) -> None:
    """Without the archive, with it as a field, with it twice, and with a field twice."""
    assert details(backend.submit(b"")) == {"mlproject_zip": "The file is missing"}
    assert "mlproject_zip" in details(backend.submit(b"", mlproject_zip="as a field"))
    body, headers = form()
    boundary = headers["Content-Type"].partition("boundary=")[2].encode()
    doubled = body.replace(b"--" + boundary + b"--", body)
    assert details(stream(backend, [doubled], headers)) == {"entry_point": "The field is there twice"}
    assert backend.is_untouched()


def test_form_of_many_parts_or_long_fields_is_refused(backend: Backend) -> None:
    """What nobody needs is not kept in memory."""
    many = backend.submit(**{f"field{number}": "x" for number in range(40)})
    long = backend.submit(other="x" * 1_200_000)
    assert (many.status, long.status) == (413, 413)
    assert backend.is_untouched()


def test_everything_is_refused_without_a_backend(backend: Backend) -> None:
    """503 with the command that switches it on, for those who are logged in."""
    app = wrap(Inner(), backend.config)
    for path in ("/compute-backend/submit/1", "/compute-backend/jobs", "/compute-backend"):
        answer = call(app, "POST", path, headers=backend.headers())
        assert answer.status == 503
        assert "mantik server --compute" in answer.json()["message"]
        assert call(app, "POST", path).status == 401


def test_projects_are_refused_while_the_disk_is_full(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """507 before the upload, so that databases and running jobs keep the rest."""
    monkeypatch.setattr("mantik.server.compute.quota._RESERVED_BYTES", 2**62)
    answer = backend.submit()
    assert (answer.status, "disk is full" in answer.json()["message"]) == (507, True)
    assert backend.is_untouched()


@pytest.mark.parametrize("function", ["unpack", "receive_form"])
def test_disk_that_fills_up_on_the_way_leaves_nothing(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """The same answer, and everything of the submission is removed."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"mantik.server.compute.submissions.{function}", full)
    answer = backend.submit()
    assert (answer.status, "disk is full" in answer.json()["message"]) == (507, True)
    assert backend.is_untouched()


def test_client_that_falls_silent_is_not_waited_for(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """408, and nothing is left."""
    monkeypatch.setattr("mantik.server.compute.upload._STALL_SECONDS", 0.05)
    monkeypatch.setattr("mantik.server.compute.routes._DRAINED_SECONDS", 0.05)
    body, headers = form()
    answer = stream(backend, [body[:100]], headers, is_silent=True)
    assert (answer.status, json.loads(answer.body)["message"].split(".")[0]) == (408, "Nothing arrived for 0")
    assert backend.is_untouched()


def test_scheduled_is_a_status_of_mlflow(backend: Backend) -> None:
    """The run waits like its job, and can still be started and ended."""
    job = backend.submitted()
    for status in (RunStatus.RUNNING, RunStatus.FINISHED):
        info = backend.tracking.update_run_info(job.run_id, status, None, None)
        assert info.status == RunStatus.to_string(status)
