"""Processes of this machine as Linux's /proc shows them: who they are, whose children, how much memory they hold.

A process id alone says little: it is given to another process once its owner is gone. Here a process is known by its id
and by when it started, and nothing is ever sent to one of which only the id fits.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PROC: Final = Path("/proc")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_GONE: Final = (FileNotFoundError, ProcessLookupError, PermissionError)


@dataclass(frozen=True, slots=True)
class Process:
    """A process that has not ended; a zombie has.

    Attributes:
        pid: Its id.
        parent: The id of its parent.
        session: The id of its session.
        started: When it started, in clock ticks since the machine's boot.
    """

    pid: int
    parent: int
    session: int
    started: int


@dataclass(frozen=True, slots=True)
class Identity:
    """Which process is meant, for good.

    Attributes:
        pid: Its id.
        started: When it started, in clock ticks since the machine's boot.
        boot: The boot of the machine.
    """

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """Return the identity of the process that has an id now; None if there is none."""
        found = process(pid)
        return cls(pid, found.started, boot_id()) if found is not None else None

    @classmethod
    def parse(cls, text: str) -> Identity | None:
        """Read what ``str`` wrote; None where it is something else."""
        pid, _, rest = text.partition("@")
        started, _, boot = rest.partition(".")
        return cls(int(pid), int(started), boot) if pid.isdecimal() and started.isdecimal() and boot else None

    def __str__(self) -> str:
        """Write it as one word that begins with the process id."""
        return f"{self.pid}@{self.started}.{self.boot}"

    @property
    def is_of_this_boot(self) -> bool:
        """Whether the machine was not restarted since."""
        return self.boot == boot_id()

    def process(self) -> Process | None:
        """Return the process; None if it has ended."""
        found = process(self.pid) if self.is_of_this_boot else None
        return found if found is not None and found.started == self.started else None


def boot_id() -> str:
    """Return the name of this boot of the machine, short."""
    return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]


def is_supported() -> bool:
    """Tell whether this system shows its processes."""
    return (_PROC / "self/stat").exists()


def process(pid: int) -> Process | None:
    """Return the process that has an id now; None if there is none."""
    try:
        # The command, in parentheses, may contain anything, blanks and parentheses too.
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except _GONE:
        return None
    state, parent, _, session, *rest = text.rpartition(")")[2].split()
    return Process(pid, int(parent), int(session), int(rest[15])) if state not in {"Z", "X"} else None


def processes() -> Iterator[Process]:
    """Yield every process."""
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            found = process(int(entry.name))
            if found is not None:
                yield found


def descendants(pid: int) -> list[Process]:
    """Return the children of a process, their children and so on, without itself."""
    children: dict[int, list[Process]] = {}
    for each in processes():
        children.setdefault(each.parent, []).append(each)
    found, unseen = [], children.get(pid, [])
    while unseen:
        each = unseen.pop()
        found.append(each)
        unseen += children.get(each.pid, [])
    return found


def marked(variable: str, value: str, *, session: int | None, since: int) -> list[Process]:
    """Return the processes that a vanished one has left: those of its session, and those with its variable.

    Args:
        variable: Name of an environment variable that it gave to all of its children.
        value: The variable's value.
        session: Its session, if it is known.
        since: When it started, in clock ticks since the machine's boot: no child of it is older.
    """
    mark = f"{variable}={value}".encode()
    return [
        each
        for each in processes()
        if each.started >= since and (each.session == session or mark in _variables(each.pid))
    ]


def _variables(pid: int) -> list[bytes]:
    try:
        return (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        # Another user's, or gone.
        return []


def memory_of(members: Iterable[Process], *, is_exact: bool = False) -> int:
    """Return how many bytes of memory processes hold together.

    Args:
        members: The processes.
        is_exact: Count what they share once, which takes the kernel some milliseconds for each; else it counts in each.
    """
    return sum(_proportional(each.pid) if is_exact else _resident(each.pid) for each in members)


def _resident(pid: int) -> int:
    try:
        return int((_PROC / str(pid) / "statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except _GONE:
        return 0


def _proportional(pid: int) -> int:
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        # A kernel without it, or a process that may not be looked into.
        return _resident(pid)
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def send(members: Iterable[Process], number: signal.Signals) -> None:
    """Send a signal to processes; those that have ended meanwhile are left out, and whoever has their ids is too."""
    for each in members:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            _send(each, number)


def _send(member: Process, number: signal.Signals) -> None:
    try:
        # While the descriptor is open, the id may go to somebody else, but the descriptor does not.
        descriptor = os.pidfd_open(member.pid)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):
        # An old kernel, or a container that forbids it: between the look and the signal are microseconds.
        if _is_same(member):
            os.kill(member.pid, number)
        return
    try:
        if _is_same(member):
            signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)


def _is_same(member: Process) -> bool:
    now = process(member.pid)
    return now is not None and now.started == member.started
