from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from mantik.server.compute.jobs import Job, State

from .projects import FILES

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.server.store import User

    from .conftest import Backend

KEYS = {
    *("job_id", "run_id", "experiment_id", "run_name", "entry_point", "parameters", "state", "reason", "queue"),
    *("submitted_at", "started_at", "ended_at", "exit_code", "signal", "executor", "executor_id", "nodes"),
    *("log_size", "backend_config"),
}


@pytest.fixture
def job(backend: Backend) -> Job:
    """A job of alice."""
    return backend.submitted()


@pytest.fixture
def bob(backend: Backend) -> User:
    """Another user."""
    return backend.users.add_user("bob", "-")


def test_job_is_shown_whole(backend: Backend, job: Job) -> None:
    """All that is known of it, under its own id and under the run's."""
    learned = {"executor": "local", "executor_id": "17:99", "nodes": "here", "exit_code": 3, "signal": None}
    backend.jobs.update(job.job_id, state=State.FAILED, reason="It returned 3.", ended_at=job.submitted_at, **learned)
    backend.folders(job).log.write_text("printed\n")
    shown = backend.ask("GET", f"/jobs/{job.job_id}").json()
    assert set(shown) == KEYS
    expected = {
        "run_id": job.run_id,
        "experiment_id": int(backend.experiment_id),
        "parameters": {"alpha": "0.1"},
        "state": "FAILED",
        "reason": "It returned 3.",
        "queue": "batch",
        "log_size": 8,
        "started_at": None,
        **learned,
    }
    assert {name: shown[name] for name in expected} == expected
    assert backend.ask("GET", f"/jobs/{job.run_id}").json() == shown


def test_jobs_are_listed_newest_first(backend: Backend, bob: User) -> None:
    """A page of one's own, and how many there are."""
    submitted = [backend.submitted().job_id for _ in range(3)]
    backend.submitted(user=bob)
    answer = backend.ask("GET", "/jobs", query="limit=2")
    assert int(answer.headers["mantik-archive-limit"]) > 0
    first = json.loads(answer.body)
    rest = json.loads(backend.ask("GET", "/jobs", query="offset=2").body)
    assert [job["job_id"] for job in first["jobs"] + rest["jobs"]] == submitted[::-1]
    assert (first["total"], rest["total"], set(first["jobs"][0])) == (3, 3, KEYS)


@pytest.mark.parametrize("query", ["offset=-1", "limit=x", "limit=1001", "offset=" + "9" * 5000, "limit=", "limit=1.5"])
def test_page_that_is_none_is_refused(backend: Backend, query: str) -> None:
    """400 with what was expected."""
    answer = backend.ask("GET", "/jobs", query=query)
    assert answer.status == 400
    assert "must be a whole number from 0 to" in answer.json()["message"]


PATHS = [("GET", ""), ("GET", "/logs"), ("GET", "/files"), ("GET", "/files/train.py"), ("POST", "/cancel")]


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_jobs_of_others_are_not_there(backend: Backend, job: Job, bob: User, method: str, path: str) -> None:
    """Somebody else's job answers like one that never was, byte for byte, by either id."""
    backend.folders(job).log.write_text("secret")
    unknown = backend.ask(method, f"/jobs/unknown{path}", user=bob)
    assert unknown.status == 404
    assert unknown.json() == {"detail": "There is no such job, or it is somebody else's"}
    for name in (job.job_id, job.run_id):
        answer = backend.ask(method, f"/jobs/{name}{path}", user=bob)
        assert (answer.status, answer.body, answer.headers.raw) == (unknown.status, unknown.body, unknown.headers.raw)
        assert backend.ask(method, f"/jobs/{name}{path}").status in {200, 202}
    assert backend.jobs.get(job.job_id) != job or path != "/cancel"


