"""What the program of a job finds: its variables, its arguments, and the commands and places that its user names."""

from __future__ import annotations

import ast
import importlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from mantik.compute.backend_config import BackendConfig
from mantik.server.compute.entry_point import left_out
from mantik.server.compute.job_environment import JobEnvironment
from mantik.server.compute.jobs import Job, State
from mantik.server.compute.program import command_line, shell_variables
from mantik.server.compute.task import Share, Task

from .machine_room import DEADLINE, NO_PLATFORM, MachineRoom, mlproject

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.server.compute.executors import Observation

SECRETS = ("MLFLOW_BACKEND_STORE_URI", "MANTIK_SERVER_DATA", "MANTIK_PASSWORD", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY")
LOOK = """
import os, random, sys
facts = {"environ": dict(os.environ), "cpus": sorted(os.sched_getaffinity(0)), "python": sys.executable}
open("facts", "w").write(repr({**facts, "arguments": sys.argv[1:]}))
"""
# Modules of Python and of the platform.
TRAPS = ("mlflow", "yaml", "json", "mantik", "sitecustomize", "random", "filelock")
TRAP = "import sys\nprint('trapped', __name__, file=sys.stderr)\n"
VALUES = {
    "text": "a'b\"c\\ $(touch pwned) `touch pwned`; touch pwned\n& touch pwned | >pwned {text} %s ~ * é",
    "other": "--flag",
    "$(touch pwned)": "; touch pwned",
    "x y": "",
}


@dataclass(frozen=True)
class Looked:
    """A job that has ended, and what its program has seen."""

    room: MachineRoom
    job: Job
    seen: Observation
    facts: dict[str, Any]


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looked]:
    """A job whose program looks around, in a project full of traps, of a service full of secrets."""
    room = MachineRoom(tmp_path_factory.mktemp("looked") / "compute")
    project = mlproject("python look.py {text} --other {other}", text="string", other="string")
    files = {"MLproject": project, "look.py": LOOK, **{f"{name}.py": TRAP for name in TRAPS}}
    variables = {"LEVEL": "3", "MLFLOW_RUN_ID": "mine", "TEXT": "a 'b' $(c)\nd", "PYTHONPATH": "."}
    with pytest.MonkeyPatch.context() as patch:
        for name in SECRETS:
            patch.setenv(name, "secret-of-the-service")
        job = room.job("", files, parameters=VALUES, Variables=variables)
        seen = room.run(job)
    assert seen.state is State.SUCCEEDED, room.log(job)
    yield Looked(room, job, seen, ast.literal_eval(room.file(job, "facts")))
    room.clear(signal.SIGKILL)


def test_job_has_what_it_was_given_and_nothing_of_the_service(looked: Looked) -> None:
    """Tracking, the user's variables over all, its CPUs, the project as working folder; no secret of the service."""
    folders, seen, facts = looked.room.folders(looked.job), looked.seen, looked.facts
    assert (seen.exit_code, seen.reason, seen.is_delivered) == (0, "", True)
    assert (
        facts["environ"].items()
        >= {
            "LEVEL": "3",
            "MLFLOW_RUN_ID": "mine",
            "TEXT": "a 'b' $(c)\nd",
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
            "MANTIK_TRACKING_CLAIM": "http://127.0.0.1:9",
            "MLFLOW_TRACKING_AUTH": "mantik",
            "MLFLOW_EXPERIMENT_ID": "7",
            "MANTIK_USERNAME": "ada",
            "MANTIK_HOME": str(folders.home),
            "MANTIK_JOB_ID": looked.job.job_id,
            "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
            "OMP_NUM_THREADS": "1",
            "PWD": str(folders.project),
        }.items()
    )
    assert "secret-of-the-service" not in str(facts)
    assert facts["python"] == sys.executable
    assert len(facts["cpus"]) == 1
    assert facts["cpus"][0] in os.sched_getaffinity(0)
    assert seen.nodes
    assert seen.started_at
    assert seen.ended_at
    assert seen.started_at < seen.ended_at
    assert seen.memory


def test_parameters_are_no_commands(looked: Looked) -> None:
    """Whatever stands in values and names, the program gets it as it is, and no shell runs it."""
    extra = ["--$(touch pwned)", "; touch pwned", "--x y", ""]
    assert looked.facts["arguments"] == [VALUES["text"], "--other", "--flag", *extra]
    assert not list(looked.room.folder.rglob("pwned"))


