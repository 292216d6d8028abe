"""The example of a project, submitted from Python and from the command line to a real platform that runs its jobs.

Where no executor is named, one does for all: the client does not know which it is.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from mantik.testing import Platform
from tests.integrations.slurm import Slurm, why_no_slurm
from tests.scripts import clean_environment, run_script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mantik.testing.holdings import Run

EXAMPLES = Path(__file__).parents[2] / "examples"
PROJECT = EXAMPLES / "mlproject"
DEFAULT_EXPERIMENT = "0"
NO_SLURM = why_no_slurm()
SECONDS = 180

LOCAL = pytest.mark.parametrize("executor", ["local"], indirect=True)

LOAD = """
    import mlflow
    import mantik
    from sklearn.datasets import load_wine
    mantik.init_tracking()
    measurements = load_wine(as_frame=True).data.drop(columns="alcohol")
    print("ESTIMATE", mlflow.sklearn.load_model("runs:/RUN/model").predict(measurements).mean())
    """


@pytest.fixture(
    scope="module",
    params=["local", pytest.param("slurm", marks=pytest.mark.skipif(NO_SLURM is not None, reason=str(NO_SLURM)))],
)
def executor(request: pytest.FixtureRequest) -> Literal["local", "slurm"]:
    """Return who runs the jobs."""
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the working directory of the user, which is the home too."""
    return tmp_path_factory.mktemp("mlproject")


