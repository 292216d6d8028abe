from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mantik.compute.backend_config import BackendConfig
from mantik.server.compute.executors import CannotRunError, NoRoomError
from mantik.server.compute.executors.machine import Machine
from mantik.server.compute.jobs import State, now
from mantik.server.compute.processes import Identity, processes
from mantik.server.compute.program import command_line
from mantik.server.compute.task import Share, Task
from mantik.server.compute.testimony import Started
from mantik.testing import wait_until

from .machine_room import DEADLINE, NO_PLATFORM, MachineRoom, mlproject

if TYPE_CHECKING:
    from collections.abc import Iterator

PRINT_ENVIRONMENT = """
import json, os, sys
facts = {"environ": dict(os.environ), "cpus": sorted(os.sched_getaffinity(0)), "python": sys.executable}
open("facts.json", "w").write(json.dumps(facts))
"""


@pytest.fixture
def room(tmp_path: Path, blank_environment: pytest.MonkeyPatch) -> Iterator[MachineRoom]:
    """A machine, without anything of its user's."""
    room = MachineRoom(tmp_path / "compute")
    yield room
    room.clear(signal.SIGKILL)


def test_job_has_what_it_was_given_and_nothing_of_the_service(
    room: MachineRoom, blank_environment: pytest.MonkeyPatch
) -> None:
    """Tracking, the user's variables over all, its CPUs, the project as working folder; no secret of the service."""
    for name in (
        "MLFLOW_BACKEND_STORE_URI",
        "MANTIK_SERVER_DATA",
        "MANTIK_PASSWORD",
        "AWS_SECRET_ACCESS_KEY",
        "HTTPS_PROXY",
    ):
        blank_environment.setenv(name, "secret-of-the-service")
    job = room.job(
        "python print_environment.py",
        {"print_environment.py": PRINT_ENVIRONMENT},
        Variables={"LEVEL": "3", "MLFLOW_RUN_ID": "mine", "TEXT": "a 'b' $(c)\nd"},
    )
    seen = room.run(job)
    assert (seen.state, seen.exit_code, seen.reason, seen.is_delivered) == (State.SUCCEEDED, 0, "", True), room.log(job)
    facts = json.loads(room.file(job, "facts.json"))
    environ = facts["environ"]
    assert (
        environ.items()
        >= {
            "LEVEL": "3",
            "MLFLOW_RUN_ID": "mine",
            "TEXT": "a 'b' $(c)\nd",
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
            "MANTIK_TRACKING_CLAIM": "http://127.0.0.1:9",
            "MLFLOW_TRACKING_AUTH": "mantik",
            "MLFLOW_EXPERIMENT_ID": "7",
            "MANTIK_USERNAME": "ada",
            "MANTIK_HOME": str(room.folders(job).home),
            "MANTIK_JOB_ID": job.job_id,
            "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
            "OMP_NUM_THREADS": "1",
            "PWD": str(room.folders(job).project),
        }.items()
    )
    assert "secret-of-the-service" not in json.dumps(facts)
    assert facts["python"] == sys.executable
    assert len(facts["cpus"]) == 1
    assert facts["cpus"][0] in os.sched_getaffinity(0)
    assert seen.nodes
    assert seen.started_at
    assert seen.ended_at
    assert seen.started_at < seen.ended_at
    assert seen.memory


def test_output_is_there_at_once_in_its_order(room: MachineRoom) -> None:
    """Standard output and standard error are one log, and a line is in it when it is printed, not when the job ends."""
    code = (
        "import sys\nfor n in range(3):\n    print('out', n)\n    print('err', n, file=sys.stderr)\nsys.stdin.read()\n"
    )
    job = room.start(room.job("python talk.py && sleep 600", {"talk.py": code}))
    room.wait_for(job, "err 2")
    assert "out 0\nerr 0\nout 1\nerr 1\nout 2\nerr 2\n" in room.log(job)
    assert room.look(job).state is State.RUNNING
    assert room.folders(job).log.stat().st_mode & 0o077 == 0
    room.executor.cancel(job, room.folders(job))
    assert room.end(job).state is State.CANCELLED