def test_user_of_the_same_name_is_another_one(backend: Backend, job: Job) -> None:
    """Who comes later inherits no jobs."""
    backend.users.remove_user("alice")
    later = backend.users.add_user("alice", "-")
    assert backend.ask("GET", f"/jobs/{job.job_id}", user=later).status == 404
    assert json.loads(backend.ask("GET", "/jobs", user=later).body) == {"jobs": [], "total": 0}


def test_cancel_is_a_wish_that_is_kept(backend: Backend, job: Job) -> None:
    """202 with the job; a job that is over stays as it is."""
    answer = backend.ask("POST", f"/jobs/{job.run_id}/cancel")
    assert (answer.status, answer.json()["state"]) == (202, "QUEUED")
    assert [found.job_id for found in backend.jobs.to_cancel()] == [job.job_id]
    backend.jobs.update(job.job_id, state=State.SUCCEEDED)
    again = backend.ask("POST", f"/jobs/{job.job_id}/cancel")
    assert (again.status, again.json()["state"]) == (202, "SUCCEEDED")
    assert backend.jobs.to_cancel() == []


def test_log_is_read_from_where_one_is(backend: Backend, job: Job) -> None:
    """What was written since, how much there is, and the state; before the first line there is nothing."""
    answer = backend.ask("GET", f"/jobs/{job.job_id}/logs")
    assert (answer.status, answer.body, answer.headers["mantik-log-size"]) == (200, b"", "0")
    content = b"line 1\nl\xc3\xadne 2\n\xff\0" + b"x" * 600_000
    backend.folders(job).log.write_bytes(content)
    backend.jobs.update(job.job_id, state=State.RUNNING)
    for offset in (0, 7, 300_000, len(content), len(content) + 5):
        answer = backend.ask("GET", f"/jobs/{job.job_id}/logs", query=f"offset={offset}")
        assert answer.body == content[offset:]
        assert answer.headers["mantik-log-size"] == str(len(content))
        assert answer.headers["mantik-job-state"] == "RUNNING"
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert backend.ask("GET", f"/jobs/{job.job_id}/logs", query="offset=-1").status == 400


def listed(backend: Backend, job: Job, path: str = "") -> list[tuple[str, int, bool]]:
    """Return what is in a folder of the job."""
    answer = backend.ask("GET", f"/jobs/{job.job_id}/files", query=f"path={path}")
    assert answer.status == 200, answer.text
    return [(found["path"], found["size"], found["is_dir"]) for found in json.loads(answer.body)["files"]]


def test_files_of_the_working_folder_are_listed_and_read(backend: Backend, job: Job) -> None:
    """Folder by folder, with what the program has written there."""
    project = backend.folders(job).project
    (project / "out" / "deep").mkdir(parents=True)
    (project / "out" / "model ü;<b>.bin").write_bytes(b"\0" * 300_000)
    sizes = {name: len(content) for name, content in FILES.items() if "/" not in name}
    assert listed(backend, job) == sorted(
        [("data", 0, True), ("out", 0, True), *((n, s, False) for n, s in sizes.items())]
    )
    assert listed(backend, job, "out/") == [("out/deep", 0, True), ("out/model ü;<b>.bin", 300_000, False)]
    assert listed(backend, job, "out/deep") == []
    answer = backend.ask("GET", f"/jobs/{job.job_id}/files/out/model ü;<b>.bin")
    assert answer.body == b"\0" * 300_000
    assert answer.headers["content-length"] == "300000"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''model%20%C3%BC%3B%3Cb%3E.bin"
    assert answer.headers["content-security-policy"].startswith("sandbox")


