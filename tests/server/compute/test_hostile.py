from __future__ import annotations

import json
import os
import re
import stat
from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.running import DEADLINE

from .projects import CONFIG, FIELDS, FILES, archive, entry, form, pack

if TYPE_CHECKING:
    from .intake import Intake

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SHELL = [
    "$(touch INJECTED)",
    "`touch INJECTED`",
    "; touch INJECTED ;",
    "| touch INJECTED",
    "&& touch INJECTED",
    "' ; touch INJECTED ; '",
    '" ; touch INJECTED ; "',
    "$IFS$HOME ${PATH} %s %n {alpha} {0.__class__}",
    "--help",
    "-rf /",
    "../../../etc/passwd",
    "\\",
    "*?[a-z]~!#",
]


class Snapshot:
    """What is in the folder around the data, and in the folder of the jobs."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._before = self._outside()

    def _outside(self) -> dict[str, tuple[int, int]]:
        """Return all files outside of the folder of the jobs, and those of the databases without their content."""
        parent, compute = self._intake.config.data.parent, self._intake.compute.folder
        found = {}
        for path in parent.rglob("*"):
            if compute not in path.parents and path.suffix not in {".db", ".log", ".db-wal", ".db-shm", ".db-journal"}:
                status = path.lstat()
                found[str(path)] = (status.st_mode, status.st_size)
        return found

    def assert_unchanged(self) -> None:
        """Make sure that nothing appeared anywhere but in the folders of jobs, and no job's folder looks different."""
        assert self._outside() == self._before
        compute = self._intake.compute
        names = {path.name for path in compute.folder.iterdir()} - {"compute.db", "compute.db-wal", "compute.db-shm"}
        assert names == {"incoming", "jobs", "removed"}
        assert not list(compute.incoming.glob("*/*"))
        for job in compute.jobs.iterdir():
            assert UUID.fullmatch(job.name)
            assert self._intake.jobs.get(job.name)
            assert [path.name for path in job.iterdir()] == ["project"]
            kinds = {stat.S_IFMT(path.lstat().st_mode) for path in job.rglob("*")}
            assert kinds <= {stat.S_IFREG, stat.S_IFDIR}


@pytest.fixture(scope="session")
def snapshot(intake: Intake) -> Snapshot:
    """What there was before the first attack."""
    answer = intake.submit()
    assert answer.status_code == 201, answer.text
    return Snapshot(intake)


def assert_answered(intake: Intake, answer: requests.Response) -> None:
    """Make sure that an answer is one that the service gives on purpose, and names nothing of the server."""
    assert answer.status_code in {201, 400, 413, 422}, answer.text
    assert str(intake.config.data) not in answer.text
    assert "Traceback" not in answer.text
    if answer.status_code == 422:
        assert all({"loc", "msg", "type"} == set(found) for found in answer.json()["detail"])
    elif answer.status_code in {400, 413}:
        assert set(answer.json()) == {"message"}


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.sampled_from(SHELL)
fields = st.fixed_dictionaries(
    {},
    optional={
        "entry_point": texts | st.just("main"),
        "run_name": texts,
        "mlflow_parameters": texts
        | st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | texts,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        ).map(json.dumps),
        "unicore_backend_config": texts,
        "unicore_backend_config_path": texts,
        "mlflow_tracking_uri": texts,
        "unicore_user": texts,
        "other": texts,
    },
)
archives = st.one_of(
    st.just(archive()),
    st.binary(max_size=200),
    st.tuples(st.integers(0, 5000), st.binary(min_size=1, max_size=6)).map(lambda change: overwritten(*change)),
    st.dictionaries(texts.filter(bool), texts, min_size=1, max_size=4).map(lambda files: archive({**FILES, **files})),
    st.tuples(texts, st.integers(0, 0xFFFF)).map(lambda e: pack([*FILES.items(), (entry(e[0], e[1]), "../../x")])),
    texts.map(lambda text: archive({**FILES, "MLproject": text})),
    texts.map(lambda text: archive({**FILES, CONFIG: text})),
)


def overwritten(place: int, data: bytes) -> bytes:
    """Return the sound archive with other bytes somewhere."""
    content = bytearray(archive())
    at = place % len(content)
    content[at : at + len(data)] = data
    return bytes(content)


@settings(max_examples=120)
@given(fields, archives)
def test_no_form_breaks_the_service(
    intake: Intake, snapshot: Snapshot, fields: dict[str, str | None], zipped: bytes
) -> None:
    """Whatever is in the fields and in the file: a job, or a refusal that says why, and nothing else anywhere."""
    assert_answered(intake, intake.submit(zipped, **fields))
    snapshot.assert_unchanged()


@settings(max_examples=80)
@given(
    st.lists(
        st.binary(max_size=60)
        | st.sampled_from([b"--XyZ", b"\r\n", b"--", b"Content-Disposition: form-data; name=", b"a"])
    ),
    st.sampled_from(["multipart/form-data; boundary=XyZ", "multipart/form-data", "text/plain", "", "a" * 2000]),
)
def test_no_body_breaks_the_service(intake: Intake, snapshot: Snapshot, pieces: list[bytes], content_type: str) -> None:
    """A body that is no form is told so."""
    answer = intake.post("submit/0", b"".join(pieces), {"Content-Type": content_type})
    assert answer.status_code in {413, 422}
    assert_answered(intake, answer)
    snapshot.assert_unchanged()