@pytest.mark.parametrize(
    ("command", "exit_code", "number"),
    [
        ("exit 3", 3, None),
        ("python -c 'import os; os.kill(os.getpid(), 9)'", None, signal.SIGKILL),
        ("true && python -c 'import os; os.kill(os.getpid(), 9)'; exit $?", None, signal.SIGKILL),
    ],
)
def test_end_of_the_program_is_told_as_it_was(
    room: MachineRoom, command: str, exit_code: int | None, number: int | None
) -> None:
    """An exit code is told, and a signal as a signal, also where a shell has waited for the program."""
    seen = room.run(room.job(command))
    assert (seen.state, seen.exit_code, seen.signal) == (State.FAILED, exit_code, number)


def test_what_the_program_leaves_running_ends_with_it(room: MachineRoom) -> None:
    """A job has not ended before its last process has, and one that hides in a session of its own is found."""
    daemon = "setsid bash -c 'trap \"\" TERM; echo $$ >daemon; exec sleep 600' & sleep 0.5; cat daemon"
    job = room.start(room.job(daemon))
    seen = room.end(job)
    assert (seen.state, seen.exit_code) == (State.SUCCEEDED, 0)
    assert Identity.of(int(room.file(job, "daemon"))) is None


def test_deaf_program_is_killed_after_its_grace(tmp_path: Path, blank_environment: pytest.MonkeyPatch) -> None:
    """A program that ignores SIGTERM, and its children that do, are gone a grace later; the job was cancelled."""
    room = MachineRoom(tmp_path / "compute", grace=1.0)
    code = (
        "import os, signal, time\nsignal.signal(15, signal.SIG_IGN)\n"
        "os.fork()\nprint('deaf', os.getpid())\ntime.sleep(600)\n"
    )
    job = room.start(room.job("python deaf.py", {"deaf.py": code}))
    wait_until(lambda: room.log(job).count("deaf") == 2, deadline=DEADLINE)
    room.executor.cancel(job, room.folders(job))
    seen = room.end(job)
    assert (seen.state, seen.signal) == (State.CANCELLED, signal.SIGKILL)
    pids = [int(line.split()[1]) for line in room.log(job).splitlines() if line.startswith("deaf")]
    assert [Identity.of(pid) for pid in pids] == [None, None]


def test_program_that_listens_ends_itself(room: MachineRoom) -> None:
    """SIGTERM reaches the program, which has its grace to write what it has; nothing more is started after it."""
    code = (
        "import signal, sys, time\n"
        "def stop(*_):\n    open('saved', 'w').write('yes')\n    sys.exit(0)\n"
        "signal.signal(15, stop)\nprint('listens')\ntime.sleep(600)\n"
    )
    job = room.job("python listen.py", {"listen.py": code}, PostRunCommandOnComputeNode=["echo too late >late"])
    job = room.start(job)
    room.wait_for(job, "listens")
    room.executor.cancel(job, room.folders(job))
    seen = room.end(job)
    assert (seen.state, seen.exit_code) == (State.CANCELLED, 0)
    assert room.file(job, "saved") == "yes"
    assert not (room.folders(job).project / "late").exists()


def test_time_limit_ends_the_job(tmp_path: Path, blank_environment: pytest.MonkeyPatch) -> None:
    """A job over its Runtime is asked to end, then made to, and says why."""
    room = MachineRoom(tmp_path / "compute", grace=0.5)
    job = room.job("trap '' TERM; sleep 600; sleep 600", resources={"Runtime": "4s"})
    seen = room.run(job)
    assert (seen.state, seen.reason) == (State.TIMED_OUT, "time limit: it was ended after 4s")
    assert "mantik: the time limit of 4 s is reached" in room.log(job)


def test_memory_limit_counts_all_processes_and_shares_once(room: MachineRoom) -> None:
    """Two processes that hold half each exceed the limit; ten that share what one has filled do not."""
    fill = "import os, sys, time\nblock = b'x' * (120 << 20)\n"
    apart = fill.replace("block", "os.fork(); block") + "time.sleep(600)\n"
    shared = fill + "for _ in range(9):\n    if not os.fork():\n        break\ntime.sleep(3)\n"
    greedy = room.start(room.job("python fill.py", {"fill.py": apart}, resources={"Memory": "200MiB"}))
    modest = room.start(room.job("python fill.py", {"fill.py": shared}, resources={"Memory": "200MiB"}))
    seen = room.end(greedy)
    assert (seen.state, seen.reason) == (State.FAILED, "memory limit: it held more than 200MiB")
    assert seen.memory
    assert seen.memory > 200 << 20
    assert room.end(modest).state is State.SUCCEEDED


