"""The processes of a machine, to end a server with everything that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mantik.testing.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["RunningProcess", "end_groups", "end_users_of", "family", "running_processes"]

_PROC = Path("/proc")
_END_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """One process that has not ended; a zombie has.

    Attributes:
        pid: Its id.
        parent: The id of its parent.
        group: The id of its process group.
    """

    pid: int
    parent: int
    group: int


def running_processes() -> list[RunningProcess]:
    """Return every process of the machine that the system shows to this user."""
    lines = _lines_of_proc() if (_PROC / "self" / "stat").exists() else _lines_of_ps()
    fields = (line.split() for line in lines)
    return [
        RunningProcess(int(pid), int(parent), int(group))
        for pid, state, parent, group, *_ in fields
        if not state.startswith(("Z", "X"))
    ]


def family(pid: int) -> list[RunningProcess]:
    """Return the running ones of a process, its children, their children and so on.

    Sessions and groups of their own make no difference; a process whose parent has ended belongs to nobody's family.
    """
    processes = running_processes()
    members = {pid}
    found: list[RunningProcess] = []
    while grown := [process for process in processes if process.pid in members or process.parent in members]:
        if len(grown) == len(found):
            break
        found = grown
        members = {process.pid for process in found}
    return found


def end_groups(groups: Iterable[int]) -> None:
    """End process groups with SIGKILL and return when no process of them runs.

    Raises:
        TimeoutError: One did not end within 10 s, which only a process that waits for a device does.
    """
    wanted = set(groups)
    for group in wanted:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    wait_until(
        lambda: not any(process.group in wanted for process in running_processes()),
        deadline=_END_SECONDS,
        what="the end of the processes",
    )


def end_users_of(folder: Path) -> None:
    """End the processes that have something below a folder in an argument or a variable, with SIGKILL.

    That is how the jobs of a platform are found, which are nobody's children. Where there is no /proc there are none.

    Raises:
        TimeoutError: One did not end within 10 s.
    """
    mark = f"{folder}{os.sep}".encode()

    def all_ended() -> bool:
        found = [process for process in running_processes() if process.pid != os.getpid() and _mentions(process, mark)]
        for process in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGKILL)
        return not found

    wait_until(all_ended, deadline=_END_SECONDS, what="the end of the jobs")


def _mentions(process: RunningProcess, mark: bytes) -> bool:
    for name in ("cmdline", "environ"):
        # Another user's, or ended in the meantime.
        with contextlib.suppress(OSError):
            words = (_PROC / str(process.pid) / name).read_bytes().split(b"\0")
            if any(word.rpartition(b"=")[2].startswith(mark) for word in words):
                return True
    return False


def _lines_of_proc() -> Iterator[str]:
    """Give `pid state parent group ...` of each process from Linux's /proc, which is there where `ps` is not."""
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            # A process may end between the listing and the reading, and other users' may be hidden.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                # The name in parentheses may hold blanks and parentheses.
                yield f"{entry.name} {(entry / 'stat').read_text(errors='replace').rpartition(')')[2]}"


def _lines_of_ps() -> list[str]:
    """Give `pid state parent group` of each process from POSIX `ps`."""
    command = ["ps", "-A", "-o", "pid=,stat=,ppid=,pgid="]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  # a fixed command
    return done.stdout.splitlines()