def test_files_of_the_project_stay_out_of_the_platform(looked: Looked) -> None:
    """A project whose files are called like modules of Python and of the platform is seen by its program only."""
    # Python itself imports the first one for the program.
    trapped = [line.split()[-1] for line in looked.room.log(looked.job).splitlines()]
    assert trapped == ["sitecustomize", "random"]


def test_commands_around_the_run(room: MachineRoom) -> None:
    """Commands before and after run in the entry point's shell as written; what they set holds, they know its end."""
    job = room.job(
        "echo main $NAME >>order; exit 4",
        PreRunCommandOnLoginNode="echo login >>order",
        PreRunCommandOnComputeNode=["export NAME='a b'", "cd /", 'echo before >>"$OLDPWD/order"'],
        PostRunCommandOnComputeNode=["echo after $MANTIK_EXIT_CODE >>order", "false"],
        PostRunCommandOnLoginNode="echo last >>order",
    )
    seen = room.run(job)
    assert (seen.state, seen.exit_code) == (State.FAILED, 4)
    assert room.file(job, "order") == "login\nbefore\nmain a b\nafter 4\nlast\n"
    assert "mantik: the command after the run failed: false" in room.log(job)


def shell(room: MachineRoom, job: Job, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the shell of a job, without the processes around it; all that it prints is its output."""
    folders, task = room.folders(job), Task.of(job, NO_PLATFORM, "local")
    environment = BackendConfig.from_mapping(job.backend_config).environment
    return subprocess.run(
        command_line(task, environment, folders, command),
        env=shell_variables(JobEnvironment.of(task, environment, folders, ""), environment),
        cwd=folders.project,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.mark.parametrize(
    ("commands", "code"), [(["true", "(exit 5)", "touch ran"], 5), (["echo 'never closed", "touch ran"], 2)]
)
def test_failed_command_before_the_run_fails_the_job(room: MachineRoom, commands: list[str], code: int) -> None:
    """The entry point is not run after it, and a command that is no shell at all breaks nothing but itself."""
    job = room.job("", PreRunCommand=commands)
    done = shell(room, job, "touch ran")
    assert done.returncode == code
    assert "mantik: the command before the run failed: " in done.stdout
    assert not (room.folders(job).project / "ran").exists()


def test_failed_command_after_the_run_fails_the_job(room: MachineRoom) -> None:
    """Although the program itself did not."""
    assert shell(room, room.job("", PostRunCommand="false"), "true").returncode == 1


def test_modules_are_loaded_in_a_login_shell(room: MachineRoom, tmp_path: Path) -> None:
    """Modules see nothing but their name; what they and the profile overwrite of the job's own comes back."""
    (tmp_path / ".bash_profile").write_text(
        "export MLFLOW_RUN_ID=foreign LEVEL=foreign\n"
        'module() { echo "module $*"; export MODULE="$2"; [ "$2" != broken ]; }\n'
    )
    shown = 'echo "$MODULE $MLFLOW_RUN_ID $LEVEL $(env | grep -c MANTIK_KEPT)"; command -v python'
    job = room.job("", Modules=["GCC/12", "Python/3.11"], Python=sys.prefix, Variables={"LEVEL": "3"})
    done = shell(room, job, shown)
    assert done.returncode == 0, done.stdout
    assert f"module load GCC/12\nmodule load Python/3.11\nPython/3.11 {job.run_id} 3 0\n" in done.stdout
    assert done.stdout.splitlines()[-1] == f"{sys.prefix}/bin/python"
    broken = room.job("", Modules=["broken"])
    done = shell(room, broken, "touch ran")
    assert done.returncode == 1
    assert "mantik: the module broken could not be loaded" in done.stdout
    assert not (room.folders(broken).project / "ran").exists()


def test_python_is_the_one_that_was_asked_for(room: MachineRoom, tmp_path: Path) -> None:
    """A virtual environment is active; an interpreter of another name is `python`; what is not there is said before."""
    interpreter = tmp_path / "py thon"
    interpreter.write_text('#!/bin/sh\necho "asked for: $@"\n')
    interpreter.chmod(0o700)
    named = room.start(room.job("python train.py", Python=str(interpreter)))
    missing = room.start(room.job("touch ran", Python="/nowhere/venv"))
    venv = shell(room, room.job("", Python=sys.prefix), 'echo "$VIRTUAL_ENV"; command -v python')
    assert venv.stdout == f"{sys.prefix}\n{sys.prefix}/bin/python\n"
    assert room.end(named).state is State.SUCCEEDED
    assert "asked for: train.py" in room.log(named)
    seen = room.end(missing)
    assert (seen.state, seen.exit_code) == (State.FAILED, None)
    assert seen.reason.startswith("there is no Python /nowhere/venv on ")
    assert seen.reason in room.log(missing)


def test_images_are_run_by_whichever_program_there_is(room: MachineRoom, tmp_path: Path) -> None:
    """The arguments reach apptainer, or singularity, one by one; a missing image or program is said."""
    tools = tmp_path / "tools"
    tools.mkdir()
    tool = tools / "singularity"
    tool.write_text(
        '#!/bin/bash\nprintf "<%s>\\n" "$@" >arguments\nwhile [ "$1" != bash ]; do shift; done\nexec "$@"\n'
    )
    tool.chmod(0o700)
    path = {"PATH": f"{tools}{os.pathsep}/usr/bin:/bin"}
    image = {"Path": "my image.sif", "Options": ["--cleanenv", "--env=A=b c"]}
    local = room.job("", {"my image.sif": ""}, Apptainer=image, Variables=path)
    remote = {"Path": "/images/one.sif", "Type": "remote"}
    without = shell(room, room.job("", Apptainer=remote, Variables={"PATH": "/usr/bin:/bin"}), "true")
    absent = room.start(room.job("true", Apptainer={"Path": "none.sif"}))
    assert shell(room, local, "echo $PWD >where").returncode == 0
    folders = room.folders(local)
    arguments = room.file(local, "arguments").replace("\n", "")
    assert arguments == (
        f"<exec><--pwd><{folders.project}><--bind><{folders.root}><--cleanenv><--env=A=b c>"
        f"<{folders.project}/my image.sif><bash><-c><echo $PWD >where>"
    )
    assert room.file(local, "where") == f"{folders.project}\n"
    assert without.returncode == 127
    assert "neither apptainer nor singularity" in without.stdout
    assert room.end(absent).reason == "the image none.sif is not in the project"


@pytest.mark.parametrize(
    ("resources", "options", "expected"),
    [
        ({"GPUsPerNode": 2}, ["--cleanenv"], ["--nv", "--cleanenv"]),
        ({"GPUsPerNode": 2}, ["--cleanenv", "--nv"], ["--cleanenv", "--nv"]),
        ({"GPUsPerNode": 0}, [], []),
        ({}, [], []),
    ],
)
def test_images_see_the_gpus_that_were_asked_for(
    room: MachineRoom, resources: dict[str, object], options: list[str], expected: list[str]
) -> None:
    """Whoever gives them: a batch system does not say in the task which ones."""
    image = {"Path": "/images/one.sif", "Type": "remote", "Options": options}
    job = room.job("true", resources=resources, Apptainer=image)
    folders = room.folders(job)
    for share in (Share(), Share(gpus=("GPU-1", "GPU-2"))):
        task = Task.of(job, NO_PLATFORM, "slurm", share=share)
        environment = BackendConfig.from_mapping(job.backend_config).environment
        line = command_line(task, environment, folders, "true")
        after = line[line.index(str(folders.root)) + 1 :]
        assert after == [*expected, "/images/one.sif", "bash", "-c", "true"]


def test_packages_are_left_out_of_one_import_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not there while MLflow is loaded, and there afterwards; what was there before stays."""
    (tmp_path / "heavy_package.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with left_out(("heavy_package", "ast")):
        assert sys.modules["ast"] is ast
        with pytest.raises(ImportError):
            importlib.import_module("heavy_package")
    assert importlib.import_module("heavy_package")
    del sys.modules["heavy_package"]


def test_entry_point_that_mlflow_cannot_run_is_explained(room: MachineRoom) -> None:
    """What MLflow says of it is the reason of the job."""
    job = room.job("", {"MLproject": mlproject("echo {data}", data="path")}, parameters={"data": "nowhere.csv"})
    seen = room.run(job)
    assert seen.state is State.FAILED
    assert seen.reason.startswith("MLflow cannot run the entry point: Got value nowhere.csv for parameter data")