def test_vanished_wrapper_takes_its_job_along(room: MachineRoom) -> None:
    """If the wrapper is killed, nothing of its job goes on unseen, and it is lost and not waited for."""
    daemon = "setsid sleep 600 & sleep 600"
    job = room.start(room.job(f"echo up; {daemon}"))
    room.wait_for(job, "up")
    started = Started.load(room.folders(job))
    assert started
    os.kill(started.wrapper.pid, signal.SIGKILL)
    seen = room.end(job)
    assert (seen.state, seen.is_delivered) == (State.LOST, False)
    assert "SIGKILL" in seen.reason
    mark = f"MANTIK_JOB_ID={job.job_id}".encode()
    assert not [each for each in processes() if mark in _environ(each.pid)]


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def test_processes_with_the_ids_of_others_are_left_alone(room: MachineRoom) -> None:
    """A process that has got the id of a job's wrapper is neither taken for it nor sent a signal."""
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        job = room.job("true")
        identity = Identity.of(stranger.pid)
        assert identity
        older = replace(identity, started=identity.started - 1)
        Started(older, os.getsid(stranger.pid), "here", now()).claim(room.folders(job))
        job = replace(job, executor_id=str(older))
        room.executor.cancel(job, room.folders(job))
        assert stranger.poll() is None
        elsewhere = replace(identity, boot="another0")
        (room.folders(job).started).unlink()
        Started(elsewhere, 1, "here", now()).claim(room.folders(job))
        room.executor.cancel(job, room.folders(job))
        seen = room.look(job)
        assert (seen.state, seen.reason) == (State.LOST, "the machine was restarted")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_job_that_breaks_its_files_harms_nobody(room: MachineRoom) -> None:
    """Pipes, rubbish and nothing in the place of the wrapper's files neither block the service nor hide the job."""
    breaks = "cd ../state && rm * && mkfifo ended.json task.json && echo '[1]' >started.json && touch ../project/done"
    job = room.start(room.job(f"{breaks}; sleep 600"))
    done = room.folders(job).project / "done"
    wait_until(done.exists, deadline=DEADLINE, what="the end of the files")
    room.executor = room.new_executor()
    assert room.look(job).state is State.STARTING
    room.executor.cancel(job, room.folders(job))
    assert room.end(job).state is State.CANCELLED


def test_job_is_run_once_however_often_it_is_started(room: MachineRoom) -> None:
    """Starts at the same time, from several executors, and after the end, run the job once."""
    job = room.job("echo run >>runs; sleep 1")
    starts = [threading.Thread(target=room.new_executor().start, args=(job, room.folders(job))) for _ in range(4)]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    job = room.start(job)
    assert room.end(job).state is State.SUCCEEDED
    job = room.start(job)
    assert room.look(job).state is State.SUCCEEDED
    assert room.file(job, "runs") == "run\n"


def test_job_goes_on_without_its_executor(room: MachineRoom) -> None:
    """A job has no parent that could take it along, and the next executor finds it and what it has."""
    room.machine = Machine((0,), 1 << 40, ("GPU-a", "GPU-b"))
    room.executor = room.new_executor()
    job = room.start(room.job("echo up; sleep 600", resources={"GPUsPerNode": 1}))
    room.wait_for(job, "up")
    started = Started.load(room.folders(job))
    assert started
    process = started.wrapper.process()
    assert process
    assert process.parent != os.getpid()
    assert process.session != os.getsid(0)
    room.executor = room.new_executor()
    assert room.look(job).state is State.RUNNING
    with pytest.raises(NoRoomError):
        room.start(room.job("true", resources={"GPUsPerNode": 2}))
    room.executor.cancel(job, room.folders(job))
    assert room.end(job).state is State.CANCELLED


