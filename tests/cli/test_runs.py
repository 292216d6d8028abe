from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from mantik.testing import wait_until
from tests.compute.conftest import CONFIG, MLPROJECT
from tests.compute.serving import Answer
from tests.compute.stand_in import StandIn
from tests.scripts import clean_environment, run_script

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
SUBMIT = ("submit", "project", "--backend-config", "backend-config.yaml")


@pytest.fixture
def service() -> Iterator[StandIn]:
    """Run a compute backend that tests say the jobs of."""
    with StandIn().running() as running:
        yield running


@pytest.fixture
def user(service: StandIn, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user who set the three variables, beside a project."""
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    (project / "MLproject").write_text(MLPROJECT, encoding="utf-8")
    (project / "backend-config.yaml").write_text(CONFIG, encoding="utf-8")
    (project / "data" / "train.csv").write_text("1,2\n", encoding="utf-8")
    settings = {"MLFLOW_TRACKING_URI": service.url, "MANTIK_USERNAME": "ada", "MANTIK_PASSWORD": "right"}
    return clean_environment(settings, tmp_path)


def start(environment: Mapping[str, str], *arguments: str) -> subprocess.Popen[str]:
    """Start `mantik runs` as a user's shell does, in the folder beside the project."""
    return subprocess.Popen(
        [sys.executable, "-m", "mantik", "runs", *arguments],
        env=dict(environment),
        cwd=environment["HOME"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def runs(environment: Mapping[str, str], *arguments: str) -> tuple[int, str, str]:
    """Run `mantik runs` to its end; return exit code, output and errors."""
    process = start(environment, *arguments)
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def test_a_job_is_submitted(service: StandIn, user: dict[str, str]) -> None:
    """The job, its run and its address are printed; what is sent is said on standard error; the exit code is 0."""
    code, output, errors = runs(user, *SUBMIT, "--experiment-id", "3", "-P", "alpha=0.50", "-P", "note=a=b")
    assert (code, output) == (
        0,
        f"Job job-1 was submitted: run {1:032x} of experiment 3.\n{service.url}/#/experiments/3/runs/{1:032x}\n",
    )
    assert errors.startswith("Sending 3 files, ")
    parameters = service.forms["job-1"]["mlflow_parameters"].content
    assert json.loads(parameters) == {"alpha": "0.50", "note": "a=b"}


def test_the_experiment_may_be_in_the_environment(service: StandIn, user: dict[str, str]) -> None:
    """`MLFLOW_EXPERIMENT_ID` is the default, the option wins, and without both the command line is wrong."""
    user["MLFLOW_EXPERIMENT_ID"] = "5"
    code, output, _ = runs(
        user, *SUBMIT, "--json", "--run-name", "named", "--entry-point", "evaluate", "-P", "model=s3://m"
    )
    assert code == 0
    assert json.loads(output)["experiment_id"] == 5
    form = service.forms["job-1"]
    assert (form["run_name"].content, form["entry_point"].content) == (b"named", b"evaluate")
    _, output, _ = runs(user, *SUBMIT, "--json", "--experiment-id", "6")
    assert json.loads(output)["experiment_id"] == 6
    del user["MLFLOW_EXPERIMENT_ID"]
    assert runs(user, *SUBMIT)[0] == 2


def test_the_pattern_that_users_have(service: StandIn, user: dict[str, str], tmp_path: Path) -> None:
    """An absolute path, the configuration in the project, and -v (contract, section 7)."""
    (tmp_path / "project" / "mlproject.d").mkdir()
    (tmp_path / "project" / "mlproject.d" / "unicore-config-venv.yaml").write_text(CONFIG, encoding="utf-8")
    options = (
        "--backend-config",
        "mlproject.d/unicore-config-venv.yaml",
        "--entry-point",
        "main",
        "--experiment-id",
        "3",
    )
    code, _, errors = runs(user, "submit", str(tmp_path / "project"), *options, "-v")
    assert code == 0, errors
    (token,) = service.tokens
    assert token not in errors
    assert service.forms["job-1"]["unicore_backend_config"].content == b"mlproject.d/unicore-config-venv.yaml"


@pytest.mark.parametrize("pairs", [("alpha",), ("=1",), ("alpha=1", "alpha=2")])
def test_parameters_that_are_none(pairs: tuple[str, ...], service: StandIn, user: dict[str, str]) -> None:
    """A parameter is a name, an equals sign and a value, once."""
    options = [option for pair in pairs for option in ("-P", pair)]
    code, output, errors = runs(user, *SUBMIT, "--experiment-id", "3", *options)
    assert (code, output) == (2, "")
    assert "-P" in errors
    assert service.asked == []


def test_mistakes_and_refusals_end_with_1(service: StandIn, user: dict[str, str]) -> None:
    """What the service did not accept, or never saw, is not 0; the reason is one message, without a traceback."""
    code, output, errors = runs(user, *SUBMIT, "--experiment-id", "3", "-P", "alpha=much", "--entry-point", "main")
    assert (code, output) == (1, "")
    assert errors == "Error: The run cannot be submitted: parameter 'alpha': 'much' is no number, expected a float\n"
    assert service.asked == []
    code, output, errors = runs(user, *SUBMIT, "--experiment-id", "404")
    assert (code, output) == (1, "")
    assert errors.endswith(
        f"Error: The compute backend at {service.url} says (HTTP 400): There is no experiment 404.\n"
    )
    service.script("/compute-backend/jobs", Answer(503, {"message": "no backend here"}))
    assert runs(user, *SUBMIT, "--experiment-id", "3")[2] == f"Error: {service.url} takes no jobs: no backend here\n"


def test_a_login_is_renewed_or_is_over(service: StandIn, user: dict[str, str]) -> None:
    """A cached token that the service refuses is renewed; where the login is over, that is said before an upload."""
    assert runs(user, "list")[0] == 0
    del user["MANTIK_PASSWORD"]
    service.tokens = {"others"}
    assert runs(user, *SUBMIT, "--experiment-id", "3")[0] == 0
    refreshed = service.asked_for("/api/mantik/tokens/refresh")
    assert len(refreshed) == 1
    service.tokens = {"others"}
    service.script("/api/mantik/tokens/refresh", Answer(401, b"Refresh token has expired"))
    code, _, errors = runs(user, *SUBMIT, "--experiment-id", "3")
    assert code == 1
    assert "The login of 'ada' at" in errors
    assert len(service.asked_for("/compute-backend/submit/")) == 1


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        ({"state": "SUCCEEDED", "exit_code": 0}, 0),
        ({"state": "FAILED", "exit_code": 7, "reason": "exit code 7"}, 7),
        ({"state": "FAILED", "signal": 9, "reason": "killed"}, 137),
        ({"state": "TIMED_OUT", "reason": "over its time limit"}, 1),
    ],
)
def test_following_ends_as_the_job_does(
    ended: dict[str, object], code: int, service: StandIn, user: dict[str, str]
) -> None:
    """The output comes as it is written, what became of the job is on standard error, and the exit code is its own."""
    process = start(user, *SUBMIT, "--experiment-id", "3", "--follow")
    wait_until(lambda: bool(service.jobs), deadline=60)
    service.logs["job-1"] = b"epoch 1\n"
    service.jobs["job-1"]["state"] = "RUNNING"
    assert process.stdout is not None
    assert process.stdout.readline() == "epoch 1\n"
    service.logs["job-1"] += b"epoch 2"
    service.jobs["job-1"].update(ended)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (code, "epoch 2")
    assert "Job job-1 was submitted: " in errors
    reason = f": {ended['reason']}" if "reason" in ended else ""
    assert errors.endswith(f"Job job-1 is {ended['state']}{reason}\n")


def test_following_for_scripts(service: StandIn, user: dict[str, str]) -> None:
    """With --json standard output holds the answer and the ended job, and the log goes to standard error."""
    process = start(user, *SUBMIT, "--experiment-id", "3", "--follow", "--json")
    wait_until(lambda: bool(service.jobs), deadline=60)
    service.logs["job-1"] = b"epoch 1\n"
    service.jobs["job-1"].update(state="FAILED", exit_code=2)
    output, errors = process.communicate(timeout=60)
    submitted, ended = map(json.loads, output.splitlines())
    assert (process.returncode, submitted["job_id"], ended["exit_code"]) == (2, "job-1", 2)
    assert "epoch 1\n" in errors


def test_a_look_that_fails_says_that_the_job_was_submitted(service: StandIn, user: dict[str, str]) -> None:
    """Where a job cannot be followed, the command ends with 1 and says that the job is not affected."""
    service.script("/compute-backend/jobs/job-1/logs", Answer(403, {"detail": "not now"}))
    code, output, errors = runs(user, *SUBMIT, "--experiment-id", "3", "--follow")
    assert (code, output) == (1, "")
    assert errors.splitlines()[-2:] == [
        "Job job-1 was submitted and is not affected by the error. Follow it again: mantik runs logs job-1 --follow",
        f"Error: The compute backend at {service.url} says (HTTP 403): not now",
    ]
    assert service.jobs["job-1"]["state"] == "QUEUED"


def test_letters_that_the_terminal_does_not_have(service: StandIn, user: dict[str, str]) -> None:
    """A bar of a progress on a terminal without its letters is shown with others, and ends nothing."""
    job_id = service.add_job(state="SUCCEEDED", reason=None)
    service.logs[job_id] = "█▌ 75%\nend\n".encode()
    user["PYTHONIOENCODING"] = "latin-1"
    assert runs(user, "logs", job_id, "--follow")[:2] == (0, "?? 75%\nend\n")


def test_mlflow_need_not_be_installed(service: StandIn, user: dict[str, str]) -> None:
    """All commands, and the client in Python, work where `import mlflow` fails."""
    code = f"""
import sys
sys.modules["mlflow"] = None
import mantik
from mantik.cli.commands import mantik as command
submit = {[*SUBMIT, "--experiment-id", "3"]}
for arguments in (submit, ["list"], ["status", "job-1"], ["info", "job-1"], ["logs", "job-1"], ["cancel", "job-1"],
                  ["download", "job-1"], [*submit, "--follow"]):
    try:
        command(["runs", *arguments], prog_name="mantik")
    except SystemExit as ended:
        assert not ended.code, arguments
job = mantik.ComputeBackendClient.from_env().submit_run(3, "project", {{}}, "backend-config.yaml")
print("JOBS", job.job_id)
"""
    service.script("/compute-backend/jobs/job-2/logs", Answer(200, b"", {"Mantik-Job-State": "SUCCEEDED"}))
    service.script("/compute-backend/jobs/job-2", Answer(200, {"job_id": "job-2", "state": "SUCCEEDED"}))
    assert "JOBS job-3\n" in run_script(code, user, Path(user["HOME"]))


def test_an_interrupted_look_leaves_the_job_running(service: StandIn, user: dict[str, str]) -> None:
    """Ctrl-C ends the command with 130 and says how to go on; the job is not touched."""
    job_id = service.add_job(state="RUNNING")
    service.logs[job_id] = b"epoch 1\n"
    process = start(user, "logs", job_id, "--follow")
    assert process.stdout is not None
    assert process.stdout.readline() == "epoch 1\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"Job {job_id} goes on. Follow it again: mantik runs logs {job_id} --follow\n" in errors
    assert f"End it: mantik runs cancel {job_id}\n" in errors
    assert service.jobs[job_id]["state"] == "RUNNING"


def test_an_interrupted_submission_is_said(service: StandIn, user: dict[str, str]) -> None:
    """Ctrl-C before the service has answered ends with 130, and does not claim that nothing was submitted."""
    never = threading.Event()
    service.script("/compute-backend/submit/", Answer(201, {}, wait_for=never))
    process = start(user, *SUBMIT, "--experiment-id", "3")
    wait_until(lambda: service.asked_for("/compute-backend/submit/"), deadline=60)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    never.set()
    assert (process.returncode, output) == (130, "")
    assert errors.endswith("'mantik runs list' shows whether the job was submitted.\n")
    assert "Traceback" not in errors


def test_jobs_are_listed(service: StandIn, user: dict[str, str]) -> None:
    """The newest first: id, time, queue, status, run; as tab-separated lines or as JSON."""
    assert runs(user, "list") == (0, "", "There are no jobs.\n")
    for _ in range(3):
        service.add_job()
    _, output, _ = runs(user, "list", "-o", "1", "-t", "1")
    assert output == f"job-2\t2026-03-01T10:00:02+00:00\tbatch\tQUEUED\t{2:032x}\n"
    _, output, _ = runs(user, "list", "--json")
    assert [json.loads(line)["job_id"] for line in output.splitlines()] == ["job-3", "job-2", "job-1"]


def test_a_job_is_looked_at(service: StandIn, user: dict[str, str]) -> None:
    """`status` is one word, `info` everything, `logs` the output, by the id of the job or of its run."""
    job_id = service.add_job(state="FAILED", reason="killed by the system", exit_code=None, signal=9)
    service.logs[job_id] = b"one\ntwo"
    assert runs(user, "status", f"{1:032x}") == (0, "FAILED\n", "killed by the system\n")
    _, output, _ = runs(user, "info", job_id)
    assert yaml.safe_load(output) == service.jobs[job_id]
    _, output, _ = runs(user, "info", job_id, "-f", "json")
    assert json.loads(output) == service.jobs[job_id]
    assert runs(user, "logs", job_id) == (0, "one\ntwo", "")
    code, _, errors = runs(user, "status", "nothing")
    assert (code, errors.count("\n")) == (1, 1)


def test_a_job_is_cancelled(service: StandIn, user: dict[str, str]) -> None:
    """One sentence with the id says what was done."""
    running, ended = service.add_job(state="RUNNING"), service.add_job(state="SUCCEEDED")
    assert runs(user, "cancel", running)[:2] == (0, f"Job {running} is being cancelled.\n")
    assert runs(user, "cancel", ended)[:2] == (0, f"Job {ended} had ended already: SUCCEEDED.\n")


def test_files_are_fetched(service: StandIn, user: dict[str, str], tmp_path: Path) -> None:
    """All files or one, and the place where they are now is printed."""
    job_id = service.add_job(state="SUCCEEDED")
    service.files[job_id] = {"out/model.pt": b"model"}
    assert runs(user, "download", job_id)[:2] == (0, f"{job_id}\n")
    assert (tmp_path / job_id / "out" / "model.pt").read_bytes() == b"model"
    code, output, _ = runs(user, "download", job_id, "--remote-path", "out/model.pt", "--local-path", "here")
    assert (code, output) == (0, "here/model.pt\n")
    assert runs(user, "download", job_id)[0] == 1


def test_a_disk_that_is_full(service: StandIn, user: dict[str, str], tmp_path: Path) -> None:
    """Where the project cannot be packed, the message says how much space it needs, and nothing is uploaded."""
    (tmp_path / "project" / "large.bin").write_bytes(b"x" * 2**22)
    limited = f"ulimit -f 1024; exec {sys.executable} -m mantik runs {' '.join(SUBMIT)} --experiment-id 3"
    command = ["bash", "-c", limited]
    done = subprocess.run(command, env=user, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "Error: The project cannot be packed in the folder for temporary files (File too large). "
        "Set TMPDIR to a folder with 4.2 MB of space."
    )
    assert service.asked_for("/compute-backend/submit/") == []


def test_nobody_logged_in(tmp_path: Path) -> None:
    """Without settings each command is one message and 1."""
    code, output, errors = runs(clean_environment({}, tmp_path), "list")
    assert (code, output) == (1, "")
    assert errors.startswith("Error: ")
    assert "Traceback" not in errors


def test_a_terminal_shows_a_bar_and_a_table(service: StandIn, user: dict[str, str], tmp_path: Path) -> None:
    """On a terminal an upload has a bar, and the list is a table with a header."""
    (tmp_path / "project" / "large.bin").write_bytes(b"x" * 2**22)
    shown = on_terminal(user, tmp_path, *SUBMIT, "--experiment-id", "3")
    assert "Uploading" in shown
    assert "Job job-1 was submitted" in shown
    table = on_terminal(user, tmp_path, "list")
    assert re.search(r"Job ID\s+Submitted At\s+Queue\s+Status\s+Run", table)
    assert "job-1" in table


def on_terminal(environment: Mapping[str, str], folder: Path, *arguments: str) -> str:
    """Run `mantik runs` on a terminal and return what it shows."""
    command = [sys.executable, "-m", "mantik", "runs", *arguments]
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execve(sys.executable, command, {**environment, "COLUMNS": "200", "TERM": "xterm"})  # noqa: S606
    screen, deadline = b"", time.monotonic() + 120
    try:
        while select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0]:
            screen += os.read(terminal, 65536)
    except OSError:
        # The command has ended.
        pass
    finally:
        os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, screen
    return _STYLE.sub("", screen.decode())
