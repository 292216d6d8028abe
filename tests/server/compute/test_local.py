"""Jobs as processes of this machine: started once, found again, given their share of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mantik.server.compute.executors import CannotRunError, NoRoomError
from mantik.server.compute.executors.machine import Machine
from mantik.server.compute.jobs import Job, State, now
from mantik.server.compute.processes import Identity, processes
from mantik.server.compute.testimony import Cause, Ended, Started
from mantik.testing import wait_until

from .machine_room import DEADLINE, MachineRoom

if TYPE_CHECKING:
    from collections.abc import Iterator

TALK = """
import signal, sys, time
def stop(*_):
    open("saved", "w").write("yes")
    sys.exit(0)
signal.signal(15, stop)
for n in range(3):
    print("out", n)
    print("err", n, file=sys.stderr)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MachineRoom, Job]]:
    """A machine of two GPUs, and a job that has one of them; it runs until the last test about it."""
    room = MachineRoom(tmp_path_factory.mktemp("talking") / "compute", Machine((0,), 1 << 40, ("GPU-a", "GPU-b")))
    late = ["echo too late >late"]
    job = room.job("python talk.py", {"talk.py": TALK}, resources={"GPUsPerNode": 1}, PostRunCommandOnComputeNode=late)
    job = room.start(job)
    room.wait_for(job, "err 2")
    yield room, job
    room.clear(signal.SIGKILL)


def test_output_is_there_at_once_in_its_order(talking: tuple[MachineRoom, Job]) -> None:
    """Standard output and standard error are one log, and a line is in it when it is printed, not when the job ends."""
    room, job = talking
    assert "out 0\nerr 0\nout 1\nerr 1\nout 2\nerr 2\n" in room.log(job)
    assert room.look(job).state is State.RUNNING
    assert room.folders(job).log.stat().st_mode & 0o077 == 0


def test_job_goes_on_without_its_executor(talking: tuple[MachineRoom, Job]) -> None:
    """A job has no parent that could take it along, and the next executor finds it and what it has."""
    room, job = talking
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


def test_program_that_listens_ends_itself(talking: tuple[MachineRoom, Job]) -> None:
    """SIGTERM reaches the program, which has its grace to write what it has; nothing more is started after it."""
    room, job = talking
    room.executor.cancel(job, room.folders(job))
    seen = room.end(job)
    assert (seen.state, seen.exit_code) == (State.CANCELLED, 0)
    assert room.file(job, "saved") == "yes"
    assert not (room.folders(job).project / "late").exists()


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


@pytest.mark.parametrize("moment", ["soon", "", "2026-03-02T09:14:51"])
def test_moment_that_is_none_is_not_believed(room: MachineRoom, moment: str) -> None:
    """What a job has made of it would keep its end from being told."""
    me = Identity.of(os.getpid())
    assert me
    folders = room.folders(room.job("true"))
    Started(me, 1, "here", moment).claim(folders)
    Ended(Cause.EXIT, moment, exit_code=0).store(folders)
    assert (Started.load(folders), Ended.load(folders)) == (None, None)


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