def test_gpus_are_given_to_one_job_at_a_time(room: MachineRoom, blank_environment: pytest.MonkeyPatch) -> None:
    """GPUs come from nvidia-smi and are given by name; who asks for none sees none, who asks for too many fails."""
    tools = room.folder / "tools"
    tools.mkdir(parents=True)
    (tools / "nvidia-smi").write_text("#!/bin/sh\necho '0, GPU-a'\necho '1, GPU-b'\necho '2, GPU-c'\n")
    (tools / "nvidia-smi").chmod(0o700)
    blank_environment.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    blank_environment.setenv("CUDA_VISIBLE_DEVICES", "0,GPU-b")
    assert Machine.here().gpus == ("GPU-a", "GPU-b")
    room.machine = Machine.here()
    room.executor = room.new_executor()
    say = 'echo "gpus=$CUDA_VISIBLE_DEVICES."; read <gate'
    jobs = [room.job(say, resources={"GPUsPerNode": count}) for count in (0, 2)]
    for job in jobs:
        os.mkfifo(room.folders(job).project / "gate")
    jobs = [room.start(job) for job in jobs]
    waiting = room.job("true", resources={"GPUsPerNode": 1})
    with pytest.raises(NoRoomError):
        room.start(waiting)
    for job, gpus in zip(jobs, ("", "GPU-a,GPU-b"), strict=True):
        room.wait_for(job, f"gpus={gpus}.")
        (room.folders(job).project / "gate").write_text("go\n")
        assert room.end(job).state is State.SUCCEEDED
    assert not room.look(room.start(waiting)).state.is_over
    with pytest.raises(CannotRunError, match="asks for 3 GPU"):
        room.start(room.job("true", resources={"GPUsPerNode": 3}))


@pytest.mark.parametrize(
    ("slots", "resources", "text"),
    [
        (1, {"Memory": "100TiB"}, "it asks for 100TiB of memory, and this machine has "),
        (1, {"Nodes": 2}, "it asks for 2 nodes, and the platform runs its jobs on one machine"),
        (5, {"CPUs": 5}, "it asks for 5 CPUs, and the platform gives its jobs at most 4"),
        (1, {"GPUsPerNode": 1}, "it asks for 1 GPU(s), and this machine has none"),
    ],
)
def test_what_the_machine_has_not_is_refused(
    room: MachineRoom, slots: int, resources: dict[str, object], text: str
) -> None:
    """A job that this machine can never run is refused with what it asks for and what there is."""
    room.machine = replace(room.machine, gpus=())
    room.executor = room.new_executor()
    with pytest.raises(CannotRunError) as refused:
        room.start(room.job("true", slots=slots, resources=resources))
    assert text in str(refused.value)


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


def test_failed_command_before_the_run_fails_the_job(room: MachineRoom) -> None:
    """The entry point is not run after it, and a command that is no shell at all breaks nothing but itself."""
    failing = room.start(room.job("touch ran", PreRunCommand=["true", "(exit 5)", "touch ran"]))
    broken = room.start(room.job("touch ran", PreRunCommand=["echo 'never closed", "touch ran"]))
    for job, code in ((failing, 5), (broken, 2)):
        seen = room.end(job)
        assert (seen.state, seen.exit_code) == (State.FAILED, code)
        assert "mantik: the command before the run failed: " in room.log(job)
        assert not (room.folders(job).project / "ran").exists()
    late = room.run(room.job("true", PostRunCommand="false"))
    assert (late.state, late.exit_code) == (State.FAILED, 1)


def test_modules_are_loaded_in_a_login_shell(room: MachineRoom, tmp_path: Path) -> None:
    """Modules see nothing but their name; what they and the profile overwrite of the job's own comes back."""
    (tmp_path / ".bash_profile").write_text(
        "export MLFLOW_RUN_ID=foreign LEVEL=foreign\n"
        'module() { echo "module $*"; export MODULE="$2"; [ "$2" != broken ]; }\n'
    )
    shown = 'echo "$MODULE $MLFLOW_RUN_ID $LEVEL $(env | grep -c MANTIK_KEPT)"; command -v python'
    job = room.job(shown, Modules=["GCC/12", "Python/3.11"], Python=sys.prefix, Variables={"LEVEL": "3"})
    assert room.run(job).state is State.SUCCEEDED, room.log(job)
    assert f"module load GCC/12\nmodule load Python/3.11\nPython/3.11 {job.run_id} 3 0\n" in room.log(job)
    assert room.log(job).splitlines()[-1] == f"{sys.prefix}/bin/python"
    seen = room.run(broken := room.job("touch ran", Modules=["broken"]))
    assert (seen.state, seen.exit_code) == (State.FAILED, 1)
    assert "mantik: the module broken could not be loaded" in room.log(broken)
    assert not (room.folders(broken).project / "ran").exists()


