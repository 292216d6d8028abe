"""Runs a program with all that it starts, to the end of it all, within its limits."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mantik.server.compute.processes import Process, descendants, memory_of, send
from mantik.server.compute.testimony import Cause

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import FrameType

    from typing_extensions import Self

_LOOK_SECONDS: Final = 0.5
# Processes that a program has left behind when it ended.
_LEFTOVER_SECONDS: Final = 5.0
_SET_CHILD_SUBREAPER: Final = 36
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may take.

    Attributes:
        seconds: The longest time, counted from when the supervisor was made; None for any.
        memory: The most bytes that its processes may hold together; None for any.
        grace: How many seconds it has to end once it was asked to.
    """

    seconds: float | None
    memory: int | None
    grace: float


class Supervisor:
    """Runs programs, one after the other, and ends them when it must.

    What a program starts is its own, in whatever session or group: a process whose parent ends becomes a child of this
    process. When the program itself has ended, the rest is asked to end, and after a few seconds made to.

    Memory is looked at twice a second, so a program may exceed its limit for a moment. A limit of address space, which
    the kernel would hold at all times, is none of memory: CUDA and JAX reserve many times what they use.

    It takes over the signals of its process. The main thread alone may use it.

    Attributes:
        cause: Why it has ended one; None if it has not.
        memory: The most bytes of memory that were seen of the last program: of all of it together where there is a
            limit, else of its largest process.
    """

    def __init__(self, limits: Limits, say: Callable[[str], None]) -> None:
        """Take the limits, and what tells the user of a program why it is ended."""
        self.cause: Cause | None = None
        self.memory = 0
        self._limits = limits
        self._say = say
        self._begun = time.monotonic()
        self._kill_at: float | None = None
        self._is_told_to_stop = False
        self._main: subprocess.Popen[bytes] | None = None
        self._awake, self._waker = socket.socketpair()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Take over signals and orphans."""
        for end in (self._awake, self._waker):
            end.setblocking(False)  # noqa: FBT003 - its one argument
            self._stack.callback(end.close)
        before = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._stack.callback(signal.set_wakeup_fd, before)
        for number in _STOP_SIGNALS:
            self._handle(number, self._stop)
        # The terminal of whoever started the service is none of a job's business.
        self._handle(signal.SIGHUP, _nothing)
        # Only signals with a handler wake.
        self._handle(signal.SIGCHLD, _nothing)
        _adopt_orphans()
        return self

    def __exit__(self, *_: object) -> None:
        """Give signals back."""
        self._stack.close()

    def run(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> int:
        """Run a program to its end, and to that of all it has started.

        Returns:
            Its exit code, or the negative number of the signal that ended it.

        Raises:
            OSError: It cannot be started.
        """
        self._main = main = subprocess.Popen(  # noqa: S603 - a list of arguments
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL
        )
        self.memory, has_rest = 0, True
        while main.returncode is None or has_rest:
            self._wait()
            self._reap()
            self._keep_limits()
            rest = self._children() if main.returncode is not None or self._kill_at is not None else []
            if main.returncode is not None and self._kill_at is None and rest:
                self._ask_to_end(rest, _LEFTOVER_SECONDS)
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                send(rest, signal.SIGKILL)
            has_rest = bool(rest)
        if self.cause is None:
            # It was about what this program had left.
            self._kill_at = None
        return main.returncode

    def kill(self) -> None:
        """End all that is left, at once."""
        while rest := self._children():
            send(rest, signal.SIGKILL)
            self._wait()
            self._reap()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._is_told_to_stop = True

    def _handle(self, number: signal.Signals, handler: Callable[[int, FrameType | None], Any]) -> None:
        self._stack.callback(signal.signal, number, signal.signal(number, handler))

    def _wait(self) -> None:
        """Wait for a signal, a child's end among them, but not for long."""
        if select.select([self._awake], [], [], _LOOK_SECONDS)[0]:
            with contextlib.suppress(BlockingIOError):
                self._awake.recv(4096)

    def _reap(self) -> None:
        """Take note of all children that have ended, adopted ones among them."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            scale = 1 if sys.platform == "darwin" else _KIB
            self.memory = max(self.memory, usage.ru_maxrss * scale)
            if self._main is not None and pid == self._main.pid:
                # The status is here now: Popen must not look for it.
                self._main.returncode = os.waitstatus_to_exitcode(status)

    def _children(self) -> list[Process]:
        return descendants(os.getpid())

    def _keep_limits(self) -> None:
        if self.cause is not None:
            return
        seconds, memory = self._limits.seconds, self._limits.memory
        if self._is_told_to_stop:
            self._end(Cause.STOPPED, "the job is told to stop", self._limits.grace)
        elif seconds is not None and time.monotonic() >= self._begun + seconds:
            self._end(Cause.TIME_LIMIT, f"the time limit of {seconds:g} s is reached", self._limits.grace)
        elif memory is not None and self._exceeds(memory):
            # Each moment of grace would be paid with memory of others.
            self._end(Cause.MEMORY_LIMIT, f"the memory limit of {memory} bytes is exceeded", 0.0)

    def _exceeds(self, limit: int) -> bool:
        members = self._children()
        held = memory_of(members)
        if held > limit:
            # What processes share was counted in each of them.
            held = memory_of(members, is_exact=True)
        self.memory = max(self.memory, held)
        return held > limit

    def _end(self, cause: Cause, reason: str, grace: float) -> None:
        self.cause = cause
        self._say(reason)
        self._ask_to_end(self._children(), grace)

    def _ask_to_end(self, members: Sequence[Process], grace: float) -> None:
        self._kill_at = time.monotonic() + grace
        send(members, signal.SIGTERM)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    pass


def _adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends; elsewhere than on Linux the first process does."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
