"""How programs of jobs end, by themselves and at their limits: real processes on this machine."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from mantik.server.compute.jobs import State
from mantik.server.compute.processes import Identity
from mantik.testing import wait_until

from .machine_room import DEADLINE, MachineRoom

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_signal_that_ended_the_program_is_told_by_the_shell_that_waited(room: MachineRoom) -> None:
    """A signal is told as a signal, also where a shell has made an exit code of it."""
    seen = room.run(room.job("true && python -c 'import os; os.kill(os.getpid(), 9)'; exit $?"))
    assert (seen.state, seen.exit_code, seen.signal) == (State.FAILED, None, signal.SIGKILL)


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