def test_python_is_the_one_that_was_asked_for(room: MachineRoom, tmp_path: Path) -> None:
    """A virtual environment is active; an interpreter of another name is `python`; what is not there is said before."""
    interpreter = tmp_path / "py thon"
    interpreter.write_text('#!/bin/sh\necho "asked for: $@"\n')
    interpreter.chmod(0o700)
    named = room.start(room.job("python train.py", Python=str(interpreter)))
    venv = room.start(room.job('echo "$VIRTUAL_ENV"; command -v python', Python=sys.prefix))
    missing = room.start(room.job("touch ran", Python="/nowhere/venv"))
    assert room.end(named).state is State.SUCCEEDED
    assert "asked for: train.py" in room.log(named)
    assert room.end(venv).state is State.SUCCEEDED
    assert f"{sys.prefix}\n{sys.prefix}/bin/python\n" in room.log(venv)
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
    files = {"my image.sif": ""}
    local = room.start(room.job("echo $PWD >where", files, Apptainer=image, Variables=path))
    remote = {"Path": "/images/one.sif", "Type": "remote"}
    without = room.start(room.job("true", Apptainer=remote, Variables={"PATH": "/usr/bin:/bin"}))
    absent = room.start(room.job("true", Apptainer={"Path": "none.sif"}))
    assert room.end(local).state is State.SUCCEEDED, room.log(local)
    folders = room.folders(local)
    arguments = room.file(local, "arguments").replace("\n", "")
    assert arguments == (
        f"<exec><--pwd><{folders.project}><--bind><{folders.root}><--cleanenv><--env=A=b c>"
        f"<{folders.project}/my image.sif><bash><-c><echo $PWD >where>"
    )
    assert room.file(local, "where") == f"{folders.project}\n"
    assert room.end(without).exit_code == 127
    assert "neither apptainer nor singularity" in room.log(without)
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


def test_parameters_are_no_commands(room: MachineRoom) -> None:
    """Whatever stands in values and names, the program gets it as it is, and no shell runs it."""
    values = {
        "text": "a'b\"c\\ $(touch pwned) `touch pwned`; touch pwned\n& touch pwned | >pwned {text} %s ~ * é",
        "other": "--flag",
        "$(touch pwned)": "; touch pwned",
        "x y": "",
    }
    show = "import json, sys\nopen('arguments', 'w').write(json.dumps(sys.argv[1:]))\n"
    project = mlproject("python show.py {text} --other {other}", text="string", other="string")
    job = room.job("", {"MLproject": project, "show.py": show}, parameters=values)
    assert room.run(job).state is State.SUCCEEDED, room.log(job)
    assert json.loads(room.file(job, "arguments")) == [
        values["text"],
        "--other",
        "--flag",
        "--$(touch pwned)",
        "; touch pwned",
        "--x y",
        "",
    ]
    assert not list(room.folder.rglob("pwned"))


def test_files_of_the_project_stay_out_of_the_platform(room: MachineRoom) -> None:
    """A project whose files are called like modules of Python and of the platform is seen by its program only."""
    trap = "import sys\nprint('trapped', __name__, file=sys.stderr)\n"
    names = ("mlflow", "yaml", "json", "mantik", "sitecustomize", "random", "filelock")
    files = {f"{name}.py": trap for name in names} | {"train.py": "import random\n"}
    job = room.job("python train.py", files, Variables={"PYTHONPATH": "."})
    assert room.run(job).state is State.SUCCEEDED, room.log(job)
    # Python itself imports the first one for the program.
    assert sorted(line.split()[-1] for line in room.log(job).splitlines()) == ["random", "sitecustomize"]


def test_entry_point_that_mlflow_cannot_run_is_explained(room: MachineRoom) -> None:
    """What MLflow says of it is the reason of the job."""
    job = room.job("", {"MLproject": mlproject("echo {data}", data="path")}, parameters={"data": "nowhere.csv"})
    seen = room.run(job)
    assert seen.state is State.FAILED
    assert seen.reason.startswith("MLflow cannot run the entry point: Got value nowhere.csv for parameter data")