@settings(max_examples=80)
@given(st.sampled_from(["GET", "POST", "HEAD", "DELETE", "OPTIONS"]), st.lists(texts, max_size=4), texts)
def test_no_path_breaks_the_service(
    intake: Intake, snapshot: Snapshot, method: str, parts: list[str], query: str
) -> None:
    """Ids and paths of all kinds name no job and no file."""
    job = intake.jobs.of_user(intake.alice.id)[0][-1].job_id
    for start in ("submit", "jobs", f"jobs/{job}", f"jobs/{job}/files", f"jobs/{job}/logs"):
        path = "/".join(requests.utils.quote(part, safe="") for part in [*start.split("/"), *parts])
        answer = requests.request(
            method,
            f"{intake.process.url}/compute-backend/{path}",
            params={"path": query, "offset": query},
            headers=intake.headers(),
            timeout=DEADLINE,
        )
        assert answer.status_code in {200, 400, 404, 405, 422}, (answer.status_code, path)
        assert "root:" not in answer.text
        assert str(intake.config.data) not in answer.text
    snapshot.assert_unchanged()


@pytest.mark.parametrize("text", SHELL)
def test_what_a_shell_would_run_stays_a_text(intake: Intake, snapshot: Snapshot, text: str) -> None:
    """In the run's name, in parameters, in entry points, in variables: it comes back as it was sent, or is refused."""
    project = f"entry_points:\n  {json.dumps(text)}:\n    parameters: {{label: string}}\n    command: 'true'\n"
    config = {"Resources": {"Queue": "q"}, "Environment": {"Variables": {"TEXT": text}}}
    files: dict[str, Any] = {**FILES, "MLproject": project, CONFIG: json.dumps(config)}
    answer = intake.submit(
        archive(files), entry_point=text, run_name=text, mlflow_parameters=json.dumps({"label": text})
    )
    assert answer.status_code == 201, answer.text
    job = intake.jobs.get(answer.json()["job_id"])
    assert job
    assert (job.entry_point, job.run_name, job.parameters) == (text, text, {"label": text})
    assert job.backend_config["Environment"]["Variables"] == {"TEXT": text}
    snapshot.assert_unchanged()
    assert not list(intake.config.data.parent.rglob("INJECTED"))


@pytest.mark.parametrize("text", SHELL)
def test_words_of_the_batch_system_are_one_word(intake: Intake, text: str) -> None:
    """What stands behind an option of the batch system is checked before there is a job; a blank is refused."""
    config = {"Resources": {"Queue": text, "QoS": text}}
    answer = intake.submit(archive({**FILES, CONFIG: json.dumps(config)}))
    assert answer.status_code == (400 if re.search(r"\s", text) else 201), answer.text


def test_hostile_names_reach_no_file_outside(intake: Intake, snapshot: Snapshot) -> None:
    """Archives made to escape, over the network."""
    target = intake.config.data.parent / "escaped"
    up = "../" * 12
    for info, content in [
        (f"{up}{target}"[1:], "x"),
        (str(target), "x"),
        (f"{up[:-1]}{target}", "x"),
        (entry("link", stat.S_IFLNK | 0o777), str(target)),
        ("a\\..\\..\\escaped", "x"),
        ("mantik.log/../../../escaped", "x"),
    ]:
        answer = intake.submit(pack([*FILES.items(), (info, content)]))
        assert answer.status_code == 400, answer.text
    link = [(entry("d", stat.S_IFLNK | 0o777), str(target.parent)), ("d/escaped", "x")]
    assert intake.submit(pack([*FILES.items(), *link])).status_code == 400
    assert not target.exists()
    snapshot.assert_unchanged()


def test_upload_over_the_limit_is_told_so(intake: Intake, snapshot: Snapshot) -> None:
    """The client that sends all of it comes to read the answer, also without a length."""
    large = archive({**FILES, "noise": os.urandom(34 * 1024 * 1024)}, method=0)
    assert intake.submit(large).status_code == 413
    body, headers = form(large)
    chunked = requests.post(
        f"{intake.process.url}/compute-backend/submit/0",
        data=(body[at : at + 100_000] for at in range(0, len(body), 100_000)),
        headers={**headers, **intake.headers()},
        timeout=DEADLINE,
    )
    assert chunked.status_code == 413
    assert "Expected at most 33554432 bytes" in chunked.json()["message"]
    snapshot.assert_unchanged()


def test_log_of_the_server_holds_nothing_of_the_forms(intake: Intake) -> None:
    """Neither tokens nor passwords nor errors."""
    secrets = {
        name: f"secret-{name}" for name in FIELDS if name.startswith(("unicore_p", "unicore_u", "mlflow_tracking"))
    }
    answer = intake.submit(**secrets)
    assert answer.status_code == 201
    log = intake.config.log.read_text()
    assert "POST /compute-backend/submit/0" in log
    assert "secret-" not in log
    assert "Traceback" not in log
    assert intake.headers()["Authorization"].split(".")[0] not in log