@pytest.fixture(scope="module")
def platform(executor: Literal["local", "slurm"], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that runs jobs."""
    with contextlib.ExitStack() as running:
        if executor == "slurm":
            running.enter_context(slurm_with_a_batch_queue(tmp_path_factory.mktemp("slurm")))
        yield running.enter_context(Platform(compute=executor))


@contextlib.contextmanager
def slurm_with_a_batch_queue(folder: Path) -> Iterator[None]:
    """Run a Slurm that a platform finds, with the partition that the example asks for."""
    with Slurm(folder) as slurm, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("SLURM", "SBATCH"))]:
            patch.delenv(name)
        patch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
        new_partition = ["scontrol", "create", "PartitionName=batch", "Nodes=ALL"]
        subprocess.run(new_partition, timeout=SECONDS, check=True)
        yield


@pytest.fixture(scope="module")
def environment(platform: Platform, folder: Path) -> dict[str, str]:
    """Return the environment of the user."""
    return clean_environment(platform.environment(), folder)


@pytest.fixture(scope="module")
def submissions(environment: dict[str, str], folder: Path) -> list[subprocess.CompletedProcess[str]]:
    """Run the example, and submit the project on the command line, at the same time."""
    with ThreadPoolExecutor() as pool:
        both = [
            pool.submit(ended, [str(EXAMPLES / "submit_mlproject.py")], environment, folder),
            pool.submit(submitted, "alpha=0.25", environment, folder),
        ]
        return [one.result() for one in both]


@pytest.fixture(scope="module")
def from_python(submissions: list[subprocess.CompletedProcess[str]]) -> subprocess.CompletedProcess[str]:
    """Return what became of the example."""
    return submissions[0]


@pytest.fixture(scope="module")
def from_shell(submissions: list[subprocess.CompletedProcess[str]]) -> subprocess.CompletedProcess[str]:
    """Return what became of the command."""
    return submissions[1]


def test_from_python_the_job_runs_as_asked(
    from_python: subprocess.CompletedProcess[str],
    platform: Platform,
    executor: str,
    environment: dict[str, str],
    folder: Path,
) -> None:
    """The answer names run and experiment, both are as asked, and the script prints the outcome and ends with 0."""
    assert from_python.returncode == 0, from_python.stderr
    answer, link, outcome = from_python.stdout.splitlines()[-3:]
    said = json.loads(ast.literal_eval(answer))
    assert said["experiment_id"] == int(platform.read_back.experiment("wine").experiment_id)
    assert outcome == f"Job {said['job_id']} is SUCCEEDED"
    assert link.endswith(f"/#/experiments/{said['experiment_id']}/runs/{said['run_id']}")
    run = platform.read_back.run(said["run_id"])
    assert run.experiment_id == str(said["experiment_id"])
    assert_trained(run, platform, alpha="0.05", l1_ratio="0.2")
    assert_run_by(executor, run, said["job_id"])
    log = ended(["-m", "mantik", "runs", "logs", said["job_id"]], environment, folder)
    assert (log.returncode, f"r2 of alcohol: {run.metrics['r2']:.3f}" in log.stdout) == (0, True), log.stderr


def test_from_the_command_line_the_job_runs_as_asked(
    from_shell: subprocess.CompletedProcess[str], platform: Platform, executor: str
) -> None:
    """The output of the job is that of the command, which ends with the job's exit code; defaults fill in."""
    assert from_shell.returncode == 0, from_shell.stderr
    run = platform.read_back.run(run_named_in(from_shell.stderr))
    assert (run.experiment_id, run.name) == (DEFAULT_EXPERIMENT, "from-shell")
    assert_trained(run, platform, alpha="0.25", l1_ratio="0.5")
    assert_run_by(executor, run, from_shell.stderr.partition("Job ")[2].split()[0].rstrip(":"))
    assert f"rmse of alcohol: {run.metrics['rmse']:.3f}" in from_shell.stdout
    assert "is SUCCEEDED" in from_shell.stderr
    assert platform.password not in from_shell.stdout


@LOCAL
def test_the_model_of_the_job_loads_back(
    from_shell: subprocess.CompletedProcess[str], environment: dict[str, str], folder: Path
) -> None:
    """On the user's machine it estimates what wines have: 13 per cent in the mean."""
    output = run_script(LOAD.replace("RUN", run_named_in(from_shell.stderr)), environment, folder)
    assert float(output.partition("ESTIMATE ")[2].split()[0]) == pytest.approx(13.0, abs=0.2)


@LOCAL
def test_a_job_that_fails_says_so(platform: Platform, environment: dict[str, str], folder: Path) -> None:
    """What scikit-learn does not take ends the job, its run and the command, and its reason is in the output."""
    failed = submitted("alpha=-1", environment, folder)
    assert failed.returncode == 1, failed.stderr
    assert "The 'alpha' parameter of ElasticNet must be" in failed.stdout
    assert "is FAILED" in failed.stderr
    run = platform.read_back.run(run_named_in(failed.stderr))
    assert (run.status, run.params["alpha"]) == ("FAILED", "-1")


@LOCAL
def test_what_the_project_does_not_take_is_not_submitted(
    environment: dict[str, str], folder: Path, platform: Platform
) -> None:
    """A parameter that is no number is an error before anything is sent, and there is no run."""
    before = {run.run_id for run in platform.read_back.runs("Default")}
    refused = submitted("alpha=much", environment, folder)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "parameter 'alpha'" in refused.stderr
    assert "'much'" in refused.stderr
    assert {run.run_id for run in platform.read_back.runs("Default")} == before


def test_the_project_knows_no_platform() -> None:
    """No file of it names mantik or a credential."""
    texts = [path.read_text(encoding="utf-8") for path in PROJECT.iterdir() if path.is_file()]
    assert len(texts) == 3
    for word in ("mantik", "PASSWORD", "TOKEN", "http"):
        assert [text for text in texts if word in text] == []


def assert_trained(run: Run, platform: Platform, *, alpha: str, l1_ratio: str) -> None:
    """Fail unless a run has everything that the project tracks."""
    assert run.status == "FINISHED"
    assert run.params == {"alpha": alpha, "l1_ratio": l1_ratio, "n_train": "133"}
    assert run.tags.items() >= {"data": "sklearn.datasets.load_wine", "mlflow.user": platform.username}.items()
    assert 0 < run.metrics["mae"] < run.metrics["rmse"] < 0.8
    assert 0 < run.metrics["r2"] < 1
    assert "proline" in json.loads(platform.read_back.download(run.run_id, "coefficients.json"))
    models = platform.read_back.logged_models(run.experiment_id)
    assert [model.status for model in models if model.source_run_id == run.run_id] == ["LOGGED_MODEL_READY"]


def assert_run_by(executor: str, run: Run, job_id: str) -> None:
    """Fail unless the tags of a run say what became of its job, and where."""
    facts = {
        "id": job_id,
        "executor": executor,
        "queue": "batch",
        "cpus": "1",
        "gpus": "0",
        "state": "SUCCEEDED",
        "exit_code": "0",
    }
    assert run.tags.items() >= {f"mantik.job.{name}": value for name, value in facts.items()}.items()
    assert run.tags["mantik.job.nodes"].partition(".")[0] == socket.gethostname().partition(".")[0]
    assert float(run.tags["mantik.job.run_seconds"]) > 0


def submitted(parameter: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Submit the project on the command line, and follow it to its end."""
    command = ["-m", "mantik", "runs", "submit", str(PROJECT), "--experiment-id", DEFAULT_EXPERIMENT]
    command += ["--backend-config", "backend-config.yaml", "-P", parameter, "--run-name", "from-shell", "--follow"]
    return ended(command, environment, folder)


def ended(arguments: list[str], environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python to its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def run_named_in(output: str) -> str:
    """Return the run that the command names."""
    return output.partition(": run ")[2].split()[0]