@pytest.mark.parametrize(
    "path",
    [
        "../mantik.log",
        "../../../../platform.db",
        "data/../../mantik.log",
        "..",
        ".",
        "./train.py",
        "/etc/passwd",
        "//etc/passwd",
        "data//table.csv",
        "data/",
        "data",
        "train.py/",
        "train.py/x",
        "missing",
        "a\0b",
        "x" * 5000,
        "out",
        "link-out",
        "link-out-folder/hostname",
        "link-to-log",
        "link-loop",
        "link-nowhere",
        "pipe",
    ],
)
def test_no_path_leads_out_of_the_working_folder(backend: Backend, job: Job, path: str) -> None:
    """Neither dots nor links nor anything that is no ordinary file: 404, without waiting for anything."""
    project = backend.folders(job).project
    backend.folders(job).log.write_text("x")
    os.mkfifo(project / "pipe")
    links = {"link-out": "/etc/passwd", "link-out-folder": "/etc", "link-to-log": "../mantik.log"}
    for name, target in {**links, "link-loop": "link-loop", "link-nowhere": "gone"}.items():
        (project / name).symlink_to(target)
    assert backend.ask("GET", f"/jobs/{job.job_id}/files/{path}").status == 404
    assert not {name for name, _, _ in listed(backend, job)} & {*links, "link-loop", "link-nowhere", "pipe"}
    if path not in {"data", "data/"}:
        answer = backend.ask("GET", f"/jobs/{job.job_id}/files", query=f"path={path.replace(chr(0), '%00')}")
        assert answer.status == (200 if path in {"data/", "data"} else 404)


def test_links_within_the_working_folder_are_followed(backend: Backend, job: Job) -> None:
    """Checkpoints are often links to the latest one."""
    project = backend.folders(job).project
    (project / "last").symlink_to("data/table.csv")
    (project / "folder").symlink_to(project / "data")
    assert backend.ask("GET", f"/jobs/{job.job_id}/files/last").body == FILES["data/table.csv"].encode()
    assert listed(backend, job, "folder") == [("folder/table.csv", 8, False)]
    assert ("folder", 0, True) in listed(backend, job)
    assert ("last", 8, False) in listed(backend, job)


def test_link_in_the_place_of_the_folder_is_not_followed(backend: Backend, job: Job, tmp_path: Path) -> None:
    """A program that exchanges its working folder, or its log, shows nothing else by it."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "train.py").write_text("secret")
    folders = backend.folders(job)
    folders.project.rename(folders.root / "moved")
    folders.project.symlink_to(secret)
    folders.log.symlink_to(secret / "train.py")
    assert backend.ask("GET", f"/jobs/{job.job_id}/files/train.py").status == 404
    assert backend.ask("GET", f"/jobs/{job.job_id}/files").status == 404
    assert backend.ask("GET", f"/jobs/{job.job_id}/logs").body == b""


def test_name_that_is_no_text_is_left_out(backend: Backend, job: Job) -> None:
    """It does not break the list."""
    folder = os.fsencode(backend.folders(job).project / "data")
    with open(folder + b"/\xff\xfe", "wb"), open(folder + b"/new\nline", "wb"):  # noqa: PTH123 - bytes
        pass
    assert [name for name, _, _ in listed(backend, job, "data")] == ["data/new\nline", "data/table.csv"]


def test_what_the_log_size_says_is_no_file_of_others(backend: Backend, job: Job, tmp_path: Path) -> None:
    """The job is shown although its folder is gone."""
    backend.folders(job).root.rename(tmp_path / "gone")
    assert backend.ask("GET", f"/jobs/{job.job_id}").json()["log_size"] == 0
    assert backend.ask("GET", f"/jobs/{job.job_id}/logs").body == b""
    assert backend.ask("GET", f"/jobs/{job.job_id}/files").status == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "", 404),
        ("GET", "/", 404),
        ("GET", "/jobs/", 404),
        ("GET", "/submit", 404),
        ("GET", "/submit/1", 405),
        ("DELETE", "/jobs", 405),
        ("POST", "/jobs/x", 405),
        ("GET", "/jobs/x/cancel", 405),
        ("PUT", "/jobs/x/files/y", 405),
        ("POST", "/submit/1/2", 404),
    ],
)
def test_other_paths_and_methods_do_nothing(backend: Backend, method: str, path: str, status: int) -> None:
    """They end here and never reach MLflow."""
    assert backend.ask(method, path).status == status
